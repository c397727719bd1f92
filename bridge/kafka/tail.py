"""Tails: partitions read from a time on, to their present end, and then followed without a gap.

For whoever rebuilds what it knows from a log, and keeps it up to date. No consumer group, as with
lanes. Unlike a lane, a tail starts in the past, and where the log has gone (retention, a topic made
anew) it goes on from the log's beginning: whoever takes its records bears one twice.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from threading import Event as Flag

import confluent_kafka as ck
import structlog

from bridge.envelope import Record
from bridge.kafka.client import BATCH, READING, SHARED, Config, as_record, merge, polling
from bridge.kafka.lane import Lane, Take, unreadable

_log = structlog.get_logger("bridge.kafka")

TAILS: Config = {
    "group.id": "bridge.tails",  # the library wants one; nothing is ever committed under it
    "auto.offset.reset": "earliest",
    "enable.partition.eof": True,
    "fetch.queue.backoff.ms": 0,
    "queued.max.messages.kbytes": 4096,
}

_CALL_S = 5.0
_TAKEN_S = 60.0
"""A batch that the event loop has not taken for so long is not waited for any more."""


@asynccontextmanager
async def open_tail(
    config: Config,
    partitions: Sequence[Lane],
    take: Take,
    *,
    since_ms: int,
    at_end: Callable[[], None] = lambda: None,
) -> AsyncIterator["asyncio.Future[None]"]:
    """Read partitions from a time on and follow them for as long as the block.

    Entered when every partition has its position. Batches are handed over one at a time, so that a
    long log does not pile up in memory. Gives a future to wait for: it ends only when records were
    lost, because `take` or the reading has failed, with that error. From then on nothing is handed
    over any more, so whoever needs all of them opens another tail.

    Args:
        config: librdkafka settings.
        partitions: What to follow.
        take: Receives the records in the event loop, in order per partition.
        since_ms: Unix milliseconds by the topic's timestamps; 0: from the log's beginning.
        at_end: Called once in the event loop, when the present end of every partition has been
            taken.

    Raises:
        BrokerDownError: Kafka does not answer.
        TopicError: A topic or partition does not exist.
    """
    consumer = ck.Consumer(merge(SHARED, READING, TAILS, config))
    tail = _Tail(consumer, partitions, take, at_end)
    try:
        await asyncio.to_thread(_position, consumer, partitions, since_ms)
        async with polling("tail-poll", tail.poll):
            yield tail.lost
    finally:
        tail.lost.cancel()
        await asyncio.shield(asyncio.to_thread(consumer.close))


class _Tail:
    """Reads on the poll thread, hands over in the event loop, and stops when something was lost."""

    def __init__(
        self,
        consumer: ck.Consumer,
        partitions: Sequence[Lane],
        take: Take,
        at_end: Callable[[], None],
    ) -> None:
        self._consumer = consumer
        self._behind = set(partitions)
        self._take = take
        self._at_end = at_end
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[None] = self._loop.create_future()

    def poll(self) -> None:
        """Read what is there, on the poll thread; what is read and breaks it is lost."""
        try:
            self._read()
        except Exception as error:
            self._loop.call_soon_threadsafe(self._give_up, error)
            raise

    def _read(self) -> None:
        first = self._consumer.poll(0.1)
        if first is None or self.lost.done():
            return
        messages = (first, *self._consumer.consume(BATCH, 0))
        records = [as_record(message) for message in messages if message.error() is None]
        if records:
            taken = Flag()
            self._loop.call_soon_threadsafe(self._hand_over, records, taken)
            taken.wait(_TAKEN_S)
        if self._behind:
            self._behind.difference_update(_ended(messages))
            if not self._behind:
                self._loop.call_soon_threadsafe(self._end)
        _report(messages)

    def _hand_over(self, records: list[Record], taken: Flag) -> None:
        try:
            if not self.lost.done():
                self._take(records)
        except Exception as error:  # noqa: BLE001 - whatever it is, these records are lost
            self._give_up(error)
        finally:
            taken.set()

    def _end(self) -> None:
        if not self.lost.done():
            self._at_end()

    def _give_up(self, error: Exception) -> None:
        if not self.lost.done():
            self.lost.set_exception(error)


def _position(consumer: ck.Consumer, partitions: Sequence[Lane], since_ms: int) -> None:
    starts = [_start(consumer, place, since_ms) for place in partitions]
    consumer.assign(starts)


def _start(consumer: ck.Consumer, place: Lane, since_ms: int) -> ck.TopicPartition:
    """Find where a partition's tail starts.

    The end is asked for first: a record written between the two questions is then not passed over.
    """
    wanted = ck.TopicPartition(*place, since_ms)
    try:
        _, end = consumer.get_watermark_offsets(ck.TopicPartition(*place), timeout=_CALL_S)
        (found,) = consumer.offsets_for_times([wanted], timeout=_CALL_S)
    except ck.KafkaException as trouble:
        raise unreadable(trouble.args[0], *place) from None
    if found.error is not None:
        raise unreadable(found.error, *place)
    return ck.TopicPartition(*place, found.offset if found.offset >= 0 else end)


def _ended(messages: Sequence[ck.Message]) -> set[Lane]:
    ends = [message for message in messages if _code(message) == ck.KafkaError._PARTITION_EOF]  # noqa: SLF001 - librdkafka's own name
    return {(message.topic() or "", message.partition() or 0) for message in ends}


def _report(messages: Sequence[ck.Message]) -> None:
    for message in messages:
        error = message.error()
        if error is not None and error.code() != ck.KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's own name
            _log.error(
                "tail-trouble", error=error.name(), detail=error.str(), topic=message.topic()
            )


def _code(message: ck.Message) -> int | None:
    error = message.error()
    return None if error is None else error.code()
