"""`kbridge dead` on a real Kafka: what it prints, what it writes, and what it leaves alone."""

import asyncio
import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bridge import ids
from bridge.envelope import Event, Record, Request, make_reply, parse_request
from bridge.kafka import Config, Shape, apply_topics, describe_topics, open_producer, open_reader
from bridge.redrive import Letter, State
from bridge.registry import load_services
from bridge.replay import Order, read_letters, redrive
from bridge.replay.writing import Writing
from bridge.service import Service
from tests.deadletters import die, make
from tests.stack import Stack, until

pytestmark = pytest.mark.timeout(180)


class Operator:
    """Who has dead letters of one service, and the commands."""

    def __init__(self, stack: Stack, *, settings: str = "") -> None:
        if not stack.schemas.exists():
            stack.copy_services("echo")
        self.stack = stack
        self.name = stack.name("echo")
        if settings:
            file = stack.schemas / self.name / "service.toml"
            file.write_text(settings + file.read_text(encoding="utf-8"), encoding="utf-8")
        stack.apply_topics()
        self.dead, self.replay = f"{self.name}.dead", f"{self.name}.replay"

    @property
    def service(self) -> Service:
        return load_services(self.stack.schemas)[self.name]

    def request(self, number: int) -> Request:
        request_id = ids.make(time_ms=time.time_ns() // 1_000_000, lane=1, chance=number)
        return Request(
            request_id=request_id, reply_to=f"{self.name}.replies", reply_partition=1, principal="a"
        )

    def write(self, *records: Record) -> None:
        asyncio.run(self._write(records))

    async def _write(self, records: tuple[Record, ...]) -> None:
        config: Config = {
            "bootstrap.servers": self.stack.kafka,
            "message.max.bytes": 16_000_000,
        }
        async with open_producer(config) as producer:
            for record in records:  # one after the other: their times tell their order
                await producer.route(0)(record)

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(  # noqa: S603 - our own
            self.command(arguments),
            capture_output=True,
            text=True,
            check=False,
            env=self.environment(),
        )

    def command(self, arguments: tuple[str, ...]) -> list[str]:
        command, *rest = arguments
        return [sys.executable, "-m", "bridge", "dead", command, self.name, *rest]

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "BRIDGE_KAFKA": self.stack.kafka,
            "BRIDGE_SCHEMAS": str(self.stack.schemas),
        }

    def redrive(self, *arguments: str) -> dict[str, Any]:
        done = self.run("redrive", "--json", *arguments)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def written(self) -> list[Record]:
        return self.stack.read(self.replay)

    def everything(self) -> dict[str, int]:
        """How many records lie in each topic of the service."""
        topics = asyncio.run(describe_topics({"bootstrap.servers": self.stack.kafka}))
        return {
            topic: len(self.stack.read(topic)) for topic in topics if topic.startswith(self.name)
        }


def counts(report: dict[str, Any]) -> dict[str, int]:
    """The counts that are not 0."""
    names = ("redriven", "resolved", "parked", "redriven_earlier", "unknown", "unreadable")
    assert report["selected"] == sum(report[name] for name in names)
    return {name: report[name] for name in names if report[name]}


@pytest.fixture
def operator(stack: Stack) -> Operator:
    return Operator(stack)


def test_each_request_is_listed_once_the_newest_last(operator: Operator) -> None:
    first, second = operator.request(1), operator.request(2)
    twice = make(operator.name, first, offset=1)
    undecodable = make(operator.name, second, offset=2, reason="undecodable", error="bad\nmagic")
    other = Record(topic=operator.dead, key=None, value=b"?", partition=0)
    operator.write(twice, other, undecodable, twice)

    listed = operator.run("list")
    lines = operator.run("list", "--json").stdout.splitlines()
    chosen = operator.run("list", "--json", "--reason", "undecodable").stdout
    newest = operator.run("list", "--json", "--limit", "1").stdout
    none = operator.run("list", "--json", "--until", "-1h").stdout
    recent = operator.run("list", "--json", "--since", "-1h").stdout

    one, two = listed.stdout.splitlines()
    assert first.request_id in one
    assert "(written 2 times) boom" in one
    assert "waiting  undecodable" in two
    assert "bad\\nmagic" in two
    assert f"2 dead letters of {operator.name}; 1 other records" in listed.stderr
    assert [json.loads(line)["request_id"] for line in lines] == [
        first.request_id,
        second.request_id,
    ]
    assert json.loads(lines[0])["original"]["offset"] == 1
    assert chosen == newest == f"{lines[1]}\n"
    assert none == ""
    assert recent.splitlines() == lines


def test_one_letter_is_shown_by_its_request_or_its_place(
    operator: Operator, tmp_path: Path
) -> None:
    request = operator.request(1)
    value = operator.service.encode({"text": "hi"})
    operator.write(
        make(operator.name, request, value, offset=4),
        make(operator.name, Request(request_id="b"), b"\x00\x01", offset=5, reason="undecodable"),
    )
    file = tmp_path / "value"

    shown = json.loads(operator.run("show", request.request_id, "--json").stdout)
    dumped = operator.run("show", "0/1").stdout
    operator.run("show", "0/1", "--raw", str(file))
    missing = operator.run("show", "nobody")
    beyond = operator.run("show", "0/99")

    assert shown["value"] == {"text": "hi", "sleep_s": 0.0, "do": "reply"}
    assert (shown["key"], shown["state"], shown["attempts"]) == ("k", "waiting", 3)
    assert ["bridge-principal", "a"] in shown["headers"]
    assert "00000000  00 01" in dumped
    assert f"no request of {operator.name}" in dumped
    assert file.read_bytes() == b"\x00\x01"
    assert (missing.returncode, missing.stderr) == (
        1,
        f"kbridge: no dead letter of request nobody in {operator.dead}\n",
    )
    assert (beyond.returncode, beyond.stderr.count("\n")) == (1, 1)


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


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("redrive",), "one of --id, --reason and --all"),
        (("redrive", "--all", "--id", "a"), "one of --id, --reason and --all"),
        (("list", "--since", "soon"), "want ISO 8601"),
    ],
)
def test_wrong_use_is_told_before_kafka_is_asked(
    operator: Operator, wrong: tuple[str, ...], said: str
) -> None:
    done = operator.run(*wrong)

    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_topics_that_are_not_there_are_named(stack: Stack) -> None:
    stack.copy_services("echo")
    listing = stack.start("dead", "list", stack.name("echo"))

    assert listing.child.wait(timeout=60) == 1
    said = listing.log.read_text(encoding="utf-8")
    assert f"{stack.name('echo')}.dead" in said
    assert "kbridge topics apply" in said


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
