"""Asking: a request is written, and its reply awaited."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import msgspec
import structlog
from starlette.types import Receive

from bridge import ids
from bridge.claims import Ruling
from bridge.envelope import Event, Request, make_reply
from bridge.errors import BridgeError, DrainingError, OutcomeUnknownError, UnavailableError
from bridge.ingress.claims import Claims
from bridge.ingress.events import Streams
from bridge.ingress.job import Job
from bridge.ingress.join import Joins
from bridge.ingress.limits import Limits
from bridge.ingress.load import Load
from bridge.ingress.look import EXPIRE_MARGIN_MS
from bridge.ingress.room import Answer, Room, Waiter
from bridge.kafka import Placed, Producer, Send
from bridge.replylog import ReplyLog
from bridge.service import Service

_log = structlog.get_logger("bridge.ingress")

ACKNOWLEDGE_S = 10.0
"""A request that nobody waits for is written within this, or its outcome is unknown."""
HAND_OFF_S = 2.0
"""A `202` waits at most so long for the acknowledgement of `accepted`, or of the note at the key."""


INSIST_S = 0.1
"""A request whose key is taken, and which was not taken itself, is tried again after so long."""


class Ingress:
    """What the routes ask; owned by the application's lifespan, used in its event loop only.

    Args:
        producer: Writes requests and `accepted` events.
        load: What is known of the workers, and of the own lanes.
        claims: What Idempotency-Keys stand for.
        room: Who waits.
        streams: Streams of events, and what finds requests by ID.
        limits: What is granted.
        chance: Draws 62 random bits.
    """

    def __init__(  # noqa: PLR0913 - the parts it is made of, each by its name
        self,
        *,
        producer: Producer,
        load: Load,
        claims: Claims,
        room: Room,
        streams: Streams,
        limits: Limits,
        chance: Callable[[], int],
    ) -> None:
        self.producer = producer
        self._room = room
        self._chance = chance
        self.load = load
        self.lanes = load.lanes
        self.lookups = streams.lookups
        self.streams = streams
        self.claims = claims
        self.joins = Joins(claims, streams.lookups, load.lanes, room, self.post)
        self.limits = limits
        self.is_draining = False
        self.is_over = False
        self._drained_s: float | None = None

    def new_request(
        self,
        service: Service,
        *,
        deadline_s: float,
        principal: str | None = None,
        trace: tuple[tuple[str, bytes], ...] = (),
    ) -> Request:
        """Name a new request and choose its lane.

        Raises:
            UnavailableError, TopicError: Nothing can be taken now.
        """
        if self.is_over:
            raise DrainingError("this replica is stopping: ask again, another one takes it")
        lane = self.lanes.pick(service)
        now_ms = self.lanes.now_ms()
        wants_reply = service.kind != "none"
        return Request(
            request_id=ids.make(time_ms=now_ms, lane=lane, chance=self._chance()),
            reply_to=service.replies_topic if wants_reply else None,
            reply_partition=lane if wants_reply else None,
            deadline_ms=now_ms + int(deadline_s * 1000),
            principal=principal,
            trace=trace,
        )

    def name_refused(self) -> str:
        """Name a request that was not taken, for the client's log and ours; no look-up finds it."""
        return ids.make(time_ms=self.lanes.now_ms(), lane=0, chance=self._chance())

    @property
    def trouble(self) -> BridgeError | None:
        """Why this replica cannot take every request now; None when it can."""
        return self.lanes.trouble or self.claims.trouble

    async def write(
        self, job: Job, ruling: Ruling | None = None, receive: Receive | None = None
    ) -> ReplyLog:
        """Write a request, or join the one that its key stands for; wait as long as its client does.

        Args:
            job: What the client asks for.
            ruling: Of `Claims.settle`; None: it has no `Idempotency-Key`.
            receive: Tells when the client leaves; None: nobody can.

        Returns, raises:
            As `ask`, or `Joins.join`.
        """
        if ruling is None:
            return await self._write(job, receive)
        if not self.claims.is_own(job, ruling):
            return await self.joins.join(job, ruling, receive)
        return await self._insist(job, ruling, receive)

    async def _write(
        self, job: Job, receive: Receive | None, ruling: Ruling | None = None
    ) -> ReplyLog:
        if job.wait_s > 0:
            return await self.ask(job, receive)
        await self.post(job, ruling)
        return ReplyLog()

    async def _insist(self, job: Job, ruling: Ruling, receive: Receive | None) -> ReplyLog:
        """Write a claimed request; while it surely is not written, try again, as long as it may be.

        Its key stands for it already, so whoever asks again would find nothing and have to wait
        until it may be healed. (A full queue is a matter of moments.)
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + (job.wait_s or ACKNOWLEDGE_S)
        while True:
            try:
                return await self._write(job, receive, ruling)
            except DrainingError:
                raise
            except UnavailableError:
                left_s = until_s - loop.time() - INSIST_S
                if left_s <= 0 or not self.claims.is_own(job, ruling):
                    raise
                await asyncio.sleep(INSIST_S)
                job = msgspec.structs.replace(job, wait_s=left_s if job.wait_s else 0.0)

    def watch(self, name: str, waiter: Waiter) -> None:
        """Let a waiter be told when this replica stops; it leaves with `unwatch`.

        Raises:
            DrainingError: It stops already.
            OverloadedError: As many wait as may.
        """
        if self.is_over:
            raise DrainingError("this replica is stopping: ask again, another one takes it")
        self._room.enter(name, waiter)

    def unwatch(self, name: str, waiter: Waiter) -> None:
        """Tell the waiter no more; harmless when it was told."""
        self._room.leave(name, waiter)

    async def ask(self, job: Job, receive: Receive | None = None) -> ReplyLog:
        """Write a request and wait for its last event, as long as its client does.

        Args:
            job: The request.
            receive: Tells when the client leaves; None: nobody can.

        Returns:
            Its log. Without a last event the time is up: the request goes on, `accepted` is in its
            lane, and the log there keeps the answer. Who waits past the deadline gets a last event,
            unless Kafka is away just then.

        Raises:
            NoWorkersError, OverloadedError, UnavailableError, BodyTooLargeError, TopicError: Surely
                not written.
            OutcomeUnknownError: It may be written, now or later.
        """
        if not job.is_claimed:  # else it was admitted before it was claimed
            self.load.admit_job(job)
        loop = asyncio.get_running_loop()
        request_id = job.request.request_id
        answer = Answer(loop, receive=receive)
        self._room.enter(request_id, answer)  # before the write: the reply may be faster
        in_hand = len(self._room)
        expected_s = self.load.expected_s(job.service)
        timer = loop.call_later(job.wait_s, answer.stop)
        try:
            # A reply says that the request was written; its acknowledgement is waited for only
            # where none came. A failure wakes the client at once.
            send = self.producer.route(in_hand, is_lazy=not job.is_claimed, ordered=job.ordered)
            written = send(job.record)
            written.add_done_callback(answer.note_written)
            announced = _announce_early(job, written, partial(_announce, job.request, send))
            await answer.over
            if answer.log.last is None:
                await await_written(written, HAND_OFF_S)
                await self._end(job, answer)
            elif answer.log.last.event is Event.COMPLETED:
                took_s = loop.time() - timer.when() + job.wait_s
                self.load.note_answer(job.service, took_s, expected_s)
        finally:
            timer.cancel()
            self._room.leave(request_id, answer)
        if answer.log.last is None:
            if not announced:
                announced.append(_announce(job.request, self.producer.route(in_hand)))
            await _hand_off(announced[0])
        return answer.log

    async def post(self, job: Job, ruling: Ruling | None = None) -> None:
        """Write a request that nobody waits for.

        Args:
            job: The request.
            ruling: Of its `Idempotency-Key`: a request without a log is noted there when it is
                written, however late that is.

        Raises:
            As `ask`.
        """
        if not job.is_claimed:  # else it was admitted before it was claimed
            self.load.admit_job(job)
        send = self.producer.route(len(self._room), ordered=job.ordered)
        announce: _Announce = partial(_announce, job.request, send)
        if ruling is not None and job.request.reply_to is None:
            announce = partial(self.claims.note_written, job, ruling)
        written = send(job.record)
        announced = _announce_early(job, written, announce)
        await await_written(written, ACKNOWLEDGE_S)
        await _hand_off(announced[0] if announced else announce())

    def drain(self) -> None:
        """Be not ready: this process stops. What still comes on open connections is served."""
        self.is_draining = True
        self._drained_s = asyncio.get_running_loop().time()
        self._room.close()

    @property
    def left_s(self) -> float:
        """How much of the grace time is left, in seconds; all of it before this process stops."""
        if self._drained_s is None:
            return self.limits.grace_s
        gone_s = asyncio.get_running_loop().time() - self._drained_s
        return max(0.0, self.limits.grace_s - gone_s)

    async def _end(self, job: Job, answer: Answer) -> None:
        """Find the end of a request whose client's time is up, if it has one, or can be given one."""
        with suppress(BridgeError):  # then nobody can say yet
            await self.lookups.catch_up(job.service, job.request.request_id, answer)
            if answer.log.last is None:
                await self._expire(job.request, answer)
                await self.lookups.catch_up(job.service, job.request.request_id, answer)

    async def _expire(self, request: Request, answer: Answer) -> None:
        """End a request whose deadline is past: write `expired`, see what came first in the lane.

        The waiter has followed the lane since before the request was written, so nothing need be
        looked up (unless it has missed something). As for a look-up, the worker's own word has a few
        seconds to come.
        """
        deadline_ms = request.deadline_ms
        if self.is_over or deadline_ms is None:
            return
        if self.lanes.now_ms() < deadline_ms + EXPIRE_MARGIN_MS:
            return
        send = self.producer.route(len(self._room))
        answer.wait_on()
        with suppress(TimeoutError, BridgeError):  # then nobody can say yet
            async with asyncio.timeout(HAND_OFF_S):
                await send(make_reply(request, Event.EXPIRED))
                await answer.over

    def release(self) -> None:
        """Wake everybody and take nothing new: nobody waits for a thing that is gone."""
        self.is_draining = self.is_over = True
        self._room.release()


