"""Asking: a request is written, its reply awaited; or its reply log is looked up."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import structlog

from bridge import ids, metrics
from bridge.envelope import (
    Event,
    Record,
    Reply,
    Request,
    make_reply,
    parse_reply,
)
from bridge.errors import (
    BridgeError,
    DrainingError,
    GoneError,
    OutcomeUnknownError,
    UnknownRequestError,
)
from bridge.ingress.lanes import Followers, Lanes
from bridge.kafka import Placed, Producer, Reader, Send
from bridge.replylog import ReplyLog
from bridge.service import Service
from bridge.waiting import WaitingRoom

_log = structlog.get_logger("bridge.ingress")

ACKNOWLEDGE_S = 10.0
"""A request that nobody waits for is written within this, or its outcome is unknown."""
HAND_OFF_S = 2.0
"""A `202` waits at most so long for the acknowledgement of `accepted`."""
SEEK_MARGIN_MS = 2000
"""A look-up starts so long before the ID's time: clocks of brokers and replicas differ a little."""
SEEN_MARGIN_MS = 60_000
"""Reading on after the last moment at which an event is to be expected."""
EXPIRE_MARGIN_MS = 5000
"""So long after its deadline a request without a last event is declared expired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the ingress grants.

    Attributes:
        waiters: Clients that may wait at once.
        max_wait_s: Longest wait, seconds.
        max_body_bytes: Largest body.
        max_depth: Deepest JSON nesting.
        max_header_bytes: Largest sum of header names and values.
        max_uri_bytes: Longest request target.
        grace_s: Seconds to write what is not acknowledged yet, on leaving.
    """

    waiters: int = 10_000
    max_wait_s: float = 300.0
    max_body_bytes: int = 1_000_000
    max_depth: int = 64
    max_header_bytes: int = 32_768
    max_uri_bytes: int = 8192
    grace_s: float = 10.0


EVENTS = {event: metrics.EVENTS.labels(event.value) for event in Event}


class Answer:
    """One waiting client: the log so far, and a future that is done at its last event."""

    __slots__ = ("log", "over")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.log = ReplyLog()
        self.over: asyncio.Future[None] = loop.create_future()

    def take(self, reply: Reply) -> None:
        """Merge one event; the last one wakes the client."""
        self.log.take(reply)
        if self.log.last is not None:
            self.stop()

    def note_written(self, written: "asyncio.Future[Placed]") -> None:
        """Wake the client when its request could not be written."""
        if not written.cancelled() and written.exception() is not None:
            self.stop()

    def stop(self) -> None:
        """Wake the client, whatever the log says."""
        if not self.over.done():
            self.over.set_result(None)


