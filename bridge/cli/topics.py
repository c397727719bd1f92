"""Which topics the services need: the table of the design, as shapes."""

from collections.abc import Mapping

from bridge import cancels, claims
from bridge.kafka import Shape
from bridge.service import Service

_SPARE_S = 3600

_CANCELS = Shape(
    name=cancels.TOPIC,
    partitions=1,
    settings={
        "cleanup.policy": "delete",
        "retention.ms": str(int(cancels.KEEP_S * 1000)),
        # A segment is deleted as a whole, and the one that is written to never.
        "segment.ms": "86400000",
        "message.timestamp.type": "LogAppendTime",
    },
)


def shapes_of(services: Mapping[str, Service]) -> list[Shape]:
    """Return the topics of all services, and those that they share."""
    shapes = [shape for service in services.values() for shape in _shapes(service)]
    return [*shapes, _CANCELS, _claims(services)]


def _claims(services: Mapping[str, Service]) -> Shape:
    """Return the topic of claims: whatever may still rule, and all that ruled before it, is kept.

    Never compacted: that would keep the last claim of a key, and the first one wins.
    """
    kept_s = max((service.topics.result_retention_s for service in services.values()), default=0)
    return Shape(
        name=claims.TOPIC,
        partitions=claims.PARTITIONS,
        settings={
            "cleanup.policy": "delete",
            "retention.ms": str((2 * kept_s + _SPARE_S) * 1000),
            "message.timestamp.type": "LogAppendTime",
        },
    )


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
