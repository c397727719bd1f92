"""Group consumers: partitions come and go, offsets are committed with a note.

Classic protocol, cooperative-sticky, session 6 s: KIP-848's session is 45 s on the broker, so a
kill -9 would cost 45 s. The rebalance callbacks run on the poll thread and wait for the event loop
there, so that no record of a partition is delivered before its new owner is told about it, and a
revoked partition is committed before another worker gets it.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

import confluent_kafka as ck
import structlog

from bridge.envelope import Record
from bridge.kafka.client import BATCH, READING, SHARED, Config, as_record, merge, polling

_log = structlog.get_logger("bridge.kafka")

T = TypeVar("T")
Place = tuple[str, int]
"""Topic and partition."""

GROUP: Config = {
    "partition.assignment.strategy": "cooperative-sticky",
    "session.timeout.ms": 6000,
    "heartbeat.interval.ms": 1500,
    # The default, latest, would skip what came before the group's first commit.
    "auto.offset.reset": "earliest",
    "fetch.queue.backoff.ms": 100,
    "queued.max.messages.kbytes": 16_384,
}

_CALL_S = 5.0
_POLL_S = 0.05
"""A commit or a pause waits for the end of a poll: no longer than this."""
_SETTLE_S = 30.0


_MARK = "#"
_NO_MEMBER = b"CGMDv2:\xff\xff\xff\xff"
"""How the library writes membership metadata down: this, a generation of -1, when there is none."""


class Position(NamedTuple):
    """What is committed for a partition: the next offset to read, and a note of ours.

    The note has no `#`: what is behind one is the mark of a transaction, and not told.
    """

    offset: int
    note: str


class GroupMetadata(NamedTuple):
    """What shows Kafka that a process is a member of a group, as of one generation (KIP-447).

    Attributes:
        group: The group's name.
        token: Generation and member ID, in the library's own form.
    """

    group: str
    token: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Assigned:
    """A partition that this process now owns.

    Attributes:
        place: Topic and partition.
        position: What was committed; None: nothing ever was.
        start: The first offset to be handled: the committed one, else the first that there is.
        end: Its end at that moment: records beyond it were never in another owner's hands.
    """

    place: Place
    position: Position | None
    start: int
    end: int


class GroupMember(Protocol):
    """What a group consumer tells its owner, all of it in the event loop."""

    def assigned(self, partitions: Sequence[Assigned]) -> None:
        """Take over partitions; their records come afterwards."""

    async def revoked(self, places: Sequence[Place]) -> Mapping[Place, Position]:
        """Give partitions up: finish or abandon, and say what to commit. Others wait meanwhile."""

    def lost(self, places: Sequence[Place]) -> None:
        """Drop partitions that are another's already: no commit, no answer for them."""

    def committed(self, positions: Mapping[Place, Position], why: str | None) -> None:
        """Learn that these positions are committed, or why they are not."""

    def take(self, records: list[Record]) -> None:
        """Receive records in partition order."""


class Group:
    """One membership of a consumer group; used from the event loop that opened it.

    Whatever the consumer shall do, its poll thread does, between two polls: the library lets one
    thread at a time into a consumer, and a loop of polls leaves no room for another (measured: a
    commit from a second thread waited until the loop ended).

    Attributes:
        metadata: Shows a transaction's coordinator that this process is a member; None: it is none.
            It is set in the order in which `GroupMember` is told, so one that comes after partitions
            were lost is never seen before `lost` was called: their late work cannot be committed.
    """

    def __init__(self, consumer: ck.Consumer) -> None:
        self.metadata: GroupMetadata | None = None
        self._consumer = consumer
        self._commands: deque[Callable[[], object]] = deque()

    def commit(self, positions: Mapping[Place, Position]) -> None:
        """Commit positions; `GroupMember.committed` tells how it went."""
        self._commands.append(partial(_commit, self._consumer, positions))

    def pause(self, places: Sequence[Place]) -> None:
        """Fetch nothing more from these partitions until `resume`."""
        partitions = [ck.TopicPartition(*place) for place in places]
        self._commands.append(partial(self._consumer.pause, partitions))

    def resume(self, places: Sequence[Place]) -> None:
        """Fetch from these partitions again."""
        partitions = [ck.TopicPartition(*place) for place in places]
        self._commands.append(partial(self._consumer.resume, partitions))

    def obey(self) -> None:
        """Run what was asked for; on the poll thread."""
        while self._commands:
            try:
                self._commands.popleft()()
            except ck.KafkaException as refused:  # the partitions have gone meanwhile
                _log.info("command-refused", why=refused.args[0].str())

    def forget(self) -> None:
        """Drop what was asked for: the partitions that it was about are another's."""
        self._commands.clear()


