"""Which topics the services need: the table of the design, as shapes."""

from collections.abc import Mapping

from bridge import cancels, claims, dead, replays
from bridge.kafka import Shape
from bridge.service import Service

_SPARE_S = 3600
_LARGE = {"max.message.bytes": str(dead.MAX_RECORD_BYTES)}

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

_REPLAYS = Shape(
    name=replays.TOPIC,
    partitions=replays.PARTITIONS,
    settings={
        "cleanup.policy": "compact",
        # Who runs what is told by the broker's clock.
        "message.timestamp.type": "LogAppendTime",
        "max.message.bytes": str(replays.MAX_BYTES),
    },
)


def shapes_of(services: Mapping[str, Service]) -> list[Shape]:
    """Return the topics of all services, and those that they share."""
    shapes = [shape for service in services.values() for shape in _shapes(service)]
    return [*shapes, _CANCELS, _claims(services), _REPLAYS]


def _claims(services: Mapping[str, Service]) -> Shape:
    """Return the topic of claims: whatever may still rule, and all that ruled before it, is kept.

    Never compacted: that would keep the last claim of a key, and the first one wins.
    """
    kept_s = max((service.topics.result_retention_s for service in services.values()), default=0)
    return Shape(
        name=claims.TOPIC,
        partitions=claims.PARTITIONS,
        must_keep=True,
        settings={
            "cleanup.policy": "delete",
            "retention.ms": str((2 * kept_s + _SPARE_S) * 1000),
            "message.timestamp.type": "LogAppendTime",
        },
    )


def _shapes(service: Service) -> list[Shape]:
    return [
        _shape(
            service,
            service.requests_topic,
            keep_s=service.topics.retention_s,
            extra={"message.timestamp.type": "CreateTime"},
        ),
        _shape(
            service,
            service.replies_topic,
            partitions=service.topics.lanes,
            keep_s=service.topics.result_retention_s,
            must_keep=True,
        ),
        # By the broker's clock: a worker whose own is wrong would have its dead letters deleted at
        # once, or never. When the original was written is in its header.
        _shape(service, service.dead_topic, keep_s=dead.KEEP_S, extra=_LARGE),
        # By the same clock, so that one time separates what was redriven before from what after.
        _shape(service, service.replay_topic, keep_s=dead.REPLAY_KEEP_S, extra=_LARGE),
        _shape(
            service,
            service.replay_replies_topic,
            partitions=service.topics.lanes,
            keep_s=dead.REPLAY_KEEP_S,
        ),
    ]


def _shape(
    service: Service,
    name: str,
    *,
    keep_s: int,
    partitions: int = 0,
    extra: Mapping[str, str] | None = None,
    must_keep: bool = False,
) -> Shape:
    """Make the shape of one of a service's topics; as many partitions as requests unless said."""
    return Shape(
        name=name,
        partitions=partitions or service.topics.partitions,
        replication=service.topics.replication,
        must_keep=must_keep,
        settings={
            "cleanup.policy": "delete",
            "retention.ms": str(keep_s * 1000),
            "message.timestamp.type": "LogAppendTime",
            **(extra or {}),
        },
    )
