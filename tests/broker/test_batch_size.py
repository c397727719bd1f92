"""Batches of many lines: what they take of the ingress, and how fast they go."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.batches import Batch, Json, now_mib, peak_mib
from tests.stack import Process, Stack

pytestmark = pytest.mark.timeout(1200)

CHUNK_LINES = 500


def lines(first: int, last: int, *, pad: int = 0) -> Iterator[bytes]:
    """Lines `first` to `last`, in chunks."""
    for start in range(first, last + 1, CHUNK_LINES):
        numbers = range(start, min(start + CHUNK_LINES, last + 1))
        yield b"".join(b'{"text":"%d%s"}\n' % (n, b"." * pad) for n in numbers)


class Writer(threading.Thread):
    """Sends lines for as long as it is let."""

    def __init__(self, batch: Batch, chunks: Iterator[bytes]) -> None:
        super().__init__()
        self._batch = batch
        self._chunks = chunks
        self.sent = 0

    def run(self) -> None:
        with suppress(OSError):  # the test has cut the connection
            for chunk in self._chunks:
                self._batch.send(chunk)
                self.sent += chunk.count(b"\n")
            self._batch.end()


@pytest.fixture
def bridge(stack: Stack) -> tuple[Stack, Process, str]:
    stack.make_services("echo")
    stack.start_worker("echo")
    ingress, url = stack.start_ingress()
    return stack, ingress, url


@pytest.mark.parametrize("count", [5_000, pytest.param(100_000, marks=pytest.mark.full)])
def test_every_line_of_a_large_batch_is_answered_in_flat_memory(
    bridge: tuple[Stack, Process, str], count: int
) -> None:
    stack, ingress, url = bridge
    ask(url, stack.name("echo"), 1000)  # what is loaded once is loaded
    before = now_mib(ingress.pid)

    started = time.perf_counter()
    statuses, summary = ask(url, stack.name("echo"), count)
    took_s = time.perf_counter() - started

    print(
        f"\n{count} lines in {took_s:.1f} s: {count / took_s:.0f} lines/s; ingress "
        f"{before:.1f} MiB before, {peak_mib(ingress.pid):.1f} MiB at most; {summary}"
    )
    assert statuses == {200: count}
    assert summary["completed"] == summary["lines"] == count
    assert peak_mib(ingress.pid) - before < 40


def ask(url: str, service: str, count: int) -> tuple[Counter[object], Json]:
    """Send a batch; returns its statuses and its summary. No line is answered twice."""
    batch = Batch(url, service)
    writer = Writer(batch, lines(1, count))
    writer.start()
    seen: set[object] = set()
    statuses: Counter[object] = Counter()
    summary: Json = {}
    for result in batch.results():
        if "line" not in result:
            found = result["summary"]
            assert isinstance(found, dict)
            summary = found
        else:
            seen.add(result["line"])
            statuses[result["status"]] += 1
            reply = result["reply"]
            assert isinstance(reply, dict)
            assert reply["text"] == str(result["line"])
    writer.join()
    assert seen == set(range(1, count + 1))
    return statuses, summary


def test_a_client_that_does_not_read_is_not_read_from(
    bridge: tuple[Stack, Process, str],
) -> None:
    stack, ingress, url = bridge
    count = 20_000
    ask(url, stack.name("echo"), 1000)
    before = now_mib(ingress.pid)
    batch = Batch(url, stack.name("echo"), {"bridge-deadline": "100"}, receive_bytes=65_536)
    writer = Writer(batch, lines(1, count, pad=1000))
    writer.start()

    sent, pause = -1, threading.Event()
    while sent < writer.sent:
        sent = writer.sent
        pause.wait(2)
    stalled_mib = now_mib(ingress.pid)
    results = list(batch.results())
    writer.join()

    print(
        f"\n{sent} of {count} lines were taken from a client that reads nothing; ingress "
        f"{before:.1f} MiB before, {stalled_mib:.1f} while it stands, {peak_mib(ingress.pid):.1f} at most"
    )
    assert sent < count
    assert peak_mib(ingress.pid) - before < 40
    assert {result["line"] for result in results[:-1]} == set(range(1, count + 1))
    assert results[-1]["summary"]["completed"] == count  # type: ignore[index]
