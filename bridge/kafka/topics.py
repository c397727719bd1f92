"""Topics: made on purpose, checked before use, never by auto-creation."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Event

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient, ConfigResource, OffsetSpec  # type: ignore[attr-defined]  # so the library documents it
from confluent_kafka.cimpl import NewTopic

from bridge.errors import BrokerDownError, TopicError
from bridge.kafka.client import SHARED, Config, merge

_PATIENCE_S = 10.0
_SAFE_BROKERS = 3
_FIXED = ("cleanup.policy", "message.timestamp.type")
_LEAST = {"retention.ms": "keeps records for", "max.message.bytes": "takes records up to"}
"""Settings that may be larger than wanted, and what a smaller one does; -1 is without end."""
_LEADER_TRIES, _LEADER_PAUSE_S = 50, 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a topic must be.

    Attributes:
        name: Its name.
        partitions: How many.
        replication: Copies of each; 0: three where there are three brokers or more, else one.
        settings: Topic-level configuration, by Kafka's names.
        must_keep: What is deleted before its time breaks a promise: it could be done twice.
    """

    name: str
    partitions: int
    replication: int = 0
    settings: dict[str, str] = field(default_factory=dict)
    must_keep: bool = False


async def describe_topics(config: Config) -> dict[str, int]:
    """Return every topic with its number of partitions.

    Raises:
        BrokerDownError: Kafka does not answer.
    """
    metadata = await _metadata(config, _PATIENCE_S)
    return {name: len(topic.partitions) for name, topic in metadata.topics.items()}


@dataclass(frozen=True, slots=True)
class Facts:
    """What is to be known of a topic before it is copied from or to.

    Attributes:
        id: Kafka's own name of it: one that was made anew has another.
        partitions: How many.
        settings: Its configuration, by Kafka's names.
    """

    id: str
    partitions: int
    settings: Mapping[str, str]


async def look_at_topic(config: Config, name: str) -> Facts:
    """Return what Kafka says of one topic.

    Raises:
        BrokerDownError: Kafka does not answer.
        TopicError: There is no such topic.
    """
    return await asyncio.to_thread(_look_at_topic, config, name)


def _look_at_topic(config: Config, name: str) -> Facts:
    admin = _admin(config)  # held until the future is done: it ends with it
    asked = admin.describe_topics(ck.TopicCollection([name]), request_timeout=_PATIENCE_S)
    try:
        found = asked[name].result()
    except ck.KafkaException as refused:
        error = refused.args[0]
        if error.code() == ck.KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise TopicError(f"topic {name} does not exist: create it first") from None
        raise BrokerDownError(f"{name} cannot be looked at: {error.str()}") from None
    settings = _read_settings(config, [Shape(name=name, partitions=0)])[name]
    return Facts(str(found.topic_id), len(found.partitions), settings)


async def apply_topics(config: Config, shapes: Sequence[Shape]) -> list[str]:
    """Create the topics that are missing; those that exist are left alone.

    Returns:
        The names of those created.

    Raises:
        BrokerDownError: Kafka does not answer.
        TopicError: Kafka refused one; those before it exist.
    """
    metadata = await _metadata(config, _PATIENCE_S)
    missing = [shape for shape in shapes if shape.name not in metadata.topics]
    if missing:
        await asyncio.to_thread(_create, config, missing, len(metadata.brokers))
    return [shape.name for shape in missing]


@dataclass(frozen=True, slots=True)
class Report:
    """What `check_topics` found, one sentence each.

    Attributes:
        wrong: The services do not work so.
        warnings: They work, but a promise does not hold.
    """

    wrong: list[str]
    warnings: list[str]


async def check_topics(config: Config, shapes: Sequence[Shape]) -> Report:
    """Compare the topics that exist with what is wanted.

    Raises:
        BrokerDownError: Kafka does not answer.
    """
    metadata = await _metadata(config, _PATIENCE_S)
    found = metadata.topics
    there = [shape for shape in shapes if shape.name in found]
    settings = await asyncio.to_thread(_read_settings, config, there) if there else {}
    wrong: list[str] = []
    warnings: list[str] = []
    for shape in shapes:
        if shape.name not in found:
            wrong.append(f"{shape.name} does not exist: run `kbridge topics apply`")
            continue
        count = len(found[shape.name].partitions)
        if count != shape.partitions:
            wrong.append(f"{shape.name} has {count} partitions: want {shape.partitions}")
        wrong += _compare(shape, settings[shape.name])
        less = _compare_least(shape, settings[shape.name])
        (wrong if shape.must_keep else warnings).extend(less)
    if len(metadata.brokers) < _SAFE_BROKERS:
        warnings.append(
            f"{len(metadata.brokers)} broker(s): a request survives the loss of a broker only "
            "where there are three or more"
        )
    return Report(wrong, warnings)


