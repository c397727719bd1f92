"""Transactions on a real Kafka that answers: all or nothing, and only from who is a member."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from bridge.envelope import Record
from bridge.errors import BodyTooLargeError, SettingsError, TopicError
from bridge.kafka import Committed, Lost, NotCommitted, Position, open_producer, open_transactions
from tests.transacting import (
    PARTITIONS,
    TOO_LARGE,
    Bench,
    new_id,
    open_bench,
    open_member,
    wait_until,
)

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def bench(kafka: str) -> AsyncIterator[Bench]:
    async with open_bench(kafka) as made:
        yield made


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
            with pytest.raises(SettingsError, match=rf"id={same}\.1 is used by another process"):
                await first.commit([bench.record(b"b")], bench.at(2), bench.member.metadata)
            outcome = await second.commit([bench.record(b"c")], bench.at(2), bench.member.metadata)

    assert outcome == Committed()
    assert await bench.values(2) == [b"a", b"c"]


async def test_without_a_position_nothing_would_fence_it(bench: Bench) -> None:
    async with open_transactions(bench.config, new_id()) as transactions:
        with pytest.raises(ValueError, match="without a position"):
            await transactions.commit([bench.record(b"a")], {}, bench.member.metadata)


@pytest.mark.full
async def test_how_many_records_a_second_go_in_transactions_of_a_hundred(bench: Bench) -> None:
    """Printed, not judged: beside the same records acknowledged and committed without transactions."""
    runs, size = 50, 100
    batches = [[bench.record(b"x" * 200, number % PARTITIONS) for number in range(size)]] * runs
    now_s = asyncio.get_running_loop().time
    async with (
        open_transactions(bench.config, new_id()) as transactions,
        open_producer(bench.config) as producer,
    ):
        for _ in range(2):  # each of the producers meets its coordinators for the first time
            await transactions.commit([bench.record(b"x")], bench.at(0), bench.member.metadata)
        began_s = now_s()
        for number, batch in enumerate(batches):
            outcome = await transactions.commit(batch, bench.at(number), bench.member.metadata)
            assert outcome == Committed()
        once = runs * size / (now_s() - began_s)
        began_s = now_s()
        for number, batch in enumerate(batches):
            await asyncio.wait([producer.route(size)(record) for record in batch])
            bench.member.group.commit(bench.at(runs + number))
        least = runs * size / (now_s() - began_s)

    assert len(await bench.read(2 * runs * size + 2)) == 2 * runs * size + 2
    print(f"{size} records a transaction: {once:,.0f}/s; at least once: {least:,.0f}/s")
