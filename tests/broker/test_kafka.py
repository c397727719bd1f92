"""The Kafka blocks on a real Kafka: producers, lanes, bounded reads, topics."""

import asyncio
import secrets

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from bridge.envelope import Record
from bridge.errors import BodyTooLargeError, BrokerDownError, OutcomeUnknownError, TopicError
from bridge.kafka import (
    Backlog,
    Producer,
    Send,
    Shape,
    apply_topics,
    check_topics,
    open_groups,
    open_lanes,
    open_producer,
    open_reader,
    open_tail,
)

pytestmark = pytest.mark.timeout(60)

APPEND = {"message.timestamp.type": "LogAppendTime"}


@pytest.fixture
async def topic(kafka: str) -> str:
    name = f"t-{secrets.token_hex(6)}"
    await apply_topics(config(kafka), [Shape(name=name, partitions=2, settings=APPEND)])
    return name


def config(kafka: str) -> dict[str, str | int | bool]:
    return {"bootstrap.servers": kafka}


def record(topic: str, value: bytes, partition: int | None = 0) -> Record:
    return Record(topic=topic, key=b"k", value=value, partition=partition)


async def test_a_record_is_acknowledged_with_its_place_and_the_brokers_time(
    kafka: str, topic: str
) -> None:
    async with open_producer(config(kafka)) as producer:
        first = await producer.route(0)(record(topic, b"a"))
        second = await producer.route(1000)(record(topic, b"b"))

    assert (first.partition, first.offset, second.offset) == (0, 0, 1)
    assert first.is_broker_time
    assert second.timestamp_ms >= first.timestamp_ms


@pytest.mark.parametrize("headers", [0, 100])
async def test_what_is_checked_to_be_small_enough_is_taken(
    kafka: str, topic: str, headers: int
) -> None:
    named = [(f"h{number}", b"v") for number in range(headers)]

    def of(size: int) -> Record:
        return Record(topic=topic, key=b"k", value=b"x" * size, headers=named, partition=0)

    async with open_producer(config(kafka)) as producer:
        size = 1_000_000
        while not is_small_enough(producer, of(size)):
            size -= 1
        placed = await producer.route(0)(of(size))
        with pytest.raises(BodyTooLargeError):
            await producer.route(0)(of(1_000_000))

    assert placed.partition == 0
    assert 900_000 < size < 1_000_000


def is_small_enough(producer: Producer, checked: Record) -> bool:
    try:
        producer.check_size(checked)
    except BodyTooLargeError:
        return False
    return True


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (Record(topic="t-nowhere", key=None, value=b"x", partition=0), TopicError),
        (Record(topic="TOPIC", key=None, value=b"x", partition=99), TopicError),
        (Record(topic="TOPIC", key=None, value=b"x" * 2_000_000, partition=0), BodyTooLargeError),
    ],
)
async def test_what_surely_was_not_written_is_said_so(
    kafka: str, topic: str, wrong: Record, error: type[Exception]
) -> None:
    there = Record(
        topic=wrong.topic.replace("TOPIC", topic),
        key=None,
        value=wrong.value,
        partition=wrong.partition,
    )
    async with open_producer(config(kafka)) as producer:
        with pytest.raises(error):
            await producer.route(0)(there)


async def test_what_kafka_never_took_is_given_up_on_leaving() -> None:
    nowhere: dict[str, str | int | bool] = {"bootstrap.servers": "127.0.0.1:1"}
    async with open_producer(nowhere, grace_s=0.1) as producer:
        written = producer.route(0)(record("t", b"x"))

    with pytest.raises((BrokerDownError, OutcomeUnknownError)):
        await written


async def test_a_lane_delivers_whatever_is_written_after_it_was_entered(
    kafka: str, topic: str
) -> None:
    taken: list[bytes | None] = []
    over = asyncio.Event()

    def take(records: list[Record]) -> None:
        taken.extend(one.value for one in records)
        if len(taken) >= 200:
            over.set()

    async with open_producer(config(kafka)) as producer:
        await producer.route(0)(record(topic, b"before"))
        async with open_lanes(config(kafka), [(topic, 0)], take):
            for number in range(200):
                await producer.route(0)(record(topic, b"%d" % number))
            await over.wait()

    assert taken == [b"%d" % number for number in range(200)]


async def test_a_lane_that_does_not_exist_is_refused(kafka: str, topic: str) -> None:
    with pytest.raises(TopicError):
        async with open_lanes(config(kafka), [(topic, 7)], print):
            pass


