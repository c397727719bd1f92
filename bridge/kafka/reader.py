"""Bounded reads of what is already there: a partition, or several, from a time to the end.

Look-ups use consumers of their own, never the lane reader: a partition added to a consumer whose
long poll is pending waits that poll out (measured: 502 ms at `fetch.wait.max.ms` 500), a pooled one
that holds nothing reads its first record in 5 ms. The end is PARTITION_EOF, never offset
arithmetic: a commit marker takes an offset.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import confluent_kafka as ck

from bridge.envelope import Record
from bridge.errors import BrokerDownError
from bridge.kafka.client import BATCH, READING, SHARED, Config, as_record, merge
from bridge.kafka.lane import Lane, unreadable

BOUNDED: Config = {
    "group.id": "bridge.lookups",  # the library wants one; nothing is ever committed under it
    "auto.offset.reset": "earliest",  # retention may overtake a look-up: then the rest is read
    "enable.partition.eof": True,
    "fetch.wait.max.ms": 10,  # an empty end is told after 10 ms, not after 500
    "fetch.queue.backoff.ms": 0,
    "queued.max.messages.kbytes": 4096,
}

_PATIENCE_S = 10.0
"""A broker that says nothing for so long is down for this read."""

IsEnough = Callable[[Record], bool]
"""Told each record in partition order; True ends the read of that partition."""

_Seek = Callable[[ck.Consumer], list[ck.TopicPartition]]


class Reader:
    """A pool of consumers for bounded reads; at most `size` reads at once, the others queue."""

    def __init__(self, config: Config, size: int) -> None:
        self._config = merge(SHARED, READING, BOUNDED, config)
        self._idle: list[ck.Consumer] = []
        self._slots = asyncio.Semaphore(size)

    async def read(self, lanes: Sequence[Lane], *, since_ms: int, is_enough: IsEnough) -> None:
        """Read partitions from a time to their present end, or until `is_enough` says so.

        Args:
            lanes: What to read.
            since_ms: Unix milliseconds by the topic's timestamps; older records are passed over.
            is_enough: Called for each record, on another thread.

        Raises:
            BrokerDownError: Kafka does not answer.
            TopicError: A topic or partition does not exist.
        """
        await self._run(lambda consumer: _seek(consumer, lanes, since_ms), is_enough)

    async def read_on(self, lane: Lane, offset: int, *, is_enough: IsEnough) -> None:
        """Read one partition on from an offset, or from its beginning where that is gone.

        Args:
            lane: What to read.
            offset: The first record that is wanted.
            is_enough: Called for each record, on another thread.

        Raises:
            As `read`.
        """
        await self._run(lambda _: [ck.TopicPartition(*lane, offset)], is_enough)

    async def bounds(self, lane: Lane) -> tuple[int, int]:
        """Return a partition's oldest offset, and the one after its newest, at the moment.

        Raises:
            As `read`.
        """
        found: list[tuple[int, int]] = []

        def ask(consumer: ck.Consumer) -> list[ck.TopicPartition]:
            found.append(_bounds(consumer, lane))
            return []

        await self._run(ask, _never)
        return found[0]

    async def find_offset(self, lane: Lane, time_ms: int) -> int | None:
        """Return the first offset of a partition with this timestamp or a later one; None: none has.

        Raises:
            As `read`.
        """
        found: list[ck.TopicPartition] = []

        def ask(consumer: ck.Consumer) -> list[ck.TopicPartition]:
            found.extend(_seek(consumer, [lane], time_ms))
            return []

        await self._run(ask, _never)
        return found[0].offset if found else None

    async def kept_since_ms(self, lane: Lane) -> int | None:
        """Return from when on a partition still has all of its records, Unix milliseconds.

        Returns:
            The time of its oldest record; 0: none was ever deleted. None: all were.

        Raises:
            As `read`.
        """
        found: list[int] = []

        def seek(consumer: ck.Consumer) -> list[ck.TopicPartition]:
            low, high = _bounds(consumer, lane)
            if low == 0:
                found.append(0)
            return [ck.TopicPartition(*lane, low)] if 0 < low < high else []

        def is_enough(record: Record) -> bool:
            found.append(record.timestamp_ms)
            return True

        await self._run(seek, is_enough)
        return found[0] if found else None

    async def _run(self, seek: _Seek, is_enough: IsEnough) -> None:
        async with self._slots:
            consumer = self._idle.pop() if self._idle else ck.Consumer(self._config)
            try:
                await asyncio.to_thread(_read, consumer, seek, is_enough)
            except BaseException:
                await asyncio.shield(asyncio.to_thread(consumer.close))
                raise
            self._idle.append(consumer)

    def close(self) -> None:
        """Close the idle consumers; blocks."""
        while self._idle:
            self._idle.pop().close()


@asynccontextmanager
async def open_reader(config: Config, *, size: int = 4) -> AsyncIterator[Reader]:
    """Keep a pool of consumers for bounded reads for as long as the block."""
    reader = Reader(config, size)
    try:
        yield reader
    finally:
        await asyncio.shield(asyncio.to_thread(reader.close))


def _read(consumer: ck.Consumer, seek: _Seek, is_enough: IsEnough) -> None:
    starts = seek(consumer)
    going = {(start.topic, start.partition) for start in starts}
    if not going:
        return
    consumer.assign(starts)
    try:
        while going:
            first = consumer.poll(_PATIENCE_S)
            if first is None:
                raise BrokerDownError(f"Kafka sent nothing for {_PATIENCE_S:.0f} s: try again")
            for message in (first, *consumer.consume(BATCH, 0)):
                _take(message, going, is_enough)
    finally:
        consumer.unassign()


def _never(_: Record) -> bool:
    return True


def _bounds(consumer: ck.Consumer, lane: Lane) -> tuple[int, int]:
    try:
        low, high = consumer.get_watermark_offsets(ck.TopicPartition(*lane), timeout=_PATIENCE_S)
    except ck.KafkaException as trouble:
        raise unreadable(trouble.args[0], *lane) from None
    return low, high


def _take(message: ck.Message, going: set[tuple[str, int]], is_enough: IsEnough) -> None:
    place = (message.topic() or "", message.partition() or 0)
    error = message.error()
    if error is None:
        if place in going and is_enough(as_record(message)):
            going.discard(place)
    elif error.code() == ck.KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's own name
        going.discard(place)
    elif place in going and not error.retriable():
        raise unreadable(error, *place)


def _seek(consumer: ck.Consumer, lanes: Sequence[Lane], since_ms: int) -> list[ck.TopicPartition]:
    """Find where to start; partitions that end before `since_ms` are left out."""
    wanted = [ck.TopicPartition(topic, lane, max(0, since_ms)) for topic, lane in lanes]
    try:
        found = consumer.offsets_for_times(wanted, timeout=_PATIENCE_S)
    except ck.KafkaException as trouble:
        raise unreadable(trouble.args[0], *lanes[0]) from None
    for place in found:
        if place.error is not None:
            raise unreadable(place.error, place.topic, place.partition)
    return [place for place in found if place.offset >= 0]
