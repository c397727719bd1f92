"""Replicas share nothing but Kafka: one is killed, its clients ask another, nobody is answered twice."""

import asyncio
import secrets
from collections import Counter
from pathlib import Path

import httpx
import pytest

from bridge.envelope import Event
from tests.proxies import PROXIES, open_proxy
from tests.retrying import Client, Got
from tests.stack import Process, Stack

pytestmark = pytest.mark.timeout(300)


def _start_ingress(stack: Stack, port: int, lane: int) -> tuple[Process, str]:
    """A kill between a claim and its request happens: it is healed after 20 s here, not after 60."""
    return stack.start_ingress(
        port, BRIDGE_LANES=str(lane), BRIDGE_KAFKA__DELIVERY_TIMEOUT_MS="10000"
    )


async def _start(stack: Stack, count: int) -> list[tuple[Process, str]]:
    await asyncio.to_thread(stack.make_services, "echo")
    for _ in range(2):
        await asyncio.to_thread(stack.start_worker, "echo")
    return [await asyncio.to_thread(_start_ingress, stack, 0, lane) for lane in range(count)]


async def _restart(stack: Stack, url: str, lane: int) -> Process:
    """Start an ingress where one was killed."""
    port = int(url.rpartition(":")[2])
    process, _ = await asyncio.to_thread(_start_ingress, stack, port, lane)
    return process


async def _until_waiting(url: str, waiters: int) -> None:
    """Wait until so many clients wait at a replica."""
    async with httpx.AsyncClient() as http, asyncio.timeout(20):
        while f"bridge_ingress_waiters {waiters}.0" not in (await http.get(f"{url}/metrics")).text:  # noqa: ASYNC110 - another process is asked
            await asyncio.sleep(0.05)


def _check(stack: Stack, got: list[Got]) -> None:
    """Every client has its own answer, and each key one request that ended once."""
    assert [one.body["text"] for one in got] == [one.text for one in got]
    assert [one.body["request_id"] for one in got] == [one.request_id for one in got]
    records = Counter(record.key for record in stack.read(f"{stack.name('echo')}.requests"))
    ends = Counter(
        reply.request_id
        for reply in stack.read_replies("echo")
        if reply.event is not None and reply.event.is_last
    )
    finished = [r for r in stack.read_replies("echo") if r.event is Event.COMPLETED]
    twice = {key: number for key, number in records.items() if number > 1}
    print(f"records {sum(records.values())}, last events {len(finished)}, written twice {twice}")
    assert set(records) == {one.text.encode() for one in got}  # the text is the key
    assert not twice
    assert set(ends) == {one.request_id for one in got}
    assert set(ends.values()) == {1}


@pytest.mark.parametrize(
    ("waiters", "rounds"),
    [(60, 1), pytest.param(200, 20, marks=[pytest.mark.full, pytest.mark.timeout(1200)])],
)
async def test_clients_of_a_killed_ingress_get_their_answer_from_the_other(
    stack: Stack, waiters: int, rounds: int
) -> None:
    """RELIABILITY 28: nothing runs again, and what was asked before the kill is found after it."""
    (first, url), (_, other_url) = await _start(stack, 2)
    got: list[Got] = []
    for _ in range(rounds):
        async with httpx.AsyncClient(limits=httpx.Limits(max_connections=None)) as http:
            client = Client(http, (url, other_url), stack.name("echo"))
            texts = [secrets.token_hex(8) for _ in range(waiters)]
            async with asyncio.TaskGroup() as tasks:
                asking = [
                    tasks.create_task(client.ask(f"k-{text}", {"text": text, "sleep_s": 4.0}))
                    for text in texts
                ]
                await _until_waiting(url, waiters)
                await asyncio.to_thread(first.kill)
            got += [task.result() for task in asking]
            first = await _restart(stack, url, 0)
            asked_at = asyncio.get_running_loop().time()
            found = await http.get(
                f"{url}/v1/services/{stack.name('echo')}/requests/{got[-1].request_id}", timeout=20
            )
            took_s = asyncio.get_running_loop().time() - asked_at
            assert found.json()["text"] == got[-1].text
            print(f"asked again {dict(client.again)}; found after the restart in {took_s:.2f} s")
    assert all(one.is_replayed for one in got)
    await asyncio.to_thread(_check, stack, got)


@pytest.mark.parametrize("seconds", [10, pytest.param(60, marks=pytest.mark.full)])
@pytest.mark.parametrize("proxy", PROXIES)
async def test_behind_a_load_balancer_killed_replicas_lose_and_mix_nothing(
    stack: Stack, tmp_path: Path, proxy: str, seconds: int
) -> None:
    """Three replicas, round robin, one killed every 5 s, 50 requests/s with clients that try again."""
    replicas = await _start(stack, 3)
    urls = [url for _, url in replicas]
    processes = [process for process, _ in replicas]
    loop = asyncio.get_running_loop()
    with open_proxy(proxy, urls, tmp_path) as front:
        async with httpx.AsyncClient(limits=httpx.Limits(max_connections=None)) as http:
            client = Client(http, [front], stack.name("echo"))
            asking: list[asyncio.Task[Got]] = []
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_kill_in_turn(stack, processes, urls, seconds))
                began = loop.time()
                for number in range(50 * seconds):
                    await asyncio.sleep(max(0.0, began + number / 50 - loop.time()))
                    text = secrets.token_hex(8)
                    body: dict[str, object] = {"text": text, "sleep_s": 0.05}
                    asking.append(tasks.create_task(client.ask(f"k-{text}", body)))
            got = [task.result() for task in asking]
            sample = got[:: max(1, len(got) // 50)]
            again = [
                await client.ask(f"k-{one.text}", {"text": one.text, "sleep_s": 0.05})
                for one in sample
            ]
    print(f"{proxy}: {len(got)} answered, asked again {dict(client.again)}")
    assert [one.body for one in again] == [one.body for one in sample]
    assert all(one.is_replayed for one in again)
    await asyncio.to_thread(_check, stack, got)


async def _kill_in_turn(
    stack: Stack, processes: list[Process], urls: list[str], seconds: int
) -> None:
    for turn in range(seconds // 5):
        await asyncio.sleep(3.0)
        place = turn % len(processes)
        await asyncio.to_thread(processes[place].kill)
        await asyncio.sleep(2.0)
        processes[place] = await _restart(stack, urls[place], place)
