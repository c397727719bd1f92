"""The run: poll, queue per key, work, ledger, commit."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TypeVar

import structlog
from prometheus_client import Counter

from bridge import metrics
from bridge.envelope import Record
from bridge.errors import BridgeError, OperatorError
from bridge.kafka import (
    Assigned,
    Group,
    Place,
    Position,
    open_group,
    open_transactions,
)
from bridge.service import Service
from bridge.worker.answered import Answered, read_back
from bridge.worker.attempt import Attempts, Clock
from bridge.worker.begin import Clients, find_places
from bridge.worker.feed import Feed
from bridge.worker.handler import Handler
from bridge.worker.partition import REFRESH_S, Partition, find_positions
from bridge.worker.slots import Slots
from bridge.worker.together import Together
from bridge.worker.work import Chances, Result, Work

_log = structlog.get_logger("bridge.worker")

T = TypeVar("T")
_Key = tuple[str | bytes | int | None, ...]
_Item = tuple[Partition, Record]

COMMIT_S = 0.25
"""Commits are batched for so long: a crash costs a look into the reply log, not a repetition."""
NOTE_S = 5.0
"""A partition taken over cleanly waits so long for its new note before its records go."""
RETRY_S = 1.0
LAST_S = 2.0


class Worker:
    """Runs one service; a member of its consumer group.

    Args:
        service: The contract.
        handler: What its author wrote.
        clients: What it reads and writes with.
        own_ms: Own clock, Unix milliseconds.
        grace_s: How long a revoked or stopping partition may finish what is being handled.
    """

    def __init__(
        self,
        service: Service,
        handler: Handler,
        *,
        clients: Clients,
        own_ms: Callable[[], int],
        grace_s: float = 10.0,
    ) -> None:
        self._service = service
        self._config = clients.config
        self._reader = clients.reader
        self._grace_s = grace_s
        self._clock = Clock(own_ms)
        self._attempts = Attempts(
            service,
            handler,
            clients.producer,
            self._clock,
            lambda: self._in_hand,
            clients.cancelled.of(service.name),
        )
        self._wait_cancelled = clients.cancelled.wait_read
        self._answered = Answered(service.worker.dedupe_s)
        self._partitions: dict[Place, Partition] = {}
        self._keys: dict[_Key, deque[_Item]] = {}
        self._work = Work(
            service,
            attempts=self._attempts,
            clock=self._clock,
            answered=self._answered,
            slots=Slots(service.worker.concurrency, lambda place: place[0] == service.replay_topic),
            chances=Chances(draw=clients.draw, spawn=self._write, worker=clients.name),
        )
        self._results: dict[str, Counter] = {}
        self._in_hand = 0
        metrics.IN_HAND.labels(service.name).set_function(lambda: self._in_hand)
        self._feed = Feed(self._partitions, lambda: self.group)
        self._lanes: list[Place] = []
        self._beside: Place | None = None
        self.group: Group | None = None  # None: it has not begun
        self.is_held = False  # by an operator: nothing is fetched, what is in hand is finished
        self._run_id = clients.run_id
        self._together: Together | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._draining: set[asyncio.Task[None]] = set()
        self._writing: set[asyncio.Task[Result]] = set()
        self._finished = asyncio.Event()
        self._told = asyncio.Event()

    async def run(self, stop: asyncio.Event, *, ready: Callable[[], None] = lambda: None) -> None:
        """Work until `stop` is set; then finish what is being handled, commit, and leave.

        Raises:
            TopicError: The service's topics do not exist.
        """
        if not await self._begin(stop):
            return
        async with AsyncExitStack() as stack:
            together = await self._open_together(stack)
            tasks = self._tasks = await stack.enter_async_context(asyncio.TaskGroup())
            writing = [] if together is None else [tasks.create_task(together.run())]
            async with open_group(
                self._config,
                self._service.group,
                self._service.requests_topic,
                self,
                beside=self._beside,
            ) as group:
                self.group = group
                committing = tasks.create_task(self._commit_again_and_again())
                ready()
                await stop.wait()
                committing.cancel()
            if self._writing:  # what is being written is not torn, but has no more than a moment
                await asyncio.wait(self._writing, timeout=LAST_S)
            for task in (*self._draining, *self._writing, *writing):
                task.cancel()

    async def _open_together(self, stack: AsyncExitStack) -> Together | None:
        if not self._service.worker.exactly_once:
            return None
        name = f"bridge.{self._service.name}.{self._run_id}"
        transactions = await stack.enter_async_context(open_transactions(self._config, name))
        self._together = self._work.ending.together = Together(
            transactions,
            lambda: self.group,
            self._clock.now_ms,
        )
        return self._together

    async def _begin(self, stop: asyncio.Event) -> bool:
        """Find topics and time, unless told to stop first; returns whether to go on."""
        async with asyncio.TaskGroup() as tasks:
            both = [tasks.create_task(self._start()), tasks.create_task(stop.wait())]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            for one in both:
                one.cancel()
        return not stop.is_set()

    async def _start(self) -> None:
        self._lanes, self._beside = await find_places(self._config, self._service)
        await self._attempts.learn_time()
        await self._wait_cancelled()

    # What the group tells ------------------------------------------------------------------

    def assigned(self, partitions: Sequence[Assigned]) -> None:
        """Own partitions; their records are held until it is known what is answered already."""
        mine = [Partition(one) for one in partitions]
        self._partitions.update({partition.place: partition for partition in mine})
        self._create(self._warm(mine), self._draining)

    async def revoked(self, places: Sequence[Place]) -> dict[Place, Position]:
        """Give partitions up: what runs may finish within the grace time, then it is committed."""
        gone = [each for place in places if (each := self._drop(place)) is not None]
        for partition in gone:
            partition.leave()
        try:
            async with asyncio.timeout(self._grace_s):
                for partition in gone:
                    await partition.idle.wait()
        except TimeoutError:
            _log.warning("given-up-unfinished", places=[p.place for p in gone if p.running])
        return find_positions(gone, self._clock.now_ms())

    def lost(self, places: Sequence[Place]) -> None:
        """Drop partitions that are another's: nothing is committed or answered for them."""
        for place in places:
            partition = self._drop(place)
            if partition is not None:
                partition.leave(is_lost=True)
        _log.warning("partitions-lost", places=list(places))

    def take(self, records: list[Record]) -> None:
        """Queue records of owned partitions."""
        for record in records:
            partition = self._partitions.get((record.topic, record.partition or 0))
            if partition is None:  # revoked while its records were on their way here
                continue
            self._count(partition, 1)
            if partition.is_open:
                self._dispatch(partition, record)
            else:
                partition.held.append(record)
                partition.changed.set()
        self._feed.took()

    # Dedupe --------------------------------------------------------------------------------

    async def _warm(self, partitions: list[Partition]) -> None:
        """Learn what is answered already, then let the partitions' records go."""
        now_ms = self._clock.now_ms()
        oldest_ms = now_ms - int(self._service.worker.dedupe_s * 1000)
        for partition in partitions:
            partition.read_note(oldest_ms)
        floors = [p.floor_ms for p in partitions if p.floor_ms is not None]
        since_ms = min(floors, default=None)
        if since_ms is not None:
            await self._read_back(since_ms, until_ms=None)
        for partition in partitions:
            partition.is_warm = True
            if not partition.careful_until:  # else each record is counted as it begins
                partition.begin_at(partition.starts_at)
        # Before the first record goes: a note that says "nothing under way" stops being true now,
        # and whoever comes after a crash must know that this owner began here.
        await self._commit_now(partitions)
        for partition in partitions:
            if partition.careful_until:
                _log.warning("careful", place=partition.place, until=partition.careful_until)
                self._create(self._go_carefully(partition), self._draining)
            else:
                self._open(partition)
        if since_ms is None or since_ms > oldest_ms:
            await self._read_back(oldest_ms, until_ms=since_ms or now_ms)

    def _open(self, partition: Partition) -> None:
        """Let the records of a partition go."""
        held, partition.held = partition.held, deque()
        partition.is_open = True
        for record in held:
            if partition.is_gone:
                self._count(partition, -1)
            else:
                self._dispatch(partition, record)

    async def _go_carefully(self, partition: Partition) -> None:
        """Work on one record at a time as far as one may lie that killed the owner before.

        Each is counted in the note beside its offset before it begins. So a record that kills the
        whole worker is known by the count, and ends as a dead letter.
        """
        while not partition.is_gone:
            partition.changed.clear()
            if not partition.held:
                await partition.changed.wait()
                continue
            if partition.held[0].offset >= partition.careful_until:
                break
            record = partition.held.popleft()
            died = partition.starts if record.offset == partition.starts_at else 0
            partition.ledger.start(record.offset, at_ms=self._clock.now_ms())
            partition.begin_at(record.offset)
            await self._commit_now([partition])
            await self._bring(partition, record, died)
            self._count(partition, -1)
            self._feed.finished(partition)
        self._open(partition)

    async def _commit_now(self, partitions: list[Partition]) -> None:
        """Commit, and wait until Kafka has it, for a while: the note is worth more than a record."""
        self._commit(partitions)
        try:
            async with asyncio.timeout(NOTE_S):
                while any(not p.is_gone and p.committed != p.asked for p in partitions):
                    self._told.clear()
                    await self._told.wait()
        except TimeoutError:
            _log.warning("note-not-committed", places=[p.place for p in partitions])

    async def _read_back(self, since_ms: int, *, until_ms: int | None) -> None:
        """Remember every last event in the service's lanes from a time on."""
        while self._service.kind != "none":
            try:
                found = await read_back(self._reader, self._lanes, since_ms, until_ms)
            except BridgeError as trouble:
                _log.warning("reply-log-not-read", why=str(trouble))
                await asyncio.sleep(RETRY_S)
                continue
            self._answered.add(found, now_ms=self._clock.now_ms())
            return

    # Work ---

    def _dispatch(self, partition: Partition, record: Record) -> None:
        """Start a record, or queue it behind the one of the same key that is under way."""
        partition.ledger.start(record.offset, at_ms=self._clock.now_ms())
        key: _Key = (record.topic, record.key)  # replays are not ordered against live work
        if record.key is None:  # no key, no order: a line of its own
            key = (record.topic, record.partition, record.offset)
        waiting = self._keys.get(key)
        if waiting is None:
            self._keys[key] = deque()
            self._create(self._drain(key, partition, record), self._draining)
        else:
            waiting.append((partition, record))

    def _write(self, writing: Coroutine[None, None, Result]) -> "asyncio.Task[Result]":
        return self._create(writing, self._writing)

    def _create(
        self, work: Coroutine[None, None, T], among: "set[asyncio.Task[T]]"
    ) -> "asyncio.Task[T]":
        if self._tasks is None:
            raise RuntimeError("the worker does not run")
        task = self._tasks.create_task(work)
        among.add(task)
        task.add_done_callback(among.discard)
        return task

    async def _drain(self, key: _Key, partition: Partition, record: Record) -> None:
        """Work on the records of one key, one after the other."""
        waiting = self._keys[key]
        while True:
            if not partition.is_gone:
                await self._bring(partition, record, 0)
            self._count(partition, -1)
            self._feed.finished(partition)
            if not waiting:
                del self._keys[key]
                return
            partition, record = waiting.popleft()

    async def _bring(self, partition: Partition, record: Record, died: int) -> None:
        """Bring one record to its end; whatever it does, the next ones go on."""
        try:
            result = await self._work.finish(partition, record, died)
        except OperatorError:
            raise
        except Exception:  # noqa: BLE001 - a bug of ours must not end every worker, one after the other
            _log.exception("record-broke", place=partition.place, offset=record.offset)
            result = "unreadable"
        if result is None:
            return
        partition.ledger.finish(record.offset)
        self._finished.set()
        self._count_result(result)

    def _count_result(self, result: str) -> None:
        counter = self._results.get(result)
        if counter is None:
            counter = self._results[result] = metrics.HANDLED.labels(self._service.name, result)
        counter.inc()

    def _count(self, partition: Partition, more: int) -> None:
        partition.in_hand += more
        self._in_hand += more

    def _drop(self, place: Place) -> Partition | None:
        partition = self._partitions.pop(place, None)
        self._feed.dropped(place)
        return partition

    # Commit --------------------------------------------------------------------------------

    async def _commit_again_and_again(self) -> None:
        while True:
            try:
                async with asyncio.timeout(REFRESH_S):
                    await self._finished.wait()
            except TimeoutError:
                pass
            self._finished.clear()
            # Beside a transaction a commit could set back what that has committed.
            if self._together is None or self._together.is_idle:
                self._commit(list(self._partitions.values()))
            await asyncio.sleep(COMMIT_S)

    def _commit(self, partitions: Sequence[Partition]) -> None:
        positions = find_positions([p for p in partitions if not p.is_gone], self._clock.now_ms())
        if positions and self.group is not None:
            self.group.commit(positions)

    def committed(self, positions: Mapping[Place, Position], why: str | None) -> None:
        """Learn how a commit ended; one that failed is made again with the next."""
        if why is not None:
            _log.warning("not-committed", why=why)
            return
        for place, position in positions.items():
            partition = self._partitions.get(place)
            if partition is not None and partition.asked == position:
                partition.committed = position
        self._told.set()
