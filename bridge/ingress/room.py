"""Who waits in this process for which request, and what the lanes brought for them."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from starlette.types import Receive

from bridge import metrics
from bridge.envelope import Event, Record, Reply, parse_reply
from bridge.kafka import Placed
from bridge.replylog import ReplyLog
from bridge.waiting import WaitingRoom

EVENTS = {event: metrics.EVENTS.labels(event.value) for event in Event}


SWEEP_S = 0.3
"""So often, in seconds, clients that wait longer are found; RELIABILITY 31 grants 1 s to notice one that left."""


class Waiter(Protocol):
    """Whoever waits for events of a request; called in the event loop, must not block.

    Attributes:
        receive: Tells when the client leaves; None: nobody can tell, or somebody listens already.
        is_old: It was there at the last sweep already.
    """

    receive: Receive | None
    is_old: bool

    def take(self, reply: Reply) -> None:
        """Receive one event."""

    def miss(self) -> None:
        """Hear that events may have passed by: what the lane brings is not all that is in it."""

    def stop(self) -> None:
        """Wait no longer, whatever came."""

    def close(self) -> None:
        """Hear that this process stops soon: stop, if the client can go on at another."""


class Answer:
    """One waiting client: the log so far, and a future that is done at its last event.

    Args:
        loop: Where it waits.
        principal: Who waits; None: nobody is told apart, or the request is known to be its own.
        receive: Tells when its client leaves; None: nobody can.
        is_any_enough: The first event of any kind is what it waits for.

    Attributes:
        has_missed: Events may have passed by; the log is to be looked up before it is believed.
        note_accepted: Called when `accepted` comes, which tells the deadline.
    """

    __slots__ = (
        "has_missed",
        "is_any_enough",
        "is_old",
        "log",
        "note_accepted",
        "over",
        "receive",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        principal: str | None = None,
        *,
        receive: Receive | None = None,
        is_any_enough: bool = False,
    ) -> None:
        self.receive = receive
        self.is_old = False
        self.has_missed = False
        self.log = ReplyLog(principal)
        self.is_any_enough = is_any_enough
        self.note_accepted: Callable[[], None] | None = None
        self.over: asyncio.Future[None] = loop.create_future()

    def take(self, reply: Reply) -> None:
        """Merge one event; the last one wakes the client."""
        self.log.take(reply)
        if self.log.last is not None or self.is_any_enough:
            self.stop()
        elif self.note_accepted is not None and reply.event is Event.ACCEPTED:
            self.note_accepted()

    def miss(self) -> None:
        """Wait on; whoever waits looks the log up when the time is up."""
        self.has_missed = True

    def wait_on(self) -> None:
        """Wait again after a stop, unless the last event is here."""
        if self.log.last is None:
            self.over = self.over.get_loop().create_future()

    def note_written(self, written: "asyncio.Future[Placed]") -> None:
        """Wake the client when its request could not be written."""
        if not written.cancelled() and written.exception() is not None:
            self.stop()

    def stop(self) -> None:
        """Wake the client, whatever the log says."""
        if not self.over.done():
            self.over.set_result(None)

    def close(self) -> None:
        """Wait on: the reply may come within the grace time."""


class Room:
    """The waiting room of one process, fed by its lanes; used in its event loop only.

    Args:
        limit: Clients that may wait at once; one more is an OverloadedError.

    Attributes:
        is_closing: This process stops: only who waits for a reply is let in.
    """

    def __init__(self, limit: int) -> None:
        self._waiters: WaitingRoom[Waiter] = WaitingRoom(limit)
        self.is_closing = False
        self.promise = self._waiters.promise
        self.enter = self._waiters.enter
        self.leave = self._waiters.leave
        metrics.WAITERS.set_function(lambda: len(self._waiters))

    def __len__(self) -> int:
        return len(self._waiters)

    def take(self, records: list[Record]) -> None:
        """Hand what the lanes brought to whoever waits for it."""
        for record in records:
            reply = parse_reply(record)
            if reply is None:
                continue
            for waiter in self._waiters.find(reply.request_id):
                waiter.take(reply)
                if reply.event is not None:
                    EVENTS[reply.event].inc()

    def miss(self) -> None:
        """Tell everybody that events may have passed by: a lane was placed anew."""
        for _, waiter in self._waiters.everyone():
            waiter.miss()

    async def watch(self) -> None:
        """Give the places of clients that leave to others, until cancelled.

        Nobody listens for a client that waits no longer than a sweep: most are answered by then, so
        the hot path pays nothing. Whoever leaves is noticed within two sweeps.
        """
        async with asyncio.TaskGroup() as tasks:
            while True:
                await asyncio.sleep(SWEEP_S)
                for request_id, waiter in self._waiters.everyone():
                    receive = waiter.receive
                    if waiter.is_old and receive is not None:
                        waiter.receive = None
                        tasks.create_task(self._watch(request_id, waiter, receive))
                    waiter.is_old = True

    async def _watch(self, request_id: str, waiter: Waiter, receive: Receive) -> None:
        """Wait until a client leaves, or was answered: the server tells that in the same way."""
        while (await receive())["type"] != "http.disconnect":
            pass
        if self._waiters.leave(request_id, waiter):
            metrics.LEFT.inc()
            waiter.stop()

    def close(self) -> None:
        """Tell everybody that this process stops: those who can go on elsewhere leave."""
        self.is_closing = True
        for _, waiter in self._waiters.everyone():
            waiter.close()

    def release(self) -> None:
        """Wake everybody, and whoever comes later at once: nobody waits for a thing that is gone."""
        self.enter = self._enter_released
        for waiter in self._waiters.clear():
            waiter.stop()

    def _enter_released(self, request_id: str, waiter: Waiter) -> None:
        # Who was woken may look again, as those do who have joined another client's request.
        self._waiters.enter(request_id, waiter)
        waiter.stop()
