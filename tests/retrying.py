"""A client as it should be: each request has a key, and is asked again until there is an answer."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx

PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class Got:
    """What a client got in the end."""

    text: str
    request_id: str
    body: dict[str, object]
    is_replayed: bool


@dataclass(slots=True)
class Client:
    """Asks a service at several URLs in turn, until it is answered.

    Args:
        http: A client with connections of its own.
        urls: Where to ask; one may be a load balancer.
        service: Whom.
        again: Counts why it had to ask again.
    """

    http: httpx.AsyncClient
    urls: Sequence[str]
    service: str
    again: Counter[str] = field(default_factory=Counter)

    async def ask(self, key: str, body: dict[str, object], *, first: int = 0) -> Got:
        """Ask under a key; the answer is that of the one request there is under it.

        Raises:
            AssertionError: No answer after many tries, or one that nobody should get.
        """
        for turn in range(150):
            url = self.urls[(first + turn) % len(self.urls)]
            try:
                answer = await self._ask_once(url, key, body)
            except httpx.TransportError as broken:
                self.again[type(broken).__name__] += 1
                await asyncio.sleep(PAUSE_S)
                continue
            if answer.status_code == 200:
                replayed = answer.headers.get("idempotency-replayed") == "true"
                name = answer.headers["request-id"]
                return Got(str(body["text"]), name, answer.json(), replayed)
            assert answer.status_code in {202, 404, 502, 503, 504}, answer.text
            self.again[str(answer.status_code)] += 1
            await asyncio.sleep(PAUSE_S)
        raise AssertionError(f"no answer for {key}: {self.again}")

    async def _ask_once(self, url: str, key: str, body: dict[str, object]) -> httpx.Response:
        return await self.http.post(
            f"{url}/v1/services/{self.service}/requests",
            json=body,
            headers={"idempotency-key": key},
            timeout=20,
        )