async def test_a_bounded_read_starts_at_a_time_and_ends_at_the_end(kafka: str, topic: str) -> None:
    found: list[bytes | None] = []

    def note(one: Record) -> bool:
        found.append(one.value)
        return False

    async with open_producer(config(kafka)) as producer, open_reader(config(kafka)) as reader:
        send = producer.route(0)
        await reader.read([(topic, 0), (topic, 1)], since_ms=0, is_enough=note)
        assert found == []

        await send(record(topic, b"old"))
        await asyncio.sleep(0.02)  # the time index of Kafka counts in milliseconds
        middle = await send(record(topic, b"middle"))
        await send(record(topic, b"other", 1))
        await reader.read([(topic, 0), (topic, 1)], since_ms=middle.timestamp_ms, is_enough=note)
        assert sorted(value or b"" for value in found) == [b"middle", b"other"]

        found.clear()
        await reader.read([(topic, 0)], since_ms=middle.timestamp_ms + 60_000, is_enough=note)
        assert found == []


async def test_a_bounded_read_ends_when_it_has_enough(kafka: str, topic: str) -> None:
    found: list[bytes | None] = []

    def first_only(one: Record) -> bool:
        found.append(one.value)
        return True

    async with open_producer(config(kafka)) as producer, open_reader(config(kafka)) as reader:
        for value in (b"a", b"b", b"c"):
            await producer.route(0)(record(topic, value))
        for _ in range(3):  # the pooled consumer holds nothing from the read before
            await reader.read([(topic, 0)], since_ms=0, is_enough=first_only)

    assert found == [b"a"] * 3


async def test_topics_are_made_once_and_compared(kafka: str) -> None:
    name = f"t-{secrets.token_hex(6)}"

    before = await check_topics(config(kafka), [Shape(name=name, partitions=3)])
    made = await apply_topics(config(kafka), [Shape(name=name, partitions=3)])
    again = await apply_topics(config(kafka), [Shape(name=name, partitions=3)])
    right = await check_topics(config(kafka), [Shape(name=name, partitions=3)])
    wrong = await check_topics(config(kafka), [Shape(name=name, partitions=4)])

    assert before.wrong == [f"{name} does not exist: run `kbridge topics apply`"]
    assert (made, again, right.wrong) == ([name], [], [])
    assert wrong.wrong == [f"{name} has 3 partitions: want 4"]


async def test_a_topic_that_would_lose_what_it_is_for_is_told(kafka: str) -> None:
    name = f"t-{secrets.token_hex(6)}"
    wanted = {
        "cleanup.policy": "delete",
        "message.timestamp.type": "LogAppendTime",
        "retention.ms": "7200000",
        "max.message.bytes": "16777216",
    }
    made = {
        "cleanup.policy": "compact",
        "retention.ms": "3600000",
        "max.message.bytes": "1048588",
    }
    await apply_topics(config(kafka), [Shape(name=name, partitions=1, settings=made)])

    found = await check_topics(config(kafka), [Shape(name=name, partitions=1, settings=wanted)])

    assert found.wrong == [
        f"{name} has cleanup.policy=compact: want delete",
        f"{name} has message.timestamp.type=CreateTime: want LogAppendTime",
    ]
    assert any(f"{name} keeps records for retention.ms=3600000" in each for each in found.warnings)
    assert any(
        f"{name} takes records up to max.message.bytes=1048588" in each for each in found.warnings
    )


@pytest.mark.parametrize("must_keep", [False, True])
async def test_what_is_kept_for_too_short_a_time_is_wrong_where_work_could_be_done_twice(
    kafka: str, must_keep: bool
) -> None:
    name = f"t-{secrets.token_hex(6)}"
    made = {"retention.ms": "3600000", "retention.bytes": "1000000"}
    await apply_topics(config(kafka), [Shape(name=name, partitions=1, settings=made)])
    wanted = {"retention.ms": "7200000"}
    shape = Shape(name=name, partitions=1, settings=wanted, must_keep=must_keep)

    found = await check_topics(config(kafka), [shape])

    said = [each for each in found.wrong if "retention" in each]
    assert len(said) == (2 if must_keep else 0)
    assert any("retention.ms=3600000" in each for each in (*said, *found.warnings))


async def test_it_is_said_from_when_on_a_partition_still_has_all_of_its_records(
    kafka: str, topic: str
) -> None:
    admin = AdminClient({"bootstrap.servers": kafka})

    async with open_producer(config(kafka)) as producer, open_reader(config(kafka)) as reader:
        placed = [await producer.route(0)(record(topic, b"x")) for _ in range(3)]
        kept = [await reader.kept_since_ms((topic, lane)) for lane in (0, 1)]
        for offset in (2, 3):
            deleted = admin.delete_records([TopicPartition(topic, 0, offset)])
            await asyncio.to_thread(next(iter(deleted.values())).result)
            kept.append(await reader.kept_since_ms((topic, 0)))

    assert kept == [0, 0, placed[2].timestamp_ms, None]