class Ingress:
    """What the routes ask; owned by the application's lifespan, used in its event loop only.

    Args:
        producer: Writes requests and `accepted` events.
        reader: Reads lanes for look-ups.
        lanes: Own lanes and broker time.
        followers: Foreign lanes while someone waits.
        limits: What is granted.
        chance: Draws 62 random bits.
    """

    def __init__(
        self,
        *,
        producer: Producer,
        reader: Reader,
        lanes: Lanes,
        limits: Limits,
        chance: Callable[[], int],
    ) -> None:
        self._producer = producer
        self._reader = reader
        self._chance = chance
        self._room: WaitingRoom[Answer] = WaitingRoom(limits.waiters)
        self.lanes = lanes
        self.limits = limits
        self.followers: Followers | None = None
        self.is_stopping = False
        metrics.WAITERS.set_function(lambda: len(self._room))

    def new_request(
        self, service: Service, *, deadline_s: float, trace: tuple[tuple[str, bytes], ...] = ()
    ) -> Request:
        """Name a new request and choose its lane.

        Raises:
            UnavailableError, TopicError: Nothing can be taken now.
        """
        if self.is_stopping:
            raise DrainingError("this replica is stopping: ask again, another one takes it")
        lane = self.lanes.pick(service)
        now_ms = self.lanes.now_ms()
        wants_reply = service.kind != "none"
        return Request(
            request_id=ids.make(time_ms=now_ms, lane=lane, chance=self._chance()),
            reply_to=service.replies_topic if wants_reply else None,
            reply_partition=lane if wants_reply else None,
            deadline_ms=now_ms + int(deadline_s * 1000),
            trace=trace,
        )

    def name_refused(self) -> str:
        """Name a request that was not taken, for the client's log and ours; no look-up finds it."""
        return ids.make(time_ms=self.lanes.now_ms(), lane=0, chance=self._chance())

    async def ask(self, record: Record, request: Request, *, wait_s: float) -> ReplyLog:
        """Write a request and wait for its last event, at most `wait_s` seconds.

        Returns:
            Its log. Without a last event the time is up: the request goes on, `accepted` is in its
            lane, and the log there keeps the answer.

        Raises:
            OverloadedError, UnavailableError, BodyTooLargeError, TopicError: Surely not written.
            OutcomeUnknownError: It may be written, now or later.
        """
        loop = asyncio.get_running_loop()
        answer = Answer(loop)
        self._room.enter(request.request_id, answer)  # before the write: the reply may be faster
        in_hand = len(self._room)
        timer = loop.call_later(wait_s, answer.stop)
        try:
            # A reply says that the request was written; its acknowledgement is waited for only
            # where none came. A failure wakes the client at once.
            written = self._producer.route(in_hand, is_lazy=True)(record)
            written.add_done_callback(answer.note_written)
            await answer.over
            if answer.log.last is None:
                await _await_written(written, HAND_OFF_S)
        finally:
            timer.cancel()
            self._room.leave(request.request_id, answer)
        if answer.log.last is None:
            await self._hand_off(request, self._producer.route(in_hand))
        return answer.log

    async def post(self, record: Record, request: Request) -> None:
        """Write a request that nobody waits for.

        Raises:
            As `ask`.
        """
        send = self._producer.route(len(self._room))
        await _await_written(send(record), ACKNOWLEDGE_S)
        if request.reply_to is not None:
            await self._hand_off(request, send)

    async def _hand_off(self, request: Request, send: Send) -> None:
        """Write `accepted`, so that "not yet" and "never heard of" differ for a look-up."""
        try:
            async with asyncio.timeout(HAND_OFF_S):
                await send(make_reply(request, Event.ACCEPTED))
        except (TimeoutError, BridgeError) as trouble:
            # The request itself is in Kafka: that is what 202 promises.
            _log.warning("accepted-not-written", request_id=request.request_id, why=str(trouble))

    def take(self, records: list[Record]) -> None:
        """Hand what the lanes brought to whoever waits for it."""
        for record in records:
            reply = parse_reply(record)
            if reply is None:
                continue
            for answer in self._room.find(reply.request_id):
                answer.take(reply)
                if reply.event is not None:
                    EVENTS[reply.event].inc()

    def release(self) -> None:
        """Wake everybody: this process stops, and nobody waits for a thing that is gone."""
        self.is_stopping = True
        for answer in self._room.clear():
            answer.stop()

    async def find(
        self, service: Service, request_id: str, where: ids.Address | None, *, wait_s: float
    ) -> ReplyLog:
        """Look a request up in its lane, and wait for its last event if it has none yet.

        Args:
            service: Whose lanes.
            request_id: Its name.
            where: Where its log starts; None: nobody knows, the ID is not ours.
            wait_s: How long to wait for a last event; 0: only look.

        Raises:
            UnknownRequestError: Nothing of it is in the lane.
            GoneError: Nothing any more: it is older than the retention.
            UnavailableError, TopicError: The lane cannot be read now.
        """
        lanes = self.lanes.count(service)  # raises while nobody knows
        if where is None or where.lane >= lanes:
            raise UnknownRequestError(f"no request {request_id}: not an ID that this bridge made")
        answer = Answer(asyncio.get_running_loop())
        async with AsyncExitStack() as stack:
            if wait_s > 0:  # before the look: what comes after it is told
                self._room.enter(request_id, answer)
                stack.callback(self._room.leave, request_id, answer)
            await self._look(service, request_id, where, answer)
            self._expire_for_good(service, request_id, where, answer)
            if wait_s > 0 and answer.log.last is None and answer.log.is_seen:
                await self._follow(stack, service, request_id, where, answer)
                timer = asyncio.get_running_loop().call_later(wait_s, answer.stop)
                stack.callback(timer.cancel)
                await answer.over
        if answer.log.last is None and await self._expire(service, request_id, where, answer.log):
            await self._look(service, request_id, where, answer)
        if not answer.log.is_seen:
            raise self._unknown(service, request_id, where)
        return answer.log

    async def _follow(
        self,
        stack: AsyncExitStack,
        service: Service,
        request_id: str,
        where: ids.Address,
        answer: Answer,
    ) -> None:
        """Follow a foreign lane, and look again: something may have come before it was followed."""
        topic = service.replies_topic
        if self.followers is not None and not self.lanes.is_own(topic, where.lane):
            await stack.enter_async_context(self.followers.follow(topic, where.lane))
            await self._look(service, request_id, where, answer)

    async def _look(
        self, service: Service, request_id: str, where: ids.Address, answer: Answer
    ) -> None:
        """Read the lane from the ID's time on, no further than events can be expected."""
        found: list[Reply] = []
        key = request_id.encode() if service.key is None else None
        until_ms = self._unseen_until_ms(where)

        def is_enough(record: Record) -> bool:  # on the reader's thread
            nonlocal until_ms
            if record.timestamp_ms > until_ms:
                return True
            if key is not None and record.key != key:  # a reply of Spring's has its request's key
                return False
            reply = parse_reply(record)
            if reply is None or reply.request_id != request_id:
                return False
            found.append(reply)
            until_ms = max(until_ms, _deadline_ms(service, where, reply) + SEEN_MARGIN_MS)
            return reply.event is not None and reply.event.is_last

        await self._reader.read(
            [(service.replies_topic, where.lane)],
            since_ms=where.time_ms - SEEK_MARGIN_MS,
            is_enough=is_enough,
        )
        for reply in found:
            answer.take(reply)

    def _expire_for_good(
        self, service: Service, request_id: str, where: ids.Address, answer: Answer
    ) -> None:
        """Declare a request expired whose time to end is over: look-ups read no further than that.

        Whatever is written later counts for nobody, so every replica says the same, at any time.
        """
        log = answer.log
        if log.last is not None or not log.is_seen:
            return
        end_ms = _deadline_ms(service, where, log.accepted) + SEEN_MARGIN_MS
        if self.lanes.now_ms() > max(end_ms, self._unseen_until_ms(where)):
            answer.take(Reply(request_id=request_id, event=Event.EXPIRED))

    def _unseen_until_ms(self, where: ids.Address) -> int:
        return where.time_ms + int(self.limits.max_wait_s * 1000) + SEEN_MARGIN_MS

    async def _expire(
        self, service: Service, request_id: str, where: ids.Address, log: ReplyLog
    ) -> bool:
        """Write `expired` for a request whose deadline is past; whoever wrote first still wins."""
        accepted = log.accepted
        if accepted is None or accepted.deadline_ms is None:
            return False
        if self.lanes.now_ms() < accepted.deadline_ms + EXPIRE_MARGIN_MS:
            return False
        request = Request(
            request_id=request_id, reply_to=service.replies_topic, reply_partition=where.lane
        )
        await self._producer.route(len(self._room))(make_reply(request, Event.EXPIRED))
        return True

    def _unknown(self, service: Service, request_id: str, where: ids.Address) -> BridgeError:
        age_s = (self.lanes.now_ms() - where.time_ms) / 1000
        if age_s > service.topics.result_retention_s:
            return GoneError(
                f"request {request_id} is {age_s:.0f} s old: results are kept for "
                f"{service.topics.result_retention_s:.0f} s"
            )
        error = UnknownRequestError(f"no trace of request {request_id}")
        if age_s < service.deadline_s:
            error.retry_after_s = 1  # a waiting client's request shows in the log when it is over
        return error


def _deadline_ms(service: Service, where: ids.Address, reply: Reply | None) -> int:
    """Return a request's deadline as its log says, or as its service says."""
    if reply is not None and reply.deadline_ms is not None:
        return reply.deadline_ms
    return where.time_ms + int(service.deadline_s * 1000)


async def _await_written(written: "asyncio.Future[Placed]", limit_s: float) -> None:
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


def names(services: Sequence[str]) -> str:
    """List service names for a message."""
    return ", ".join(services) or "none"
