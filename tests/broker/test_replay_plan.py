"""`kbridge replay plan` on a real Kafka: what it finds, and that it writes nothing but itself."""

import asyncio
import hashlib
import json
import time
from random import Random  # noqa: TID251 - examples from a seed

import confluent_kafka as ck
import pytest
from confluent_kafka.admin import AdminClient

from bridge.envelope import Event, Record, Request, make_reply
from bridge.kafka import Config, Shape, apply_topics
from bridge.plan import Mode
from bridge.replay import Asked, Bound, make_plan
from tests.deadletters import die
from tests.replaying import Replaying, place
from tests.stack import Stack

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def replaying(stack: Stack) -> Replaying:
    return Replaying(stack)


def delete_before(kafka: str, topic: str, partition: int, offset: int) -> None:
    admin = AdminClient({"bootstrap.servers": kafka})
    for future in admin.delete_records([ck.TopicPartition(topic, partition, offset)]).values():
        future.result()


def test_a_plan_counts_what_is_asked_for_and_writes_nothing_else(replaying: Replaying) -> None:
    replaying.write(
        [replaying.record(f"a{n}", partition=n % 2) for n in range(10)]
        + [replaying.record("x", partition=3)]
    )
    before = replaying.everything()

    plan = replaying.plan("--where", "text contains a", "--header", "tenant=t")

    assert replaying.everything() == before
    assert plan["selected"] == 10
    assert plan["per_partition"] == {"0": 5, "1": 5, "2": 0, "3": 0}
    assert plan["schemas"] == {str(replaying.service.request.id): {"count": 10, "readable": True}}
    assert (plan["mode"], plan["state"], plan["copied"]) == ("reprocess", "planned", 0)
    text = "".join(f"{replaying.requests}/{p}/{o}\n" for p in range(2) for o in range(5))
    assert plan["digest"] == hashlib.sha256(f"reprocess\n{text}".encode()).hexdigest()
    assert replaying.json("show", plan["id"]) == plan
    listed = replaying.run("list", replaying.name, "--json").stdout.splitlines()
    assert [json.loads(line) for line in listed] == [plan]
    assert plan["id"] in replaying.run("list").stdout
    assert (
        f"selected    10 records of {replaying.requests}"
        in replaying.run("show", plan["id"]).stdout
    )
    last = replaying.run("plan", replaying.name).stdout.splitlines()[-1]
    assert last.startswith("digest ")  # no command is offered that is not there


def test_the_end_is_frozen_and_states_come_from_the_reply_log(replaying: Replaying) -> None:
    replaying.write([replaying.record(name) for name in ("done", "broken", "open")])
    replies = f"{replaying.name}.replies"
    replaying.write(
        make_reply(Request(request_id=name, reply_to=replies), event)
        for name, event in (("done", Event.COMPLETED), ("broken", Event.FAILED))
    )

    counts = {
        state: replaying.plan("--state", state)["selected"]
        for state in ("completed", "failed", "expired", "none")
    }

    assert counts == {"completed": 1, "failed": 1, "expired": 0, "none": 1}


