"""One attempt: a record becomes a request, the handler is run, its outcome becomes events."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import NamedTuple

import structlog
from prometheus_client import Counter

from bridge import metrics, tracing
from bridge.codec import render_json
from bridge.context import Context, no_deadline
from bridge.envelope import Event, Identity, Record, Request, make_reply
from bridge.errors import BodyTooLargeError, InvalidPayloadError, RecordError, TopicError
from bridge.forward import read_record, take_reply
from bridge.kafka import Placed, Producer, Send
from bridge.service import PROGRESS, Service
from bridge.worker.answered import Answered
from bridge.worker.handler import Handler
from bridge.worker.outcome import REPLY_TOO_LARGE, Failed, Outcome, explain, fail, overrun
from bridge.worker.write import always, write

_log = structlog.get_logger("bridge.worker")

PROBE_ID = "probe-worker"


class _Last(NamedTuple):
    """What an event carries beside its name."""

    value: bytes | None = None
    sequence: int | None = None
    headers: Sequence[tuple[str, bytes]] = ()


_NOTHING = _Last()


class Clock:
    """Broker time, as the delivery reports of the own reply topic tell it.

    Args:
        own_ms: Own clock, Unix milliseconds.
    """

    def __init__(self, own_ms: Callable[[], int]) -> None:
        self._own_ms = own_ms
        self._skew_ms = 0

    def now_ms(self) -> int:
        """Return broker time, Unix milliseconds."""
        return self._own_ms() + self._skew_ms

    def learn(self, placed: Placed) -> None:
        """Take the skew from an acknowledgement, if it tells the broker's time."""
        if placed.is_broker_time:
            self._skew_ms = placed.timestamp_ms - self._own_ms()


