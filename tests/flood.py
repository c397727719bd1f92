"""Clients that ask at a fixed rate, whatever comes back: what overload is made of."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.wires import address


@dataclass(frozen=True, slots=True)
class Got:
    """One answer.

    Attributes:
        status: Of HTTP; 0: the connection broke.
        after_s: How long it took.
        at_s: When it came, from the beginning of the flood.
        retry_after: What the header says; empty: nothing.
        code: Of the problem; empty: it is none.
    """

    status: int
    after_s: float
    at_s: float
    retry_after: str
    code: str


@dataclass
class Flood:
    """Asks one path; connections are kept and used again.

    Attributes:
        url: The ingress.
        path: What is posted to.
        headers: Sent with each.
        got: What came back.
    """

    url: str
    path: str
    headers: Mapping[str, str]
    got: list[Got] = field(default_factory=list)
    _idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)

    async def run(self, rate: float, seconds: float) -> None:
        """Ask `rate` times a second for so long, then wait for all answers."""
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        async with asyncio.TaskGroup() as tasks:
            for number in range(int(rate * seconds)):
                await asyncio.sleep(max(0.0, begun_s + number / rate - loop.time()))
                tasks.create_task(self._ask(begun_s, number))
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()

    async def _ask(self, begun_s: float, number: int) -> None:
        loop = asyncio.get_running_loop()
        asked_s = loop.time()
        try:
            wire = (
                self._idle.pop()
                if self._idle
                else await asyncio.open_connection(*address(self.url))
            )
            status, fields, body = await _exchange(wire, self._bytes(number))
            self._idle.append(wire)
        except (OSError, EOFError):
            status, fields, body = 0, {}, b"{}"
        now_s = loop.time()
        self.got.append(
            Got(
                status,
                now_s - asked_s,
                now_s - begun_s,
                fields.get("retry-after", ""),
                str(json.loads(body).get("code", "")),
            )
        )

    def _bytes(self, number: int) -> bytes:
        body = json.dumps({"text": str(number)}).encode()
        fields = {
            "Host": "x",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **self.headers,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"POST {self.path} HTTP/1.1\r\n{head}\r\n".encode() + body


async def _exchange(
    wire: tuple[asyncio.StreamReader, asyncio.StreamWriter], request: bytes
) -> tuple[int, dict[str, str], bytes]:
    reader, writer = wire
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    return int(head[0].split()[1]), fields, await reader.readexactly(int(fields["content-length"]))


def p99(values: list[float]) -> float:
    """Return the value that one in a hundred is above; 0 of none."""
    return sorted(values)[int(len(values) * 0.99)] if values else 0.0
