"""Who would wait in vain is told so at once; who has time, or a fair share, is served."""

import asyncio
import statistics
import time
from collections import Counter
from contextlib import suppress
from functools import partial

import httpx
import pytest

from bridge import apikey
from tests.flood import Flood, Got, p99
from tests.stack import Stack, post, until
from tests.wires import resident_mib

pytestmark = pytest.mark.timeout(180)


def test_without_a_worker_nobody_waits_and_with_one_everybody_is_served(stack: Stack) -> None:
    stack.make_services("slow")
    name = stack.name("slow")
    _, url = stack.start_ingress(BRIDGE_NO_WORKER_S="5")
    started = time.perf_counter()

    asked = partial(post, url, name, {"text": "x"}, prefer="wait=0.1")
    early = asked()
    until(lambda: asked().status_code == 503, timeout_s=30, what="nobody may wait")
    refused_after_s = time.perf_counter() - started
    refused = [post(url, name, {"text": "x"}) for _ in range(20)]
    unhurried = [
        post(url, name, {"text": "x"}, prefer=prefer, idempotency_key=prefer[-1])
        for prefer in ("respond-async", "respond-async, wait=0.2")
    ]
    listed = httpx.get(f"{url}/v1/services").json()["services"][0]
    stack.start_worker("slow")
    started = time.perf_counter()
    until(
        lambda: post(url, name, {"text": "x"}, prefer="wait=10").status_code == 200,
        timeout_s=30,
        what="a worker is there",
    )

    print(
        f"\nrefused after {refused_after_s:.1f} s with no_worker_s 5; "
        f"answered {time.perf_counter() - started:.1f} s after the worker began"
    )
    slowest = max(answer.elapsed.total_seconds() for answer in refused)
    print(
        f"20 refusals: slowest {slowest * 1000:.0f} ms, Retry-After {sorted({a.headers['retry-after'] for a in refused})}"
    )
    assert early.status_code == 202
    assert {answer.status_code for answer in refused} == {503}
    problem = refused[0].json()
    assert (problem["code"], problem["outcome"], problem["retryable"]) == (
        "no-workers",
        "not_accepted",
        True,
    )
    assert slowest < 1
    assert {answer.status_code for answer in unhurried} == {202}
    assert (listed["name"], listed["workers"]) == (name, 0)
    assert listed["lag"] > 0
    until(
        lambda: httpx.get(f"{url}/v1/services/{name}").json()["workers"] == 1,
        timeout_s=10,
        what="it is listed",
    )


KEYS = {
    name: apikey.make(name, key_id=f"{name}00", secret=name.encode().ljust(32, b"!"))
    for name in ("greedy", "modest")
}
CAPACITY = 20
"""What one worker of `slow` does in a second."""


async def most_memory(pid: int, stop: asyncio.Event) -> float:
    """Return the most memory that a process had until told to stop, in MiB."""
    most = 0.0
    while not stop.is_set():
        most = max(most, resident_mib(pid))
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await stop.wait()
    return most


def report(name: str, got: list[Got], seconds: float) -> list[Got]:
    """Print what a tenant got; return its refusals."""
    statuses = Counter(each.status for each in got)
    refused = [each for each in got if each.status in {429, 503}]
    codes = Counter(each.code for each in refused)
    served = [each.after_s for each in got if each.status == 200]
    print(
        f"{name}: {len(got)} asked in {seconds} s, {dict(statuses)}, {dict(codes)}; "
        f"200 after p50 {statistics.median(served or [0]):.2f} s, p99 {p99(served):.2f} s; refused "
        f"after p50 {statistics.median([r.after_s for r in refused] or [0]) * 1000:.1f} ms, "
        f"p99 {p99([r.after_s for r in refused]) * 1000:.1f} ms; "
        f"Retry-After {sorted({int(r.retry_after) for r in refused})}"
    )
    return refused


def run_floods(pid: int, floods: dict[str, Flood], seconds: float) -> float:
    """Let one tenant ask far too much and the other little; return the most memory, in MiB."""

    async def run() -> float:
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            memory = tasks.create_task(most_memory(pid, stop))
            async with asyncio.TaskGroup() as clients:
                clients.create_task(floods["greedy"].run(300, seconds))
                clients.create_task(floods["modest"].run(5, seconds))
            stop.set()
        await floods["after"].run(5, 2)
        return memory.result()

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("seconds", "deadline_s", "least"),
    [(8, 12, 0.9), pytest.param(60, 20, 0.99, marks=pytest.mark.full)],
)
def test_too_many_requests_are_refused_at_once_and_the_rest_is_in_time(
    stack: Stack, seconds: int, deadline_s: int, least: float
) -> None:
    stack.make_services("slow")
    stack.start_worker("slow")
    process, url = stack.start_ingress(BRIDGE_API_KEYS="\n".join(key.line for key in KEYS.values()))
    key = {"Authorization": f"Bearer {KEYS['modest'].key}"}
    until(
        lambda: httpx.get(f"{url}/v1/services", headers=key).json()["services"][0]["workers"] == 1,
        timeout_s=20,
        what="the worker is seen",
    )
    path = f"/v1/services/{stack.name('slow')}/requests"
    wait = {"Prefer": f"wait={deadline_s}", "Bridge-Deadline": str(deadline_s)}
    floods = {
        name: Flood(url, path, {"Authorization": f"Bearer {KEYS[tenant].key}", **wait})
        for name, tenant in (("greedy", "greedy"), ("modest", "modest"), ("after", "modest"))
    }

    memory_mib = run_floods(process.pid, floods, seconds)

    greedy, modest, after = (floods[name].got for name in ("greedy", "modest", "after"))
    print()
    refused = report("greedy, 300/s", greedy, seconds)
    report("modest, 5/s", modest, seconds)
    report("afterwards, 5/s", after, 2)
    good = [each.at_s for each in (*greedy, *modest) if each.status == 200]
    goodput = sum(at_s <= seconds for at_s in good) / seconds
    left = [at_s for at_s in good if at_s > seconds]  # the queue, answered with nobody asking
    alone = len(left) / (max(left) - seconds)
    print(
        f"goodput {goodput:.1f}/s, {alone:.1f}/s when the flood was over, {CAPACITY}/s on paper; "
        f"most memory {memory_mib:.0f} MiB"
    )
    taken = [each for each in (*greedy, *modest) if each.status != 503]
    assert p99([each.after_s for each in taken]) <= deadline_s + 1  # who is late is told so then
    assert sum(each.status == 200 for each in taken) >= 0.95 * len(taken)
    assert goodput >= 0.9 * min(alone, CAPACITY)
    assert sum(each.status == 200 for each in modest) >= least * len(modest)
    assert memory_mib < 300
    assert p99([each.after_s for each in refused]) < 0.5  # on a machine that does other things too
    assert {each.code for each in refused} == {"overloaded"}
    assert len({each.retry_after for each in refused}) > 1
    assert p99([each.after_s for each in after]) < 2