def test_what_is_older_than_the_reply_log_is_refused_or_left_out(replaying: Replaying) -> None:
    old = replaying.record("old")
    replaying.write([old, replaying.record("done")])
    replies = f"{replaying.name}.replies"
    lanes = range(replaying.service.topics.lanes)
    addressed = Request(request_id="x", reply_to=replies)
    replaying.write(_in(make_reply(addressed, Event.COMPLETED), lane) for lane in [*lanes, *lanes])
    for lane in lanes:
        delete_before(replaying.stack.kafka, replies, lane, 1)
    replaying.write([_at(replaying.record("new"), time.time_ns() // 1_000_000 + 5_000)])

    refused = replaying.run("plan", replaying.name, "--state", "none")
    plan = replaying.plan("--state", "none", "--known-only")

    assert refused.returncode == 1
    assert refused.stderr == (
        "kbridge: of 2 records it is not known any more how they ended: "
        f"{replies} does not go back so far; --known-only leaves them out\n"
    )
    assert replaying.run("list", replaying.name).stdout.count("\n") == 1
    assert (plan["selected"], plan["left_out"]) == (1, {"unknown": 2})


def _in(record: Record, partition: int) -> Record:
    return Record(
        topic=record.topic,
        key=record.key,
        value=record.value,
        headers=record.headers,
        partition=partition,
    )


def _at(record: Record, time_ms: int) -> Record:
    return Record(
        topic=record.topic,
        key=record.key,
        value=record.value,
        headers=record.headers,
        partition=record.partition,
        timestamp_ms=time_ms,
    )


def test_random_ranges_over_transactions_and_what_is_gone_are_what_a_scan_finds(
    replaying: Replaying,
) -> None:
    chance = Random(7)  # noqa: S311 - examples, not secrets
    began_ms = time.time_ns() // 1_000_000 - 100_000
    for turn in range(6):
        records = [
            _at(
                replaying.record(f"{turn}-{n}", partition=n % 2, key=b"ab"[n % 2 :][:1]),
                began_ms + chance.randrange(100_000),
            )
            for n in range(8)
        ]
        transaction = f"{replaying.name}-{turn % 2}" if turn % 3 else ""
        replaying.write(records, transaction=transaction, is_aborted=turn == 4)
    delete_before(replaying.stack.kafka, replaying.requests, 0, 3)
    kept = replaying.read(replaying.requests)
    config: Config = {"bootstrap.servers": replaying.stack.kafka}

    def bound(*, is_time: bool) -> Bound:
        if is_time:
            return Bound(time_ms=began_ms + chance.randrange(110_000))
        return Bound(offset=chance.randrange(30))

    for number in range(24):
        start, end = bound(is_time=number % 2 == 0), bound(is_time=number % 4 < 2)
        asked = Asked(
            replay_id="r",
            mode=Mode.COPY,
            target=replaying.target,
            start=start,
            end=end,
            key=chance.choice([None, b"a"]),
            partitions=chance.choice([None, [1], [0, 3]]),
        )
        plan = asyncio.run(
            make_plan(config, replaying.service, asked, now_ms=0, told=lambda *_: None)
        )
        found = [
            f"{plan.source}/{partition}/{offset}"
            for partition, part in plan.parts.items()
            for offset in part.runs()
        ]
        in_order = sorted(kept, key=lambda each: (each.partition or 0, each.offset))
        assert found == [place(each) for each in in_order if is_asked(asked, each)]
        if start.offset is not None and start.offset < 3 and 0 in plan.parts:
            assert plan.parts[0].gone == 3 - start.offset


def is_asked(asked: Asked, record: Record) -> bool:
    start, end = asked.start, asked.end
    return (
        (start.time_ms is None or record.timestamp_ms >= start.time_ms)
        and (start.offset is None or record.offset >= start.offset)
        and (end.time_ms is None or record.timestamp_ms < end.time_ms)
        and (end.offset is None or record.offset < end.offset)
        and asked.key in (None, record.key)
        and (asked.partitions is None or record.partition in asked.partitions)
    )


def test_dead_letters_are_planned_by_reason_and_only_those_that_wait(replaying: Replaying) -> None:
    first = Request(request_id="a", reply_to=f"{replaying.name}.replies")
    letters = [
        die(replaying.name, replaying.record("a"), reason="undecodable"),
        die(replaying.name, replaying.record("b")),
        die(replaying.name, replaying.record("b")),
        die(replaying.name, replaying.record("c")),
    ]
    replaying.write(letters)
    answered = Request(request_id="c", reply_to=f"{replaying.name}.replies")
    replaying.write([make_reply(answered, Event.COMPLETED)])

    redrive = replaying.plan("--mode", "redrive")
    some = replaying.plan("--dead", "undecodable")
    every = replaying.plan("--dead")

    assert first.request_id == "a"
    assert (redrive["selected"], redrive["left_out"]) == (2, {"repeated": 1, "resolved": 1})
    assert (redrive["answers"], redrive["source"]) == (True, f"{replaying.name}.dead")
    assert (some["selected"], some["mode"], some["answers"]) == (1, "reprocess", False)
    assert every["selected"] == 4


def test_ids_samples_and_what_todays_contract_cannot_read(replaying: Replaying) -> None:
    records = [replaying.record(f"r{n}") for n in range(6)]
    foreign = Record(
        topic=replaying.requests,
        key=b"k",
        value=b"\0\0\0\0\7x",
        headers=records[0].headers,
        partition=0,
    )
    replaying.write([*records, foreign])
    file = replaying.stack.schemas.parent / "ids"
    file.write_text("r1\n\nr4\n", encoding="utf-8")

    by_id = replaying.plan("--ids", str(file))
    sample = [replaying.plan("--sample", "3")["digest"] for _ in range(2)]
    all_of_them = replaying.plan()
    read = replaying.plan("--where", "text != nothing")

    assert by_id["selected"] == 2
    assert sample[0] == sample[1]
    assert all_of_them["schemas"]["7"] == {"count": 1, "readable": False}
    assert (read["selected"], read["left_out"]) == (6, {"unreadable": 1})


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--where", "txt = a"), 2, "has no field txt: there are text"),
        (("--from", "noon"), 2, "is no time: want ISO 8601"),
        (("--mode", "copy"), 2, "--mode copy wants --to TOPIC"),
        (("--state", "odd"), 2, "want one of completed"),
        (("--mode", "copy", "--to", "nowhere.at.all"), 1, "nowhere.at.all does not exist"),
        (("--mode", "copy", "--to", "{name}.requests"), 1, "would be copied onto itself"),
        (("--mode", "copy", "--to", "{name}.replay"), 1, "is a topic of the bridge"),
        (("--mode", "copy", "--to", "{name}-compacted"), 1, "is compacted"),
        (("--partition", "99"), 1, "has no partition 99: want 0 to 3"),
    ],
)
def test_what_cannot_be_planned_is_refused_in_one_line(
    stack: Stack, arguments: tuple[str, ...], code: int, said: str
) -> None:
    replaying = Replaying(stack)
    if "{name}-compacted" in arguments:
        shape = Shape(
            name=f"{replaying.name}-compacted",
            partitions=1,
            settings={"cleanup.policy": "compact"},
        )
        asyncio.run(apply_topics({"bootstrap.servers": stack.kafka}, [shape]))

    done = replaying.run(
        "plan", replaying.name, *(each.format(name=replaying.name) for each in arguments)
    )

    assert done.returncode == code
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert replaying.run("list", replaying.name).stdout == ""
