"""Lanes: partitions of reply topics, followed from their end with a manual `assign()`.

No consumer group: nothing to rebalance, no offsets to commit. A lane is positioned at an explicit
offset: `assign(OFFSET_END)` resolves late, and a record written 0.3 s after it was never delivered
(measured, three of three). A lane whose position is gone, because its topic was made anew or cut,
goes on from its end, and whoever takes its records is told that some may have passed by.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import confluent_kafka as ck
import structlog

from bridge.envelope import Record
from bridge.errors import BrokerDownError, TopicError
from bridge.kafka.client import BATCH, READING, SHARED, Config, as_record, merge, polling

_log = structlog.get_logger("bridge.kafka")

Lane = tuple[str, int]
"""A reply topic and one partition of it."""

Take = Callable[[list[Record]], None]
"""Receives what was read, in order, in the event loop."""

LANES: Config = {
    "group.id": "bridge.lanes",  # the library wants one; nothing is ever committed under it
    "auto.offset.reset": "error",
    "queued.max.messages.kbytes": 16_384,
}


CALL_S = 10.0
"""So long Kafka may take to say where a lane ends, if whoever asks has as much time."""
_AGAIN_S = 1.0
"""A lane that is off is placed anew at once, or tried again after this; the others wait so long."""
_OFF = frozenset({ck.KafkaError._AUTO_OFFSET_RESET, ck.KafkaError._LOG_TRUNCATION})  # noqa: SLF001 - librdkafka's own names


def _ignore() -> None:
    pass


@asynccontextmanager
async def open_lanes(
    config: Config,
    lanes: Sequence[Lane],
    take: Take,
    on_gap: Callable[[], None] = _ignore,
    *,
    limit_s: float = CALL_S,
) -> AsyncIterator[None]:
    """Follow lanes from their present end for as long as the block.

    Entered when every lane has its position: what is written from then on is delivered.

    Args:
        config: librdkafka settings.
        lanes: What to follow.
        take: Receives what was read, in order per lane, in the event loop.
        on_gap: Called in the event loop, between the records before it and those after it, when a
            lane was placed anew: what was written meanwhile is not delivered.
        limit_s: How long Kafka may take to say where a lane ends, in seconds.

    Raises:
        BrokerDownError: Kafka does not answer.
        TopicError: A lane's topic or partition does not exist.
    """
    consumer = ck.Consumer(merge(SHARED, READING, LANES, config))
    loop = asyncio.get_running_loop()
    off: set[Lane] = set()
    again_s = 0.0

    def poll() -> None:
        nonlocal again_s
        if off and loop.time() >= again_s:
            again_s = loop.time() + _AGAIN_S
            if _place_anew(consumer, off):
                loop.call_soon_threadsafe(on_gap)
        first = consumer.poll(0.1)
        if first is None:
            return
        messages = (first, *consumer.consume(BATCH, 0))
        records = [as_record(message) for message in messages if _is_record(message)]
        if records:
            loop.call_soon_threadsafe(take, records)
        off.update(_place(message) for message in messages if _code(message) in _OFF)

    try:
        await asyncio.to_thread(_position, consumer, lanes, limit_s)
        async with polling("lane-poll", poll):
            yield
    finally:
        await asyncio.shield(asyncio.to_thread(consumer.close))


def _position(consumer: ck.Consumer, lanes: Sequence[Lane], limit_s: float) -> None:
    consumer.assign([_end(consumer, lane, limit_s) for lane in lanes])


def _place_anew(consumer: ck.Consumer, off: set[Lane]) -> bool:
    """Let lanes go on from their end, and the others where they are; what fails is tried again.

    Returns:
        Whether any does.
    """
    placed = set()
    for lane in sorted(off):
        try:
            end = _end(consumer, lane, _AGAIN_S)
            with suppress(ck.KafkaException):  # at a second try it is none of ours
                consumer.incremental_unassign([ck.TopicPartition(*lane)])  # it cannot be sought in
            consumer.incremental_assign([end])
            placed.add(lane)
        except (BrokerDownError, TopicError, ck.KafkaException) as trouble:
            _log.warning("lane-not-placed", why=str(trouble))
    off -= placed
    return bool(placed)


def _end(consumer: ck.Consumer, lane: Lane, limit_s: float) -> ck.TopicPartition:
    try:
        _, end = consumer.get_watermark_offsets(ck.TopicPartition(*lane), timeout=limit_s)
    except ck.KafkaException as trouble:
        raise unreadable(trouble.args[0], *lane) from None
    return ck.TopicPartition(*lane, end)


def unreadable(error: ck.KafkaError, topic: str, partition: int) -> BrokerDownError | TopicError:
    """Say why a partition cannot be read: it is not there, or Kafka is not."""
    missing = {
        ck.KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001 - librdkafka's own names
        ck.KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001
        ck.KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
    if error.code() in missing:
        return TopicError(f"{topic}/{partition} does not exist: run `kbridge topics apply`")
    return BrokerDownError(f"{topic}/{partition} cannot be read: {error.str()}")


def _place(message: ck.Message) -> Lane:
    return message.topic() or "", message.partition() or 0


def _code(message: ck.Message) -> int | None:
    error = message.error()
    return None if error is None else error.code()


def _is_record(message: ck.Message) -> bool:
    error = message.error()
    if error is None:
        return True
    if error.code() != ck.KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's own name
        _log.error("lane-trouble", error=error.name(), detail=error.str(), topic=message.topic())
    return False
