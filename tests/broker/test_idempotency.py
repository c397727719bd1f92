"""One request per Idempotency-Key, however often it is sent, and to whichever replica (scenario 29)."""

import asyncio
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.keyed import Keyed, post, post_many
from tests.stack import Process, Stack

pytestmark = pytest.mark.timeout(180)

AT_ONCE = 50
KEYS_AT_ONCE = 4


def executions(file: Path) -> Counter[str]:
    """How often each text was worked on."""
    if not file.exists():
        return Counter()
    return Counter(line.split()[0] for line in file.read_text(encoding="utf-8").splitlines())


def start_two(stack: Stack) -> list[tuple[Process, str]]:
    return [stack.start_ingress(BRIDGE_LANES=lane) for lane in ("0", "1")]


@pytest.mark.parametrize(
    "keys",
    [20, pytest.param(1000, marks=[pytest.mark.full, pytest.mark.timeout(1800)])],
)
async def test_of_50_equal_posts_over_two_replicas_one_is_worked_on(
    stack: Stack, tmp_path: Path, keys: int
) -> None:
    await asyncio.to_thread(stack.make_services, "once")
    await asyncio.to_thread(stack.start_worker, "once")
    replicas = await asyncio.to_thread(start_two, stack)
    service, file = stack.name("once"), tmp_path / "executions"
    turn = asyncio.Semaphore(KEYS_AT_ONCE)

    async def ask(urls: list[str], number: int, count: int) -> list[Keyed]:
        body = {"text": f"text-{number}", "file": str(file), "sleep_s": 0.02 * (number % 3)}
        async with turn:
            return await post_many(
                urls, count, service, body, idempotency_key=f'"key-{number}"', prefer="wait=60"
            )

    async def ask_all(count: int) -> list[list[Keyed]]:
        urls = [url for _, url in replicas]
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(ask(urls, number, count)) for number in range(keys)]
        return [task.result() for task in asked]

    begun_s = time.perf_counter()
    answers = await ask_all(AT_ONCE)
    took_s = time.perf_counter() - begun_s
    for process, _ in replicas:
        await asyncio.to_thread(process.kill)
    replicas = await asyncio.to_thread(start_two, stack)
    later = await ask_all(2)
    other = await post(
        replicas[0][1], service, {"text": "other", "file": str(file)}, idempotency_key="key-0"
    )

    assert executions(file) == {f"text-{number}": 1 for number in range(keys)}
    for number, found in enumerate(answers):
        first = found[0]
        assert {answer.status for answer in found} == {200}, [a.body for a in found]
        assert {answer.body for answer in found + later[number]} == {first.body}
        assert {answer.request_id for answer in found + later[number]} == {first.request_id}
        assert Counter(answer.is_replayed for answer in found) == {True: AT_ONCE - 1, False: 1}
        assert all(answer.is_replayed for answer in later[number])
        assert first.json() == {"text": f"text-{number}", "request_id": first.request_id}
    assert (other.status, other.json()["code"]) == (422, "idempotency-key-reused")
    print(
        f"\n29: {keys} keys x {AT_ONCE} at once over 2 replicas: {len(executions(file))} worked on, "
        f"each once; {keys * AT_ONCE} equal answers in {took_s:.1f} s "
        f"({keys * AT_ONCE / took_s:.0f}/s), {keys * (AT_ONCE - 1)} replayed; "
        f"{2 * keys} more after both were killed"
    )
