"""What has been answered already: read back from the reply log, and remembered.

The note beside a committed offset says from when on answers may exist that were not committed. A
new owner reads the service's lanes from there to their end before it handles anything, and skips
what has its last event.
"""

from collections import OrderedDict
from collections.abc import Iterable

_NOTHING = "1 -"
_SINCE = "1 "

Identity = tuple[str, int, str | None]


def format_note(since_ms: int | None) -> str:
    """Write the note of a commit: the broker time from which answers may be uncommitted.

    None: none are; the partition was given up with nothing under way.
    """
    return _NOTHING if since_ms is None else f"{_SINCE}{since_ms}"


def parse_note(note: str, *, otherwise_ms: int) -> int | None:
    """Read a note; `otherwise_ms` when it is not ours (another tool has set the offset)."""
    if note == _NOTHING:
        return None
    text = note.removeprefix(_SINCE)
    return int(text) if note.startswith(_SINCE) and text.isdigit() else otherwise_ms


class Answered:
    """Pieces of work that have their last event, the latest `limit` of them.

    Args:
        limit: How many are remembered; each takes about 200 bytes.
    """

    def __init__(self, limit: int = 200_000) -> None:
        self._limit = limit
        self._known: OrderedDict[Identity, None] = OrderedDict()

    def __contains__(self, identity: Identity) -> bool:
        return identity in self._known

    def __len__(self) -> int:
        return len(self._known)

    def add(self, identities: Iterable[Identity]) -> None:
        """Remember; the oldest are forgotten beyond the limit."""
        for identity in identities:
            self._known[identity] = None
        while len(self._known) > self._limit:
            self._known.popitem(last=False)
