"""RELIABILITY 21 and 41: what cannot be read ends as a dead letter, and nothing else notices."""

import asyncio
import json
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource  # type: ignore[attr-defined]  # so the library documents it

from bridge.dead import PREFIX, UNDECODABLE, parse_dead
from bridge.envelope import Headers, Record
from bridge.service import Service
from tests.broker.test_worker import committed
from tests.core.test_codec_hostile import BYTES, SCHEMAS, long
from tests.effects import LARGEST_BYTES, Effects, Writer, wait_works
from tests.flood import Flood, p99
from tests.stack import Process, Stack, until

RATE = 100
MIB = 1024 * 1024


def poisons(service: Service) -> dict[str, Callable[[int], bytes | None]]:
    """Say how each kind of bad value is made, out of a number."""
    good = service.encode({"text": "a text of some length", "sleep_s": 0.0})
    return {
        "bad magic": lambda _: b"\x01" + good[1:],
        "unknown ID": lambda number: b"\0" + (number + 1).to_bytes(4, "big") + good[5:],
        "truncated": lambda number: good[: number % len(good)],
        "trailing bytes": lambda number: good + secrets.token_bytes(1 + number % 20),
        "random": lambda _: secrets.token_bytes(1024),
        "empty": lambda _: b"",
        "tombstone": lambda _: None,
        "5 MiB": lambda _: good + bytes(5 * MIB),
    }


def allow_large(stack: Stack, topic: str) -> None:
    """Let larger records into a topic."""
    entry = ConfigEntry(
        "max.message.bytes", str(LARGEST_BYTES), incremental_operation=AlterConfigOpType.SET
    )
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": stack.kafka})
    for future in admin.incremental_alter_configs([resource]).values():
        future.result()


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        pytest.param(200, 24, marks=pytest.mark.timeout(120)),
        pytest.param(5_000, 200, marks=[pytest.mark.full, pytest.mark.timeout(600)]),
    ],
)
def test_poison_ends_as_dead_letters_and_good_requests_do_not_notice(
    stack: Stack, good: int, bad: int
) -> None:
    effects = Effects(stack)
    effects.make("mix")
    service = effects.service("mix")
    allow_large(stack, service.requests_topic)
    _, url = stack.start_ingress()
    worker = effects.start_worker("mix")
    wait_works(worker)
    kinds = list(poisons(service).items())
    writer = Writer(stack, service)
    path = f"/v1/services/{service.name}/requests"
    warm, alone, among = (Flood(url, path, {}) for _ in range(3))
    run(warm, 50)  # both runs find everything warm

    run(alone, good)
    with ThreadPoolExecutor(1) as threads:
        mixed = threads.submit(run, among, good)
        for number in range(bad):
            name, make = kinds[number % len(kinds)]
            writer.write_raw(f"{name} {number}", make(number))
            writer.flush()
            wanted = good * number // bad
            until(lambda w=wanted: len(among.got) >= w, timeout_s=60, what="its place among them")  # type: ignore[misc]  # bound to this turn's
        mixed.result()
    count = 50 + 2 * good + bad
    until(lambda: committed(stack, "mix") == count, timeout_s=120, what="all is committed")

    p99_alone, p99_among = (p99([got.after_s for got in each.got]) for each in (alone, among))
    print(
        f"\n{bad} bad records among {good} at {RATE}/s: p99 of the good ones "
        f"{p99_among * 1000:.0f} ms, without {p99_alone * 1000:.0f} ms: "
        f"{p99_among / p99_alone:.1f} times; all {bad} are dead letters"
    )
    assert {got.status for got in (*alone.got, *among.got)} == {200}
    assert p99_among < 2 * p99_alone + 1  # twice is promised; a busy machine may take longer
    assert_dead(stack, service, bad)
    assert_lives(worker)


def run(flood: Flood, count: int) -> None:
    asyncio.run(flood.run(RATE, count / RATE))


def assert_dead(stack: Stack, service: Service, count: int) -> None:
    """Each bad record is a dead letter, byte for byte, and its headers are what they were."""
    letters = stack.read(service.dead_topic)
    asked = {(r.partition, r.offset): r for r in stack.read(service.requests_topic)}
    found = [parse_dead(letter, None) for letter in letters]
    assert len(letters) == len({(each.partition, each.offset) for each in found}) == count
    for letter, each in zip(letters, found, strict=True):
        was = asked[each.partition, each.offset]
        assert each.topic == service.requests_topic
        assert each.verdict.reason == UNDECODABLE
        assert each.verdict.attempts == 0
        assert (letter.key, letter.value) == (was.key, was.value)
        assert own_headers(letter) == was.headers


def own_headers(letter: Record) -> Headers:
    return [header for header in letter.headers if not header[0].startswith(PREFIX)]


def assert_lives(worker: Process) -> None:
    """It has neither ended nor begun anew."""
    assert worker.child.poll() is None
    assert len(worker.events("working")) == 1
    assert worker.events("record-broke") == []


def peak_kib(pid: int) -> int:
    """Return the most memory that a process had so far."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return int(fields["VmHWM"].split()[0])


def hostile_schema() -> dict[str, object]:
    """Make one contract of all the schemas: a union with a record around each of them."""
    branches = [
        {
            "type": "record",
            "name": "Wrapped",
            "namespace": f"n{number}",  # some of them share names
            "fields": [{"name": f"value{number}", "type": schema}],
        }
        for number, schema in enumerate(SCHEMAS.values())
    ]
    fields = [{"name": "value", "type": branches}]
    return {"type": "record", "name": "Hostile", "fields": fields}


@pytest.mark.timeout(120)
def test_hostile_avro_on_a_topic_costs_the_worker_nothing(stack: Stack) -> None:
    effects = Effects(stack)
    effects.make("hostile")
    contract = stack.schemas / stack.name("hostile") / "request.avsc"
    contract.write_text(json.dumps(hostile_schema()), encoding="utf-8")
    service = effects.service("hostile")
    allow_large(stack, service.requests_topic)
    worker = effects.start_worker("hostile")
    wait_works(worker)
    writer = Writer(stack, service)
    number_of = {name: number for number, name in enumerate(SCHEMAS)}
    head = service.request.id.to_bytes(4, "big")

    def write(rows: list[tuple[str, bytes]]) -> None:
        for place, (name, data) in enumerate(rows):
            value = b"\0" + head + long(number_of[name]) + data
            writer.write_raw(f"{name} {place}", value)
        writer.flush()

    write(BYTES[-5:])  # what it takes to write a dead letter at all
    until(lambda: committed(stack, "hostile") == 5, timeout_s=30, what="the first are committed")
    before_kib = peak_kib(worker.pid)
    write(BYTES)
    count = len(BYTES) + 5
    until(lambda: committed(stack, "hostile") == count, timeout_s=30, what="all are committed")
    grown_mib = (peak_kib(worker.pid) - before_kib) / 1024

    times = sorted(letter.timestamp_ms for letter in stack.read(service.dead_topic))[5:]
    print(
        f"\n{len(BYTES)} hostile values: all dead letters within {times[-1] - times[0]} ms, "
        f"the worker grew by {grown_mib:.1f} MiB"
    )
    assert_dead(stack, service, count)
    assert_lives(worker)
    assert grown_mib < 50
    assert effects.lines() == []
