"""Redriving: which dead letters are done again, and what is written for each.

Everything that can be decided of dead letters without touching Kafka. A letter is kept without its
bytes: there may be many, and of up to 16 MiB each. What was done for a letter already is told by
three logs: a later generation of its request in `<service>.dead` or `<service>.replay`, or a
`completed` in its reply log. Nothing else is kept, and a redrive that died leaves no state: what it
has written, the next one finds.
"""

from collections.abc import Container, Iterable, Mapping
from enum import StrEnum

import msgspec

from bridge import dead, ids
from bridge.copies import MAX_REPLAYS, Copier
from bridge.dead import Verdict, parse_dead
from bridge.envelope import (
    ATTEMPT,
    DEADLINE,
    REPLAY_COUNT,
    REPLAY_OF,
    Event,
    Record,
    Reply,
    Request,
    parse_reply,
    parse_request,
)
from bridge.errors import RecordError

MARGIN_MS = 2000
"""Reading starts so long before a time by brokers' clocks, which differ a little."""
FOREIGN_MARGIN_MS = 60_000
"""And so long before one by the clock of whoever wrote directly to Kafka."""

_EVERY_TIME_ANEW = frozenset({DEADLINE, ATTEMPT})
_MAX_COUNT_DIGITS = 9


class State(StrEnum):
    """What becomes of a dead letter when it is redriven."""

    WAITING = "waiting"
    RESOLVED = "resolved"
    REDRIVEN = "redriven"
    PARKED = "parked"
    UNKNOWN = "unknown"
    UNREADABLE = "unreadable"


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """One dead letter, without its bytes.

    Attributes:
        partition, offset: Where it lies in `<service>.dead`.
        time_ms: When it was written there, Unix milliseconds by the broker.
        verdict: Why.
        worker: Which process gave it up.
        topic, origin_partition, origin_offset: Where the record was.
        origin_ms: That one's timestamp.
        request_id: The request; where its headers cannot be used, the record's place.
        request: What its headers say, deadline and attempt apart; None: they cannot be used.
        trouble: Why they cannot; "" otherwise.
        replays: How often it was replayed before it came here.
        replay_of: The record that all of it began with, `topic/partition/offset`.
        copies: How often it was written: a crash can do it twice, and the first counts.
    """

    partition: int
    offset: int
    time_ms: int
    verdict: Verdict
    worker: str
    topic: str
    origin_partition: int
    origin_offset: int
    origin_ms: int
    request_id: str
    request: Request | None
    trouble: str
    replays: int
    replay_of: str
    copies: int = 1

    @property
    def generation(self) -> int:
        """Of its request; 0 where its headers cannot be used."""
        return 0 if self.request is None else self.request.generation

    @property
    def order(self) -> tuple[int, int, int]:
        """Sorts by when it was written."""
        return (self.time_ms, self.partition, self.offset)


def read_letter(record: Record) -> Letter:
    """Read a record of `<service>.dead`.

    Raises:
        RecordError: It is no dead letter.
    """
    letter = parse_dead(record, None)
    kept = [(name, value) for name, value in record.headers if not _is_cleared(name)]
    original = Record(
        topic=letter.topic,
        key=None,
        value=None,
        headers=kept,
        partition=letter.partition,
        offset=letter.offset,
    )
    place = f"{letter.topic}/{letter.partition}/{letter.offset}"
    found = dict(kept)
    request, trouble, replays = None, "", 0
    try:
        request, replays = parse_request(original), _replays(found)
    except RecordError as error:
        trouble = str(error)
    return Letter(
        partition=record.partition or 0,
        offset=record.offset,
        time_ms=record.timestamp_ms,
        verdict=letter.verdict,
        worker=letter.worker,
        topic=letter.topic,
        origin_partition=letter.partition,
        origin_offset=letter.offset,
        origin_ms=letter.timestamp_ms,
        request_id=place if request is None else request.request_id,
        request=request,
        trouble=trouble,
        replays=replays,
        replay_of=(found.get(REPLAY_OF) or place.encode()).decode(errors="replace"),
    )


