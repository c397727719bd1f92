"""One partition that a worker owns: what is under way, and what may be committed of it."""

import asyncio
from collections import deque
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from bridge.envelope import Record
from bridge.kafka import Assigned, Place, Position
from bridge.ledger import Ledger
from bridge.worker.answered import Note, format_note, parse_note

REFRESH_S = 30.0
"""An idle partition's note is renewed so often, which bounds what a new owner must read."""
AHEAD = 10_000
"""Finished records that wait for one before them to be committed, before the partition is paused."""
REACH = 12_000
"""An earlier owner's record that killed it lies no further behind the committed offset: what it may
have had in hand, and what it may have finished ahead."""


class Partition:
    """One partition that this worker owns.

    Attributes:
        is_warm: What its note says may be replaced: what is answered has been read back.
        is_open: Its records go; before that they are held.
        is_gone: It is no longer ours; `is_lost`: and it was taken, not given.
        asked: The position of the last commit; `committed`: the last that Kafka has.
        floor_ms: Answers of earlier owners may lie as far back as this, in broker time, and may be
            uncommitted as long as the committed offset has not passed `inherited_until`; None: there are none.
        starts: Owners that have begun at `starts_at` and not come on from it, this one included.
        careful_until: Below this offset records go one at a time: one of them may have killed the
            owner before.
        in_hand: Records taken up and not finished.
        changed: Set when a record is held, or the partition is gone.
    """

    def __init__(self, assigned: Assigned) -> None:
        self.place = assigned.place
        self.ledger = Ledger(assigned.start)
        self.inherited_until = assigned.end
        self.floor_ms: int | None = None
        self.starts = 0
        self.starts_at = assigned.start
        self.careful_until = 0
        self.held: deque[Record] = deque()
        self.is_warm = False
        self.is_open = False
        self.is_gone = False
        self.is_lost = False
        self.in_hand = 0
        self.running = 0
        self.idle = asyncio.Event()
        self.idle.set()
        self.changed = asyncio.Event()
        self.asked = self.committed = assigned.position

    def read_note(self, otherwise_ms: int) -> None:
        """Take over from the owner before: its window, and how often this offset was begun at.

        Args:
            otherwise_ms: The window's beginning where no note of ours says one.
        """
        position = self.committed
        note = (
            Note(otherwise_ms)
            if position is None
            else parse_note(position.note, otherwise_ms=otherwise_ms)
        )
        self.floor_ms = note.since_ms
        self.starts = note.starts
        if self.starts:
            self.careful_until = min(self.inherited_until, self.starts_at + REACH)

    def begin_at(self, offset: int) -> None:
        """Count a start at an offset; the next commit says it."""
        self.starts = self.starts + 1 if offset == self.starts_at else 1
        self.starts_at = offset

    def since_ms(self, now_ms: int) -> int | None:
        """Return from when on answers may be uncommitted; None: none are, and none can come."""
        own_ms = self.ledger.since_ms(now_ms)
        is_clean = self.is_gone and not self.ledger.unfinished
        if self.floor_ms is None or self.ledger.committable >= self.inherited_until:
            return None if is_clean else own_ms
        return min(self.floor_ms, own_ms)

    def note(self, now_ms: int) -> Note:
        """Return what is to be said beside the offset that may be committed now.

        Who gives a partition up has not died of it, whatever is unfinished.
        """
        is_begun = not self.is_gone and self.ledger.committable == self.starts_at
        return Note(self.since_ms(now_ms), self.starts if is_begun else 0)

    def foresee(self, finished: AbstractSet[int], now_ms: int) -> Position:
        """Return what is to be committed together with the answers of these offsets.

        Its note reaches back as far as it would without them: a moment too far does no harm.
        """
        offset = self.ledger.after(finished)
        starts = self.starts if offset == self.starts_at else 0
        return Position(offset, format_note(Note(self.since_ms(now_ms), starts)))

    def leave(self, *, is_lost: bool = False) -> None:
        """Note that it is no longer ours; what waits for something of it is woken."""
        self.is_gone = True
        self.is_lost = self.is_lost or is_lost
        self.changed.set()

    def is_wanted(self) -> bool:
        """Tell whether what is written for its records still helps anybody."""
        return not self.is_gone

    def is_full(self, limit: int, *, is_paused: bool) -> bool:
        """Tell whether it is to be paused; a paused one, whether it stays so.

        Args:
            limit: Records in hand that are enough.
            is_paused: Whether it is; then it goes on at half of what it was paused at.
        """
        share = 2 if is_paused else 1
        return self.in_hand * share >= limit or self.ledger.ahead * share >= AHEAD

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
        if not partition.is_warm:
            continue
        note = partition.note(now_ms)
        position = Position(partition.ledger.committable, format_note(note))
        if _is_worth_it(partition.committed, position, note):
            positions[partition.place] = partition.asked = position
    return positions


def _is_worth_it(committed: Position | None, position: Position, note: Note) -> bool:
    """Tell whether a commit says anything new: an offset, a start, a clean end, or a note gone stale."""
    if committed is None or committed.offset != position.offset:
        return True
    before = parse_note(committed.note, otherwise_ms=0)
    if note.starts != before.starts:
        return True
    if note.since_ms is None or before.since_ms is None:
        return note.since_ms is not before.since_ms
    return note.since_ms - before.since_ms >= REFRESH_S * 1000