def _read_settings(config: Config, shapes: Sequence[Shape]) -> dict[str, dict[str, str]]:
    """Return the settings of topics that exist, by Kafka's names."""
    admin = _admin(config)  # held until the futures are done: they end with it
    wanted = [ConfigResource(ConfigResource.Type.TOPIC, shape.name) for shape in shapes]
    asked = admin.describe_configs(wanted, request_timeout=_PATIENCE_S)
    try:
        return {
            resource.name: {name: entry.value for name, entry in future.result().items()}
            for resource, future in asked.items()
        }
    except ck.KafkaException as refused:
        raise BrokerDownError(
            f"the settings of the topics cannot be read: {refused.args[0].str()}"
        ) from None


def _compare(shape: Shape, found: Mapping[str, str]) -> list[str]:
    """Say which settings break what the topic is for."""
    return [
        f"{shape.name} has {name}={found.get(name)}: want {shape.settings[name]}"
        for name in _FIXED
        if name in shape.settings and found.get(name) != shape.settings[name]
    ]


def _compare_least(shape: Shape, found: Mapping[str, str]) -> list[str]:
    """Say what is less than it should be; more does no harm."""
    sentences = []
    if shape.must_keep and int(found.get("retention.bytes", -1)) >= 0:
        sentences.append(
            f"{shape.name} has retention.bytes={found['retention.bytes']}: want -1, for it must "
            "keep by time alone"
        )
    for name, what in _LEAST.items():
        wanted, there = int(shape.settings.get(name, -1)), int(found.get(name, -1))
        if 0 <= there < wanted:
            sentences.append(
                f"{shape.name} {what} {name}={there}: the services want {wanted}; "
                "`kafka-configs --alter` changes it"
            )
    return sentences


async def _metadata(config: Config, timeout_s: float) -> ck.admin.ClusterMetadata:  # type: ignore[name-defined]  # not in the stubs
    try:
        return await asyncio.to_thread(_admin(config).list_topics, timeout=timeout_s)
    except ck.KafkaException as trouble:
        servers = config.get("bootstrap.servers")
        raise BrokerDownError(
            f"no Kafka answers at {servers}: {trouble.args[0].str()}; start it, or set BRIDGE_KAFKA"
        ) from None


def _admin(config: Config) -> AdminClient:
    return AdminClient(merge(SHARED, config))  # type: ignore[arg-type]  # the stub does not take callbacks among the values


def _create(config: Config, shapes: Sequence[Shape], brokers: int) -> None:
    is_safe = brokers >= _SAFE_BROKERS
    extra = (
        {"min.insync.replicas": "2", "unclean.leader.election.enable": "false"} if is_safe else {}
    )
    new = [
        NewTopic(
            shape.name,
            num_partitions=shape.partitions,
            replication_factor=shape.replication or (_SAFE_BROKERS if is_safe else 1),
            config={**extra, **shape.settings},
        )
        for shape in shapes
    ]
    admin = _admin(config)  # held until the futures are done: they end with it
    made = admin.create_topics(new, operation_timeout=30.0, request_timeout=30.0)
    for name, future in made.items():
        _await_created(name, future)
    _await_leaders(admin, shapes)


def _await_leaders(admin: AdminClient, shapes: Sequence[Shape]) -> None:
    """Wait until new partitions can be used: right after their creation their leaders refuse.

    For a while only; later whoever uses them waits by itself.
    """
    latest: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # not in the stubs
    waiting = [
        ck.TopicPartition(shape.name, number)
        for shape in shapes
        for number in range(shape.partitions)
    ]
    pause = Event()
    for _ in range(_LEADER_TRIES):
        asked = admin.list_offsets(dict.fromkeys(waiting, latest), request_timeout=_PATIENCE_S)
        waiting = [place for place, future in asked.items() if future.exception() is not None]
        if not waiting:
            return
        pause.wait(_LEADER_PAUSE_S)


def _await_created(name: str, future: "Future[None]") -> None:
    try:
        future.result()
    except ck.KafkaException as refused:
        if refused.args[0].code() != ck.KafkaError.TOPIC_ALREADY_EXISTS:
            raise TopicError(f"{name} cannot be created: {refused.args[0].str()}") from None
