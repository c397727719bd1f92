"""Hostile bytes on the socket: refused in one way, at once, and nobody else notices."""

import asyncio
import gzip
import socket
import statistics
import time
import zlib
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.broker.conftest import BODY_S, HEAD_S, Target
from tests.stack import open_stack, until
from tests.wires import address, counted, resident_mib, say

pytestmark = pytest.mark.timeout(180)

LIMIT = 1_000_000
HEALTHY = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
READ = 65_536
"""The ingress reads no more than this at once."""


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nX-Big: " + b"x" * (1 << 20) + b"\r\n\r\n", 431),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\n"
            + b"".join(b"X-%d: y\r\n" % n for n in range(10_000))
            + b"\r\n",
            431,
        ),
        (b"GET /" + b"x" * 65_536 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X" * (1 << 20) + b": y\r\n\r\n", 431),
    ],
    ids=["1 MiB in a field", "10,000 fields", "64 KiB of target", "1 MiB of name"],
)
def test_a_head_beyond_the_limits_is_refused_in_flat_memory(
    target: Target, head: bytes, status: int
) -> None:
    say(target.url, head)
    before_mib = resident_mib(target.process.pid)

    heard = [say(target.url, head) for _ in range(50)]

    grown_mib = resident_mib(target.process.pid) - before_mib
    print(f"\n50 heads of {len(head):,} bytes: {status}, memory {grown_mib:+.1f} MiB")
    assert [each.statuses for each in heard] == [[status]] * 50
    assert grown_mib < 16


def read_for(
    target: Target, *pieces: bytes, repeat: int = 1, end: bool = False
) -> tuple[int, int, int]:
    """Send; return the status, the bytes that the ingress read, the bytes sent."""
    metric = "bridge_ingress_received_bytes_total"
    counted(target.url, metric)
    before = counted(target.url, metric)
    heard = say(target.url, *pieces, repeat=repeat, end=end)
    own = counted(target.url, metric) - before
    head_bytes = 300  # the second reading's own request is among what was read
    return heard.statuses[0], int(own) - head_bytes, heard.sent


def test_a_gibibyte_in_chunks_is_refused_after_the_limit(target: Target) -> None:
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"

    status, read, sent = read_for(
        target, target.head("Transfer-Encoding: chunked"), chunk, repeat=16_384
    )

    print(f"\n1 GiB in chunks: {status}, read {read:,} bytes, {sent:,} left the client")
    assert status == 413
    assert read <= LIMIT + READ


def test_a_gibibyte_that_is_announced_is_not_read_at_all(target: Target) -> None:
    status, read, sent = read_for(
        target, target.head("Content-Length: 1073741824"), b" " * 65_536, repeat=16_384
    )

    print(f"\n1 GiB announced: {status}, read {read:,} bytes, {sent:,} left the client")
    assert status == 413
    assert read <= 2 * READ


BOMB = b"0" * (100 << 20)
PACKED = {"gzip": gzip.compress(BOMB, 9), "deflate": zlib.compress(BOMB, 9)}


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "x"])
def test_a_body_in_any_coding_is_refused_unread(target: Target, coding: str) -> None:
    body = PACKED.get(coding, PACKED["gzip"])

    status, read, _ = read_for(
        target, target.head(f"Content-Encoding: {coding}", f"Content-Length: {len(body)}") + body
    )

    assert status == 415
    assert read <= 2 * READ


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 422),
        ("application/json; charset=utf-8", 422),
        ('application/json;charset="UTF-8"', 422),
        ("application/json; charset=utf-16", 415),
        ("application/json; charset=latin-1", 415),
        ("application/json; charset=utf-8; charset=utf-16", 415),
        ("application/jsonp", 415),
        ("text/json", 415),
        ("text/plain", 415),
        ("application/xml", 415),
        ("multipart/form-data; boundary=x", 415),
        ("application/x-www-form-urlencoded", 415),
        ("", 415),
    ],
)
def test_content_types_are_those_of_the_table(
    target: Target, content_type: str, status: int
) -> None:
    answer = httpx.post(
        target.url + target.path, content=b"{}", headers={"content-type": content_type}
    )

    assert answer.status_code == status


def test_a_body_that_is_shorter_than_announced_is_refused_as_soon_as_it_ends(
    target: Target,
) -> None:
    status, _, _ = read_for(target, target.head("Content-Length: 100") + b"{}", end=True)

    assert status == 400


