"""A client of the bridge: plain HTTP on connections that are kept, and what it measures."""

import json
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any

from demo import DemoError

CLIENTS = 8
TIMEOUT_S = 60.0  # longer than any answer may take; a hang ends here


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back.

    Attributes:
        status: HTTP status.
        headers: Header fields; names in lower case.
        body: The JSON document.
        took_s: Seconds from sending to the last byte.
    """

    status: int
    headers: dict[str, str]
    body: Any
    took_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Many requests to one service.

    Attributes:
        replies: The reply bodies, in the order of the requests.
        took_s: Seconds that each took.
        wall_s: Seconds that all took together.
    """

    replies: list[Any]
    took_s: list[float]
    wall_s: float

    @property
    def per_s(self) -> float:
        """Requests per second."""
        return len(self.took_s) / self.wall_s

    def percentile_ms(self, percent: int) -> float:
        """Milliseconds within which `percent` of the requests were answered; 1 to 99."""
        return 1000 * statistics.quantiles(self.took_s, n=100, method="inclusive")[percent - 1]


class Client:
    """One connection, kept open; for one thread."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)

    def ask(self, service: str, request: object, *, prefer: str | None = None) -> Answer:
        """Send a request to a service; `prefer` is a Prefer header (RFC 7240)."""
        body = json.dumps(request).encode()
        return self._send("POST", f"/v1/services/{service}/requests", body, prefer)

    def get(self, path: str, *, prefer: str | None = None) -> Answer:
        """Get a path."""
        return self._send("GET", path, None, prefer)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _send(self, method: str, path: str, body: bytes | None, prefer: str | None) -> Answer:
        headers = {} if body is None else {"Content-Type": "application/json"}
        if prefer is not None:
            headers["Prefer"] = prefer
        start_s = time.perf_counter()
        self._connection.request(method, path, body, headers)
        response = self._connection.getresponse()
        content = response.read()
        took_s = time.perf_counter() - start_s
        return Answer(
            status=response.status,
            headers={name.lower(): value for name, value in response.getheaders()},
            body=json.loads(content) if content else None,
            took_s=took_s,
        )


def expect(answer: Answer, status: int) -> Answer:
    """Pass an answer on if it has this status.

    Raises:
        DemoError: It has another one.
    """
    if answer.status != status:
        raise DemoError(f"got {answer.status} {answer.body}: want {status}")
    return answer


def ask_all(
    port: int, service: str, requests: Sequence[object], advance: Callable[[], None]
) -> Measured:
    """Send requests from several clients at once, each waiting for its answer before the next.

    Args:
        port: The bridge's port on 127.0.0.1.
        service: Who is asked.
        requests: One JSON value each.
        advance: Called after each answer, from any thread.

    Raises:
        DemoError: An answer was not 200.
        OSError: The connection broke.
    """
    answers: dict[int, Answer] = {}
    numbers = iter(range(len(requests)))
    turn = threading.Lock()

    def ask_on() -> None:
        client = Client(port)
        try:
            while True:
                with turn:
                    number = next(numbers, None)
                if number is None:
                    return
                answers[number] = expect(client.ask(service, requests[number]), 200)
                advance()
        finally:
            client.close()

    start_s = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        for each in [pool.submit(ask_on) for _ in range(CLIENTS)]:
            each.result()
    wall_s = time.perf_counter() - start_s
    in_order = [answers[number] for number in range(len(requests))]
    return Measured(
        replies=[each.body for each in in_order],
        took_s=[each.took_s for each in in_order],
        wall_s=wall_s,
    )