class Attempts:
    """Runs attempts of one service and writes their events.

    Args:
        service: The contract.
        handler: What its author wrote.
        producer: Writes events.
        clock: Broker time.
        in_hand: Tells how many records are in hand, for the choice of producer.
        cancelled: What has been cancelled of the service; it grows.
    """

    def __init__(
        self,
        service: Service,
        handler: Handler,
        producer: Producer,
        clock: Clock,
        in_hand: Callable[[], int],
        cancelled: Answered,
    ) -> None:
        self._service = service
        self._handler = handler
        self._producer = producer
        self._clock = clock
        self._in_hand = in_hand
        self._cancelled = cancelled
        self._told: dict[Identity, list[asyncio.Future[Placed]]] = {}
        self._tracer = tracing.find_tracer()
        self._seconds = metrics.HANDLER_SECONDS.labels(service.name)
        self._ended: dict[str, Counter] = {}
        self._running = 0
        metrics.RUNNING.labels(service.name).set_function(lambda: self._running)

    async def learn_time(self) -> None:
        """Learn the broker's time before any work, from a probe in a lane of the own service.

        Without it the first note beside an offset would carry this machine's time.
        """
        if self._service.kind == "none":
            return
        probe = Request(request_id=PROBE_ID, reply_to=self._service.replies_topic)
        await self._write(self.route(), probe, Event.PROBE)

    def was_cancelled(self, request: Request) -> bool:
        """Tell whether this worker has heard that a request was cancelled."""
        return request.identity in self._cancelled

    def route(self) -> Send:
        """Choose the way of one request's events: one for all, so that they keep their order."""
        return self._producer.route(self._in_hand())

    async def run(self, record: Record, request: Request, send: Send) -> Outcome:
        """Run the handler on a record; every way it can end is an outcome."""
        if self._tracer is None:
            return await self._run(record, request, send)
        name, given = request.request_id, request.trace
        with tracing.process(self._tracer, record.topic, name, given) as ended:
            outcome = await self._run(record, request, send)
            ended.append(outcome.event)
        return outcome

    async def _run(self, record: Record, request: Request, send: Send) -> Outcome:
        if request.deadline_ms is not None and self._clock.now_ms() >= request.deadline_ms:
            return Outcome(event=Event.EXPIRED)
        try:
            value = self._service.decode(record.value)
            if self._handler.is_json:
                value = render_json(value)
        except RecordError as unreadable:
            failed = Failed(code=unreadable.code, message=str(unreadable), fate="dead")
            return fail(failed)
        names = self._service.forward
        context = self._context(request, send, read_record(names, record.headers) if names else {})
        self._running += 1
        began_s = perf_counter()
        try:
            outcome = await self._handle(value, context, request, send)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            broken = RuntimeError(f"the handler was cancelled: {error}")
            outcome = fail(explain(broken, request))
        except BodyTooLargeError as too_large:  # a part; what was told before it stands
            failed = Failed(code=REPLY_TOO_LARGE, message=str(too_large), fate="dead")
            outcome = fail(failed)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises ends its request, not the worker
            outcome = fail(explain(error, request))
        finally:
            self._running -= 1
            self._seconds.observe(perf_counter() - began_s)
        self._count(outcome.event if outcome.failed is None else outcome.failed.fate)
        return self._with_headers(outcome, context) if context.reply_headers else outcome

    def _count(self, ended: str) -> None:
        counter = self._ended.get(ended)
        if counter is None:
            counter = self._ended[ended] = metrics.ATTEMPTS.labels(self._service.name, ended)
        counter.inc()

    def _with_headers(self, outcome: Outcome, context: Context) -> Outcome:
        """Add what the handler said in headers; what cannot go through is logged."""
        taken, dropped = take_reply(self._service.returned, list(context.reply_headers.items()))
        for why in dropped:
            _log.warning("reply-header-dropped", request_id=context.request_id, why=why)
        return replace(outcome, headers=taken)

    async def deliver(
        self, request: Request, outcome: Outcome, send: Send, is_wanted: Callable[[], bool]
    ) -> bool:
        """Write the last event and wait until it is in Kafka; patient while Kafka is away.

        Returns:
            Whether it is written, or nobody wants one. False: its topic or partition does not
            exist, or it is not wanted any more.

        Raises:
            BodyTooLargeError: It is larger than Kafka takes; nothing was written.
        """
        last = _Last(outcome.value, outcome.count, outcome.headers)
        return await self._write(send, request, outcome.event, last, is_wanted)

    async def _handle(
        self, value: object, context: Context, request: Request, send: Send
    ) -> Outcome:
        left_s = min(context.deadline_s, self._service.worker.timeout_s)
        if self._handler.stream is not None:
            parts = self._handler.stream(value, context)
            return await self._stream(parts, request, left_s, send)
        if self._handler.thread is not None:
            return await self._thread(self._handler.thread(value, context), left_s)
        if self._handler.call is None:
            raise TypeError("a handler is one of three")
        limit = asyncio.timeout(left_s)
        try:
            async with limit:
                reply = await self._handler.call(value, context)
        except TimeoutError:
            if not limit.expired():
                raise
            return self._overrun(left_s)
        return self._completed(reply)

    async def _thread(self, running: "asyncio.Future[object]", left_s: float) -> Outcome:
        done, _ = await asyncio.wait([running], timeout=left_s)
        if not done:
            return replace(self._overrun(left_s), leftover=running)
        return self._completed(running.result())

    async def _stream(
        self,
        parts: AsyncGenerator[object],
        request: Request,
        left_s: float,
        send: Send,
    ) -> Outcome:
        count = 0
        limit = asyncio.timeout(left_s)
        try:
            async with limit, aclosing(parts):
                async for part in parts:
                    encoded = self._encode(part)
                    await self._write(send, request, Event.PART, _Last(encoded, count))
                    count += 1
        except TimeoutError:
            if not limit.expired():
                raise
            return self._overrun(left_s)
        return Outcome(event=Event.COMPLETED, count=count)

    def _completed(self, reply: object) -> Outcome:
        if self._service.kind == "none":
            return Outcome(event=Event.COMPLETED)
        return Outcome(event=Event.COMPLETED, value=self._encode(reply))

    def _encode(self, reply: object) -> bytes:
        if self._handler.is_json and isinstance(reply, bytes):
            return self._service.encode_reply_json(reply)
        return self._service.encode_reply(reply)

    def _overrun(self, left_s: float) -> Outcome:
        """Say which of the two limits it was; the clock may have been corrected since."""
        limit_s = self._service.worker.timeout_s
        if left_s < limit_s:
            return Outcome(event=Event.EXPIRED)
        return fail(overrun(limit_s))

    def _context(self, request: Request, send: Send, headers: dict[str, str]) -> Context:
        deadline_ms = request.deadline_ms
        loop, loop_thread = asyncio.get_running_loop(), threading.get_ident()

        def report(fraction: float | None, message: str) -> None:
            # A thread's progress comes before its end: both go through the loop's queue, in order.
            if threading.get_ident() == loop_thread:
                self._progress(request, send, fraction, message)
            else:
                loop.call_soon_threadsafe(self._progress, request, send, fraction, message)

        return Context(
            request_id=request.request_id,
            attempt=request.attempt,
            principal=request.principal,
            headers=headers,
            trace=tracing.carry(request.trace) if request.trace or self._tracer else {},
            replay=request.replay_id,
            seconds_left=no_deadline if deadline_ms is None else partial(self._left_s, deadline_ms),
            was_cancelled=partial(self.was_cancelled, request),
            report=report,
        )

    def _left_s(self, deadline_ms: int) -> float:
        return (deadline_ms - self._clock.now_ms()) / 1000

    def _progress(self, request: Request, send: Send, fraction: float | None, message: str) -> None:
        if request.reply_to is None or request.correlation is not None:
            return
        if self.was_cancelled(request):
            return
        try:
            value = PROGRESS.from_native({"fraction": fraction, "message": message})
        except InvalidPayloadError as wrong:
            _log.warning("progress-invalid", request_id=request.request_id, why=str(wrong))
            return
        written = send(make_reply(request, Event.PROGRESS, value))
        written.add_done_callback(partial(_note_loss, request.request_id))
        if self._service.worker.exactly_once:
            self._told.setdefault(request.identity, []).append(written)

    async def wait_told(self, request: Request) -> None:
        """Wait until what was told of a request is acknowledged: its last event takes another way."""
        told = self._told.pop(request.identity, None)
        if told:
            await asyncio.wait(told)

    def make_last(self, request: Request, outcome: Outcome) -> Record | None:
        """Make the last event of a request; None: nobody wants one.

        Raises:
            BodyTooLargeError: It is larger than Kafka takes.
        """
        if request.reply_to is None or self.was_cancelled(request):
            return None
        record = make_reply(
            request, outcome.event, outcome.value, sequence=outcome.count, extra=outcome.headers
        )
        self._producer.check_size(record)
        return record

    async def _write(
        self,
        send: Send,
        request: Request,
        event: Event,
        last: _Last = _NOTHING,
        is_wanted: Callable[[], bool] = always,
    ) -> bool:
        if request.reply_to is None or (request.correlation is not None and not event.is_last):
            return True
        if self.was_cancelled(request):  # after its last event nothing is written
            return True
        record = make_reply(request, event, last.value, sequence=last.sequence, extra=last.headers)
        self._producer.check_size(record)
        name = request.request_id
        try:
            placed = await write(
                send, record, event="reply-not-written", request_id=name, is_wanted=is_wanted
            )
        except TopicError as gone:
            _log.error("reply-undeliverable", request_id=name, why=str(gone))
            return False
        if placed is not None:
            self._clock.learn(placed)
        return placed is not None


def _note_loss(request_id: str, written: "asyncio.Future[Placed]") -> None:
    if not written.cancelled() and written.exception() is not None:
        _log.info("progress-lost", request_id=request_id, why=str(written.exception()))
