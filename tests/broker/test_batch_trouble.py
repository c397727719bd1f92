"""Batches in trouble: clients that leave, replicas that stop, queues that are full."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from bridge.envelope import Event
from tests.batches import Batch, Json
from tests.broker.test_trouble import free_port, own_kafka
from tests.stack import Process, Stack, open_stack, post, until

pytestmark = pytest.mark.timeout(120)


def lines(count: int, *, sleep_s: float = 0) -> bytes:
    return b"".join(b'{"text":"%d","sleep_s":%.1f}\n' % (n, sleep_s) for n in range(1, count + 1))


def waiters(url: str) -> float:
    found = re.search(
        r"^bridge_ingress_waiters (\S+)", httpx.get(f"{url}/metrics").text, re.MULTILINE
    )
    assert found is not None
    return float(found[1])


def summary_of(results: list[Json]) -> Json:
    found = results[-1]["summary"]
    assert isinstance(found, dict)
    return found


def start(stack: Stack, **environment: str) -> tuple[Process, str]:
    stack.make_services("echo")
    stack.start_worker("echo")
    return stack.start_ingress(0, **environment)


def test_what_came_before_a_client_left_is_worked_on_and_nobody_waits(stack: Stack) -> None:
    _, url = start(stack, BRIDGE_BATCH_LINES="10")
    batch = Batch(url, stack.name("echo"))
    batch.send(lines(40, sleep_s=1) + b'{"text":"never whole"')
    until(lambda: waiters(url) == 11, timeout_s=10, what="ten lines wait, and the batch itself")

    batch.cut()

    until(lambda: waiters(url) == 0, timeout_s=3, what="nobody waits")
    until(
        lambda: count_completed(stack) == 40,
        timeout_s=20,
        what="every whole line is worked on once",
    )


def count_completed(stack: Stack) -> int:
    replies = stack.read_replies("echo")
    return sum(reply.event is Event.COMPLETED for reply in replies)


def test_a_stopping_replica_answers_what_it_took_and_says_no_summary(stack: Stack) -> None:
    ingress, url = start(stack)
    batch = Batch(url, stack.name("echo"))
    batch.send(lines(1) + lines(3, sleep_s=15))
    results = batch.results()
    first = next(results)

    ingress.child.terminate()
    rest = list(results)

    assert first["status"] == 200
    assert {(result["line"], result["status"]) for result in rest} == {(2, 202), (3, 202), (4, 202)}
    assert ingress.stop() == 0


def test_a_full_room_slows_a_batch_and_refuses_none_of_it(stack: Stack) -> None:
    _, url = start(stack, BRIDGE_WAITERS="4")
    batch = Batch(url, stack.name("echo"))
    batch.send(lines(1))
    results = batch.results()
    seen = [next(results)]

    with ThreadPoolExecutor(3) as threads:
        body = {"text": "x", "sleep_s": 2}
        others = [threads.submit(post, url, stack.name("echo"), body) for _ in range(3)]
        until(lambda: waiters(url) == 4, timeout_s=10, what="the room is full")
        batch.send(lines(20))
        batch.end()
        seen += results

    assert [other.result().status_code for other in others] == [200] * 3
    assert summary_of(seen)["completed"] == 21


def test_while_kafka_is_away_lines_wait(tmp_path: Path) -> None:
    port = free_port()
    with open_stack(f"127.0.0.1:{port}", tmp_path, "") as stack:
        with own_kafka(tmp_path / "kafka", port):
            _, url = start(stack)
            batch = Batch(url, "echo")
            batch.send(lines(1))
            results = batch.results()
            seen = [next(results)]
        until(lambda: httpx.get(url + "/readyz").status_code == 503, timeout_s=15, what="not ready")
        batch.send(lines(500))
        batch.end()
        with own_kafka(tmp_path / "kafka", port):
            seen += results

    assert summary_of(seen)["completed"] == 501


def test_a_batch_is_not_begun_while_nothing_can_be_taken(stack: Stack) -> None:
    stack.copy_services("echo")
    ingress = stack.start("ingress", "--port", "0")
    until(lambda: bool(ingress.events("listening")), timeout_s=15, what="it listens")
    url = f"http://127.0.0.1:{ingress.events('listening')[0]['port']}"

    answer = httpx.post(
        f"{url}/v1/services/{stack.name('echo')}/requests/batch",
        content=lines(1),
        headers={"content-type": "application/x-ndjson"},
    )

    assert (answer.status_code, answer.json()["outcome"]) == (503, "not_accepted")
