"""`kbridge dead redrive` on a real Kafka: what it writes, once, and what it leaves alone."""

import asyncio
import json
import os
import pty
import subprocess
import time

import msgspec
import pytest

from bridge.cli.letters import count
from bridge.envelope import Event, Request, make_reply, parse_request
from bridge.kafka import Config, Shape, apply_topics, open_reader
from bridge.redrive import Letter, State
from bridge.replay import Order, read_letters, redrive
from bridge.replay.writing import Writing
from tests.deadletters import die, make
from tests.operating import Operator, counts
from tests.stack import Process, Stack, post, until

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def operator(stack: Stack) -> Operator:
    return Operator(stack)


def test_what_broke_is_done_once_its_handler_is_mended(stack: Stack) -> None:
    operator = Operator(stack, "failing")
    effects = {"TEST_EFFECTS": str(stack.schemas.parent / "effects")}

    def work(handler: str) -> Process:
        worker = stack.start("worker", operator.name, "--handler", handler, **effects)
        until(lambda: bool(worker.events("working")), timeout_s=30, what="the worker works")
        return worker

    worker = work("consumers.failing:handle")
    _, url = stack.start_ingress()
    answer = post(url, operator.name, {"text": "a", "do": "break"})
    request_id = answer.headers["request-id"]
    worker.stop()
    work("consumers.failing:mended")

    report = operator.redrive("--id", request_id)
    until(
        lambda: any(reply.generation for reply in stack.read_replies("failing")),
        timeout_s=60,
        what="the redriven request is answered",
    )

    (done,) = [reply for reply in stack.read_replies("failing") if reply.generation]
    assert answer.json()["details"]["dead_letter"].startswith(f"{operator.name}.dead/")
    assert counts(report) == {"redriven": 1}
    assert (done.request_id, done.event, done.replay_id) == (
        request_id,
        Event.COMPLETED,
        report["replay_id"],
    )
    assert counts(operator.redrive("--all")) == {"resolved": 1}
    assert len(operator.written()) == 1


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(operator: Operator) -> None:
    operator.write(make(operator.name, operator.request(1)), make(operator.name, [], offset=1))
    before = operator.everything()

    report = operator.redrive("--all", "--dry-run")
    said = operator.run("redrive", "--all", "--dry-run").stdout

    assert counts(report) == {"redriven": 2}
    assert [letter["state"] for letter in report["letters"]] == ["waiting", "waiting"]
    assert report["replay_id"] is None
    assert "nothing written; would be: redriven 2, resolved 0" in said
    assert operator.everything() == before


def test_a_redriven_letter_is_its_record_again_and_goes_once(operator: Operator) -> None:
    request = operator.request(1)
    value = operator.service.encode({"text": "hi"})
    operator.write(
        make(operator.name, request, value, offset=4, partition=1),
        make(operator.name, Request(request_id="b"), offset=5, reason="undecodable"),
    )
    began_ms = time.time_ns() // 1_000_000

    report = operator.redrive("--reason", "attempts-exhausted")
    again = operator.redrive("--all")
    operator.write(make_reply(request, Event.COMPLETED))
    answered = operator.redrive("--id", request.request_id)

    assert counts(report) == {"redriven": 1}
    assert counts(again) == {"redriven": 1, "redriven_earlier": 1}
    assert counts(answered) == {"resolved": 1}
    (copy,) = [record for record in operator.written() if record.partition == 1]
    found = parse_request(copy)
    assert (copy.key, copy.value) == (b"k", value)
    assert (found.request_id, found.reply_to, found.reply_partition, found.principal) == (
        request.request_id,
        request.reply_to,
        1,
        "a",
    )
    assert (found.generation, found.replay_id) == (1, report["replay_id"])
    assert found.deadline_ms is not None
    wait_ms = int(operator.service.deadline_s * 1000)
    assert began_ms + wait_ms <= found.deadline_ms <= copy.timestamp_ms + wait_ms
    assert len(operator.written()) == 2


def test_an_answer_to_a_request_of_another_program_is_found_in_any_lane(
    operator: Operator,
) -> None:
    foreign = Request(request_id="order-1", reply_to=f"{operator.name}.replies")
    letter = make(operator.name, foreign)
    operator.write(letter, make_reply(foreign, Event.COMPLETED))

    assert counts(operator.redrive("--all")) == {"resolved": 1}
    assert operator.written() == []


def test_what_fails_again_five_times_is_redriven_three_times_and_then_left(
    operator: Operator,
) -> None:
    operator.write(make(operator.name, operator.request(1), offset=1))
    reports = []
    for _ in range(5):
        reports.append(counts(operator.redrive("--all")))
        newest = operator.written()[-1]
        if len(reports) <= len(operator.written()):
            operator.write(die(operator.name, newest))

    states = [
        json.loads(line)["state"] for line in operator.run("list", "--json").stdout.splitlines()
    ]

    assert reports == [
        {"redriven": 1},
        {"redriven": 1, "redriven_earlier": 1},
        {"redriven": 1, "redriven_earlier": 2},
        {"parked": 1, "redriven_earlier": 3},
        {"parked": 1, "redriven_earlier": 3},
    ]
    assert states == ["redriven", "redriven", "redriven", "parked"]
    assert len(operator.written()) == 3


