"""Look-ups that come at once share reads, and each is told all that it would have read alone."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from bridge.envelope import REQUEST_ID, Record
from bridge.errors import BrokerDownError
from bridge.ingress.reads import MAX_READS, NEAR_MS, Look, SharedReads

LANE = ("echo.replies", 3)


class Log:
    """A lane of records, read as slowly as is told."""

    def __init__(self, records: list[Record]) -> None:
        self.records = records
        self.reads = 0
        self.records_read = 0
        self.goes_on = asyncio.Event()
        self.error: Exception | None = None

    async def read(
        self,
        lanes: Sequence[tuple[str, int]],
        *,
        since_ms: int,
        is_enough: Callable[[Record], bool],
    ) -> None:
        assert list(lanes) == [LANE]
        self.reads += 1
        await self.goes_on.wait()
        if self.error is not None:
            raise self.error
        for record in self.records:
            self.records_read += 1
            if record.timestamp_ms >= since_ms and is_enough(record):
                return


def record(name: str, time_ms: int) -> Record:
    headers = [(REQUEST_ID, name.encode())]
    return Record(topic="", key=None, value=None, headers=headers, timestamp_ms=time_ms)


def looking(
    name: str, told: list[int], *, since_ms: int = 0, until_ms: int = 100, last: int = 99
) -> Look:
    def is_enough(found: Record) -> bool:
        told.append(found.timestamp_ms)
        return found.timestamp_ms >= last

    return Look(name, since_ms, is_enough, lambda: until_ms)


async def test_who_comes_at_once_is_served_by_few_reads() -> None:
    log = Log([record(f"r{n}", time_ms) for time_ms in (1, 2) for n in range(100)])
    reads = SharedReads(log.read)
    told: list[list[int]] = [[] for _ in range(100)]

    async with asyncio.TaskGroup() as tasks:
        for n in range(100):
            tasks.create_task(reads.look(LANE, looking(f"r{n}", told[n])))
        await asyncio.sleep(0)
        log.goes_on.set()

    assert told == [[1, 2]] * 100
    assert log.reads <= MAX_READS * 2


async def test_who_starts_far_away_reads_alone() -> None:
    log = Log([record("near", 5), record("far", NEAR_MS * 2)])
    reads = SharedReads(log.read)
    near: list[int] = []
    far: list[int] = []

    async with asyncio.TaskGroup() as tasks:
        for _ in range(MAX_READS):
            tasks.create_task(reads.look(LANE, looking("x", [])))
        await asyncio.sleep(0)
        tasks.create_task(reads.look(LANE, looking("near", near)))
        long = looking("far", far, since_ms=NEAR_MS * 2, until_ms=NEAR_MS * 3, last=NEAR_MS * 3)
        tasks.create_task(reads.look(LANE, long))
        await asyncio.sleep(0)
        log.goes_on.set()

    assert (near, far) == ([5], [NEAR_MS * 2])
    assert log.reads == MAX_READS + 2


async def test_a_read_ends_when_nobody_wants_more() -> None:
    log = Log([record("a", 1), record("b", 99), record("a", 99), record("a", 100)])
    log.goes_on.set()
    told: list[int] = []
    late: list[int] = []

    await SharedReads(log.read).look(LANE, looking("a", told))
    await SharedReads(log.read).look(LANE, looking("b", late, until_ms=50))

    assert told == [1, 99]
    assert late == []
    assert log.records_read == 3 + 2


async def test_those_who_shared_a_read_read_again_when_its_reader_left() -> None:
    log = Log([record("a", 1), record("b", 1)])
    reads = SharedReads(log.read)
    told: list[int] = []

    async with asyncio.TaskGroup() as tasks:
        leading = [tasks.create_task(reads.look(LANE, looking("a", []))) for _ in range(MAX_READS)]
        await asyncio.sleep(0)
        second = tasks.create_task(reads.look(LANE, looking("a", [])))
        third = tasks.create_task(reads.look(LANE, looking("b", told)))
        fourth = tasks.create_task(reads.look(LANE, looking("b", told)))
        await asyncio.sleep(0)
        leading[0].cancel()  # the second leads now, for the others as well
        for _ in range(3):
            await asyncio.sleep(0)
        second.cancel()
        fourth.cancel()
        for _ in range(3):
            await asyncio.sleep(0)
        log.goes_on.set()
        await third

    assert told == [1]
    assert second.cancelled()


async def test_what_breaks_a_read_is_told_to_all_who_shared_it() -> None:
    log = Log([])
    log.error = BrokerDownError("away")
    reads = SharedReads(log.read)

    async def look() -> None:
        with pytest.raises(BrokerDownError):
            await reads.look(LANE, looking("a", []))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(10):
            tasks.create_task(look())
        await asyncio.sleep(0)
        log.goes_on.set()

    assert log.reads <= MAX_READS * 2
    log.error = None
    await reads.look(LANE, looking("a", []))
