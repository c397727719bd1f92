"""One connection, without a bridge behind it: what a client may send, and how long it may take."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator

import pytest

from bridge.ingress.limits import Limits
from bridge.ingress.protocol import READ_BYTES
from tests.serving import LARGE, Serving, serve, small_app
from tests.stack import until
from tests.wires import address, say, say_after, say_slowly

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


SLOW = b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
GOOD = b"GET /two HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_a_body_behind_a_request_that_takes_long_is_read(server: Serving) -> None:
    body = b"b" * 200_000
    second = b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)

    heard = await asyncio.to_thread(say, server.url, SLOW, second, body, patience_s=2)

    assert heard.statuses == [200, 200]
    assert "/read 200000;" in heard.text


@pytest.mark.parametrize(
    "bad",
    [
        b"\x00bad\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        CHUNKED % b"/read" + b"no size\r\n",
    ],
    ids=["noise", "a bad head", "a bad body"],
)
async def test_those_before_a_bad_request_are_answered(server: Serving, bad: bytes) -> None:
    heard = await asyncio.to_thread(say, server.url, SLOW + GOOD + bad + GOOD)

    assert heard.statuses == [200, 200]
    assert "/slow 0;" in heard.text
    assert "/two 0;" in heard.text
    assert heard.is_closed
    assert heard.after_s < 4


async def test_a_head_has_its_time_also_behind_a_body_that_came_in_pieces(server: Serving) -> None:
    def ask_slowly() -> float:
        with socket.create_connection(address(server.url), timeout=10) as wire:
            wire.sendall(b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n")
            pause.wait(LIMITS.head_s + 0.3)  # the time of the connecting is over: the body's runs
            wire.sendall(b"x")
            pause.wait(0.1)
            wire.sendall(b"x")
            assert b" 200 " in wire.recv(1000)
            started = time.perf_counter()
            wire.sendall(b"GET / HTTP/1.1\r\nHost")
            assert wire.recv(1000).startswith(b"HTTP/1.1 408")
            return time.perf_counter() - started

    pause = threading.Event()
    taken_s = await asyncio.to_thread(ask_slowly)

    print(f"\nhead_s {LIMITS.head_s}, body_s {LIMITS.body_s}: hung up after {taken_s:.1f} s")
    assert LIMITS.head_s * 0.9 < taken_s < LIMITS.head_s + 0.5


def unread(url: str, path: str, *fields: str) -> socket.socket:
    """Ask for something large, and do not read it."""
    wire = socket.socket()
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    wire.connect(address(url))
    wire.sendall("\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *fields, "", ""]).encode())
    return wire


async def wait_none_left(server: Serving) -> None:
    """Wait until nobody is connected who was."""
    state = server.server_state

    def wait() -> None:
        until(lambda: state.total_requests > 0 or bool(state.tasks), timeout_s=5, what="it asked")
        until(lambda: not (state.connections or state.tasks), timeout_s=5, what="none is left")

    await asyncio.to_thread(wait)


async def test_who_is_given_up_because_it_does_not_read_is_hung_up_on() -> None:
    async with serve(small_app, Limits(stalled_s=60)) as server:
        with unread(server.url, "/stall"):
            await wait_none_left(server)


@pytest.mark.parametrize("fields", [(), ("Connection: close",)], ids=["kept", "closed"])
async def test_who_takes_nothing_of_its_answer_is_hung_up_on(fields: tuple[str, ...]) -> None:
    async with serve(small_app, Limits(stalled_s=0.5)) as server:
        with unread(server.url, "/large", *fields):
            await wait_none_left(server)


async def test_who_takes_its_answer_slowly_gets_all_of_it() -> None:
    def read_slowly(wire: socket.socket) -> int:
        size, pieces, pause = 0, 0, threading.Event()
        while piece := wire.recv(1 << 20):
            size, pieces = size + len(piece), pieces + 1
            pause.wait(0.1 if pieces < 20 else 0)  # 2 s in all
        return size

    async with serve(small_app, Limits(stalled_s=0.5)) as server:
        with unread(server.url, "/large", "Connection: close") as wire:
            size = await asyncio.to_thread(read_slowly, wire)

    assert size > len(LARGE)


async def test_whose_answer_nobody_takes_makes_room_for_who_comes() -> None:
    async with serve(small_app, Limits(connections=2)) as server:
        with (
            unread(server.url, "/large", "Connection: close"),
            unread(server.url, "/large", "Connection: close"),
        ):
            requests = server.server_state
            await asyncio.to_thread(
                until, lambda: requests.total_requests == 2, timeout_s=5, what="both are answered"
            )
            heard = await asyncio.to_thread(
                say, server.url, b"GET /new HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            )

    assert heard.statuses == [200]


async def test_who_closes_its_half_behind_a_whole_request_gets_its_answer(server: Serving) -> None:
    heard = await asyncio.to_thread(say, server.url, SLOW + GOOD, end=True)

    assert heard.statuses == [200, 200]
    assert heard.is_closed


async def test_who_closes_its_half_and_is_not_answered_soon_has_left(server: Serving) -> None:
    body = b"POST /never HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"

    heard = await asyncio.to_thread(say, server.url, body, end=True)

    assert heard.statuses == []
    assert 0.4 < heard.after_s < 2
