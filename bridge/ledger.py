"""The ledger of one partition: which offset may be committed.

Records finish in any order; only the highest contiguous finished offset is committed, so that
nothing unfinished is ever skipped. Offsets may have gaps (commit markers take one each), so
contiguous means: no record that was started before it is unfinished.
"""

from collections import OrderedDict
from collections.abc import Set as AbstractSet


class Ledger:
    """Started and finished records of one partition.

    Args:
        next_offset: The first offset that is not finished.
    """

    def __init__(self, next_offset: int) -> None:
        self._next = next_offset
        self._open: OrderedDict[int, tuple[int, int]] = OrderedDict()
        self._count = 0

    def start(self, offset: int, *, at_ms: int) -> None:
        """Note a record as taken up; offsets come in ascending order.

        Args:
            offset: Its offset.
            at_ms: When it was dispatched, in Unix milliseconds of broker time.
        """
        self._open[offset] = (at_ms, self._count)
        self._count += 1
        self._next = offset + 1

    def finish(self, offset: int) -> None:
        """Note a record as finished: its last event is acknowledged, or it wants none."""
        self._open.pop(offset, None)

    @property
    def committable(self) -> int:
        """The next offset to read after a crash: everything below it is finished."""
        return next(iter(self._open), self._next)

    def after(self, finished: AbstractSet[int]) -> int:
        """Return what could be committed if these offsets were finished too."""
        return next((offset for offset in self._open if offset not in finished), self._next)

    @property
    def ahead(self) -> int:
        """How many records are finished and cannot be committed yet: one before them is not."""
        for _, number in self._open.values():
            return self._count - number - len(self._open)
        return 0

    @property
    def unfinished(self) -> int:
        """How many records are started and not finished."""
        return len(self._open)

    def since_ms(self, now_ms: int) -> int:
        """Return when the oldest unfinished record was dispatched, or now when there is none.

        No answer of an uncommitted record is older than that, so a new owner that reads the reply
        log from here finds every answer that was given without being committed.
        """
        for at_ms, _ in self._open.values():
            return at_ms
        return now_ms
