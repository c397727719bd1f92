"""What has been answered already: read back from the reply log, and remembered.

The note beside a committed offset says from when on answers may exist that were not committed. A
new owner reads the service's lanes from there to their end before it handles anything, and skips
what has its last event. The note also counts the owners that began at this offset and died there.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bridge.envelope import Identity, Record, parse_reply
from bridge.kafka import Place, Reader

_VERSION, _NOTHING = "1", "-"

SEEK_MARGIN_MS = 2000
"""Reading starts so long before, and ends so long after: clocks of brokers differ a little."""


class Note(NamedTuple):
    """What a commit says beside its offset.

    Attributes:
        since_ms: Broker time from which answers may be uncommitted; None: none are, the partition was
            given up with nothing under way.
        starts: How many owners have begun at just this offset, and not come on from it.
    """

    since_ms: int | None
    starts: int = 0


def format_note(note: Note) -> str:
    """Write the note of a commit."""
    since = _NOTHING if note.since_ms is None else str(note.since_ms)
    return f"{_VERSION} {since} {note.starts}" if note.starts else f"{_VERSION} {since}"


def parse_note(text: str, *, otherwise_ms: int) -> Note:
    """Read a note; `otherwise_ms` when it is not ours (another tool has set the offset)."""
    version, since, starts = (*text.split(" "), "", "")[:3]
    if version != _VERSION or not (_is_number(since) or since == _NOTHING):
        return Note(otherwise_ms)
    return Note(None if since == _NOTHING else int(since), int(starts) if _is_number(starts) else 0)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


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
