"""Which topics the services need: the table of the design, as shapes."""

from collections.abc import Mapping

from bridge.kafka import Shape
from bridge.service import Service


def shapes_of(services: Mapping[str, Service]) -> list[Shape]:
    """Return the topics of all services."""
    return [shape for service in services.values() for shape in _shapes(service)]


def _shapes(service: Service) -> list[Shape]:
    topics = service.topics
    return [
        Shape(
            name=service.requests_topic,
            partitions=topics.partitions,
            replication=topics.replication,
            settings={
                "cleanup.policy": "delete",
                "retention.ms": str(int(topics.retention_s * 1000)),
                "message.timestamp.type": "CreateTime",
            },
        ),
        Shape(
            name=service.replies_topic,
            partitions=topics.lanes,
            replication=topics.replication,
            settings={
                "cleanup.policy": "delete",
                "retention.ms": str(int(topics.result_retention_s * 1000)),
                "message.timestamp.type": "LogAppendTime",
            },
        ),
    ]
