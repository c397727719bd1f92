"""One connection, without a bridge behind it: what a client may send, and how long it may take."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from bridge.ingress.limits import Limits
from bridge.ingress.protocol import READ_BYTES
from tests.serving import Serving, serve, small_app
from tests.wires import say, say_after, say_slowly

LIMITS = Limits(head_s=1.0, body_s=3.0)
CHUNKED = b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
BATCH = b"/v1/services/x/requests/batch"


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
async def server() -> AsyncIterator[Serving]:
    async with serve(small_app, LIMITS) as serving:
        yield serving


@pytest.mark.parametrize("path", [b"/read", BATCH], ids=["request", "batch"])
@pytest.mark.parametrize(
    "begin",
    [b"0\r\nX: ", b"1\r\nx\r\n0\r\nX: ", b"1;x="],
    ids=["field", "after a body", "extension"],
)
async def test_what_stands_behind_a_body_is_bounded(
    server: Serving, path: bytes, begin: bytes
) -> None:
    piece = b"a" * READ_BYTES

    heard = await asyncio.to_thread(
        say, server.url, CHUNKED % path, begin, piece, repeat=2048, patience_s=10
    )

    print(f"\n{heard.sent:,} bytes left the client, hung up after {heard.after_s:.2f} s")
    assert heard.statuses == [431]
    assert heard.is_closed
    assert heard.sent < 32 << 20  # 64 MiB were to come; sockets hold a few


async def test_a_batch_whose_body_does_not_grow_gets_no_more_time(server: Serving) -> None:
    def trickle() -> float:
        fields = [b"X-%d: y\r\n" % number for number in range(60)]
        return say_slowly(server.url, CHUNKED % BATCH + b"1\r\nx\r\n0\r\n", fields, 0.2)

    taken_s = await asyncio.to_thread(trickle)

    print(f"\na field every 0.2 s: hung up after {taken_s:.1f} s, body_s is {LIMITS.body_s}")
    assert taken_s < LIMITS.body_s + 3


EXPECT = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 60\r\nExpect: 100-continue\r\n\r\n"


async def test_who_is_refused_before_it_sends_its_body_is_heard_no_more(server: Serving) -> None:
    # It was refused, so it does not send the body: the connection's next bytes are its next request.
    unsent = b"GET /next HTTP/1.1\r\nHost: x\r\nX-Pad: " + b"p" * 24
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"

    first, rest = await asyncio.to_thread(
        say_after, server.url, EXPECT % b"/early", unsent + smuggled
    )

    assert first.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in first
    assert rest == b""


async def test_who_is_told_to_go_on_keeps_its_connection(server: Serving) -> None:
    body = b"b" * 60

    first, rest = await asyncio.to_thread(
        say_after, server.url, EXPECT % b"/read", body + b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n"
    )

    assert first == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert b"/read 60;" in rest
    assert b"/next 0;" in rest
