"""A bridge with keys, for the tests of who may see what."""

import asyncio
from dataclasses import dataclass

import httpx

from bridge import apikey
from bridge.envelope import Reply
from tests.stack import Stack

KEYS = {
    name: apikey.make(name.partition("-")[0], key_id=name.replace("-", "") + "00", secret=secret)
    for name, secret in (("ann", b"a" * 32), ("ann-new", b"n" * 32), ("ben", b"b" * 32))
}


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {KEYS[name].key}"}


@dataclass(frozen=True)
class Bridge:
    """A bridge with keys: two replicas, a worker."""

    stack: Stack
    urls: tuple[str, str]
    service: str

    def url(self, path: str, request_id: str = "x", *, replica: int = 0) -> str:
        return self.urls[replica] + path.format(
            service=self.service, request_id=request_id, schema_id="1"
        )

    def post(self, who: str, body: object, headers: dict[str, str] | None = None) -> httpx.Response:
        return httpx.post(
            self.url("/v1/services/{service}/requests"),
            json=body,
            headers={**bearer(who), **(headers or {})},
            timeout=30,
        )

    async def read_replies(self) -> list[Reply]:
        """Read the service's whole reply log."""
        return await asyncio.to_thread(self.stack.read_replies, "echo")
