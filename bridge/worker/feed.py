"""The feed: how much a worker takes up, and which partitions wait while they have enough in hand.

Nothing is fetched while any partition is full, for a moment; then the full ones are paused and the
others go on. To pause at once would throw away what is fetched already, again and again where
handlers are quick. Polling goes on all the while, so the group is kept.
"""

import asyncio
from collections.abc import Callable, Mapping

from bridge.kafka import Group, Place
from bridge.worker.partition import Partition

FULL = 4000
"""Records in hand of which each partition may have its equal share before it is paused, and a few in
any case; fetching goes on at half of it."""
FEW = 500
PATIENCE_S = 0.1
"""A partition that is full for so long is paused."""


class Feed:
    """Decides when the next batch comes; used in one event loop.

    Args:
        partitions: What is owned; it changes.
        group: The membership; None: it has not begun.
    """

    def __init__(
        self, partitions: Mapping[Place, Partition], group: Callable[[], Group | None]
    ) -> None:
        self._partitions = partitions
        self._group = group
        self._full: set[Place] = set()
        self._paused: set[Place] = set()
        self._patience: asyncio.TimerHandle | None = None

    def took(self) -> None:
        """Let the next batch come at once, unless a partition has too much in hand or ahead."""
        limit = self._limit()
        self._full = {
            place
            for place, partition in self._partitions.items()
            if place not in self._paused and partition.is_full(limit, is_paused=False)
        }
        if not self._full:
            self._go_on()
        elif self._patience is None:
            self._patience = asyncio.get_running_loop().call_later(PATIENCE_S, self._pause)

    def finished(self, partition: Partition) -> None:
        """See whether a partition of which a record is finished has room again."""
        place = partition.place
        if place not in self._full and place not in self._paused:
            return
        if partition.is_full(self._limit(), is_paused=True):
            return
        if place in self._paused:
            self._paused.discard(place)
            group = self._group()
            if group is not None and place in self._partitions:
                group.resume([place])
            return
        self._leave(place)

    def dropped(self, place: Place) -> None:
        """Forget a partition that is no longer owned."""
        self._paused.discard(place)
        self._leave(place)

    def _leave(self, place: Place) -> None:
        if place in self._full:
            self._full.discard(place)
            if not self._full:
                self._go_on()

    def _pause(self) -> None:
        group = self._group()
        if group is not None and self._full:
            group.pause(list(self._full))
            self._paused |= self._full
        self._go_on()

    def _go_on(self) -> None:
        self._full = set()
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        group = self._group()
        if group is not None:
            group.go_on()

    def _limit(self) -> int:
        return max(FEW, FULL // max(1, len(self._partitions)))
