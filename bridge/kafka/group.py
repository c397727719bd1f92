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
from bridge.errors import BrokerDownError
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


class Position(NamedTuple):
    """What is committed for a partition: the next offset to read, and a note of ours."""

    offset: int
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Assigned:
    """A partition that this process now owns, with what was committed; None: nothing ever was."""

    place: Place
    position: Position | None


class GroupMember(Protocol):
    """What a group consumer tells its owner, all of it in the event loop."""

    async def assigned(self, partitions: Sequence[Assigned]) -> None:
        """Take over partitions; their records come afterwards."""

    async def revoked(self, places: Sequence[Place]) -> Mapping[Place, Position]:
        """Give partitions up: finish or abandon, and say what to commit. Others wait meanwhile."""

    async def lost(self, places: Sequence[Place]) -> None:
        """Drop partitions that are another's already: no commit, no answer for them."""

    def take(self, records: list[Record]) -> None:
        """Receive records in partition order."""


class _Acknowledgement:
    """The answer to the one commit that is under way."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._owed: asyncio.Future[None] | None = None

    @property
    def is_owed(self) -> bool:
        return self._owed is not None and not self._owed.done()

    def expect(self) -> "asyncio.Future[None]":
        self._owed = self._loop.create_future()
        return self._owed

    def on_commit(self, error: ck.KafkaError | None, _: list[ck.TopicPartition]) -> None:
        """Learn how a commit ended; on the poll thread."""
        self._loop.call_soon_threadsafe(self._settle, error)

    def _settle(self, error: ck.KafkaError | None) -> None:
        if self._owed is None or self._owed.done():
            return  # a commit on revocation, which nobody waits for
        if error is None:
            self._owed.set_result(None)
        else:
            self._owed.set_exception(BrokerDownError(f"offsets not committed: {error.str()}"))
            self._owed.exception()  # looked at here: whoever waited may have given up


class Group:
    """One membership of a consumer group; used from the event loop that opened it.

    Whatever the consumer shall do, its poll thread does, between two polls: the library lets one
    thread at a time into a consumer, and a loop of polls leaves no room for another (measured: a
    commit from a second thread waited until the loop ended).
    """

    def __init__(self, consumer: ck.Consumer, acknowledgement: _Acknowledgement) -> None:
        self._consumer = consumer
        self._acknowledgement = acknowledgement
        self._commands: deque[Callable[[], object]] = deque()

    async def commit(self, positions: Mapping[Place, Position]) -> None:
        """Commit positions and wait until the broker has them.

        Raises:
            BrokerDownError: Perhaps not committed: the broker is away, or the partitions are
                another's.
        """
        if self._acknowledgement.is_owed:
            raise BrokerDownError("offsets not committed: Kafka still owes the answer to the last")
        acknowledged = self._acknowledgement.expect()
        offsets = _offsets(positions)
        self._commands.append(partial(self._consumer.commit, offsets=offsets, asynchronous=True))
        try:
            # The library waits for a coordinator without end; a worker that stops must not.
            async with asyncio.timeout(_CALL_S):
                await asyncio.shield(acknowledged)
        except TimeoutError:
            raise BrokerDownError(f"offsets not committed within {_CALL_S:.0f} s") from None

    def pause(self, places: Sequence[Place]) -> None:
        """Fetch nothing more from these partitions until `resume`."""
        partitions = [ck.TopicPartition(*place) for place in places]
        self._commands.append(partial(self._consumer.pause, partitions))

    def resume(self, places: Sequence[Place]) -> None:
        """Fetch from these partitions again."""
        partitions = [ck.TopicPartition(*place) for place in places]
        self._commands.append(partial(self._consumer.resume, partitions))

    def forget(self) -> None:
        """Drop what was asked for: the partitions that it was about are another's."""
        self._commands.clear()

    def obey(self) -> None:
        """Run what was asked for; on the poll thread."""
        while self._commands:
            try:
                self._commands.popleft()()
            except ck.KafkaException as refused:  # the partitions have gone meanwhile
                _log.info("command-refused", why=refused.args[0].str())


class _Callbacks:
    """Carries rebalances from the poll thread into the loop, and waits there until they are done."""

    def __init__(self, member: GroupMember, group: Group, loop: asyncio.AbstractEventLoop) -> None:
        self._member = member
        self._group = group
        self._loop = loop

    def on_assign(self, consumer: ck.Consumer, partitions: list[ck.TopicPartition]) -> None:
        if partitions:
            self._wait(self._member.assigned(_committed(consumer, partitions)))

    def on_revoke(self, consumer: ck.Consumer, partitions: list[ck.TopicPartition]) -> None:
        if not partitions:
            return
        positions = self._wait(self._member.revoked(_places(partitions)))
        # Commits asked for before go first: after the partitions are free they would set the next
        # owner back, for a broker takes a commit from any member.
        self._group.obey()
        if positions:
            # On this thread: from another one it would wait for the rebalance, which waits for us.
            # Not waited for: it leaves on the connection on which the group is told that the
            # partitions are free, before that; and with Kafka gone it would wait without end.
            consumer.commit(offsets=_offsets(positions), asynchronous=True)

    def on_lost(self, _: ck.Consumer, partitions: list[ck.TopicPartition]) -> None:
        if partitions:
            self._wait(self._member.lost(_places(partitions)))
            self._group.forget()

    def _wait(self, told: Coroutine[None, None, T]) -> T | None:
        try:
            return asyncio.run_coroutine_threadsafe(told, self._loop).result(_SETTLE_S)
        except TimeoutError:
            _log.error("rebalance-not-settled", waited_s=_SETTLE_S)
            return None


@asynccontextmanager
async def open_group(
    config: Config, group: str, topics: Sequence[str], member: GroupMember
) -> AsyncIterator[Group]:
    """Be a member of a consumer group for as long as the block.

    Leaving the block revokes what is still assigned (so `member.revoked` commits) and leaves the
    group at once, so that others take over without waiting for the session to end.
    """
    loop = asyncio.get_running_loop()
    settings = merge(SHARED, READING, GROUP, {"group.id": group}, config)
    acknowledgement = _Acknowledgement(loop)
    settings["on_commit"] = acknowledgement.on_commit
    consumer = ck.Consumer(settings)
    membership = Group(consumer, acknowledgement)
    callbacks = _Callbacks(member, membership, loop)

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
            list(topics),
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
        except ck.KafkaException as trouble:
            # Without the note the window for duplicates is not known: keep asking.
            _log.warning("committed-offsets-not-read", detail=trouble.args[0].str())
            continue
        return [_assigned(place) for place in found]


def _assigned(place: ck.TopicPartition) -> Assigned:
    position = Position(place.offset, place.metadata or "") if place.offset >= 0 else None
    return Assigned(place=(place.topic, place.partition), position=position)


def _offsets(positions: Mapping[Place, Position]) -> list[ck.TopicPartition]:
    return [
        ck.TopicPartition(topic, partition, position.offset, metadata=position.note)
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
