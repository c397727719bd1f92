"""Streams of events: one request's reply log for one client, in log order, from anywhere on.

What is in the lane already is read in portions, what comes is taken from the own lane or followed in
a foreign one. Between the two there is no gap: live events are queued before the log is read to its
end, and what was told is passed over by its offset. The queue is short. When a slow client lets it
run over, it is thrown away and the log is read on from what was told last: Kafka is the buffer.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
import structlog
from starlette.types import Receive

from bridge.envelope import Record, Reply, parse_reply
from bridge.errors import BridgeError, DrainingError
from bridge.ingress.lanes import Followers
from bridge.ingress.look import EXPIRE_MARGIN_MS, Lookups, Sought
from bridge.ingress.room import Room
from bridge.kafka import Reader
from bridge.telling import Telling, Told

_log = structlog.get_logger("bridge.ingress")

MAX_EVENTS, MAX_BYTES = 1000, 1 << 20
"""What is queued for one client, or read for it at once; a single event may be larger."""

_EXPIRE_S = 2.0
"""`expired` is waited for so long at most: meanwhile the stream says nothing, not even that it lives."""


class Wanted(msgspec.Struct, frozen=True):
    """Whose events a client wants, and from where on.

    Attributes:
        sought: Whose log, and where it starts.
        since: The `id` that the client was told last; None: it wants the whole log.
        principal: Who asks; None: nobody is told apart.
    """

    sought: Sought
    since: int | None = None
    principal: str | None = None


class Feed:
    """Live events of one request on their way to one client: a waiter with a bounded queue.

    Args:
        receive: Tells when the client leaves.

    Attributes:
        is_behind: Events were thrown away, or passed by, and come no more: they are to be read from
            the log.
        is_stopped: The client has left, or this process stops.
    """

    __slots__ = ("_bytes", "_events", "_woken", "is_behind", "is_old", "is_stopped", "receive")

    def __init__(self, receive: Receive | None) -> None:
        self.receive = receive
        self.is_old = False
        self.is_behind = False
        self.is_stopped = False
        self._events: list[Reply] = []
        self._bytes = 0
        self._woken = asyncio.Event()

    def take(self, reply: Reply) -> None:
        """Queue one event, or throw all away when they are too many."""
        if not self.is_behind:
            self._bytes += len(reply.value or b"")
            self._events.append(reply)
            if len(self._events) > MAX_EVENTS or self._bytes > MAX_BYTES:
                self.miss()
        self._woken.set()

    def miss(self) -> None:
        """Throw all away: the log is read instead."""
        self.drain()
        self.is_behind = True
        self._woken.set()

    def drain(self) -> list[Reply]:
        """Return what is queued, and queue it no more."""
        events, self._events, self._bytes = self._events, [], 0
        self._woken.clear()
        return events

    def stop(self) -> None:
        """Tell no more."""
        self.is_stopped = True
        self._woken.set()

    def close(self) -> None:
        """Tell no more: this process stops, and the client goes on at another."""
        self.stop()

    async def wait_something(self, limit_s: float) -> None:
        """Wait until something is queued, thrown away or over, at most `limit_s` seconds."""
        try:
            async with asyncio.timeout(limit_s):
                await self._woken.wait()
        except TimeoutError:
            return


class Streams:
    """Opens streams of events, from any replica, also after a restart.

    Args:
        reader: Reads lanes.
        followers: Foreign lanes while someone waits.
        room: Who waits; a stream takes a place like any waiting client.
        lookups: Knows how long a log goes on, and expires requests.
        keep_alive_s: A stream tells something at least so often, in seconds.
    """

    def __init__(
        self,
        reader: Reader,
        followers: Followers,
        room: Room,
        lookups: Lookups,
        *,
        keep_alive_s: float,
    ) -> None:
        self._followers = followers
        self._room = room
        self.reader = reader
        self.lanes = lookups.lanes
        self.lookups = lookups
        self.keep_alive_s = keep_alive_s

    @asynccontextmanager
    async def open(self, wanted: Wanted, receive: Receive) -> AsyncIterator["Stream"]:
        """Stream a request's log for as long as the block.

        Raises:
            UnknownRequestError: Nothing of it is in the lane.
            GoneError: Nothing any more: it is older than the retention.
            DrainingError: This process stops.
            OverloadedError: Too many clients wait.
            UnavailableError, TopicError: The lane cannot be read now.
        """
        topic, lane = wanted.sought.service.replies_topic, wanted.sought.lane
        if self._room.is_closing:
            raise DrainingError("this replica is stopping: ask again, another one streams it")
        async with AsyncExitStack() as stack:
            stream = Stream(self, wanted, self._enter(stack, wanted.sought.request_id, receive))
            await stream.begin()
            if not stream.is_over and not self.lanes.is_own(topic, lane):
                await stack.enter_async_context(self._followers.follow(topic, lane))
                stream.look_again()
            yield stream

    @asynccontextmanager
    async def open_new(
        self, wanted: Wanted, write: Callable[[], Awaitable[None]], receive: Receive
    ) -> AsyncIterator["Stream"]:
        """Write a request of an own lane and stream its log for as long as the block.

        It is written also when this process has begun to stop: its key may stand for it already. The
        stream ends at once then.

        Raises:
            OverloadedError: Too many clients wait; nothing was written.
            BridgeError: Whatever `write` raises.
        """
        async with AsyncExitStack() as stack:
            feed = self._enter(stack, wanted.sought.request_id, receive)  # before the write: no gap
            if self._room.is_closing:
                feed.stop()
            await write()
            yield Stream(self, wanted, feed, is_new=True)

    def _enter(self, stack: AsyncExitStack, request_id: str, receive: Receive) -> Feed:
        feed = Feed(receive)
        self._room.enter(request_id, feed)
        stack.callback(self._room.leave, request_id, feed)
        return feed


class Stream:
    """One client's stream, open within `Streams.open`.

    Args:
        streams: What it reads with.
        wanted: Whose events, and from where on.
        feed: Live events.
        is_new: Nothing of it is in the log that the feed has not brought, or will bring.
    """

    def __init__(
        self, streams: Streams, wanted: Wanted, feed: Feed, *, is_new: bool = False
    ) -> None:
        self._streams = streams
        self._wanted = wanted
        self._feed = feed
        self._telling = Telling(
            wanted.sought.request_id,
            began_ms=wanted.sought.begun_ms,
            since=wanted.since,
            principal=wanted.principal,
        )
        self._is_reading = not is_new
        self._is_known = is_new
        self._next = 0
        self._until_ms = streams.lookups.unseen_until_ms(wanted.sought)
        self._not_before_ms = 0
        self._first: list[Told] = []
        self._spoke_s = asyncio.get_running_loop().time()

    @property
    def is_over(self) -> bool:
        """Whether nothing more will be told: the log has ended, or the stream was stopped."""
        return not self._first and (self._telling.is_over or self._feed.is_stopped)

    @property
    def is_told(self) -> bool:
        """Whether the log has ended and all of it was told."""
        return not self._first and self._telling.is_over

    async def begin(self) -> None:
        """Read as far as there is something to tell, or to the log's present end.

        Raises:
            As `Streams.open`.
        """
        while self._is_reading and not self._first and not self.is_over:
            self._first = await self._read()
        if self._feed.is_stopped:
            raise DrainingError("this replica is stopping: ask again, another one streams it")
        if not self._telling.is_seen:
            raise self._streams.lookups.unknown(self._wanted.sought)
        self._is_known = True

    def look_again(self) -> None:
        """Read the log on to its end: something may have come before its lane was followed."""
        self._is_reading = True

    async def more(self) -> list[Told]:
        """Wait for what is to be told next; nothing, when it is time for a sign of life.

        Raises:
            UnavailableError, TopicError: The lane cannot be read now.
        """
        told, self._first = self._first, []
        while not told and not self.is_over:
            told = await (self._read() if self._is_reading else self._wait())
            if not told and self._quiet_s() >= self._streams.keep_alive_s:
                break
        self._spoke_s = asyncio.get_running_loop().time()
        return told

    async def _read(self) -> list[Told]:
        """Read the log on, one portion."""
        self._feed.is_behind = False  # from here on live events are queued: no gap after the end
        sought, reader = self._wanted.sought, self._streams.reader
        lane = (sought.service.replies_topic, sought.lane)
        until_ms = max(self._until_ms, self._end_ms())
        portion = _Portion(self._streams.lookups, self._wanted, until_ms)
        start = max(self._next, self._telling.next)
        if start:
            await reader.read_on(lane, start, is_enough=portion.take)
        else:
            await reader.read([lane], since_ms=sought.since_ms, is_enough=portion.take)
        self._next, self._until_ms = max(self._next, portion.next), portion.until_ms
        self._is_reading = portion.is_full or self._feed.is_behind
        told = self._take(portion.found)
        is_known = self._is_known or self._telling.is_seen
        if is_known and not self._is_reading and self._now_ms() > self._end_ms():
            told += self._telling.expire(self._now_ms())
        return told

    async def _wait(self) -> list[Told]:
        """Wait for live events, at most until something else is to be done."""
        keep_alive_s = self._streams.keep_alive_s - self._quiet_s()
        due_s = (min(self._due_ms(), self._end_ms() + 1) - self._now_ms()) / 1000
        await self._feed.wait_something(max(0.0, min(keep_alive_s, due_s)))
        told = self._take(self._feed.drain())
        self._is_reading = self._feed.is_behind or self._now_ms() > self._end_ms()
        if not told and self._now_ms() >= self._due_ms():
            await self._expire()
        return told

    def _take(self, events: list[Reply]) -> list[Told]:
        return [told for event in events for told in self._telling.take(event)]

    def _quiet_s(self) -> float:
        return asyncio.get_running_loop().time() - self._spoke_s

    def _now_ms(self) -> int:
        return self._streams.lanes.now_ms()

    def _end_ms(self) -> int:
        return self._streams.lookups.end_ms(self._wanted.sought, self._telling.accepted)

    def _due_ms(self) -> int:
        """Return when `expired` is to be written, if nothing ends the request before."""
        accepted = self._telling.accepted
        if accepted is None or accepted.deadline_ms is None:
            return self._end_ms() + 1
        return max(accepted.deadline_ms + EXPIRE_MARGIN_MS, self._not_before_ms)

    async def _expire(self) -> None:
        """Write `expired`, and read the log: whatever was written before it comes first there.

        The lane alone would not do: what it did not bring may be an end, too.
        """
        self._not_before_ms = self._now_ms() + EXPIRE_MARGIN_MS
        sought = self._wanted.sought
        self._feed.miss()
        self._is_reading = True
        try:
            async with asyncio.timeout(_EXPIRE_S):
                await self._streams.lookups.expire(sought, self._telling.accepted)
        except (BridgeError, TimeoutError) as trouble:
            why = str(trouble) or f"not acknowledged within {_EXPIRE_S:g} s"
            _log.warning("expired-not-written", request_id=sought.request_id, why=why)


class _Portion:
    """What one bounded read brings for a stream; filled on the reader's thread.

    Attributes:
        found: The request's events.
        next: Offset after the last record that was looked at; 0: there was none.
        until_ms: No event is expected after it, Unix milliseconds.
        is_full: The log goes on behind it.
    """

    def __init__(self, lookups: Lookups, wanted: Wanted, until_ms: int) -> None:
        self._lookups = lookups
        self._wanted = wanted
        sought = wanted.sought
        self._key = sought.request_id.encode() if sought.service.key is None else None
        self._bytes = 0
        self.found: list[Reply] = []
        self.next = 0
        self.until_ms = until_ms
        self.is_full = False

    def take(self, record: Record) -> bool:
        """Look at one record; tells whether the portion is enough."""
        if record.timestamp_ms > self.until_ms:
            return True
        self.next = record.offset + 1
        if self._key is not None and record.key != self._key:
            return False  # a reply of Spring's has its request's key
        reply = parse_reply(record)
        if (
            reply is None
            or reply.request_id != self._wanted.sought.request_id
            or self._is_foreign(reply)
        ):
            return False
        self.found.append(reply)
        self._bytes += len(reply.value or b"")
        self.until_ms = max(self.until_ms, self._lookups.end_ms(self._wanted.sought, reply))
        is_last = reply.event is not None and reply.event.is_last
        self.is_full = is_last or len(self.found) >= MAX_EVENTS or self._bytes >= MAX_BYTES
        return self.is_full

    def _is_foreign(self, reply: Reply) -> bool:
        """Tell whether an event is another principal's: then it is as if it were not there."""
        return self._wanted.principal is not None and reply.principal not in {
            None,
            self._wanted.principal,
        }