class _Callbacks:
    """Carries what happens to the membership from the poll thread into the loop, in order."""

    def __init__(
        self,
        name: str,
        member: GroupMember,
        loop: asyncio.AbstractEventLoop,
        beside: Place | None,
    ) -> None:
        self._name = name
        self._member = member
        self._loop = loop
        self._beside = beside
        self.group: Group | None = None

    def _with_twins(self, partitions: list[ck.TopicPartition]) -> list[ck.TopicPartition]:
        if self._beside is None:
            return partitions
        topic, count = self._beside
        twins = [ck.TopicPartition(topic, p.partition) for p in partitions if p.partition < count]
        return [*partitions, *twins]

    def on_assign(self, consumer: ck.Consumer, partitions: list[ck.TopicPartition]) -> None:
        # Called once for each generation, with no partitions where nothing changes for this member.
        self._learn(consumer)
        # Not waited for: the loop's queue keeps the order, so it comes before their records.
        if partitions:
            mine = self._with_twins(partitions)
            found = _committed(consumer, mine)
            self._loop.call_soon_threadsafe(self._member.assigned, found)
            consumer.incremental_assign(mine)

    def on_revoke(self, consumer: ck.Consumer, partitions: list[ck.TopicPartition]) -> None:
        if not partitions:
            return
        self._learn(consumer)
        mine = self._with_twins(partitions)
        positions = self._wait(self._member.revoked(_places(mine)))
        # Commits asked for before go first: after the partitions are free they would set the next
        # owner back, for a broker takes a commit from any member.
        if self.group is not None:
            self.group.obey()
        if positions:
            # On this thread: from another one it would wait for the rebalance, which waits for us.
            # Not waited for: it leaves on the connection on which the group is told that the
            # partitions are free, before that; and with Kafka gone it would wait without end.
            _commit(consumer, positions)
        consumer.incremental_unassign(mine)

    def on_lost(self, consumer: ck.Consumer, partitions: list[ck.TopicPartition]) -> None:
        if partitions:
            if self.group is not None:
                self.group.forget()
            mine = self._with_twins(partitions)
            self._loop.call_soon_threadsafe(self._set, None)
            self._loop.call_soon_threadsafe(self._member.lost, _places(mine))
            consumer.incremental_unassign(mine)

    def on_commit(self, error: ck.KafkaError | None, partitions: list[ck.TopicPartition]) -> None:
        why = None if error is None else error.str()
        positions = {(place.topic, place.partition): _read(place) for place in partitions}
        self._loop.call_soon_threadsafe(self._member.committed, positions, why)

    def _learn(self, consumer: ck.Consumer) -> None:
        token = bytes(consumer.consumer_group_metadata())
        found = None if token.startswith(_NO_MEMBER) else GroupMetadata(self._name, token)
        self._loop.call_soon_threadsafe(self._set, found)

    def _set(self, metadata: GroupMetadata | None) -> None:
        if self.group is not None:
            self.group.metadata = metadata

    def _wait(self, told: Coroutine[None, None, T]) -> T | None:
        try:
            return asyncio.run_coroutine_threadsafe(told, self._loop).result(_SETTLE_S)
        except TimeoutError:
            _log.error("rebalance-not-settled", waited_s=_SETTLE_S)
            return None


@asynccontextmanager
async def open_group(
    config: Config, group: str, topic: str, member: GroupMember, *, beside: Place | None = None
) -> AsyncIterator[Group]:
    """Be a member of a consumer group for as long as the block.

    A topic `beside` is not subscribed to: whoever owns a partition of the one has the partition of
    the same number of the other too. Subscribed to both, a member could be given nothing but
    partitions of the second, for the assignor deals partitions out by their number alone.

    Leaving the block revokes what is still assigned (so `member.revoked` commits) and leaves the
    group at once, so that others take over without waiting for the session to end.

    Args:
        config: librdkafka settings.
        group: Its ID.
        topic: What it shares out.
        member: Who is told.
        beside: Another topic, and how many partitions it has.
    """
    loop = asyncio.get_running_loop()
    callbacks = _Callbacks(group, member, loop, beside)
    settings = merge(SHARED, READING, GROUP, {"group.id": group}, config)
    settings["on_commit"] = callbacks.on_commit
    consumer = ck.Consumer(settings)
    membership = callbacks.group = Group(consumer)

    def poll() -> None:
        membership.obey()
        first = consumer.poll(_POLL_S)
        if first is None:
            return
        records = [as_record(m) for m in (first, *consumer.consume(BATCH, 0)) if _is_record(m)]
        if records:
            loop.call_soon_threadsafe(member.take, records)

    try:
        consumer.subscribe(
            [topic],
            on_assign=callbacks.on_assign,
            on_revoke=callbacks.on_revoke,
            on_lost=callbacks.on_lost,
        )
        async with polling("group-poll", poll):
            yield membership
    finally:
        await asyncio.shield(asyncio.to_thread(consumer.close))


def _committed(consumer: ck.Consumer, partitions: list[ck.TopicPartition]) -> list[Assigned]:
    while True:
        try:
            found = consumer.committed(partitions, timeout=_CALL_S)
            return [_assigned(consumer, place) for place in found]
        except ck.KafkaException as trouble:
            # Without the note the window for duplicates is not known: keep asking.
            _log.warning("committed-offsets-not-read", detail=trouble.args[0].str())


def _assigned(consumer: ck.Consumer, place: ck.TopicPartition) -> Assigned:
    first, end = consumer.get_watermark_offsets(place, timeout=_CALL_S)
    position = _read(place) if place.offset >= 0 else None
    start = first if position is None else position.offset
    return Assigned(place=(place.topic, place.partition), position=position, start=start, end=end)


def _read(place: ck.TopicPartition) -> Position:
    """Read a committed position; behind its note may be the mark of a transaction."""
    return Position(place.offset, (place.metadata or "").partition(_MARK)[0])


def _commit(consumer: ck.Consumer, positions: Mapping[Place, Position]) -> None:
    consumer.commit(offsets=offsets_of(positions), asynchronous=True)


def offsets_of(positions: Mapping[Place, Position], mark: str = "") -> list[ck.TopicPartition]:
    """Write positions as the library wants them, each with the mark of a transaction, if any."""
    end = mark and _MARK + mark
    return [
        ck.TopicPartition(topic, partition, position.offset, metadata=position.note + end)
        for (topic, partition), position in positions.items()
    ]


def _places(partitions: list[ck.TopicPartition]) -> list[Place]:
    return [(partition.topic, partition.partition) for partition in partitions]


def _is_record(message: ck.Message) -> bool:
    error = message.error()
    if error is None:
        return True
    _log.error("group-trouble", error=error.name(), detail=error.str(), topic=message.topic())
    return False
