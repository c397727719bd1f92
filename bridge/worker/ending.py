"""How a request ends: its dead letter, its last event, its offset.

Order of effects: the dead letter is acknowledged first, the last event second, and only then is the
record finished, so that its offset may be committed. With `exactly_once` the three are one
transaction.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import structlog

from bridge import retry
from bridge.dead import DETAIL, UNDECODABLE, Verdict, make_dead
from bridge.envelope import Record, Request, parse_address
from bridge.errors import BodyTooLargeError, RecordError, TopicError
from bridge.service import Service
from bridge.worker.answered import Answered
from bridge.worker.attempt import Attempts, Clock
from bridge.worker.outcome import REPLY_TOO_LARGE, Failed, Outcome, fail
from bridge.worker.partition import Partition
from bridge.worker.together import Together
from bridge.worker.write import write

_log = structlog.get_logger("bridge.worker")

_LOOK_S = 1.0
"""So often the topic of dead letters is tried, where it is missing."""


class Ending:
    """Ends requests of one service.

    Args:
        service: The contract.
        attempts: Writes events.
        clock: Broker time.
        answered: What has its last event already.
        worker: Names this process in dead letters.

    Attributes:
        together: Writes answers and offsets in one transaction; None: one after the other.
    """

    def __init__(
        self, service: Service, attempts: Attempts, clock: Clock, answered: Answered, worker: str
    ) -> None:
        self._service = service
        self._attempts = attempts
        self._clock = clock
        self._answered = answered
        self._worker = worker
        self.together: Together | None = None

    async def end(
        self,
        partition: Partition,
        record: Record,
        request: Request,
        outcome: Outcome,
        follows: retry.GiveUp | None,
    ) -> str | None:
        """End a request; `follows` says why it was given up, if it was.

        Returns:
            What became of it; None: it is not ours any more.
        """
        if request.identity in self._answered:
            return outcome.event.value
        if self._attempts.was_cancelled(request):  # late: its last event would mean nothing
            _log.info("cancelled-at-work", request_id=request.request_id)
            return "cancelled"
        if self.together is not None:
            return await self._end_together(partition, record, request, outcome, follows)
        return await self._end_apart(partition, record, request, outcome, follows)

    async def _end_apart(
        self,
        partition: Partition,
        record: Record,
        request: Request,
        outcome: Outcome,
        follows: retry.GiveUp | None,
    ) -> str | None:
        """Write the dead letter, if it is one, then the last event."""
        failed = outcome.failed
        if failed is None:
            return await self._answer(partition, record, request, outcome)
        more: dict[str, str] = {}
        if follows is not None:
            verdict = _judge(failed, follows, request)
            where = await self._bury(partition, record, verdict, request.request_id)
            if where is None:
                return None
            more = {DETAIL: where}
        outcome = replace(outcome, value=failed.encode(**more))
        result = await self._answer(partition, record, request, outcome)
        return "dead" if more and result == outcome.event.value else result

    async def _end_together(
        self,
        partition: Partition,
        record: Record,
        request: Request,
        outcome: Outcome,
        follows: retry.GiveUp | None,
    ) -> str | None:
        """Write the dead letter, if it is one, the last event and the offset in one transaction."""
        failed, result = outcome.failed, outcome.event.value
        records: list[Record] = []
        more: dict[str, str] = {}
        if failed is not None:
            if follows is not None:
                dead = self._make_dead(record, _judge(failed, follows, request))
                records.append(dead)
                more = {DETAIL: f"{dead.topic}/{dead.partition}"}  # where in it, nobody knows yet
                result = "dead"
            outcome = replace(outcome, value=failed.encode(**more))
        try:
            last = self._attempts.make_last(request, outcome)
            records += [] if last is None else [last]
            await self._attempts.wait_told(request)
            if not await self._commit(partition, record, records):
                return None
        except BodyTooLargeError as too_large:
            refused = Failed(code=REPLY_TOO_LARGE, message=str(too_large), fate="dead")
            reason = retry.GiveUp(REPLY_TOO_LARGE)
            return await self._end_together(partition, record, request, fail(refused), reason)
        except TopicError as gone:
            _log.error("reply-undeliverable", request_id=request.request_id, why=str(gone))
            result = "undeliverable"
        self._answered.add([request.identity], now_ms=self._clock.now_ms())
        if result == "dead":
            _log.error("dead-letter", request_id=request.request_id, where=more[DETAIL])
        return result

    async def _commit(
        self, partition: Partition, record: Record, records: Sequence[Record]
    ) -> bool:
        """Write records and an offset together; a dead letter waits for its topic, and says so.

        Returns:
            Whether it is done; False: the partition is another's.
        """
        has_dead = any(each.topic == self._service.dead_topic for each in records)
        while partition.is_wanted() and self.together is not None:
            try:
                return await self.together.finish(partition, record.offset, records)
            except TopicError as missing:
                if not has_dead:
                    raise
                _log.error("dead-letter-not-written", why=str(missing))
                await asyncio.sleep(_LOOK_S)
        return False

    async def _answer(
        self, partition: Partition, record: Record, request: Request, outcome: Outcome
    ) -> str | None:
        """Write the last event; one that is too large is a failure of its own."""
        try:
            is_written = await self._attempts.deliver(
                request, outcome, self._attempts.route(), partition.is_wanted
            )
        except BodyTooLargeError as too_large:
            failed = Failed(code=REPLY_TOO_LARGE, message=str(too_large), fate="dead")
            reason = retry.GiveUp(REPLY_TOO_LARGE)
            return await self.end(partition, record, request, fail(failed), reason)
        if not is_written and partition.is_gone:
            return None
        self._answered.add([request.identity], now_ms=self._clock.now_ms())
        return outcome.event.value if is_written else "undeliverable"

    async def bury_unreadable(
        self, partition: Partition, record: Record, unreadable: RecordError
    ) -> str | None:
        """End a record whose headers are wrong; whoever waits is told, if they still say who."""
        request = parse_address(record)
        if request is not None:
            failed = Failed(code=UNDECODABLE, message=str(unreadable), fate="dead")
            reason = retry.GiveUp(UNDECODABLE)
            return await self.end(partition, record, request, fail(failed), reason)
        verdict = Verdict(reason=UNDECODABLE, error=str(unreadable), attempts=0)
        if self.together is not None:
            is_done = await self._commit(partition, record, [self._make_dead(record, verdict)])
            return "dead" if is_done else None
        where = await self._bury(partition, record, verdict)
        return None if where is None else "dead"

    async def _bury(
        self,
        partition: Partition,
        record: Record,
        verdict: Verdict,
        request_id: str | None = None,
    ) -> str | None:
        """Write a dead letter and wait for its acknowledgement, for as long as it takes.

        Without it the offset is not committed: nothing is dropped.

        Returns:
            Where it lies, as topic/partition/offset; None: the record is not ours any more.
        """
        dead = self._make_dead(record, verdict)
        placed = await write(
            self._attempts.route(),
            dead,
            event="dead-letter-not-written",
            request_id=request_id,
            is_wanted=partition.is_wanted,
            is_patient=True,
        )
        if placed is None:
            return None
        where = f"{dead.topic}/{placed.partition}/{placed.offset}"
        _log.error(
            "dead-letter",
            request_id=request_id,
            reason=verdict.reason,
            why=verdict.error,
            attempts=verdict.attempts,
            where=where,
            was=f"{record.topic}/{record.partition}/{record.offset}",
        )
        return where

    def _make_dead(self, record: Record, verdict: Verdict) -> Record:
        return make_dead(
            record,
            verdict,
            topic=self._service.dead_topic,
            group=self._service.group,
            worker=self._worker,
        )


def _judge(failed: Failed, follows: retry.GiveUp, request: Request) -> Verdict:
    return Verdict(
        reason=follows.reason,
        error=f"{failed.code}: {failed.message}",
        attempts=0 if follows.reason == UNDECODABLE else request.attempt,
    )
