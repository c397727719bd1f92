"""One partition that a worker owns: what is under way, and what may be committed of it."""

import asyncio
from collections import deque
from collections.abc import Sequence

from bridge.envelope import Record
from bridge.kafka import Assigned, Place, Position
from bridge.ledger import Ledger
from bridge.worker.answered import format_note, parse_note

REFRESH_S = 30.0
"""An idle partition's note is renewed so often, which bounds what a new owner must read."""


class Partition:
    """One partition that this worker owns.

    Attributes:
        is_warm: What its note says may be replaced: what is answered has been read back.
        is_open: Its records go; before that they are held.
        is_gone: It is no longer ours; `is_lost`: and it was taken, not given.
        asked: The position of the last commit; `committed`: the last that Kafka has.
        floor_ms: Answers of earlier owners may lie as far back as this, in broker time, and may be
            uncommitted as long as the committed offset has not passed `inherited_until`; None: there are none.
    """

    def __init__(self, assigned: Assigned) -> None:
        self.place = assigned.place
        self.ledger = Ledger(-1 if assigned.position is None else assigned.position.offset)
        self.inherited_until = assigned.end
        self.floor_ms: int | None = None
        self.held: deque[Record] = deque()
        self.is_warm = False
        self.is_open = False
        self.is_gone = False
        self.is_lost = False
        self.running = 0
        self.idle = asyncio.Event()
        self.idle.set()
        self.asked = self.committed = assigned.position

    def since_ms(self, now_ms: int) -> int | None:
        """Return from when on answers may be uncommitted; None: none are, and none can come."""
        own_ms = self.ledger.since_ms(now_ms)
        is_clean = self.is_gone and not self.ledger.unfinished
        if self.floor_ms is None or self.ledger.committable >= self.inherited_until:
            return None if is_clean else own_ms
        return min(self.floor_ms, own_ms)

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
        partitions: Those to look at; one that has nothing new to say is left out, and so is one
            that is not warm: what its note says is still true.
        now_ms: Broker time, Unix milliseconds.
    """
    positions: dict[Place, Position] = {}
    for partition in partitions:
        offset = partition.ledger.committable
        if offset < 0 or not partition.is_warm:
            continue
        position = Position(offset, format_note(partition.since_ms(now_ms)))
        if _is_worth_it(partition.committed, position, now_ms):
            positions[partition.place] = partition.asked = position
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
