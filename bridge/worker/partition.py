"""One partition that a worker owns: what is under way, and what may be committed of it."""

import asyncio
from collections import deque
from collections.abc import Sequence

from bridge.envelope import Record
from bridge.kafka import Place, Position
from bridge.ledger import Ledger
from bridge.worker.answered import format_note, parse_note

REFRESH_S = 30.0
"""An idle partition's note is renewed so often, which bounds what a new owner must read."""


class Partition:
    """One partition that this worker owns."""

    def __init__(self, place: Place, next_offset: int) -> None:
        self.place = place
        self.ledger = Ledger(next_offset)
        self.held: deque[Record] = deque()
        self.is_warm = False
        self.is_gone = False
        self.is_lost = False
        self.running = 0
        self.idle = asyncio.Event()
        self.idle.set()
        self.committed: Position | None = None

    def begin(self) -> None:
        """Note that a record is being handled."""
        self.running += 1
        self.idle.clear()

    def end(self) -> None:
        """Note that a record is no longer being handled."""
        self.running -= 1
        if self.running == 0:
            self.idle.set()


def find_positions(partitions: Sequence[Partition], now_ms: int) -> dict[Place, Position]:
    """Say what to commit: what is contiguous, with the time from which answers may be uncommitted.

    Args:
        partitions: Those to look at; one that has nothing new to say is left out.
        now_ms: Broker time, Unix milliseconds.
    """
    positions: dict[Place, Position] = {}
    for partition in partitions:
        offset = partition.ledger.committable
        is_clean = partition.is_gone and partition.running == 0
        since_ms = None if is_clean else partition.ledger.since_ms(now_ms)
        position = Position(offset, format_note(since_ms))
        if offset >= 0 and _is_worth_it(partition.committed, position, now_ms):
            positions[partition.place] = position
    return positions


def _is_worth_it(committed: Position | None, position: Position, now_ms: int) -> bool:
    """Tell whether a commit says anything new: an offset, a clean end, or a note gone stale."""
    if committed is None or committed.offset != position.offset:
        return True
    if position.note == committed.note:
        return False
    since_ms = parse_note(position.note, otherwise_ms=now_ms)
    before_ms = parse_note(committed.note, otherwise_ms=0)
    if since_ms is None or before_ms is None:
        return True
    return since_ms - before_ms >= REFRESH_S * 1000
