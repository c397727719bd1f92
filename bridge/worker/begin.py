"""What a worker must know of Kafka before it begins."""

import asyncio

import structlog

from bridge.errors import BridgeError, TopicError
from bridge.kafka import Config, Place, describe_topics
from bridge.service import Service

_log = structlog.get_logger("bridge.worker")

_RETRY_S = 1.0


async def find_lanes(config: Config, service: Service) -> list[Place]:
    """Wait until Kafka answers, and find the lanes of a service.

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
        for topic in (service.requests_topic, service.replies_topic):
            if topic not in found:
                raise TopicError(f"{topic} does not exist: run `kbridge topics apply`")
        return [(service.replies_topic, lane) for lane in range(found[service.replies_topic])]
