"""Transactions whose requests and responses are late or lost: a proxy does it to single ones.

RELIABILITY's scenario 16: the reader is read-committed and reads everything at the end. Each record
says which batch it is of, which try at it, and how many records that has. So what is torn, lost,
there twice, or visible though it was aborted, shows in what is read, whatever anybody believed.
"""

import asyncio
import itertools
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

import pytest
import structlog

from bridge.envelope import Record
from bridge.kafka import Committed, NotCommitted, Transactions, open_transactions
from tests.faults import END_TXN, PRODUCE, Fault, ProxiedKafka, Proxy, Way
from tests.transacting import PARTITIONS, TOO_LARGE, Bench, new_id, open_bench, wait_until

pytestmark = pytest.mark.timeout(120)

UNKNOWN, RECREATED = "transaction-outcome-unknown", "transactional-producer-recreated"
REFUSED = 47  # INVALID_PRODUCER_EPOCH: what a late request is told
SLOW = Fault(END_TXN, Way.DELAY_RESPONSE, 1.0)


@pytest.fixture
async def proxied(proxied_kafka: ProxiedKafka) -> AsyncIterator[Bench]:
    async with open_bench(proxied_kafka.direct) as made:
        yield made


def events(logged: Sequence[Mapping[str, object]]) -> list[str]:
    """What was told of outcomes and producers, in its order."""
    wanted = {UNKNOWN, RECREATED}
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
    assert events(logged)[-1:] == [RECREATED]
    assert (UNKNOWN in events(logged)) == (way is Way.DROP_RESPONSE)


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
    assert proxy.late[late_before:] == [REFUSED]
    assert events(logged) == [UNKNOWN, RECREATED]


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


@dataclass
class Run:
    """A row of batches, some of them disturbed.

    Attributes:
        written: Batches so far.
        committed: What is told to be committed: the try of each batch, and its number of records.
    """

    bench: Bench
    proxy: Proxy
    written: int = 0
    committed: dict[int, tuple[int, int]] = field(default_factory=dict)

    def records(self, batch: int, attempt: int) -> list[Record]:
        count = 3 + batch % 6
        return [
            self.bench.record(
                json.dumps([batch, attempt, count, index]).encode(), index % PARTITIONS
            )
            for index in range(count)
        ]

    async def write(
        self, transactions: Transactions, fault: Fault | None, *, is_abort: bool
    ) -> None:
        """Write a batch until it is committed; or, one that is to be aborted, once."""
        batch = self.written = self.written + 1
        for attempt in range(1, 4):
            if fault is not None and attempt == 1:
                self.proxy.plan(fault)
            records = self.records(batch, attempt)
            if is_abort:
                records.append(self.bench.record(TOO_LARGE))
            outcome = await transactions.commit(
                records, self.bench.at(batch), self.bench.member.metadata
            )
            if isinstance(outcome, Committed):
                self.committed[batch] = (attempt, len(records))
                return
            assert isinstance(outcome, NotCommitted)
            if is_abort:
                return
        raise AssertionError(f"batch {batch} is not committed")

    async def check(self) -> None:
        """Compare what is visible with what was told."""
        wanted = {
            (batch, attempt): list(range(count))
            for batch, (attempt, count) in self.committed.items()
        }
        found: dict[tuple[int, int], list[int]] = defaultdict(list)
        for record in await self.bench.read(sum(map(len, wanted.values()))):
            batch, attempt, _, index = json.loads(record.value or b"")
            found[batch, attempt].append(index)
        assert {key: sorted(indexes) for key, indexes in found.items()} == wanted
        assert (await self.bench.committed())[0] == max(self.committed)


def planned(disturbed: int) -> list[tuple[Fault, bool]]:
    """Every way, by turns at a commit, a commit and an abort; delays from 7 to 15 s.

    A client that is patient is done after 4 s, and takes 2 s for the next transaction, which is the
    other producer's: the late request is to come in the one after that.
    """
    ways = [Way.DELAY_REQUEST, Way.DROP_RESPONSE, Way.DELAY_RESPONSE, Way.CUT]
    return [
        (Fault(END_TXN, ways[number % 4], 7.0 + number * 7 % 9), number % 3 == 2)
        for number in range(disturbed)
    ]


async def wait_late(run: Run, transactions: Transactions, count: int, *, is_abort: bool) -> None:
    """Have a transaction open whenever a late request comes, one with the other end."""
    while len(run.proxy.late) < count:
        held = Fault(PRODUCE, Way.DELAY_RESPONSE, 2.0)
        await run.write(transactions, held, is_abort=is_abort)


async def run_scenario(kafka: ProxiedKafka, bench: Bench, batches: int, disturbed: int) -> None:
    run, proxy = Run(bench, kafka.proxy), kafka.proxy
    late_before = late = len(proxy.late)
    told: list[str] = []
    async with open_transactions({"bootstrap.servers": kafka.address}, new_id()) as transactions:
        for fault, is_abort in planned(disturbed):
            for number in range(batches // disturbed - 1):
                await run.write(transactions, None, is_abort=number % 5 == 3)
            with structlog.testing.capture_logs() as logged:
                await run.write(transactions, fault, is_abort=is_abort)
            told += events(logged)
            assert RECREATED in events(logged)
            if fault.way is Way.DELAY_REQUEST:
                late += 1
                await wait_late(run, transactions, late, is_abort=not is_abort)
        await wait_until(lambda: proxy.held == 0)
        await run.write(transactions, None, is_abort=False)

    await run.check()
    # Each outcome that is not known has its new producer right behind it.
    behind = [after for event, after in itertools.pairwise(told) if event == UNKNOWN]
    assert set(behind) == {RECREATED}
    assert proxy.late[late_before:] == [REFUSED] * (late - late_before)
    print(
        f"{run.written} transactions, {disturbed} disturbed: {len(run.committed)} committed, "
        f"{told.count(UNKNOWN)} unknown outcomes, {told.count(RECREATED)} new producers, "
        f"{late - late_before} late requests, all refused; "
        "0 torn, lost, doubled, or aborted and visible"
    )


async def test_disturbed_transactions_are_whole_or_not_there(
    proxied_kafka: ProxiedKafka, proxied: Bench
) -> None:
    await run_scenario(proxied_kafka, proxied, batches=20, disturbed=3)


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_disturbed_transactions_are_whole_or_not_there_in_full(
    proxied_kafka: ProxiedKafka, proxied: Bench
) -> None:
    await run_scenario(proxied_kafka, proxied, batches=200, disturbed=20)
