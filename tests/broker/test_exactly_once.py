"""`exactly_once = true`: answer, dead letter and offset in one transaction."""

import secrets
from collections import Counter

import confluent_kafka as ck
import pytest

from bridge.dead import parse_dead
from bridge.registry import load_services
from bridge.service import Service
from tests.broker.test_worker import committed
from tests.stack import Process, Stack, post, until

pytestmark = pytest.mark.timeout(150)


def make(stack: Stack, name: str) -> Service:
    """Make a service whose answers are transactions."""
    stack.copy_services(name)
    file = stack.schemas / stack.name(name) / "service.toml"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("[worker]", "[worker]\nexactly_once = true"), encoding="utf-8")
    stack.apply_topics()
    return load_services(stack.schemas)[stack.name(name)]


def start_worker(stack: Stack, name: str) -> Process:
    effects = {"TEST_EFFECTS": str(stack.schemas.parent / "effects")}
    handler = f"consumers.{name}:handle"
    worker = stack.start("worker", stack.name(name), "--handler", handler, **effects)
    until(lambda: bool(worker.events("working")), timeout_s=30, what="the worker works")
    return worker


def fill(stack: Stack, service: Service, count: int) -> None:
    writer = ck.Producer({"bootstrap.servers": stack.kafka, "enable.idempotence": True})
    file = str(stack.schemas.parent / "effects")
    for number in range(count):
        writer.produce(
            service.requests_topic,
            service.encode({"text": f"{number}", "file": file, "sleep_s": 0.005}),
            f"{number % 97}",
            headers={
                "bridge-request-id": f"{number}",
                "bridge-reply-to": service.replies_topic,
                "bridge-reply-partition": f"{number % service.topics.lanes}",
            },
        )
    assert writer.flush(60) == 0


def ends(stack: Stack, name: str) -> Counter[str]:
    """Count the last events of each request, as a read-committed reader sees them."""
    replies = stack.read_replies(name)
    return Counter(r.request_id for r in replies if r.event is not None and r.event.is_last)


def wait_ends(stack: Stack, count: int) -> None:
    until(
        lambda: len(ends(stack, "once")) >= count,
        timeout_s=200,
        what=f"{count} requests have ended",
    )


def test_answers_refusals_and_dead_letters_go_out_with_their_offsets(stack: Stack) -> None:
    service = make(stack, "failing")
    worker = start_worker(stack, "failing")
    _, url = stack.start_ingress()

    asked = {
        "fine": {"text": "a", "do": "permanent", "after": "0"},
        "refused": {"text": "b", "do": "permanent"},
        "broken": {"text": "c", "do": "break"},
        "large": {"text": "d", "do": "large"},
    }
    answers = {name: post(url, service.name, body) for name, body in asked.items()}
    until(lambda: committed(stack, "failing") == len(asked), timeout_s=20, what="all is committed")

    codes = {name: (a.status_code, a.json().get("code")) for name, a in answers.items()}
    assert codes == {
        "fine": (200, None),
        "refused": (422, "no"),
        "broken": (502, "handler-failed"),
        "large": (502, "reply-too-large"),
    }
    letters = stack.read(service.dead_topic)
    assert Counter(parse_dead(letter, None).verdict.reason for letter in letters) == {
        "attempts-exhausted": 1,
        "reply-too-large": 1,
    }
    named = answers["broken"].json()["details"]["dead_letter"]
    assert named in {f"{letter.topic}/{letter.partition}" for letter in letters}
    assert worker.child.poll() is None


def test_progress_is_told_before_the_end_and_outside_of_the_transaction(stack: Stack) -> None:
    service = make(stack, "watch")
    start_worker(stack, "watch")
    _, url = stack.start_ingress()

    body = {"key": "k", "diary": str(stack.schemas.parent / "diary")}
    answer = post(url, service.name, body)

    events = [reply.event for reply in stack.read_replies("watch") if reply.event != "probe"]
    assert answer.status_code == 200
    assert events == ["progress", "completed"]


@pytest.mark.parametrize(
    ("count", "workers", "kills"),
    [(600, 2, 2), pytest.param(20_000, 3, 9, marks=[pytest.mark.full, pytest.mark.timeout(600)])],
)
def test_killed_workers_leave_each_request_answered_exactly_once(
    stack: Stack, count: int, workers: int, kills: int
) -> None:
    """RELIABILITY 15."""
    service = make(stack, "once")
    fill(stack, service, count)
    running = [start_worker(stack, "once") for _ in range(workers)]

    for number in range(kills):
        goal = min(count, count * (number + 1) // (kills + 1))
        wait_ends(stack, goal)
        victim = running.pop(secrets.randbelow(len(running)))
        victim.kill()
        running.append(start_worker(stack, "once"))
    wait_ends(stack, count)

    found = ends(stack, "once")
    print(f"\n{count} requests, {kills} workers killed: {Counter(found.values())}")
    assert set(found.values()) == {1}
