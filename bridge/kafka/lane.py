"""Lanes: partitions of reply topics, followed from their end with a manual `assign()`.

No consumer group: nothing to rebalance, no offsets to commit. A lane is positioned at an explicit
offset: `assign(OFFSET_END)` resolves late, and a record written 0.3 s after it was never delivered
(measured, three of three).
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

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


@asynccontextmanager
async def open_lanes(config: Config, lanes: Sequence[Lane], take: Take) -> AsyncIterator[None]:
    """Follow lanes from their present end for as long as the block.

    Entered when every lane has its position: what is written from then on is delivered.

    Raises:
        BrokerDownError: Kafka does not answer.
        TopicError: A lane's topic or partition does not exist.
    """
    consumer = ck.Consumer(merge(SHARED, READING, LANES, config))
    loop = asyncio.get_running_loop()

    def poll() -> None:
        first = consumer.poll(0.1)
        if first is None:
            return
        messages = (first, *consumer.consume(BATCH, 0))
        records = [as_record(message) for message in messages if _is_record(message)]
        if records:
            loop.call_soon_threadsafe(take, records)
        if any(_is_off(message) for message in messages):
            _position(consumer, lanes)  # the topic was made anew, or cut: follow it from its end

    try:
        await asyncio.to_thread(_position, consumer, lanes)
        async with polling("lane-poll", poll):
            yield
    finally:
        await asyncio.shield(asyncio.to_thread(consumer.close))


def _position(consumer: ck.Consumer, lanes: Sequence[Lane]) -> None:
    ends = [ck.TopicPartition(topic, lane, _end(consumer, topic, lane)) for topic, lane in lanes]
    consumer.assign(ends)


def _end(consumer: ck.Consumer, topic: str, partition: int) -> int:
    try:
        _, end = consumer.get_watermark_offsets(ck.TopicPartition(topic, partition), timeout=10.0)
    except ck.KafkaException as trouble:
        raise unreadable(trouble.args[0], topic, partition) from None
    return end


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


def _is_off(message: ck.Message) -> bool:
    error = message.error()
    return error is not None and error.code() == ck.KafkaError._AUTO_OFFSET_RESET  # noqa: SLF001 - librdkafka's own name


def _is_record(message: ck.Message) -> bool:
    error = message.error()
    if error is None:
        return True
    if error.code() != ck.KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's own name
        _log.error("lane-trouble", error=error.name(), detail=error.str(), topic=message.topic())
    return False