def test_a_body_that_is_longer_than_announced_is_no_request(target: Target) -> None:
    heard = say(target.url, target.head("Content-Length: 2") + b"{}{}")

    assert heard.statuses[0] == 422
    assert heard.is_closed
    assert heard.statuses[1:] in ([], [400])


async def trickle(url: str, first: bytes, *, patience_s: float) -> tuple[float, bytes]:
    """Send a byte every half second; return when the other side hung up, and what it said."""
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    reader, writer = await asyncio.open_connection(*address(url))
    heard = b""
    try:
        writer.write(first)
        while loop.time() - started_s < patience_s:
            try:
                async with asyncio.timeout(0.5):
                    piece = await reader.read(1000)
            except TimeoutError:
                if first:
                    writer.write(b"x")
                continue
            heard += piece
            if not piece:
                return loop.time() - started_s, heard
    except ConnectionError:
        return loop.time() - started_s, heard
    finally:
        writer.close()
    raise AssertionError(f"still open after {patience_s} s")


def p99_ms(url: str, count: int = 500) -> float:
    """Ask for something small, one after the other, each on a connection of its own."""
    taken = []
    for _ in range(count):
        started = time.perf_counter()
        assert say(url, HEALTHY).statuses == [200]
        taken.append((time.perf_counter() - started) * 1000)
    return statistics.quantiles(taken, n=100)[98]


@pytest.mark.parametrize("sockets", [99, pytest.param(501, marks=pytest.mark.full)])
async def test_slow_clients_are_hung_up_on_and_others_do_not_notice(
    target: Target, sockets: int
) -> None:
    kinds = {
        "head": b"GET / HTTP/1.1\r\nHost: x\r\nX: ",
        "body": target.head("Content-Length: 1000"),
        "idle": b"",
    }
    alone_ms = await asyncio.to_thread(p99_ms, target.url)
    async with asyncio.TaskGroup() as tasks:
        slow = {
            kind: [
                tasks.create_task(trickle(target.url, first, patience_s=20))
                for _ in range(sockets // 3)
            ]
            for kind, first in kinds.items()
        }
        beside_ms = await asyncio.to_thread(p99_ms, target.url)

    print(
        f"\nhealthy p99 {alone_ms:.1f} ms alone, {beside_ms:.1f} ms beside {sockets} slow sockets"
    )
    for kind, limit_s in (("head", HEAD_S), ("body", BODY_S), ("idle", HEAD_S)):
        ended = [task.result() for task in slow[kind]]
        times = [after_s for after_s, _ in ended]
        print(f"{kind}: hung up after {min(times):.2f} to {max(times):.2f} s, limit {limit_s} s")
        assert max(times) < limit_s + 3
        assert min(times) > limit_s * 0.9
        said = {heard[:12] for _, heard in ended}
        assert said == ({b""} if kind == "idle" else {b"HTTP/1.1 408"})
    assert beside_ms < max(2 * alone_ms, 50)


def test_noise_does_not_fill_the_log(target: Target) -> None:
    before = len(target.process.log.read_text(encoding="utf-8").splitlines())

    for number in range(500):
        say(target.url, b"\x16\x03\x01" if number % 2 else bytes(range(128, 250)))

    lines = len(target.process.log.read_text(encoding="utf-8").splitlines()) - before
    print(f"\n500 connections of noise: {lines} lines of log")
    assert lines <= 5
    assert httpx.get(f"{target.url}/healthz").status_code == 200


def test_who_comes_when_all_places_are_taken_gets_that_of_an_idle_one(
    kafka: str, tmp_path: Path
) -> None:
    with open_stack(kafka, tmp_path, "-full") as stack, ExitStack() as wires:
        stack.make_services("oneway")
        _, url = stack.start_ingress(BRIDGE_CONNECTIONS="20")
        idle = [wires.enter_context(socket.create_connection(address(url))) for _ in range(30)]
        in_time = say(url, HEALTHY)
        for wire in idle:
            wire.close()
        busy = [wires.enter_context(socket.create_connection(address(url))) for _ in range(20)]
        for wire in busy:
            wire.sendall(b"GET / HTTP/1.1\r\n")
        until(lambda: say(url, b"").statuses == [503], timeout_s=10, what="no place is left")
        too_many = say(url, HEALTHY)

    assert in_time.statuses == [200]
    assert too_many.statuses == [503]
    assert '"code":"overloaded"' in too_many.text
