"""Tried again, up to an end: an answer, or a dead letter that its client is told of."""

import re
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from confluent_kafka.admin import AdminClient

from bridge.dead import parse_dead
from bridge.envelope import Record, parse_request
from tests.broker.test_worker import committed
from tests.stack import Process, Stack, post, until

pytestmark = pytest.mark.timeout(150)

ENDS = {
    "retryable": ("busy", "attempts-exhausted", "not now", 3),
    "break": ("handler-failed", "attempts-exhausted", "the handler broke", 3),
    "hang": ("handler-timeout", "attempts-exhausted", "longer than 1 s", 3),
    "wrong": ("reply-invalid", "reply-invalid", "does not fit its contract", 1),
    "large": ("reply-too-large", "reply-too-large", "2000... bytes: want at most 1000000", 1),
}
"""What the handler does: the code that its client sees, the dead letter's reason, what the client is
told (of sizes both: RELIABILITY 25), attempts."""


def start(stack: Stack) -> tuple[Process, str]:
    stack.make_services("failing")
    worker = start_worker(stack)
    _, url = stack.start_ingress()
    return worker, url


def start_worker(stack: Stack) -> Process:
    handler = "consumers.failing:handle"
    effects = {"TEST_EFFECTS": str(stack.schemas.parent / "effects")}
    worker = stack.start("worker", stack.name("failing"), "--handler", handler, **effects)
    until(lambda: bool(worker.events("working")), timeout_s=30, what="the worker works")
    return worker


def attempts(stack: Stack) -> list[str]:
    """What the handler has written, a line each time that it began."""
    file = stack.schemas.parent / "effects"
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def dead(stack: Stack) -> list[Record]:
    return stack.read(f"{stack.name('failing')}.dead")


def test_what_may_succeed_later_is_tried_again_until_it_does(stack: Stack) -> None:
    _, url = start(stack)

    answer = post(url, stack.name("failing"), {"text": "a", "do": "retryable", "after": "2"})

    assert (answer.status_code, answer.json()) == (200, {"text": "a at 3"})
    assert attempts(stack) == ["a 1", "a 2", "a 3"]
    assert dead(stack) == []


def test_what_never_does_is_a_dead_letter_and_its_client_is_told(stack: Stack) -> None:
    worker, url = start(stack)
    name = stack.name("failing")

    def ask(do: str) -> httpx.Response:
        return post(url, name, {"text": do, "do": do})

    with ThreadPoolExecutor(len(ENDS)) as threads:
        answers = dict(zip(ENDS, threads.map(ask, ENDS), strict=True))

    asked = {record.key: record for record in stack.read(f"{name}.requests")}
    letters = {f"{x.topic}/{x.partition}/{x.offset}": x for x in dead(stack)}
    assert len(letters) == len(ENDS)
    for do, (code, reason, says, tries) in ENDS.items():
        problem = answers[do].json()
        assert (answers[do].status_code, problem["code"], problem["outcome"]) == (
            502,
            code,
            "failed",
        )
        assert re.search(says, problem["detail"])
        letter = letters[problem["details"]["dead_letter"]]
        found, was = parse_dead(letter, parse_request(letter)), asked[do.encode()]
        assert (found.verdict.reason, found.verdict.attempts) == (reason, tries)
        assert [line for line in attempts(stack) if line.startswith(do)] == [
            f"{do} {number}" for number in range(1, tries + 1)
        ]
        assert (letter.key, letter.value) == (was.key, was.value)
        assert letter.headers[: len(was.headers)] == was.headers
        place = (was.topic, was.partition, was.offset)
        assert (found.topic, found.partition, found.offset) == place
    assert worker.child.poll() is None


def test_a_refusal_is_an_answer_at_once_and_no_dead_letter(stack: Stack) -> None:
    _, url = start(stack)

    answer = post(url, stack.name("failing"), {"text": "a", "do": "permanent"})

    assert (answer.status_code, answer.json()["code"]) == (422, "no")
    assert attempts(stack) == ["a 1"]
    assert dead(stack) == []