_Announced = list["asyncio.Future[Placed] | None"]
_Announce = Callable[[], "asyncio.Future[Placed] | None"]


def _announce_early(job: Job, written: "asyncio.Future[Placed]", announce: _Announce) -> _Announced:
    """Write `accepted`, or what stands for it, on the request's acknowledgement, if so early.

    Not before: it could be in its lane while the request, refused, never was in Kafka.

    Returns:
        Its acknowledgement, once it is on its way; empty before, and when that is left to the
        hand-off.
    """
    announced: _Announced = []

    def follow(done: "asyncio.Future[Placed]") -> None:
        if not done.cancelled() and done.exception() is None:
            announced.append(announce())

    if job.announce or job.is_claimed:
        written.add_done_callback(follow)
    return announced


def _announce(request: Request, send: Send) -> "asyncio.Future[Placed] | None":
    """Write `accepted`, so that "not yet" and "never heard of" differ for a look-up.

    Returns:
        Its acknowledgement, which nobody need await; None: the request wants no reply log.
    """
    if request.reply_to is None:
        return None
    announced = send(make_reply(request, Event.ACCEPTED))
    announced.add_done_callback(partial(_note_announced, request.request_id))
    return announced


def _note_announced(request_id: str, announced: "asyncio.Future[Placed]") -> None:
    """Log that `accepted` is missing: the request itself is in Kafka, or its client is told."""
    if not announced.cancelled() and (trouble := announced.exception()) is not None:
        _log.warning("accepted-not-written", request_id=request_id, why=str(trouble))


async def _hand_off(announced: "asyncio.Future[Placed] | None") -> None:
    """Wait a moment for `accepted`, or for the note; a `202` promises the request, which is in Kafka."""
    if announced is not None:
        await asyncio.wait([announced], timeout=HAND_OFF_S)


async def await_written(written: "asyncio.Future[Placed]", limit_s: float) -> None:
    """Wait for an acknowledgement, not as long as the producer tries.

    Raises:
        OutcomeUnknownError: None came; the record may be in the log, now or later.
    """
    try:
        async with asyncio.timeout(limit_s):
            await asyncio.shield(written)
    except TimeoutError:
        written.add_done_callback(_look_away)
        raise OutcomeUnknownError(
            f"Kafka did not acknowledge the record within {limit_s:g} s"
        ) from None


def _look_away(written: "asyncio.Future[Placed]") -> None:
    """Read a result that nobody waits for any more, so that its error is not reported as lost."""
    if not written.cancelled():
        written.exception()
