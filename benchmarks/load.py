"""The load generator for HTTP: clients that each ask again as soon as they are answered.

Keep-alive HTTP/1.1 over raw sockets; about 20 µs of CPU a request. Run as a process of its own:
`python -m benchmarks.load PORT PATH LOAD [keyed]`; keyed: each request has an Idempotency-Key of its own.
"""

import asyncio
import re
import secrets
import sys
import time
from collections.abc import Iterator
from itertools import count, repeat
from typing import cast

import uvloop

from benchmarks.meter import Meter, parse_load

_BODY = b'{"name":"Ann"}'
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Client(asyncio.Protocol):
    """One connection with one request under way."""

    def __init__(self, requests: Iterator[bytes], meter: Meter) -> None:
        self._requests = requests
        self._meter = meter
        self._received = b""
        self._asked_s = 0.0
        self._transport: asyncio.WriteTransport | None = None
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the first time."""
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's are of no such class
        self._ask(self._transport)

    def data_received(self, data: bytes) -> None:
        """Ask again once the answer is complete; until the meter has enough."""
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        length = _LENGTH.search(head)
        if not head.startswith(b"HTTP/1.1 200 ") or length is None:
            found = self._received[:500].decode(errors="replace")
            self.over.set_exception(RuntimeError(f"want 200 with a Content-Length, found {found}"))
            return
        if len(body) < int(length[1]) or self._transport is None:
            return
        self._received = b""
        if self._meter.note(self._asked_s):
            self._ask(self._transport)
        else:
            self.over.set_result(None)

    def connection_lost(self, _: Exception | None) -> None:
        """Tell that the server hung up, unless all is over."""
        if not self.over.done():
            self.over.set_exception(RuntimeError("the server closed a connection"))

    def _ask(self, transport: asyncio.WriteTransport) -> None:
        self._asked_s = time.perf_counter()
        transport.write(next(self._requests))


def _requests(port: int, path: str, *, is_keyed: bool) -> Iterator[bytes]:
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(_BODY)}\r\n"
    ).encode()
    if not is_keyed:
        yield from repeat(head + b"\r\n" + _BODY)
    run = secrets.token_hex(8).encode()
    for number in count():
        yield b"%bidempotency-key: %b-%d\r\n\r\n%b" % (head, run, number, _BODY)


async def _run(port: int, path: str, load_text: str, *, is_keyed: bool) -> None:
    load = parse_load(load_text)
    requests = _requests(port, path, is_keyed=is_keyed)
    meter = Meter(load)
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(load.at_once):
        _, client = await loop.create_connection(lambda: Client(requests, meter), "127.0.0.1", port)
        clients.append(client)
    for client in clients:
        await client.over
    meter.print()


if __name__ == "__main__":
    uvloop.run(_run(int(sys.argv[1]), sys.argv[2], sys.argv[3], is_keyed=sys.argv[4:] == ["keyed"]))