def test_effects_outside_are_not_repeated_without_a_word(stack: Stack) -> None:
    operator = Operator(stack, settings='effects = "external"\n')
    operator.write(make(operator.name, operator.request(1)))

    refused = operator.run("redrive", "--all")
    looked = operator.redrive("--all", "--dry-run")
    nothing = operator.written()
    allowed = operator.redrive("--all", "--allow-effects")

    assert refused.returncode == 1
    assert refused.stderr.startswith(f'kbridge: {operator.name} has effects = "external"')
    assert refused.stderr.count("\n") == 1
    assert nothing == []
    assert counts(looked) == counts(allowed) == {"redriven": 1}


def test_large_letters_go_by_the_handful(operator: Operator) -> None:
    large = [
        make(operator.name, operator.request(n), bytes([n]) * 4_000_000, offset=n) for n in range(5)
    ]
    operator.write(*large)

    assert counts(operator.redrive("--all")) == {"redriven": 5}
    assert [(record.value or b"")[:1] for record in operator.written()] == [
        bytes([n]) for n in range(5)
    ]


def test_a_deadline_goes_by_the_brokers_clock(operator: Operator) -> None:
    operator.write(make(operator.name, operator.request(1)))
    order = Order(replay_id="r")

    outcome = asyncio.run(
        redrive(
            {"bootstrap.servers": operator.stack.kafka},
            operator.service,
            order,
            own_ms=lambda: time.time_ns() // 1_000_000 - 3_600_000,
        )
    )

    (copy,) = operator.written()
    deadline_ms = parse_request(copy).deadline_ms or 0
    assert outcome.count(State.WAITING) == 1
    assert abs(deadline_ms - operator.service.deadline_s * 1000 - copy.timestamp_ms) < 60_000


def test_what_is_older_than_the_record_of_redrives_goes_only_when_it_is_said(
    operator: Operator,
) -> None:
    operator.write(make(operator.name, operator.request(1)))
    config: Config = {"bootstrap.servers": operator.stack.kafka}

    def redrive_in_two_days(order: Order) -> dict[str, int]:
        two_days_ms = 2 * 86_400_000
        outcome = asyncio.run(
            redrive(
                config,
                operator.service,
                order,
                own_ms=lambda: time.time_ns() // 1_000_000 + two_days_ms,
            )
        )
        return {name: number for name, number in count(outcome).items() if number}

    assert redrive_in_two_days(Order(replay_id="r")) == {"selected": 1, "unknown": 1}
    assert operator.written() == []
    taken = redrive_in_two_days(Order(replay_id="r", is_unknown_taken=True))
    assert taken == {"selected": 1, "redriven": 1}
    assert len(operator.written()) == 1


def test_a_letter_that_is_gone_when_it_is_to_be_copied_is_said_to_be(operator: Operator) -> None:
    operator.write(*(make(operator.name, operator.request(n), offset=n) for n in range(2)))
    config: Config = {"bootstrap.servers": operator.stack.kafka}

    async def write() -> list[Letter]:
        there = (await read_letters(config, operator.service)).in_order()
        gone = msgspec.structs.replace(there[0], offset=99)
        async with open_reader(config) as reader:
            writing = Writing(reader, operator.service, Order(replay_id="r"), lambda *_: None, 3)
            return await writing.run(config, [*there, gone], lambda: time.time_ns() // 1_000_000)

    lost = asyncio.run(write())

    assert [letter.offset for letter in lost] == [99]
    assert len(operator.written()) == 2


def test_a_redrive_that_cannot_go_on_says_how_far_it_came(stack: Stack) -> None:
    stack.copy_services("echo")
    small = Shape(
        name=f"{stack.name('echo')}.replay",
        partitions=4,
        settings={"max.message.bytes": "2000", "message.timestamp.type": "LogAppendTime"},
    )
    asyncio.run(apply_topics({"bootstrap.servers": stack.kafka}, [small]))
    operator = Operator(stack)
    operator.write(make(operator.name, operator.request(1), b"x" * 5000))

    done = operator.run("redrive", "--all")

    assert done.returncode == 1
    assert done.stderr.startswith("kbridge: stopped after 0 of 1: ")
    assert done.stderr.count("\n") == 1
    assert operator.written() == []


def test_a_rate_is_kept_and_a_terminal_shows_how_far_it_is(operator: Operator) -> None:
    operator.write(*(make(operator.name, operator.request(n), offset=n) for n in range(8)))
    near, far = pty.openpty()
    with subprocess.Popen(  # noqa: S603 - our own
        operator.command(("redrive", "--all", "--rate", "2")),
        stdout=subprocess.PIPE,
        stderr=far,
        env={**operator.environment(), "TERM": "xterm"},
    ):
        os.close(far)
        shown = b""
        while piece := _read(near):
            shown += piece
    os.close(near)

    times = [record.timestamp_ms for record in operator.written()]

    assert b"redriving" in shown
    assert b"/8" in shown
    assert len(times) == 8
    assert max(times) - min(times) >= 3000


def test_a_redrive_that_is_killed_is_finished_by_the_next_one(operator: Operator) -> None:
    requests = [operator.request(n) for n in range(12)]
    operator.write(*(make(operator.name, each, offset=n) for n, each in enumerate(requests)))
    with subprocess.Popen(  # noqa: S603 - our own
        operator.command(("redrive", "--all", "--rate", "3")), env=operator.environment()
    ) as child:
        until(lambda: len(operator.written()) >= 2, timeout_s=60, what="some are written")
        child.kill()
    before = len(operator.written())

    rest = counts(operator.redrive("--all"))

    written = [parse_request(record).request_id for record in operator.written()]
    assert 2 <= before < 12
    assert rest == {"redriven": 12 - before, "redriven_earlier": before}
    assert sorted(written) == sorted(each.request_id for each in requests)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # the other end is closed
        return b""
