"""One record to its end: attempts, the waits between them, then an answer or a dead letter.

A dead letter and its answer are written in a task of their own: what is begun is not torn off.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

import msgspec
import structlog

from bridge import retry
from bridge.dead import WORKER_DIED
from bridge.envelope import Record, Request, parse_request
from bridge.errors import OperatorError, RecordError
from bridge.kafka import Send
from bridge.service import Service
from bridge.worker.answered import Answered
from bridge.worker.attempt import Attempts, Clock
from bridge.worker.ending import Ending
from bridge.worker.outcome import (
    HANDLER_TIMEOUT,
    Failed,
    Outcome,
    fail,
)
from bridge.worker.partition import Partition
from bridge.worker.slots import Slots

_log = structlog.get_logger("bridge.worker")

_LOOK_S = 1.0
"""A wait looks so often whether it is still wanted."""

Result = str | Exception | None


async def _caught(writing: Coroutine[None, None, str | None]) -> Result:
    """Hand an error to whoever waits, not to the group of tasks, which would end the worker."""
    try:
        return await writing
    except Exception as error:  # noqa: BLE001 - raised again by `_shielded`, or nobody is there to be told
        return error


@dataclass(frozen=True, slots=True, kw_only=True)
class Chances:
    """What work draws, and how it keeps what it writes from being cancelled.

    Attributes:
        draw: A random number in [0, 1).
        spawn: Starts a task that ends with the worker and is not cancelled before.
        worker: Names this process in dead letters.
    """

    draw: Callable[[], float]
    spawn: Callable[[Coroutine[None, None, "Result"]], "asyncio.Task[Result]"]
    worker: str


class Work:
    """Brings single records of one service to their end.

    Args:
        service: The contract.
        attempts: Runs the handler, writes events.
        clock: Broker time.
        answered: What has its last event already.
        slots: How many handlers may run at once.
        chances: What it draws, how it spawns.

    Attributes:
        ending: Writes what a request ends with.
    """

    def __init__(
        self,
        service: Service,
        *,
        attempts: Attempts,
        clock: Clock,
        answered: Answered,
        slots: Slots,
        chances: Chances,
    ) -> None:
        self._service = service
        self._attempts = attempts
        self._clock = clock
        self._answered = answered
        self._slots = slots
        self._chances = chances
        self.ending = Ending(service, attempts, clock, answered, chances.worker)

    async def finish(self, partition: Partition, record: Record, died: int) -> str | None:
        """Bring one record to its end.

        Args:
            partition: Where it comes from.
            record: As it was read.
            died: How many owners have begun it, alone, and died.

        Returns:
            What became of it; None: it is not ours any more, and not finished.

        Raises:
            OperatorError: The process must end, for another to take over.
        """
        try:
            request = parse_request(record)
        except RecordError as unreadable:
            return await self._shielded(self.ending.bury_unreadable(partition, record, unreadable))
        if died >= self._service.worker.attempts:
            return await self._give_up_deadly(partition, record, request, died)
        request = msgspec.structs.replace(request, attempt=request.attempt + died)
        while True:
            result = await self._try(partition, record, request)
            if not isinstance(result, retry.Again):
                return result
            if not await self._wait(partition, request, result.at_ms):
                return None
            request = msgspec.structs.replace(request, attempt=request.attempt + 1)

    async def _try(
        self, partition: Partition, record: Record, request: Request
    ) -> retry.Again | str | None:
        """Make one attempt, and deliver its outcome unless another one follows."""
        place = partition.place
        if not self._slots.take(place):  # the handler's: to write its answer needs none
            await self._slots.acquire(place)
        over = self._find_over(request)
        if partition.is_gone or over is not None:
            self._slots.release(place)
            return None if partition.is_gone else over
        partition.begin()
        try:
            send = self._attempts.route()
            outcome, follows = await self._run(partition, record, request, send)
            if partition.is_lost:
                return "lost"  # another worker owns the record now, and answers it
            if isinstance(follows, retry.Again):
                return follows
            ending = self.ending.end(partition, record, request, outcome, follows)
            # A lone record is on its way as soon as it is sent, whoever waits for it; a dead letter
            # and its answer are two, and the second must not be torn off.
            return await (ending if follows is None else self._shielded(ending))
        finally:
            partition.end()

    async def _run(
        self, partition: Partition, record: Record, request: Request, send: Send
    ) -> tuple[Outcome, retry.Again | retry.GiveUp | None]:
        """Run the handler, and give its slot back; a thread that overran keeps it until its end."""
        try:
            outcome = await self._attempts.run(record, request, send)
            follows = self._decide(request, outcome)
            if outcome.leftover is not None and not partition.is_lost:
                if not isinstance(follows, retry.Again):
                    await self._shielded(
                        self.ending.end(partition, record, request, outcome, follows)
                    )
                await self._wait_end(partition, record, request, outcome)
            return outcome, follows
        finally:
            self._slots.release(partition.place)

    def _decide(self, request: Request, outcome: Outcome) -> retry.Again | retry.GiveUp | None:
        """Say what follows an attempt; None: nothing, its outcome is the request's."""
        failed = outcome.failed
        if failed is None or failed.fate == "refused":
            return None
        if failed.fate == "dead":
            return retry.GiveUp(failed.code)
        follows = retry.decide(
            self._service.worker,
            attempt=request.attempt,
            now_ms=self._clock.now_ms(),
            deadline_ms=request.deadline_ms,
            chance=self._chances.draw(),
            after_s=failed.after_s,
        )
        if isinstance(follows, retry.Again):
            wait_s = max(0, follows.at_ms - self._clock.now_ms()) / 1000
            name, attempt = request.request_id, request.attempt
            _log.info("retry", request_id=name, attempt=attempt, code=failed.code, wait_s=wait_s)
        return follows

    def _find_over(self, request: Request) -> str | None:
        """Say how a request has ended already, if it has."""
        if self._attempts.was_cancelled(request):
            _log.info("cancelled-before-work", request_id=request.request_id)
            return "cancelled"
        return "skipped" if request.identity in self._answered else None

    async def _wait(self, partition: Partition, request: Request, at_ms: int) -> bool:
        """Wait for the next attempt; its key waits with it.

        Returns:
            Whether it is still ours. A cancelled request need not wait: the next attempt sees it.
        """
        while not partition.is_gone and not self._attempts.was_cancelled(request):
            left_s = (at_ms - self._clock.now_ms()) / 1000
            if left_s <= 0:
                break
            await asyncio.sleep(min(left_s, _LOOK_S))
        return not partition.is_gone

    async def _wait_end(
        self, partition: Partition, record: Record, request: Request, outcome: Outcome
    ) -> None:
        """Wait for a thread beyond its time.

        Raises:
            OperatorError: It does not end: so must the process, for another to take over. Its
                record is given up first, or it would do the same to the next one.
        """
        limit_s = self._service.worker.timeout_s
        if outcome.leftover is None:
            return
        done, _ = await asyncio.wait([outcome.leftover], timeout=limit_s)
        if done:
            return
        stuck = retry.GiveUp(HANDLER_TIMEOUT)
        await self._shielded(self.ending.end(partition, record, request, outcome, stuck))
        raise OperatorError(
            f"a handler of {self._service.name} runs in its thread for more than "
            f"{2 * limit_s:g} s: the worker ends; bound what the handler waits for"
        )

    # The end -------------------------------------------------------------------------------

    async def _shielded(self, writing: Coroutine[None, None, str | None]) -> str | None:
        """Write to the end even when whoever wants it written is cancelled."""
        result = await asyncio.shield(self._chances.spawn(_caught(writing)))
        if isinstance(result, Exception):
            raise result
        return result

    async def _give_up_deadly(
        self, partition: Partition, record: Record, request: Request, died: int
    ) -> str | None:
        """End a record that has killed every worker that began it."""
        if self._find_over(request) is not None:
            return "skipped"
        failed = Failed(
            code=WORKER_DIED,
            message=f"{died} workers began the request and died",
            fate="dead",
        )
        request = msgspec.structs.replace(request, attempt=died)
        ended = self.ending.end(partition, record, request, fail(failed), retry.GiveUp(WORKER_DIED))
        return await self._shielded(ended)
