"""What Kafka knows of consumer groups: who is in them, and how far they have come.

A few calls for each group, bounded in time, on a thread of their own. None of them is of the admin
client's newer kind, which answer with futures: those that go to a coordinator end the whole process
when it is lost while they wait (librdkafka 2.16: a segmentation fault, or a failed assertion in
`rd_kafka_enq_once_del_source_return`). A consumer that never joins the group asks for the offsets.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient

from bridge.errors import BrokerDownError
from bridge.kafka.client import READING, SHARED, Config, merge

_PATIENCE_S = 4.0
_AWAY = frozenset({ck.KafkaError._TIMED_OUT, ck.KafkaError._TRANSPORT, ck.KafkaError._WAIT_COORD})  # noqa: SLF001 - librdkafka's own names


@dataclass(frozen=True, slots=True)
class Backlog:
    """How far a group has come with a topic.

    Attributes:
        members: Processes in the group.
        committed: Next offset to finish, by partition; where nothing was ever committed, the
            oldest that is kept.
        ends: Next offset to be written, by partition.
    """

    members: int
    committed: dict[int, int]
    ends: dict[int, int]


Wanted = Mapping[tuple[str, str], int]
"""How many partitions a topic has, by group and topic: services may share a group."""


class Groups:
    """Asks Kafka about groups; used by one task at a time."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._admin = AdminClient(merge(SHARED, config))  # type: ignore[arg-type]  # the stub does not take callbacks among the values
        self._consumers: dict[str, ck.Consumer] = {}

    def close(self) -> None:
        """Close the consumers; blocks."""
        while self._consumers:
            self._consumers.popitem()[1].close()

    async def look(self, wanted: Wanted) -> dict[tuple[str, str], Backlog]:
        """Return how far each group has come with a topic; groups that cannot be seen are left out.

        Raises:
            BrokerDownError: None can be seen: Kafka does not answer, or does not allow to ask.
        """
        found, trouble = await asyncio.to_thread(self._look, wanted)
        if trouble is not None and not found:
            raise BrokerDownError(f"the workers' groups cannot be looked at: {trouble.str()}")
        return found

    def _look(self, wanted: Wanted) -> tuple[dict[tuple[str, str], Backlog], ck.KafkaError | None]:
        found: dict[tuple[str, str], Backlog] = {}
        trouble: ck.KafkaError | None = None
        for (group, topic), count in wanted.items():
            try:
                found[group, topic] = self._ask(group, topic, count)
            except ck.KafkaException as failed:
                trouble = failed.args[0]
                if trouble.code() in _AWAY:  # the others would wait as long, one after the other
                    break
        return found, trouble

    def _ask(self, group: str, topic: str, count: int) -> Backlog:
        consumer = self._consumers.get(group)
        if consumer is None:
            config = merge(SHARED, READING, self._config, {"group.id": group})
            consumer = self._consumers[group] = ck.Consumer(config)
        places = [ck.TopicPartition(topic, partition) for partition in range(count)]
        committed = _offsets(consumer.committed(places, timeout=_PATIENCE_S))
        ends = _bounds(consumer, topic, count, ck.OFFSET_END)
        never = any(offset < 0 and ends[place] > 0 for place, offset in committed.items())
        lows = _bounds(consumer, topic, count, ck.OFFSET_BEGINNING) if never else {}
        return Backlog(
            members=self._count_members(group),
            committed={
                place: offset if offset >= 0 else lows.get(place, 0)
                for place, offset in committed.items()
            },
            ends=ends,
        )

    def _count_members(self, group: str) -> int:
        # Not AdminClient's own method of this name, which warns that it is deprecated.
        found = super(AdminClient, self._admin).list_groups(group=group, timeout=_PATIENCE_S)
        return sum(len(each.members) for each in found)


@asynccontextmanager
async def open_groups(config: Config) -> AsyncIterator[Groups]:
    """Keep clients that ask about groups for as long as the block."""
    groups = Groups(config)
    try:
        yield groups
    finally:
        await asyncio.shield(asyncio.to_thread(groups.close))


def _bounds(consumer: ck.Consumer, topic: str, count: int, which: int) -> dict[int, int]:
    """Ask for all ends, or beginnings, in one call: as times they mean the same to a broker."""
    asked = [ck.TopicPartition(topic, partition, which) for partition in range(count)]
    return _offsets(consumer.offsets_for_times(asked, timeout=_PATIENCE_S))


def _offsets(found: list[ck.TopicPartition]) -> dict[int, int]:
    for place in found:
        if place.error is not None:
            raise ck.KafkaException(place.error)
    return {place.partition: place.offset for place in found}
