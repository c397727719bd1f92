"""One line of a batch: the job made of it, asked patiently, and the result line."""

import asyncio

import msgspec
import structlog
from starlette.responses import Response

from bridge import metrics
from bridge.claims import Ruling
from bridge.errors import (
    BodyTooLargeError,
    BridgeError,
    BrokerDownError,
    DrainingError,
    OutcomeUnknownError,
    UnavailableError,
)
from bridge.ingress import problem
from bridge.ingress.answer import ACCEPTED, OK, render
from bridge.ingress.ask import Ingress
from bridge.ingress.head import Head, make_job
from bridge.ingress.job import Job
from bridge.ingress.look import SEE_END_S
from bridge.lines import Line
from bridge.replylog import ReplyLog
from bridge.service import Service

_log = structlog.get_logger("bridge.ingress")

KINDS = ("completed", "accepted", "failed", "expired", "cancelled", "refused")
"""What a summary counts; each line is one of them."""

_PAUSE_S = 0.2


class Asker:
    """Asks for the lines of one batch.

    Args:
        ingress: Whom.
        service: Whose requests.
        head: What the headers of the batch ask for; holds for each line.
    """

    def __init__(self, ingress: Ingress, service: Service, head: Head) -> None:
        self.ingress = ingress
        self.service = service
        self.head = head
        self._waiting: set[asyncio.Task[object]] = set()
        self._is_alone = False

    def leave(self) -> None:
        """Wait for no reply any more: lines that were taken are written, and go on by themselves."""
        self._is_alone = True
        for task in self._waiting:
            task.cancel()

    async def ask(self, line: Line) -> tuple[str, bytes]:
        """Work on one line to its end, or to its deadline and a few seconds.

        Returns:
            One of `KINDS`, and the result line.
        """
        kind, request_id, is_replayed = "refused", None, False
        try:
            job = await self._make(line)
            ruling = await self._settle(job, line)
            request_id = job.request.request_id if ruling is None else ruling.request_id
            is_replayed = request_id != job.request.request_id
            log = await self._send(job, ruling)
            response = render(self.service, request_id, log)
            kind = _kind(response.status_code, log)
        except BridgeError as error:
            if isinstance(error, BrokerDownError | OutcomeUnknownError):
                self.ingress.lanes.doubt()
            response = problem.render(error, request_id=request_id)
        except Exception as error:  # noqa: BLE001 - one line shall not end the others
            _log.error("line-broke", exc_info=error)
            bug = BridgeError("an error of the bridge itself: see its log")
            response = problem.render(bug, request_id=request_id)
        metrics.BATCH_LINES.labels(self.service.name, kind).inc()
        return kind, _write(line.number, response, request_id, is_replayed=is_replayed)

    async def _make(self, line: Line) -> Job:
        """Make a job of a line; while nothing can be taken, wait: a batch is patient."""
        if line.text is None:
            limit = self.ingress.limits.max_body_bytes
            raise BodyTooLargeError(f"the line has more than {limit} bytes: want at most that")
        loop = asyncio.get_running_loop()
        until = loop.time() + self.head.deadline_s
        while True:
            left_s = until - loop.time()
            try:
                head = msgspec.structs.replace(self.head, deadline_s=left_s)
                job = make_job(self.ingress, self.service, head, line.text)
                return msgspec.structs.replace(job, is_patient=True)
            except UnavailableError as trouble:
                await _pause(trouble, left_s)

    async def _settle(self, job: Job, line: Line) -> Ruling | None:
        """Decide which request a line with an `Idempotency-Key` stands for."""
        key = self.head.claim_key(self.service, line.number)
        if key is None:
            return None
        deadline_ms = job.request.deadline_ms or 0
        while True:
            left_s = (deadline_ms - self.ingress.lanes.now_ms()) / 1000
            try:
                return await self.ingress.claims.settle(job, key)
            except UnavailableError as trouble:
                await _pause(trouble, 0.0 if self._is_alone else left_s)

    async def _send(self, job: Job, ruling: Ruling | None) -> ReplyLog:
        """Write a line's request, and wait for its end; a full queue slows the batch down.

        The same job is written again only where it surely was not written.
        """
        deadline_ms = job.request.deadline_ms or 0
        while True:
            left_s = (deadline_ms - self.ingress.lanes.now_ms()) / 1000
            try:
                if job.wait_s <= 0 or self._is_alone:
                    return await self.ingress.write(
                        msgspec.structs.replace(job, wait_s=0.0), ruling
                    )
                wait_s = max(0.0, left_s) + SEE_END_S
                return await self._wait(msgspec.structs.replace(job, wait_s=wait_s), ruling)
            except UnavailableError as trouble:
                await _pause(trouble, 0.0 if self._is_alone else left_s)

    async def _wait(self, job: Job, ruling: Ruling | None) -> ReplyLog:
        """Ask; the request is with the producer before this waits, so it may be cancelled."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine is run by one
        self._waiting.add(task)
        try:
            return await self.ingress.write(job, ruling)
        finally:
            self._waiting.discard(task)


async def _pause(trouble: UnavailableError, left_s: float) -> None:
    """Wait before another try; raise the trouble when there is no time for one."""
    if isinstance(trouble, DrainingError) or left_s <= _PAUSE_S:
        raise trouble
    await asyncio.sleep(_PAUSE_S)


def _kind(status: int, log: ReplyLog) -> str:
    if status in {OK, ACCEPTED}:
        return "completed" if status == OK else "accepted"
    return log.state if log.state in {"expired", "cancelled"} else "failed"


def _write(number: int, response: Response, request_id: str | None, *, is_replayed: bool) -> bytes:
    """Write a result line around what a single request would be answered."""
    status = response.status_code
    replayed = b'"replayed":true,' if is_replayed else b""
    head = b'{"line":%d,"status":%d,%b' % (number, status, replayed)
    if status not in {OK, ACCEPTED}:
        return b'%b"problem":%b}\n' % (head, bytes(response.body))
    name = msgspec.json.encode(request_id)
    if status == ACCEPTED:
        return b'%b"request_id":%b}\n' % (head, name)
    return b'%b"request_id":%b,"reply":%b}\n' % (head, name, bytes(response.body))
