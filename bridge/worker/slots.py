"""Slots: how many handlers may run at once, fair between the partitions that wait.

Whoever waits longest is next, so that a wait follows from how much is before it, and can be foretold.
That alone would be unfair to partitions beside one that brings a thousand records at once: they would
wait for all of them. So while one waits with many times as many as another, partitions are served in
turn. Replayed work steps back for live work: while any of that waits, at most a quarter of the slots
go to it. Used in one event loop.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable

from bridge.kafka import Place

_SHARE = 4
_MANY = 8
"""So many times as many records as another partition's are too many to wait for."""


class Slots:
    """Slots of one service in one process.

    Args:
        count: How many there are, 1 or more.
        is_replay: Tells partitions of replayed work from those of live work.
    """

    def __init__(self, count: int, is_replay: Callable[[Place], bool]) -> None:
        self._free = count
        self._is_replay = is_replay
        self._replay_limit = max(1, count // _SHARE)
        self._replays = 0
        self._waiting: OrderedDict[Place, deque[asyncio.Future[None]]] = OrderedDict()
        self._came: dict[asyncio.Future[None], int] = {}
        self._count = 0
        self._live_waits = 0

    def take(self, place: Place) -> bool:
        """Take a slot at once, if one is free and nobody waits; give it back with `release`."""
        if not self._free or self._waiting:
            return False
        self._free -= 1
        self._replays += self._is_replay(place)
        return True

    async def acquire(self, place: Place) -> None:
        """Wait for a slot; give it back with `release`."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(place, deque()).append(turn)
        self._count += 1
        self._came[turn] = self._count
        if not self._is_replay(place):
            self._live_waits += 1
        self._deal()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(place)
            elif turn in self._came:
                self._forget(place, turn)
            raise

    def release(self, place: Place) -> None:
        """Give a slot back that was acquired for a partition."""
        self._free += 1
        self._replays -= self._is_replay(place)
        self._deal()

    def _deal(self) -> None:
        while self._free and (place := self._next()) is not None:
            turn = self._waiting[place].popleft()
            del self._came[turn]
            self._note_left(place)
            if turn.done():  # cancelled a moment ago, and its task does not know yet
                continue
            self._free -= 1
            self._replays += self._is_replay(place)
            turn.set_result(None)
            if place in self._waiting:
                self._waiting.move_to_end(place)

    def _next(self) -> Place | None:
        """Return the partition whose turn it is; None: nobody may have one."""
        is_held_back = self._live_waits > 0 and self._replays >= self._replay_limit
        may = [p for p in self._waiting if not (is_held_back and self._is_replay(p))]
        if len(may) <= 1:
            return may[0] if may else None
        counts = [len(self._waiting[place]) for place in may]
        if max(counts) >= _MANY * min(counts):
            return may[0]
        return min(may, key=lambda place: self._came[self._waiting[place][0]])

    def _forget(self, place: Place, turn: "asyncio.Future[None]") -> None:
        self._waiting[place].remove(turn)
        del self._came[turn]
        self._note_left(place)

    def _note_left(self, place: Place) -> None:
        if not self._is_replay(place):
            self._live_waits -= 1
        if not self._waiting[place]:
            del self._waiting[place]
