"""Transactions on a real Kafka: all or nothing, whatever becomes of single requests.

The scenarios' reader is read-committed and reads everything at the end; each record says which batch
it is of, which try at it, and how many records that has. So what is torn, lost, there twice or
visible though it was aborted shows in what was read, not in what anybody believes.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import confluent_kafka as ck
import pytest
import structlog

from bridge.envelope import Record
from bridge.errors import BodyTooLargeError, SettingsError, TopicError
from bridge.kafka import (
    Assigned,
    Committed,
    Config,
    Group,
    GroupMetadata,
    Lost,
    NotCommitted,
    Place,
    Position,
    Shape,
    apply_topics,
    open_group,
    open_reader,
    open_transactions,
)
from tests.faults import END_TXN, Fault, ProxiedKafka, Way

pytestmark = pytest.mark.timeout(120)

PARTITIONS = 3
TOO_LARGE = b"x" * 1_100_000


@dataclass
class Member:
    """Owns what it is given, and works on nothing."""

    group: Group
    owned: dict[Place, Position | None]
    told: asyncio.Event

    def assigned(self, partitions: Sequence[Assigned]) -> None:
        self.owned.update({one.place: one.position for one in partitions})
        self.told.set()

    async def revoked(self, places: Sequence[Place]) -> Mapping[Place, Position]:
        self.lost(places)
        return {}

    def lost(self, places: Sequence[Place]) -> None:
        for place in places:
            del self.owned[place]

    def committed(self, offsets: Mapping[Place, int], why: str | None) -> None:
        """Commits are transactions here."""

    def take(self, records: list[Record]) -> None:
        """There are none."""

    @property
    def metadata(self) -> GroupMetadata:
        assert self.group.metadata is not None
        return self.group.metadata


@dataclass(frozen=True)
class Bench:
    """Topics and a group of one test, and a member that owns the input."""

    config: Config
    name: str
    member: Member
    leave: Callable[[], Awaitable[None]]

    @property
    def place(self) -> Place:
        return (f"{self.name}.in", 0)

    def at(self, offset: int, note: str = "1 17") -> dict[Place, Position]:
        return {self.place: Position(offset, note)}

    def record(self, value: bytes, partition: int = 0) -> Record:
        headers = [("bridge-event", b"completed")]
        return Record(
            topic=f"{self.name}.out", key=b"k", value=value, headers=headers, partition=partition
        )

    async def read(self, count: int) -> list[Record]:
        """Read all that is committed, once there is so much of it, to the end of every partition.

        Kafka answers a commit when it is decided; readers see it when its markers are written.
        """
        async with asyncio.timeout(20):
            while len(found := await self._read()) < count:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.05)
        return found

    async def _read(self) -> list[Record]:
        found: list[Record] = []

        def take(record: Record) -> bool:
            found.append(record)
            return False

        async with open_reader(self.config) as reader:
            places = [(f"{self.name}.out", number) for number in range(PARTITIONS)]
            await reader.read(places, since_ms=0, is_enough=take)
        return found

    async def values(self, count: int) -> list[bytes | None]:
        return [record.value for record in await self.read(count)]

    async def committed(self) -> tuple[int, str]:
        """Ask Kafka itself: the offset, and the metadata as they are."""
        (found,) = await asyncio.to_thread(self._committed)
        return found.offset, found.metadata or ""

    def _committed(self) -> list[ck.TopicPartition]:
        consumer = ck.Consumer({**self.config, "group.id": self.name})
        try:
            return consumer.committed([ck.TopicPartition(*self.place)], timeout=10)
        finally:
            consumer.close()


@asynccontextmanager
async def open_member(config: Config, name: str) -> AsyncIterator[Member]:
    # The group comes after its member, of which it is told before anything is assigned.
    member = Member(None, {}, asyncio.Event())  # type: ignore[arg-type]
    async with open_group(config, name, [f"{name}.in"], member) as group:
        member.group = group
        yield member


@asynccontextmanager
async def open_bench(kafka: str) -> AsyncIterator[Bench]:
    config: Config = {"bootstrap.servers": kafka}
    name = f"txn-{secrets.token_hex(6)}"
    shapes = [
        Shape(name=f"{name}.in", partitions=1),
        Shape(name=f"{name}.out", partitions=PARTITIONS),
    ]
    await apply_topics(config, shapes)
    async with AsyncExitStack() as stack:
        member = await stack.enter_async_context(open_member(config, name))
        async with asyncio.timeout(20):
            await member.told.wait()
        yield Bench(config, name, member, stack.aclose)


@pytest.fixture
async def bench(kafka: str) -> AsyncIterator[Bench]:
    async with open_bench(kafka) as made:
        yield made


def new_id() -> str:
    return f"bridge.test.{secrets.token_hex(6)}"


async def wait_until(condition: Callable[[], bool], *, timeout_s: float = 20) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - other threads make it so
            await asyncio.sleep(0.02)


async def test_records_and_offset_come_together_and_the_note_is_told_as_it_was(
    bench: Bench,
) -> None:
    records = [bench.record(b"a"), bench.record(b"b"), bench.record(b"c", 2)]
    async with open_transactions(bench.config, new_id()) as transactions:
        outcome = await transactions.commit(records, bench.at(7, "1 1234"), bench.member.metadata)

    assert outcome == Committed()
    read = sorted(await bench.read(3), key=lambda record: (record.partition, record.offset))
    assert [(r.value, r.partition) for r in read] == [(b"a", 0), (b"b", 0), (b"c", 2)]
    assert read[0].headers == [("bridge-event", b"completed")]
    offset, metadata = await bench.committed()
    assert offset == 7
    assert metadata.startswith("1 1234#bridge.test.")


async def test_the_next_owner_is_told_offset_and_note_without_the_mark(bench: Bench) -> None:
    async with open_transactions(bench.config, new_id()) as transactions:
        await transactions.commit([], bench.at(3, "1 -"), bench.member.metadata)
    await bench.leave()
    async with open_member(bench.config, bench.name) as next_owner:
        await wait_until(lambda: bench.place in next_owner.owned)

        assert next_owner.owned[bench.place] == Position(3, "1 -")


async def test_many_transactions_in_a_row_are_in_order(bench: Bench) -> None:
    async with open_transactions(bench.config, new_id()) as transactions:
        for number in range(1, 21):
            value = str(number).encode()
            outcome = await transactions.commit(
                [bench.record(value)], bench.at(number), bench.member.metadata
            )
            assert outcome == Committed()

    assert await bench.values(20) == [str(number).encode() for number in range(1, 21)]
    assert (await bench.committed())[0] == 20


async def test_what_kafka_refuses_is_named_and_nothing_of_its_transaction_is_visible(
    bench: Bench,
) -> None:
    good, large = bench.record(b"a"), bench.record(TOO_LARGE)
    nowhere = Record(topic=f"{bench.name}.none", key=None, value=b"x", partition=0)
    wrong = Record(topic=f"{bench.name}.out", key=None, value=b"x", partition=99)
    async with open_transactions(bench.config, new_id()) as transactions:
        for refused, error in (
            (large, BodyTooLargeError),
            (nowhere, TopicError),
            (wrong, TopicError),
        ):
            outcome = await transactions.commit([good, refused], bench.at(1), bench.member.metadata)
            assert isinstance(outcome, NotCommitted)
            assert [record for record, _ in outcome.refused] == [refused]
            assert isinstance(outcome.refused[0][1], error)
        last = await transactions.commit([good], bench.at(2), bench.member.metadata)

    assert last == Committed()
    assert await bench.values(1) == [b"a"]
    assert (await bench.committed())[0] == 2


async def test_who_is_no_member_any_more_commits_nothing(bench: Bench) -> None:
    before = bench.member.metadata
    async with open_transactions(bench.config, new_id()) as transactions:
        async with open_member(bench.config, bench.name) as other:
            await wait_until(lambda: other.group.metadata is not None)
            gone = other.metadata
            await wait_until(lambda: bench.member.group.metadata not in {before, None})
            before = bench.member.metadata
        await wait_until(lambda: bench.member.group.metadata not in {before, None})
        outcome = await transactions.commit([bench.record(b"late")], bench.at(9), gone)
        after = await transactions.commit(
            [bench.record(b"own")], bench.at(1), bench.member.metadata
        )

    assert isinstance(outcome, Lost)
    assert after == Committed()
    assert await bench.values(1) == [b"own"]
    assert (await bench.committed())[0] == 1


async def test_an_older_generation_commits_nothing_and_the_next_one_is_told(
    bench: Bench,
) -> None:
    older = bench.member.metadata
    async with (
        open_transactions(bench.config, new_id()) as transactions,
        open_member(bench.config, bench.name),
    ):
        await wait_until(lambda: bench.member.group.metadata not in {older, None})
        refused = await transactions.commit([bench.record(b"old")], bench.at(1), older)
        again = await transactions.commit(
            [bench.record(b"new")], bench.at(1), bench.member.metadata
        )

    assert isinstance(refused, NotCommitted)
    assert again == Committed()
    assert await bench.values(1) == [b"new"]


async def test_a_second_process_with_the_same_id_ends_the_first(bench: Bench) -> None:
    same = new_id()
    async with open_transactions(bench.config, same) as first:
        await first.commit([bench.record(b"a")], bench.at(1), bench.member.metadata)
        async with open_transactions(bench.config, same) as second:
            with pytest.raises(SettingsError, match=f"id={same} is used by another process"):
                await first.commit([bench.record(b"b")], bench.at(2), bench.member.metadata)
            outcome = await second.commit([bench.record(b"c")], bench.at(2), bench.member.metadata)

    assert outcome == Committed()
    assert await bench.values(2) == [b"a", b"c"]


async def test_without_a_position_nothing_would_fence_it(bench: Bench) -> None:
    async with open_transactions(bench.config, new_id()) as transactions:
        with pytest.raises(ValueError, match="without a position"):
            await transactions.commit([bench.record(b"a")], {}, bench.member.metadata)


SLOW = Fault(END_TXN, Way.DELAY_RESPONSE, 1.0)


@dataclass(frozen=True, slots=True)
class Disturbed:
    """What a disturbed batch is, and how it is told."""

    fault: Fault
    is_abort: bool


@pytest.fixture
async def proxied(proxied_kafka: ProxiedKafka) -> AsyncIterator[Bench]:
    async with open_bench(proxied_kafka.direct) as made:
        yield made


def events(logged: Sequence[Mapping[str, object]]) -> list[str]:
    """What was told of outcomes and producers, in its order."""
    wanted = {"transaction-outcome-unknown", "transactional-producer-recreated"}
    return [str(line["event"]) for line in logged if line["event"] in wanted]


@pytest.mark.parametrize("way", [Way.DROP_RESPONSE, Way.CUT, Way.DELAY_RESPONSE])
async def test_a_commit_whose_response_is_lost_is_told_as_committed_by_a_new_producer(
    proxied: Bench, proxied_kafka: ProxiedKafka, way: Way
) -> None:
    own, proxy = {"bootstrap.servers": proxied_kafka.address}, proxied_kafka.proxy
    async with open_transactions(own, new_id()) as transactions:
        with structlog.testing.capture_logs() as logged:
            proxy.plan(Fault(END_TXN, way, 1.0))
            first = await transactions.commit(
                [proxied.record(b"a")], proxied.at(1), proxied.member.metadata
            )
        second = await transactions.commit(
            [proxied.record(b"b")], proxied.at(2), proxied.member.metadata
        )

    assert (first, second) == (Committed(), Committed())
    assert await proxied.values(2) == [b"a", b"b"]
    assert events(logged)[-1:] == ["transactional-producer-recreated"]
    assert ("transaction-outcome-unknown" in events(logged)) == (way is Way.DROP_RESPONSE)


async def test_a_commit_that_kafka_never_got_is_told_as_not_committed_and_comes_too_late(
    proxied: Bench, proxied_kafka: ProxiedKafka
) -> None:
    own, proxy = {"bootstrap.servers": proxied_kafka.address}, proxied_kafka.proxy
    batch, late_before = [proxied.record(b"a"), proxied.record(b"b", 1)], len(proxy.late)
    async with open_transactions(own, new_id()) as transactions:
        with structlog.testing.capture_logs() as logged:
            proxy.plan(Fault(END_TXN, Way.DELAY_REQUEST, 5.0))
            first = await transactions.commit(batch, proxied.at(1), proxied.member.metadata)
            second = await transactions.commit(batch, proxied.at(1), proxied.member.metadata)
        await wait_until(lambda: len(proxy.late) > late_before)

    assert isinstance(first, NotCommitted)
    assert second == Committed()
    assert sorted(str(value) for value in await proxied.values(2)) == ["b'a'", "b'b'"]
    assert proxy.late[late_before:] == [47]  # INVALID_PRODUCER_EPOCH
    assert events(logged) == ["transaction-outcome-unknown", "transactional-producer-recreated"]


async def test_an_awaiter_that_is_cancelled_leaves_no_transaction_open(
    proxied: Bench, proxied_kafka: ProxiedKafka
) -> None:
    own = {"bootstrap.servers": proxied_kafka.address}
    seen = proxied_kafka.proxy.seen[END_TXN]
    async with open_transactions(own, new_id()) as transactions, asyncio.TaskGroup() as tasks:
        proxied_kafka.proxy.plan(SLOW)
        metadata = proxied.member.metadata
        begun = tasks.create_task(
            transactions.commit([proxied.record(b"begun")], proxied.at(1), metadata)
        )
        waiting = tasks.create_task(
            transactions.commit([proxied.record(b"waiting")], proxied.at(2), metadata)
        )
        await wait_until(lambda: proxied_kafka.proxy.seen[END_TXN] > seen)
        begun.cancel()
        waiting.cancel()
        outcome = await transactions.commit([proxied.record(b"next")], proxied.at(3), metadata)

    assert outcome == Committed()
    assert await proxied.values(2) == [b"begun", b"next"]
    assert (await proxied.committed())[0] == 3