async def test_a_kafka_that_is_not_there_is_said_in_one_line() -> None:
    with pytest.raises(BrokerDownError, match=r"no Kafka answers at 127\.0\.0\.1:1"):
        await check_topics({"bootstrap.servers": "127.0.0.1:1"}, [])


async def test_a_tail_reads_what_is_there_tells_its_end_and_goes_on(kafka: str, topic: str) -> None:
    found: list[Record] = []
    at_end, all_there = asyncio.Event(), asyncio.Event()

    def take(records: list[Record]) -> None:
        found.extend(records)
        if len(found) == 2501:
            all_there.set()

    async with open_producer(config(kafka)) as producer:
        send = producer.route(1000)
        async with asyncio.TaskGroup() as tasks:
            for number in range(2500):
                tasks.create_task(_send(send, record(topic, b"%d" % number, number % 2)))
        async with open_tail(
            config(kafka), [(topic, 0), (topic, 1)], take, since_ms=0, at_end=at_end.set
        ):
            await at_end.wait()
            read = len(found)
            await send(record(topic, b"late"))
            await all_there.wait()

    assert read == 2500
    numbers = [[int(r.value or b"") for r in found[:2500] if r.partition == n] for n in (0, 1)]
    assert [len(one) for one in numbers] == [1250, 1250]
    assert all(one == sorted(one) for one in numbers)
    assert found[-1].value == b"late"


async def test_a_tail_starts_at_its_time(kafka: str, topic: str) -> None:
    found: list[Record] = []
    at_end = asyncio.Event()
    async with open_producer(config(kafka)) as producer:
        send = producer.route(0)
        await send(record(topic, b"old"))
        await asyncio.sleep(0.02)
        placed = await send(record(topic, b"new"))
        for since_ms in (placed.timestamp_ms, placed.timestamp_ms + 60_000):
            at_end.clear()
            async with open_tail(
                config(kafka), [(topic, 0)], found.extend, since_ms=since_ms, at_end=at_end.set
            ):
                await at_end.wait()

    assert [one.value for one in found] == [b"new"]


async def test_a_tail_that_could_not_hand_something_over_says_so_and_hands_over_no_more(
    kafka: str, topic: str
) -> None:
    """Of a batch that was lost nobody heard, and what came after it was taken for all there is."""
    found: list[Record] = []

    def take(records: list[Record]) -> None:
        found.extend(records)
        raise OSError("disk full")

    async with open_producer(config(kafka)) as producer:
        send = producer.route(0)
        await send(record(topic, b"lost"))
        async with open_tail(
            config(kafka), [(topic, 0)], take, since_ms=0, at_end=found.clear
        ) as lost:
            with pytest.raises(OSError, match="disk full"):
                await lost
            await send(record(topic, b"later"))
            await asyncio.sleep(0.3)

    assert [one.value for one in found] == [b"lost"]


async def test_a_tail_of_a_topic_that_is_not_there_is_refused(kafka: str) -> None:
    with pytest.raises(TopicError, match="topics apply"):
        async with open_tail(config(kafka), [("t-nowhere", 0)], lambda _: None, since_ms=0):
            pass


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the library warns of its own class
async def test_a_group_that_cannot_be_seen_hides_no_other(kafka: str, topic: str) -> None:
    nowhere = f"no-{secrets.token_hex(4)}"
    async with open_producer(config(kafka)) as producer:
        await producer.route(0)(record(topic, b"x"))

    async with open_groups(config(kafka)) as groups:
        found = await groups.look({(f"g-{nowhere}", nowhere): 1, (f"g-{topic}", topic): 1})
        with pytest.raises(BrokerDownError):
            await groups.look({(f"g-{nowhere}", nowhere): 1})

    assert found == {(f"g-{topic}", topic): Backlog(members=0, committed={0: 0}, ends={0: 1})}


async def _send(send: Send, wanted: Record) -> None:
    await send(wanted)


async def test_new_topics_can_be_used_at_once(kafka: str) -> None:
    """Right after its creation a partition's leader once refused whoever was quick."""
    for _ in range(3):
        name = f"t-{secrets.token_hex(6)}"
        await apply_topics(config(kafka), [Shape(name=name, partitions=100)])
        lanes = [(name, number) for number in range(100)]
        async with open_lanes(config(kafka), lanes, lambda _: None):
            pass