class Letters:
    """The dead letters of a service, one for each request ID and generation."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int], Letter] = {}
        self._latest: dict[str, int] = {}
        self.others = 0
        """Records that are no dead letters."""

    def take(self, record: Record) -> None:
        """Merge a record of `<service>.dead`; in any order."""
        try:
            letter = read_letter(record)
        except RecordError:
            self.others += 1
            return
        name = (letter.request_id, letter.generation)
        known = self._found.get(name)
        if known is not None:
            first = min(letter, known, key=lambda each: each.order)
            letter = msgspec.structs.replace(first, copies=known.copies + 1)
        self._found[name] = letter
        self._note(*name)

    def take_replayed(self, record: Record) -> None:
        """Merge a record of `<service>.replay`: what has been written again."""
        try:
            request = parse_request(record)
        except RecordError:
            return  # no redrive wrote it
        self._note(request.request_id, request.generation)

    def _note(self, request_id: str, generation: int) -> None:
        self._latest[request_id] = max(generation, self._latest.get(request_id, 0))

    def in_order(self) -> list[Letter]:
        """Return them, newest last."""
        return sorted(self._found.values(), key=lambda letter: letter.order)

    def decide(
        self, letter: Letter, completed: Container[str] = (), *, known_since_ms: int = 0
    ) -> State:
        """Decide what becomes of a letter.

        Args:
            letter: One of these.
            completed: Requests that have a `completed` in their reply log.
            known_since_ms: Unix milliseconds; whether an older letter was redriven is not on record
                any more. 0: everything is.
        """
        if letter.request is None:
            return State.UNREADABLE
        if letter.request_id in completed:
            return State.RESOLVED
        if self._latest[letter.request_id] > letter.generation:
            return State.REDRIVEN
        if letter.replays >= MAX_REPLAYS:
            return State.PARKED
        return State.UNKNOWN if letter.time_ms < known_since_ms else State.WAITING


def select(
    letters: Iterable[Letter], *, request_id: str | None = None, reason: str | None = None
) -> list[Letter]:
    """Choose letters by request, by reason, or all."""
    return [
        letter
        for letter in letters
        if request_id in (None, letter.request_id) and reason in (None, letter.verdict.reason)
    ]


def find_lanes(
    letters: Iterable[Letter], partitions: Mapping[str, int]
) -> dict[tuple[str, int], int]:
    """Find where to look for the last events of letters, and since when.

    Args:
        letters: Whose.
        partitions: The reply topics that can be read, each with its number of partitions; a letter
            that is answered elsewhere is left out.

    Returns:
        Unix milliseconds by topic and partition.
    """
    since: dict[tuple[str, int], int] = {}
    for letter in letters:
        topic = None if letter.request is None else letter.request.reply_to
        if letter.request is None or topic is None or topic not in partitions:
            continue
        start = _began_ms(letter)
        for lane in _lanes(letter.request, partitions[topic]):
            since[topic, lane] = min(start, since.get((topic, lane), start))
    return since


class Completed:
    """Which of some letters' requests have a `completed` in their reply logs.

    The reply log is read for the request's principal, as everywhere: another's event is not there.
    """

    def __init__(self, letters: Iterable[Letter]) -> None:
        self._wanted = {
            letter.request_id: letter.request.principal
            for letter in letters
            if letter.request is not None
        }
        self.found: set[str] = set()

    def take(self, record: Record) -> None:
        """Look at one record of a reply topic."""
        reply = parse_reply(record)
        if reply is not None and reply.event is Event.COMPLETED and self._is_own(reply):
            self.found.add(reply.request_id)

    def _is_own(self, reply: Reply) -> bool:
        if reply.request_id not in self._wanted:
            return False
        asked = self._wanted[reply.request_id]
        return asked is None or reply.principal in (None, asked)


def make_copy(
    record: Record, letter: Letter, *, topic: str, replay_id: str, deadline_ms: int
) -> Record:
    """Make what a redrive writes for a letter: key and value byte for byte, headers for a new try.

    Args:
        record: The dead letter, as read.
        letter: What it says; its request can be read.
        topic: Where to; the partition stays.
        replay_id: Names the redrive.
        deadline_ms: Unix milliseconds by the broker.
    """
    copier = Copier(replay_id=replay_id, topic=record.topic, reply_to=None)
    headers = copier.make(
        record.headers,
        record.partition or 0,
        record.offset,
        deadline=b"%d" % deadline_ms,
        generation=letter.generation,
    )
    return Record(
        topic=topic,
        key=record.key,
        value=record.value,
        headers=headers,  # type: ignore[arg-type]  # values that are missing were missing before
        partition=record.partition,
    )


def _is_cleared(name: str) -> bool:
    """Whether a header is of the last try alone; whatever is wrong with it will not be there."""
    return name in _EVERY_TIME_ANEW or name.startswith(dead.PREFIX)


def _replays(found: Mapping[str, bytes]) -> int:
    value = found.get(REPLAY_COUNT) or b"0"
    if not (value.isdigit() and len(value) <= _MAX_COUNT_DIGITS):
        raise RecordError(f"header {REPLAY_COUNT} is {value[:32]!r}: want a decimal number")
    return int(value)


def _began_ms(letter: Letter) -> int:
    """When its request began: no event of it is older."""
    address = ids.parse(letter.request_id)
    if address is not None:
        return max(0, address.time_ms - MARGIN_MS)
    return max(0, min(letter.origin_ms, letter.time_ms) - FOREIGN_MARGIN_MS)


def _lanes(request: Request, count: int) -> Iterable[int]:
    """Where its reply log lies; all lanes when nothing says so."""
    address = ids.parse(request.request_id)
    said = address.lane if request.reply_partition is None and address else request.reply_partition
    return range(count) if said is None or said >= count else (said,)