def test_no_try_begins_past_the_deadline(stack: Stack) -> None:
    """The handler says when: in a second. That is too late for a request that has 0.9 s."""
    _, url = start(stack)

    answer = post(url, stack.name("failing"), {"text": "a", "do": "later"}, bridge_deadline="0.9")

    assert (answer.status_code, answer.json()["code"]) == (502, "busy")
    assert attempts(stack) == ["a 1"]
    assert parse_dead(dead(stack)[0], None).verdict.reason == "deadline"


def test_a_handler_that_says_when_is_not_asked_earlier_and_its_key_waits(stack: Stack) -> None:
    _, url = start(stack)
    name = stack.name("failing")
    asked = [
        {"text": "a", "do": "later", "after": "1"},
        {"text": "a", "do": "permanent", "after": "0"},
        {"text": "b", "do": "permanent", "after": "0"},
    ]

    for body in asked:
        post(url, name, body, prefer="respond-async")
    until(lambda: len(attempts(stack)) == 4, timeout_s=10, what="all were worked on")

    assert attempts(stack) in (
        ["a 1", "b 1", "a 2", "a 1"],
        ["b 1", "a 1", "a 2", "a 1"],
    )
    first, second = (
        reply.time_ms
        for reply in stack.read_replies("failing")
        if reply.event == "completed" and reply.value is not None and b"b at" not in reply.value
    )
    begun = next(reply for reply in stack.read_replies("failing") if reply.event == "accepted")
    assert min(first, second) - begun.time_ms >= 950


def test_without_the_topic_of_dead_letters_nothing_is_dropped_and_others_go_on(
    stack: Stack,
) -> None:
    worker, url = start(stack)
    name = stack.name("failing")
    admin = AdminClient({"bootstrap.servers": stack.kafka})
    for future in admin.delete_topics([f"{name}.dead"], operation_timeout=10).values():
        future.result()

    post(url, name, {"text": "a", "do": "wrong"}, prefer="respond-async")
    said = "dead-letter-not-written"
    until(lambda: len(worker.events(said)) >= 2, timeout_s=60, what="it is said, again and again")
    answers = [post(url, name, {"text": f"{n}", "do": "permanent", "after": "0"}) for n in range(6)]
    before = committed(stack, "failing")
    stack.apply_topics()
    until(lambda: committed(stack, "failing") == 7, timeout_s=60, what="all is committed")

    assert {answer.status_code for answer in answers} == {200}
    assert before < 7
    assert [parse_dead(letter, None).verdict.reason for letter in dead(stack)] == ["reply-invalid"]
    assert worker.child.poll() is None


def is_over(stack: Stack, worker: Process) -> bool:
    """Wait until there is a dead letter, or the worker has died: tells which."""
    until(lambda: worker.child.poll() is not None or bool(dead(stack)), timeout_s=60, what="an end")
    return worker.child.poll() is None


def test_a_record_that_kills_every_worker_ends_as_a_dead_letter(stack: Stack) -> None:
    worker, url = start(stack)
    name = stack.name("failing")
    post(url, name, {"text": "a", "do": "die"}, prefer="respond-async")
    post(url, name, {"text": "b", "do": "permanent", "after": "0"}, prefer="respond-async")
    deaths = 0

    while deaths < 10 and not is_over(stack, worker):
        deaths += 1
        worker = start_worker(stack)
    until(lambda: committed(stack, "failing") == 2, timeout_s=30, what="all is committed")

    found = parse_dead(dead(stack)[0], None)
    ends = {
        reply.event
        for reply in stack.read_replies("failing")
        if reply.event and reply.event.is_last
    }
    print(f"\n{deaths} workers died of it, then: {found.verdict}")
    assert (found.verdict.reason, found.verdict.attempts) == ("worker-died", 3)
    assert deaths == 3
    assert ends == {"completed", "failed"}
    assert worker.child.poll() is None
