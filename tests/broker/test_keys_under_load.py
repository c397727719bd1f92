"""Idempotency-Keys where not all are taken: whoever is refused can use its key again at once."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from tests.broker.test_idempotency import executions
from tests.keyed import Keyed, post
from tests.stack import Stack

pytestmark = pytest.mark.timeout(120)

BURST = 100
HEAL_S = 60


@pytest.mark.parametrize(
    ("setting", "value"),
    [("BRIDGE_WAITERS", "20"), ("BRIDGE_KAFKA__QUEUE_BUFFERING_MAX_MESSAGES", "4")],
)
async def test_a_burst_beyond_a_limit_leaves_no_key_that_cannot_be_used_for_a_minute(
    stack: Stack, tmp_path: Path, setting: str, value: str
) -> None:
    """Keys were taken, and then there was no place for their requests."""
    await asyncio.to_thread(stack.make_services, "once")
    await asyncio.to_thread(stack.start_worker, "once")
    _, url = await asyncio.to_thread(lambda: stack.start_ingress(**{setting: value}))
    service, file = stack.name("once"), tmp_path / "executions"

    async def ask(number: int) -> Keyed:
        body = {"text": f"text-{number}", "file": str(file), "sleep_s": 0.2}
        return await post(url, service, body, idempotency_key=f"key-{number}")

    async def ask_all(numbers: list[int]) -> list[Keyed]:
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(ask(number)) for number in numbers]
        return [task.result() for task in asked]

    first = await ask_all(list(range(BURST)))
    refused = [number for number, answer in enumerate(first) if answer.status != 200]
    codes = Counter(answer.json()["code"] for answer in first if answer.status != 200)
    begun_s = asyncio.get_running_loop().time()
    again: list[Keyed] = []
    while refused:
        some = await ask_all(refused[:5])
        refused = [
            *(number for number, one in zip(refused, some, strict=False) if one.status != 200),
            *refused[5:],
        ]
        again += some
    took_s = asyncio.get_running_loop().time() - begun_s

    print(f"\n{setting}={value}: {BURST} at once, {dict(codes)}; all answered {took_s:.1f} s later")
    assert set(codes) == {"overloaded"}
    assert took_s < HEAL_S / 2
    assert {one.json()["code"] for one in again if one.status != 200} <= {"overloaded"}
    assert executions(file) == {f"text-{number}": 1 for number in range(BURST)}
