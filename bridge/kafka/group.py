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
from functools import partial
from threading import Event as Flag
from typing import TypeVar

import confluent_kafka as ck
import structlog

from bridge.envelope import Record
from bridge.kafka.client import BATCH, READING, SHARED, Config, as_record, merge, polling
from bridge.kafka.member import (
    NO_MEMBER,
    Assigned,
    GroupMember,
    GroupMetadata,
    Place,
    Position,
    offsets_of,
    read_position,
)

_log = structlog.get_logger("bridge.kafka")

T = TypeVar("T")

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
_LAGS_S, _QUICK_S = 1.0, 0.5


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

    def __init__(self, consumer: ck.Consumer, member: GroupMember) -> None:
        self.metadata: GroupMetadata | None = None
        self._consumer = consumer
        self._member = member
        self._commands: deque[Callable[[], object]] = deque()
        self._paused: set[Place] = set()
        self._is_held = False
        self._committed: dict[Place, int] = {}
        self._wanted = Flag()
        self._wanted.set()
        self.is_decided = False
        """Whether the group has said which partitions are this member's, be they none."""

    def commit(self, positions: Mapping[Place, Position]) -> None:
        """Commit positions; `GroupMember.committed` tells how it went."""
        self._commands.append(partial(_commit, self._consumer, positions))

    def pause(self, places: Sequence[Place]) -> None:
        """Fetch nothing more from these partitions until `resume`."""
        self._paused.update(places)
        partitions = [ck.TopicPartition(*place) for place in places]
        self._commands.append(partial(self._consumer.pause, partitions))

    def resume(self, places: Sequence[Place]) -> None:
        """Fetch from these partitions again, as soon as the member is not held."""
        self._paused.difference_update(places)
        self._commands.append(partial(self._resume, places))

    def go_on(self) -> None:
        """Take up more records: after each batch no other comes before this is called.

        To pause a partition throws away what is fetched of it already. Who is full for a moment just
        waits with this; who is full for longer pauses first, so that rebalances are seen to.
        """
        self._wanted.set()

    @property
    def places(self) -> list[Place]:
        """What this member owns at present."""
        return sorted(self._committed)

    async def find_lags(self) -> dict[Place, int]:
        """Count, of each partition that is owned, the records that are not committed.

        Raises:
            TimeoutError: The poll thread is busy with a rebalance.
        """
        loop = asyncio.get_running_loop()
        found: asyncio.Future[dict[Place, int]] = loop.create_future()

        def tell(lags: dict[Place, int]) -> None:
            if not found.done():
                found.set_result(lags)

        self._commands.append(lambda: loop.call_soon_threadsafe(tell, self._lags()))
        async with asyncio.timeout(_LAGS_S):
            return await found

    # On the poll thread ----------------------------------------------------------------------

    def poll(self) -> list[ck.Message]:
        """Obey, and fetch what there is: nothing while the last batch was not called enough."""
        is_wanted = self._wanted.wait(_POLL_S)
        self.obey()  # so a pause that the last batch led to comes before the next one
        first = self._consumer.poll(_POLL_S) if is_wanted else None
        return [] if first is None else [first, *self._consumer.consume(BATCH, 0)]

    def deliver(self, records: list[Record], loop: asyncio.AbstractEventLoop) -> None:
        """Hand a batch over to the loop."""
        self._wanted.clear()
        loop.call_soon_threadsafe(self._member.take, records)

    def obey(self) -> None:
        """Run what was asked for."""
        while self._commands:
            self._run(self._commands.popleft())
        if self._member.is_held is not self._is_held:
            self._is_held = not self._is_held
            self._run(self._hold if self._is_held else self._release)

    def forget(self) -> None:
        """Drop what was asked for: the partitions that it was about are another's."""
        self._commands.clear()
        self.is_decided = False

    def assigned(self, found: Sequence[Assigned]) -> None:
        """Note new partitions: what is fetched of them is begun anew."""
        self.is_decided = True
        for one in found:
            self._paused.discard(one.place)
            self._committed[one.place] = -1 if one.position is None else one.position.offset

    def gone(self, places: Sequence[Place]) -> None:
        """Note partitions that are no longer this member's."""
        for place in places:
            self._committed.pop(place, None)

    def committed(self, positions: Mapping[Place, Position]) -> None:
        """Note what is committed."""
        owned = {p: each.offset for p, each in positions.items() if p in self._committed}
        self._committed.update(owned)

    def hold_new(self, partitions: list[ck.TopicPartition]) -> None:
        """Pause partitions as soon as they are assigned, while held: not one record of them comes."""
        if self._is_held:
            self._consumer.pause(partitions)

    def _run(self, command: Callable[[], object]) -> None:
        try:
            command()
        except ck.KafkaException as refused:  # the partitions have gone meanwhile
            _log.info("command-refused", why=refused.args[0].str())

    def _resume(self, places: Sequence[Place]) -> None:
        if not self._is_held:
            self._consumer.resume([ck.TopicPartition(*place) for place in places])

    def _hold(self) -> None:
        self._consumer.pause(self._consumer.assignment())

    def _release(self) -> None:
        self._resume([p for p in _places(self._consumer.assignment()) if p not in self._paused])

    def _lags(self) -> dict[Place, int]:
        """Ask what the last fetch has told; Kafka itself while nothing is fetched."""
        lags: dict[Place, int] = {}
        for partition in self._consumer.assignment():
            place = (partition.topic, partition.partition)
            try:
                low, end = self._consumer.get_watermark_offsets(
                    partition, timeout=_QUICK_S, cached=not self._is_held
                )
            except ck.KafkaException:  # away: the other partitions would each wait as long
                break
            if end >= 0:
                lags[place] = max(0, end - max(self._committed.get(place, -1), low, 0))
        return lags


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
        # It comes with no partitions too, where there are more members than partitions.
        mine = self._with_twins(partitions)
        found = _committed(consumer, mine) if partitions else []
        if self.group is not None:
            self.group.assigned(found)
        if partitions:
            self._loop.call_soon_threadsafe(self._member.assigned, found)
            consumer.incremental_assign(mine)
            if self.group is not None:
                self.group.hold_new(mine)

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
            self.group.gone(_places(mine))
        if positions:
            # On this thread: from another one it would wait for the rebalance, which waits for us.
            # Not waited for: it leaves on the connection on which the group is told that the
            # partitions are free, before that; and with Kafka gone it would wait without end.
            _commit(consumer, positions)
        consumer.incremental_unassign(mine)

    def on_lost(self, consumer: ck.Consumer, partitions: list[ck.TopicPartition]) -> None:
        mine = self._with_twins(partitions)
        if self.group is not None:
            self.group.forget()
            self.group.gone(_places(mine))
        if partitions:
            self._loop.call_soon_threadsafe(self._set, None)
            self._loop.call_soon_threadsafe(self._member.lost, _places(mine))
            consumer.incremental_unassign(mine)

    def on_commit(self, error: ck.KafkaError | None, partitions: list[ck.TopicPartition]) -> None:
        why = None if error is None else error.str()
        positions = {(place.topic, place.partition): read_position(place) for place in partitions}
        if self.group is not None and error is None:
            self.group.committed(positions)
        self._loop.call_soon_threadsafe(self._member.committed, positions, why)

    def _learn(self, consumer: ck.Consumer) -> None:
        token = bytes(consumer.consumer_group_metadata())
        found = None if token.startswith(NO_MEMBER) else GroupMetadata(self._name, token)
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
    membership = callbacks.group = Group(consumer, member)

    def poll() -> None:
        records = [as_record(message) for message in membership.poll() if _is_record(message)]
        if records:
            membership.deliver(records, loop)

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
    position = read_position(place) if place.offset >= 0 else None
    start = first if position is None else position.offset
    return Assigned(place=(place.topic, place.partition), position=position, start=start, end=end)


def _commit(consumer: ck.Consumer, positions: Mapping[Place, Position]) -> None:
    consumer.commit(offsets=offsets_of(positions), asynchronous=True)


def _places(partitions: list[ck.TopicPartition]) -> list[Place]:
    return [(partition.topic, partition.partition) for partition in partitions]


def _is_record(message: ck.Message) -> bool:
    error = message.error()
    if error is None:
        return True
    _log.error("group-trouble", error=error.name(), detail=error.str(), topic=message.topic())
    return False
