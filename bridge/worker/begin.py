"""What a worker must have, and must know of Kafka, before it begins."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from bridge.errors import BridgeError, TopicError
from bridge.kafka import Config, Place, Producer, Reader, describe_topics
from bridge.service import Service
from bridge.worker.cancelled import Cancelled

_log = structlog.get_logger("bridge.worker")

_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Clients:
    """What the workers of one process share.

    Attributes:
        config: librdkafka settings.
        producer: Writes events.
        reader: Reads the reply log back.
        cancelled: What has been cancelled.
        draw: Draws a number in [0, 1).
        name: This process, for people.
        run_id: This process, unlike any other there ever was.
    """

    config: Config
    producer: Producer
    reader: Reader
    cancelled: Cancelled
    draw: Callable[[], float]
    name: str
    run_id: str


async def find_places(config: Config, service: Service) -> tuple[list[Place], Place]:
    """Wait until Kafka answers, and find the lanes of a service, and what is replayed to it.

    Returns:
        Its lanes, those of replays too; the topic of replayed requests, and its partitions.

    Raises:
        TopicError: The service's topics do not exist.
    """
    while True:
        try:
            found = await describe_topics(config)
        except BridgeError as trouble:
            _log.warning("kafka-away", why=str(trouble))
            await asyncio.sleep(_RETRY_S)
            continue
        for topic in (
            *(service.requests_topic, service.replies_topic, service.dead_topic),
            *(service.replay_topic, service.replay_replies_topic),
        ):
            if topic not in found:
                raise TopicError(f"{topic} does not exist: run `kbridge topics apply`")
        topics = (service.replies_topic, service.replay_replies_topic)
        lanes = [(topic, lane) for topic in topics for lane in range(found[topic])]
        return lanes, (service.replay_topic, found[service.replay_topic])
