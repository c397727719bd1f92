"""What has been answered already: read back from the reply log, and remembered.

The note beside a committed offset says from when on answers may exist that were not committed. A
new owner reads the service's lanes from there to their end before it handles anything, and skips
what has its last event.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from bridge.envelope import Identity, Record, parse_reply
from bridge.kafka import Place, Reader

_NOTHING = "1 -"
_SINCE = "1 "

SEEK_MARGIN_MS = 2000
"""Reading starts so long before, and ends so long after: clocks of brokers differ a little."""


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
    """Pieces of work that have their last event, for a while, and the latest `limit` of them.

    Args:
        keep_s: How long each is remembered, in seconds.
        limit: How many are remembered; each takes about 200 bytes.
    """

    def __init__(self, keep_s: float, limit: int = 200_000) -> None:
        self._keep_ms = int(keep_s * 1000)
        self._limit = limit
        self._known: OrderedDict[Identity, int] = OrderedDict()

    def __contains__(self, identity: Identity) -> bool:
        return identity in self._known

    def __len__(self) -> int:
        return len(self._known)

    def add(self, identities: Iterable[Identity], *, now_ms: int) -> None:
        """Remember; what is too old, or beyond the limit, is forgotten."""
        for identity in identities:
            self._known[identity] = now_ms
        while self._known and self._is_over(now_ms):
            self._known.popitem(last=False)

    def _is_over(self, now_ms: int) -> bool:
        oldest_ms = next(iter(self._known.values()))
        return len(self._known) > self._limit or oldest_ms < now_ms - self._keep_ms


async def read_back(
    reader: Reader, lanes: Sequence[Place], since_ms: int, until_ms: int | None
) -> list[Identity]:
    """Find what has its last event in a service's lanes.

    Args:
        reader: Reads.
        lanes: Reply topic and partition of each.
        since_ms: From when on, in Unix milliseconds of broker time.
        until_ms: Until when; None: the present end.

    Raises:
        BrokerDownError: Kafka does not answer.
    """
    found: list[Identity] = []

    def is_enough(record: Record) -> bool:  # on the reader's thread
        if until_ms is not None and record.timestamp_ms > until_ms + SEEK_MARGIN_MS:
            return True
        reply = parse_reply(record)
        if reply is not None and reply.event is not None and reply.event.is_last:
            found.append(reply.identity)
        return False

    await reader.read(lanes, since_ms=since_ms - SEEK_MARGIN_MS, is_enough=is_enough)
    return found
