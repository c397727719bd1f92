"""A batch that breaks is sent again under the same key: each line is worked on once."""

import json
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.batches import Batch, Json, now_mib, peak_mib
from tests.broker.test_batch_size import Writer
from tests.stack import Stack

pytestmark = pytest.mark.timeout(1800)

KEY = {"idempotency-key": '"import-of-today"'}


def lines(count: int, noted: Path) -> list[bytes]:
    """Chunks of 500 lines."""
    made = [
        json.dumps({"text": str(number), "file": str(noted)}).encode() + b"\n"
        for number in range(1, count + 1)
    ]
    return [b"".join(made[start : start + 500]) for start in range(0, count, 500)]


def send_and_cut(url: str, service: str, chunks: list[bytes], after: int) -> int:
    """Send a batch; break the connection when so many results have come. Returns their number."""
    batch = Batch(url, service, KEY)
    writer = Writer(batch, iter(chunks))
    writer.start()
    seen = 0
    for _ in batch.results():
        seen += 1
        if seen == after:
            batch.cut()
            break
    writer.join()
    return seen


@pytest.mark.parametrize("count", [2_000, pytest.param(100_000, marks=pytest.mark.full)])
def test_a_batch_cut_at_40_per_cent_and_sent_again_is_worked_on_once(
    stack: Stack, tmp_path: Path, count: int
) -> None:
    stack.make_services("once")
    stack.start_worker("once")
    ingress, url = stack.start_ingress()
    service, noted = stack.name("once"), tmp_path / "noted"
    chunks = lines(count, noted)
    before = now_mib(ingress.pid)

    started = time.perf_counter()
    first = send_and_cut(url, service, chunks, count * 2 // 5)
    first_s = time.perf_counter() - started
    batch = Batch(url, service, KEY)
    writer = Writer(batch, iter(chunks))
    writer.start()
    started = time.perf_counter()
    *results, last = batch.results()
    again_s = time.perf_counter() - started
    writer.join()

    executed = Counter(line.split()[0] for line in noted.read_text().splitlines())
    replayed = sum(result.get("replayed", False) is True for result in results)
    print(
        f"\n{count} lines with a key: {first} results in {first_s:.1f} s, then the cut; again: "
        f"{len(results)} results in {again_s:.1f} s, {replayed} of them replayed; "
        f"{sum(executed.values())} executions of {len(executed)} lines; ingress {before:.1f} MiB "
        f"before, {peak_mib(ingress.pid):.1f} at most; {last['summary']}"
    )
    assert {result["line"] for result in results} == set(range(1, count + 1))
    assert all(text_of(result) == str(result["line"]) for result in results)
    assert replayed >= first
    assert executed == Counter(str(number) for number in range(1, count + 1))


def text_of(result: Json) -> object:
    reply = result["reply"]
    assert isinstance(reply, dict)
    return reply["text"]


def test_a_line_with_another_body_is_refused_alone_and_a_failure_is_replayed(
    stack: Stack,
) -> None:
    stack.make_services("echo")
    stack.start_worker("echo")
    _, url = stack.start_ingress()

    def send(body: bytes) -> dict[object, Json]:
        batch = Batch(url, stack.name("echo"), KEY)
        batch.send(body)
        batch.end()
        *results, _ = batch.results()
        return {result.pop("line"): result for result in results}

    first = send(b'{"text":"a"}\n{"text":"b","do":"refuse"}\n{"text":"c"}\n')
    again = send(b'{ "text": "a" }\n{"text":"b","do":"refuse"}\n{"text":"other"}\n')

    assert again[1] == first[1] | {"replayed": True}
    assert again[2] == first[2] | {"replayed": True}
    assert (first[2]["status"], again[3]["status"]) == (422, 422)
    assert again[3]["problem"]["code"] == "idempotency-key-reused"  # type: ignore[index]
