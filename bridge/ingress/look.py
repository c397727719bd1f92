"""Looking a request up: its lane is read from its ID's time on; Kafka is the only store."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

import msgspec
from starlette.types import Receive

from bridge import ids
from bridge.envelope import Event, Record, Reply, Request, make_reply, parse_reply
from bridge.errors import BridgeError, GoneError, UnknownRequestError
from bridge.ingress.lanes import FOLLOW_S, Followers, Lanes
from bridge.ingress.limits import Limits
from bridge.ingress.reads import Look, SharedReads
from bridge.ingress.room import Answer, Room
from bridge.kafka import Producer, Reader
from bridge.replylog import ReplyLog
from bridge.service import Service

SEEK_MARGIN_MS = 2000
"""A look-up starts so long before the ID's time: clocks of brokers and replicas differ a little."""
SEEN_MARGIN_MS = 60_000
"""Reading on after the last moment at which an event is to be expected."""
_FOR_EVER = 1 << 62
EXPIRE_MARGIN_MS = 5000
"""So long after its deadline a request without a last event is declared expired."""
SEE_END_S = EXPIRE_MARGIN_MS / 1000 + 0.5
"""Nobody waits longer than this after a deadline: then the request is expired, and can be said so."""


class Lookups:
    """Finds requests by their IDs, from any replica, also after a restart.

    Args:
        reader: Reads lanes.
        producer: Writes `expired` for requests past their deadline.
        lanes: Own lanes and broker time.
        followers: Foreign lanes while someone waits.
        room: Who waits.
        limits: What is granted.
        healed_ms: Tells when a request was written again after a crash; None: never.
    """

    def __init__(  # noqa: PLR0913 - the parts it is made of, each by its name
        self,
        *,
        reader: Reader,
        producer: Producer,
        lanes: Lanes,
        followers: Followers,
        room: Room,
        limits: Limits,
        healed_ms: Callable[[str], int | None],
    ) -> None:
        self._reader = reader
        self._reads = SharedReads(reader.read)
        self._producer = producer
        self.lanes = lanes
        self._followers = followers
        self._room = room
        self._limits = limits
        self._healed_ms = healed_ms

    async def find(
        self,
        service: Service,
        request_id: str,
        where: ids.Address | None,
        *,
        principal: str | None,
        wait_s: float,
        receive: Receive | None = None,
    ) -> ReplyLog:
        """Look a request up in its lane, and wait for its last event if it has none yet.

        Another principal's request is answered as one that never was, and costs the same.

        Args:
            service: Whose lanes.
            request_id: Its name.
            where: Where its log starts; None: nobody knows, the ID is not ours.
            principal: Who looks; None: nobody is told apart.
            wait_s: How long to wait for a last event; 0: only look.
            receive: Tells when the client leaves; None: nobody can.

        Raises:
            UnknownRequestError: Nothing of it is in the lane, or it is another's.
            GoneError: Nothing any more: it is older than the retention.
            UnavailableError, TopicError: The lane cannot be read now.
        """
        sought = self.seek(service, request_id, where)
        answer = Answer(asyncio.get_running_loop(), principal, receive=receive)
        return await self._find(sought, answer, wait_s)

    async def find_claimed(
        self,
        service: Service,
        request_id: str,
        where: ids.Address,
        *,
        wait_s: float,
        is_any_enough: bool,
        receive: Receive | None = None,
    ) -> ReplyLog:
        """Look for a request that an `Idempotency-Key` stands for, and so is the asker's own.

        Unlike `find`, waits also while nothing of it is seen: it may not be written yet.

        Args:
            service: Whose lanes.
            request_id: Its name.
            where: Where its log starts.
            wait_s: How long to wait for a last event, in seconds, above 0.
            is_any_enough: Wait for the first event of any kind.
            receive: Tells when the client leaves; None: nobody can.

        Raises:
            As `find`.
        """
        sought = self.seek(service, request_id, where, is_claimed=True)
        loop = asyncio.get_running_loop()
        answer = Answer(loop, receive=receive, is_any_enough=is_any_enough)
        return await self._find(sought, answer, wait_s)

    async def look(self, service: Service, request_id: str, where: ids.Address) -> ReplyLog:
        """Read all that its lane has of the asker's own request, to the lane's present end.

        Raises:
            UnknownRequestError: There is no such lane.
            UnavailableError, TopicError: The lane cannot be read now.
        """
        sought = self.seek(service, request_id, where, is_claimed=True)
        answer = Answer(asyncio.get_running_loop())
        await self._look(sought, answer)
        self._expire_for_good(sought, answer)
        return answer.log

    async def catch_up(self, service: Service, request_id: str, answer: Answer) -> None:
        """Read what may have passed an answer by, if anything may.

        Raises:
            UnavailableError, TopicError: The lane cannot be read now.
        """
        if answer.has_missed:
            answer.has_missed = False
            sought = self.seek(service, request_id, ids.parse(request_id), is_claimed=True)
            await self._look(sought, answer)

    async def is_whole(self, service: Service, lane: int, since_ms: int) -> bool:
        """Tell whether a lane still has all that was written to it from a time on, Unix milliseconds.

        Raises:
            UnavailableError, TopicError: It cannot be read now.
        """
        kept_ms = await self._reader.kept_since_ms((service.replies_topic, lane))
        return kept_ms is not None and kept_ms <= since_ms

    def seek(
        self,
        service: Service,
        request_id: str,
        where: ids.Address | None,
        *,
        is_claimed: bool = False,
    ) -> "Sought":
        """Return where a request's log starts, and from when on its times count.

        Raises:
            UnknownRequestError: There is no such place.
            BrokerDownError, TopicError: Kafka is away, or the topic is: nobody knows.
        """
        lanes = self.lanes.count(service)  # raises while nobody knows
        if where is None or where.lane >= lanes:
            raise UnknownRequestError(f"no request {request_id}: not an ID that this bridge made")
        healed_ms = self._healed_ms(request_id)
        return Sought(
            service=service,
            request_id=request_id,
            lane=where.lane,
            since_ms=where.time_ms - SEEK_MARGIN_MS,
            made_ms=where.time_ms,
            begun_ms=where.time_ms if healed_ms is None else healed_ms,
            is_claimed=is_claimed,
        )

    async def _find(self, sought: "Sought", answer: Answer, wait_s: float) -> ReplyLog:
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + wait_s
        async with AsyncExitStack() as stack:
            if wait_s > 0:  # before the look: what comes after it is told
                self._room.enter(sought.request_id, answer)
                stack.callback(self._room.leave, sought.request_id, answer)
            await self._look(sought, answer)
            self._expire_for_good(sought, answer)
            is_there = answer.log.is_seen or sought.is_claimed
            if wait_s > 0 and is_there and not answer.over.done():
                if not self.lanes.is_own(sought.service.replies_topic, sought.lane):
                    place = (sought.service.replies_topic, sought.lane)
                    limit_s = max(0.0, ends_s - loop.time())
                    await stack.enter_async_context(
                        self._followers.follow(*place, limit_s=min(limit_s, FOLLOW_S))
                    )
                    # Something may have come before it was followed.
                    await self._look(sought, answer)
                left_s = max(0.0, ends_s - loop.time())
                stack.callback(self._stop_later(answer, left_s))
                await answer.over
        log = answer.log
        accepted = log.accepted if log.last is None and log.is_seen else None
        if await self.expire(sought, accepted) or answer.has_missed:
            await self._look(sought, answer)
        if not log.is_seen:
            raise self.unknown(sought)
        return log

    async def _look(self, sought: "Sought", answer: Answer) -> None:
        """Read the lane from the ID's time on, no further than events can be expected."""
        found: list[Reply] = []
        # Decides as the answer's log does, here on the reader's thread.
        seen = ReplyLog(answer.log.principal)
        key = sought.request_id.encode() if sought.service.key is None else None
        until_ms = _FOR_EVER if sought.is_claimed else self.unseen_until_ms(sought)

        def is_enough(record: Record) -> bool:  # on the reader's thread
            nonlocal until_ms
            if record.timestamp_ms > until_ms:
                return True
            if key is not None and record.key != key:  # a reply of Spring's has its request's key
                return False
            reply = parse_reply(record)
            if reply is None or reply.request_id != sought.request_id:
                return False
            if not (seen.is_too_large and reply.event is Event.PART):  # those are not collected
                found.append(reply)
            seen.take(reply)
            if not seen.is_seen:  # another's, or not known to be: read on as if it were not there
                return False
            # To its end for a first event only: what comes later is nothing to anybody.
            end_ms = self.end_ms(sought, reply)
            until_ms = end_ms if until_ms == _FOR_EVER else max(until_ms, end_ms)
            return seen.last is not None

        await self._reads.look(
            (sought.service.replies_topic, sought.lane),
            Look(sought.request_id, sought.since_ms, is_enough, lambda: until_ms),
        )
        for reply in found:
            answer.take(reply)

    def _expire_for_good(self, sought: "Sought", answer: Answer) -> None:
        """Declare a request expired whose time to end is over: look-ups read no further than that.

        Whatever is written later counts for nobody, so every replica says the same, at any time.
        """
        log = answer.log
        if log.last is not None or not log.is_seen:
            return
        if self.lanes.now_ms() > self.end_ms(sought, log.accepted):
            answer.take(Reply(request_id=sought.request_id, event=Event.EXPIRED))

    def _stop_later(self, answer: Answer, wait_s: float) -> Callable[[], None]:
        """End a wait in time, and not later than when the request can be declared expired.

        The deadline may be told only while it waits.

        Returns:
            What ends this: the wait is over.
        """
        loop = asyncio.get_running_loop()
        timers = [loop.call_later(wait_s, answer.stop)]

        def bound() -> None:
            accepted = answer.log.accepted
            if accepted is not None and accepted.deadline_ms is not None:
                left_s = (accepted.deadline_ms - self.lanes.now_ms()) / 1000
                timers.append(loop.call_later(max(0.0, left_s + SEE_END_S), answer.stop))

        def end() -> None:
            answer.note_accepted = None
            for timer in timers:
                timer.cancel()

        bound()
        answer.note_accepted = bound
        return end

    def unseen_until_ms(self, sought: "Sought") -> int:
        """Return until when a first event may come, Unix milliseconds."""
        return sought.begun_ms + int(self._limits.max_wait_s * 1000) + SEEN_MARGIN_MS

    def end_ms(self, sought: "Sought", reply: Reply | None) -> int:
        """Return until when events count, Unix milliseconds; `reply` may tell the deadline."""
        end_ms = _deadline_ms(sought, reply) + SEEN_MARGIN_MS
        return max(end_ms, self.unseen_until_ms(sought))

    async def expire(self, sought: "Sought", accepted: Reply | None) -> bool:
        """Write `expired` for a request whose deadline is past; whoever wrote first still wins.

        Returns:
            Whether it was time to, and it is written.
        """
        if accepted is None or accepted.deadline_ms is None:
            return False
        if self.lanes.now_ms() < accepted.deadline_ms + EXPIRE_MARGIN_MS:
            return False
        request = Request(
            request_id=sought.request_id,
            reply_to=sought.service.replies_topic,
            reply_partition=sought.lane,
            principal=accepted.principal,
        )
        await self._producer.route(len(self._room))(make_reply(request, Event.EXPIRED))
        return True

    def unknown(self, sought: "Sought") -> BridgeError:
        """Say that nothing is known of a request: not yet, not any more, or never."""
        service, request_id = sought.service, sought.request_id
        # By its ID alone: that it was written again is nobody's business but its principal's.
        begun_ms = sought.begun_ms if sought.is_claimed else sought.made_ms
        age_s = (self.lanes.now_ms() - begun_ms) / 1000
        if age_s > service.topics.result_retention_s:
            return GoneError(
                f"request {request_id} is {age_s:.0f} s old: results are kept for "
                f"{service.topics.result_retention_s:.0f} s"
            )
        error = UnknownRequestError(f"no trace of request {request_id}")
        if age_s < service.deadline_s:
            error.retry_after_s = 1  # a waiting client's request shows in the log when it is over
        return error


class Sought(msgspec.Struct, frozen=True, kw_only=True):
    """What a look-up looks for.

    Attributes:
        service: Whose lanes.
        request_id: Its name.
        lane: Where its log is.
        since_ms: From when on the lane is read, Unix milliseconds.
        made_ms: When it was made, as its ID says, Unix milliseconds.
        begun_ms: From when on its waits and deadlines count: its ID's time, or when it was written
            again after a crash.
        is_claimed: Whether an `Idempotency-Key` stands for it: then the lane is read to its end,
            for what is not found may be written again.
    """

    service: Service
    request_id: str
    lane: int
    since_ms: int
    made_ms: int
    begun_ms: int
    is_claimed: bool


def _deadline_ms(sought: Sought, reply: Reply | None) -> int:
    """Return a request's deadline as its log says, or as its service says."""
    if reply is not None and reply.deadline_ms is not None:
        return reply.deadline_ms
    return sought.begun_ms + int(sought.service.deadline_s * 1000)
