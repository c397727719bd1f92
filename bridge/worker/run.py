"""The run: poll, queue per key, attempt, reply acknowledged, ledger, commit."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass

import structlog

from bridge import metrics
from bridge.envelope import Record, Request, parse_request
from bridge.errors import BridgeError, OperatorError, RecordError
from bridge.kafka import (
    Assigned,
    Config,
    Group,
    Place,
    Position,
    Producer,
    Reader,
    Send,
    open_group,
)
from bridge.service import Service
from bridge.worker.answered import Answered, parse_note, read_back
from bridge.worker.attempt import Attempts, Clock, Outcome
from bridge.worker.begin import find_lanes
from bridge.worker.cancelled import Cancelled
from bridge.worker.handler import Handler
from bridge.worker.partition import REFRESH_S, Partition, find_positions

_log = structlog.get_logger("bridge.worker")

COMMIT_S = 0.25
"""Commits are batched for so long: a crash costs a look into the reply log, not a repetition."""
NOTE_S = 5.0
"""A partition taken over cleanly waits so long for its new note before its records go."""
FULL = 1000
"""Records in hand beyond which fetching pauses; it goes on at half of it."""
RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Clients:
    """What the workers of one process share.

    Attributes:
        config: librdkafka settings.
        producer: Writes events.
        reader: Reads the reply log back.
        cancelled: What has been cancelled.
    """

    config: Config
    producer: Producer
    reader: Reader
    cancelled: Cancelled


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
        self._keys: dict[bytes, deque[tuple[Partition, Record]]] = {}
        self._slots = asyncio.Semaphore(service.worker.concurrency)
        self._in_hand = 0
        self._is_paused = False
        self._lanes: list[Place] = []
        self._group: Group | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._draining: set[asyncio.Task[None]] = set()
        self._finished = asyncio.Event()
        self._told = asyncio.Event()

    async def run(self, stop: asyncio.Event, *, ready: Callable[[], None] = lambda: None) -> None:
        """Work until `stop` is set; then finish what is being handled, commit, and leave.

        Raises:
            TopicError: The service's topics do not exist.
        """
        if not await self._begin(stop):
            return
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            async with open_group(
                self._config, self._service.group, [self._service.requests_topic], self
            ) as group:
                self._group = group
                committing = tasks.create_task(self._commit_again_and_again())
                ready()
                await stop.wait()
                committing.cancel()
            for task in self._draining:
                task.cancel()

    async def _begin(self, stop: asyncio.Event) -> bool:
        """Find topics and time, unless told to stop first; returns whether to go on."""
        async with asyncio.TaskGroup() as tasks:
            starting = tasks.create_task(self._start())
            stopping = tasks.create_task(stop.wait())
            await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
            starting.cancel()
            stopping.cancel()
        return not stop.is_set()

    async def _start(self) -> None:
        self._lanes = await find_lanes(self._config, self._service)
        await self._attempts.learn_time()
        await self._wait_cancelled()

    # What the group tells ------------------------------------------------------------------

    def assigned(self, partitions: Sequence[Assigned]) -> None:
        """Own partitions; their records are held until it is known what is answered already."""
        mine = [Partition(one) for one in partitions]
        self._partitions.update({partition.place: partition for partition in mine})
        self._spawn(self._warm(mine))

    async def revoked(self, places: Sequence[Place]) -> dict[Place, Position]:
        """Give partitions up: what runs may finish within the grace time, then it is committed."""
        gone = [self._partitions.pop(place) for place in places if place in self._partitions]
        for partition in gone:
            partition.is_gone = True
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
            partition = self._partitions.pop(place, None)
            if partition is not None:
                partition.is_gone = partition.is_lost = True
        _log.warning("partitions-lost", places=list(places))

    def take(self, records: list[Record]) -> None:
        """Queue records of owned partitions."""
        for record in records:
            partition = self._partitions.get((record.topic, record.partition or 0))
            if partition is None:  # revoked while its records were on their way here
                continue
            if partition.is_open:
                self._dispatch(partition, record)
            else:
                partition.held.append(record)
                self._in_hand += 1
        self._throttle()

    # Dedupe --------------------------------------------------------------------------------

    async def _warm(self, partitions: list[Partition]) -> None:
        """Learn what is answered already, then let the partitions' records go."""
        now_ms = self._clock.now_ms()
        oldest_ms = now_ms - int(self._service.worker.dedupe_s * 1000)
        for partition in partitions:
            note = partition.committed
            partition.floor_ms = (
                oldest_ms if note is None else parse_note(note.note, otherwise_ms=oldest_ms)
            )
        floors = [p.floor_ms for p in partitions if p.floor_ms is not None]
        since_ms = min(floors, default=None)
        if since_ms is not None:
            await self._read_back(since_ms, until_ms=None)
        for partition in partitions:
            partition.is_warm = True
        # Before the first record goes: a note that says "nothing under way" stops being true now.
        await self._commit_now([p for p in partitions if p.floor_ms is None])
        for partition in partitions:
            held, partition.held = partition.held, deque()
            self._in_hand -= len(held)
            partition.is_open = True
            for record in held:
                if not partition.is_gone:
                    self._dispatch(partition, record)
        self._throttle()
        if since_ms is None or since_ms > oldest_ms:
            await self._read_back(oldest_ms, until_ms=since_ms or now_ms)

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

    # Work ----------------------------------------------------------------------------------

    def _dispatch(self, partition: Partition, record: Record) -> None:
        """Start a record, or queue it behind the one of the same key that is under way."""
        partition.ledger.start(record.offset, at_ms=self._clock.now_ms())
        self._in_hand += 1
        key = record.key
        if key is None:  # no key, no order: a line of its own
            key = f"{record.topic}/{record.partition}/{record.offset}".encode()
        waiting = self._keys.get(key)
        if waiting is None:
            self._keys[key] = deque()
            self._spawn(self._drain(key, partition, record))
        else:
            waiting.append((partition, record))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        if self._tasks is None:
            raise RuntimeError("the worker does not run")
        task = self._tasks.create_task(work)
        self._draining.add(task)
        task.add_done_callback(self._draining.discard)

    async def _drain(self, key: bytes, partition: Partition, record: Record) -> None:
        """Work on the records of one key, one after the other."""
        waiting = self._keys[key]
        while True:
            if not partition.is_gone:
                await self._work(partition, record)
            self._in_hand -= 1
            if self._is_paused:
                self._throttle()
            if not waiting:
                del self._keys[key]
                return
            partition, record = waiting.popleft()

    async def _work(self, partition: Partition, record: Record) -> None:
        """Bring one record to its end; whatever it does, the next ones go on."""
        try:
            result = await self._answer(partition, record)
        except OperatorError:
            raise
        except Exception:  # noqa: BLE001 - a bug of ours must not end every worker, one after the other
            _log.exception("record-broke", place=partition.place, offset=record.offset)
            result = "unreadable"
        if result is None:
            return
        partition.ledger.finish(record.offset)
        self._finished.set()
        metrics.HANDLED.labels(self._service.name, result).inc()

    async def _answer(self, partition: Partition, record: Record) -> str | None:
        """Answer one record; returns what became of it, None when it was not begun."""
        try:
            request = parse_request(record)
        except RecordError as unreadable:
            place = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
            _log.error("record-unreadable", why=str(unreadable), **place)
            return "unreadable"
        await self._slots.acquire()  # the handler's: to write its answer needs none
        over = self._find_over(request)
        if partition.is_gone or over is not None:
            self._slots.release()
            return None if partition.is_gone else over
        partition.begin()
        try:
            send = self._attempts.route()
            outcome = await self._run(partition, record, request, send)
            if partition.is_lost:
                return "lost"  # another worker owns the record now, and answers it
            return await self._deliver(request, outcome, send)
        finally:
            partition.end()

    def _find_over(self, request: Request) -> str | None:
        """Say how a request has ended already, if it has."""
        if self._attempts.was_cancelled(request):
            _log.info("cancelled-before-work", request_id=request.request_id)
            return "cancelled"
        return "skipped" if request.identity in self._answered else None

    async def _run(
        self, partition: Partition, record: Record, request: Request, send: Send
    ) -> Outcome:
        """Run the handler, and give its slot back; a thread that overran keeps it until its end."""
        try:
            outcome = await self._attempts.run(record, request, send)
            if outcome.leftover is not None and not partition.is_lost:
                await self._deliver(request, outcome, send)
                await self._wait_end(outcome.leftover)
            return outcome
        finally:
            self._slots.release()

    async def _wait_end(self, leftover: "asyncio.Future[object]") -> None:
        """Wait for a thread beyond its time.

        Raises:
            OperatorError: It does not end: so must the process, for another to take over.
        """
        limit_s = self._service.worker.timeout_s
        done, _ = await asyncio.wait([leftover], timeout=limit_s)
        if not done:
            raise OperatorError(
                f"a handler of {self._service.name} runs in its thread for more than "
                f"{2 * limit_s:g} s: the worker ends; bound what the handler waits for"
            )

    async def _deliver(self, request: Request, outcome: Outcome, send: Send) -> str:
        if request.identity in self._answered:
            return outcome.event.value
        if self._attempts.was_cancelled(request):  # late: its last event would mean nothing
            _log.info("cancelled-at-work", request_id=request.request_id)
            return "cancelled"
        is_written = await self._attempts.deliver(request, outcome, send)
        self._answered.add([request.identity], now_ms=self._clock.now_ms())
        return outcome.event.value if is_written else "undeliverable"

    def _throttle(self) -> None:
        """Pause fetching while too much is in hand; polling goes on, so the group is kept."""
        metrics.IN_HAND.labels(self._service.name).set(self._in_hand)
        if self._group is None:
            return
        if self._in_hand >= FULL:  # again on every batch: a rebalance may have resumed fetching
            self._is_paused = True
            self._group.pause(list(self._partitions))
        elif self._is_paused and self._in_hand <= FULL // 2:
            self._is_paused = False
            self._group.resume(list(self._partitions))

    # Commit --------------------------------------------------------------------------------

    async def _commit_again_and_again(self) -> None:
        while True:
            try:
                async with asyncio.timeout(REFRESH_S):
                    await self._finished.wait()
            except TimeoutError:
                pass
            self._finished.clear()
            self._commit(list(self._partitions.values()))
            await asyncio.sleep(COMMIT_S)

    def _commit(self, partitions: Sequence[Partition]) -> None:
        positions = find_positions([p for p in partitions if not p.is_gone], self._clock.now_ms())
        if positions and self._group is not None:
            self._group.commit(positions)

    def committed(self, offsets: Mapping[Place, int], why: str | None) -> None:
        """Learn how a commit ended; one that failed is made again with the next."""
        if why is not None:
            _log.warning("not-committed", why=why)
            return
        for place, offset in offsets.items():
            partition = self._partitions.get(place)
            if partition is not None and partition.asked and partition.asked.offset == offset:
                partition.committed = partition.asked
        self._told.set()
