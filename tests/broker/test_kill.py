"""Processes are killed while requests are under way; what was accepted is answered all the same."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.broker.test_worker import committed
from tests.stack import Stack, post, until

pytestmark = pytest.mark.timeout(120)


def test_a_request_whose_worker_is_killed_is_answered_by_another(stack: Stack) -> None:
    stack.make_services("echo")
    first = stack.start_worker("echo")
    _, url = stack.start_ingress()
    warm = post(url, stack.name("echo"), {"text": "w"})
    assert warm.json()["pid"]

    with ThreadPoolExecutor(1) as threads:
        # Longer than a second worker takes to start on a busy machine.
        body = {"text": "w", "sleep_s": 5, "do": "progress"}
        asked = threads.submit(post, url, stack.name("echo"), body, timeout_s=60)
        until(lambda: _is_begun(url), timeout_s=10, what="the handler has begun")
        stack.start_worker("echo")
        first.kill()
        answer = asked.result()

    assert answer.status_code == 200
    assert answer.json()["text"] == "w"
    assert answer.json()["pid"] != warm.json()["pid"]


def _is_begun(url: str) -> bool:
    """Tell whether some worker has said that it is half way."""
    text = httpx.get(f"{url}/metrics").text
    return 'bridge_ingress_events_total{event="progress"} 1.0' in text


def test_a_request_whose_worker_is_killed_is_answered_by_the_restarted_one(stack: Stack) -> None:
    stack.make_services("echo")
    first = stack.start_worker("echo")
    _, url = stack.start_ingress()
    taken = post(url, stack.name("echo"), {"text": "w", "sleep_s": 1}, prefer="respond-async")

    first.kill()
    stack.start_worker("echo")
    answer = httpx.get(url + taken.headers["location"], headers={"prefer": "wait=30"}, timeout=60)

    assert (answer.status_code, answer.json()["text"]) == (200, "w")


def test_a_request_whose_ingress_is_killed_is_found_by_the_next_one(stack: Stack) -> None:
    stack.make_services("echo")
    stack.start_worker("echo")
    first, url = stack.start_ingress()
    taken = post(url, stack.name("echo"), {"text": "w", "sleep_s": 1}, prefer="respond-async")

    first.kill()
    _, url = stack.start_ingress()
    answer = httpx.get(url + taken.headers["location"], headers={"prefer": "wait=30"}, timeout=60)

    assert (answer.status_code, answer.json()["text"]) == (200, "w")


def test_a_worker_that_stops_finishes_what_it_has_in_hand_and_exits_with_0(stack: Stack) -> None:
    stack.make_services("echo")
    worker = stack.start_worker("echo")
    ingress, url = stack.start_ingress()

    with ThreadPoolExecutor(1) as threads:
        body = {"text": "w", "sleep_s": 1, "do": "progress"}
        asked = threads.submit(post, url, stack.name("echo"), body, timeout_s=30)
        until(lambda: _is_begun(url), timeout_s=10, what="the handler has begun")
        assert worker.stop() == 0
        answer = asked.result()

    assert answer.status_code == 200
    assert ingress.stop() == 0


def test_a_worker_that_was_stopped_for_longer_than_its_session_goes_on(stack: Stack) -> None:
    """Once it never committed again: an acknowledgement that was owed to nobody blocked the next."""
    stack.make_services("echo")
    worker = stack.start_worker("echo")
    _, url = stack.start_ingress()
    post(url, stack.name("echo"), {"text": "w"})

    os.kill(worker.pid, signal.SIGSTOP)
    asked = post(url, stack.name("echo"), {"text": "w"}, prefer="wait=9")
    os.kill(worker.pid, signal.SIGCONT)
    found = httpx.get(url + asked.headers["location"], headers={"prefer": "wait=30"}, timeout=40)
    for number in range(20):
        assert post(url, stack.name("echo"), {"text": f"{number}"}).status_code == 200

    assert (asked.status_code, found.status_code) == (202, 200)
    until(lambda: committed(stack, "echo") == 22, timeout_s=10, what="all are committed")


def test_a_stop_that_leaves_records_queued_runs_nothing_twice(stack: Stack) -> None:
    """The first of a key runs, the second waits behind it, others are answered: then a stop."""
    stack.make_services("echo")
    first = stack.start_worker("echo")
    _, url = stack.start_ingress()
    name = stack.name("echo")
    slow = [post(url, name, {"text": "w", "sleep_s": 1.5}, prefer="respond-async") for _ in "ab"]
    for number in range(10):
        post(url, name, {"text": f"{number}"})

    assert first.stop() == 0
    stack.start_worker("echo")
    for one in slow:
        found = httpx.get(url + one.headers["location"], headers={"prefer": "wait=20"}, timeout=30)
        assert found.status_code == 200

    until(lambda: committed(stack, "echo") == 12, timeout_s=10, what="all are committed")
    ended = [r.request_id for r in stack.read_replies("echo") if r.event and r.event.is_last]
    assert len(ended) == len(set(ended)) == 12


def test_what_is_answered_and_not_committed_is_not_handled_again(stack: Stack) -> None:
    """A worker dies 50 ms after its answer; its commits are 250 ms apart, so the offset is behind.

    Handled again, the same request would kill the second worker too.
    """
    stack.make_services("echo")
    first = stack.start_worker("echo")
    _, url = stack.start_ingress()
    post(url, stack.name("echo"), {"text": "w"})  # committed at once; the next commit waits

    deadly = post(url, stack.name("echo"), {"text": "w", "do": "die"})
    first.child.wait(timeout=10)
    second = stack.start_worker("echo")
    after = post(url, stack.name("echo"), {"text": "w"}, timeout_s=40)
    until(lambda: committed(stack, "echo") == 3, timeout_s=10, what="the second one lives on")

    assert (deadly.status_code, after.status_code) == (200, 200)
    assert after.json()["pid"] == second.pid
    replies = stack.read_replies("echo")
    ended = [reply.request_id for reply in replies if reply.event and reply.event.is_last]
    assert len(ended) == len(set(ended)) == 3
