"""What a replay will do, decided before it does anything: which records, counted, and by name.

A plan lists its records by offset. A rule would mean others at another time: reply logs go on, and
retention takes away. So what runs is what was planned, and the digest of it can be quoted.
"""

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Mapping
from enum import StrEnum
from itertools import islice

import msgspec

from bridge.codec.frame import schema_id_of
from bridge.copies import MAX_REPLAYS, count_replays
from bridge.ends import Ends
from bridge.envelope import REPLAY_ID, UNREADABLE, Record, Request, parse_request
from bridge.errors import RecordError
from bridge.offsets import Runs, decode
from bridge.redrive import Letter, read_letter
from bridge.service import Service
from bridge.where import Condition, holds

_CHUNK = 10_000
SELECTED, OUTSIDE = "selected", ""


class Mode(StrEnum):
    """What a replay is for.

    Attributes:
        REPROCESS: Workers do it again; the answers go to the replay's own topic.
        VERIFY: Handlers do it again, and what they say is compared with what was said.
        REDRIVE: Dead letters are done again, and answered.
        COPY: Records are copied as they are, to any topic.
    """

    REPROCESS = "reprocess"
    VERIFY = "verify"
    REDRIVE = "redrive"
    COPY = "copy"


class Left(StrEnum):
    """Why a record that was asked for is not selected.

    Attributes:
        REPLAYS: It is a replay's copy itself.
        SPENT: It was replayed three times already.
        UNKNOWN: How it ended is not known any more, or whether it was redriven.
        UNREADABLE: What was asked of it cannot be told, or no worker could take it.
        RESOLVED: A dead letter whose request has been completed meanwhile.
        REDRIVEN: A dead letter that was redriven before.
        REPEATED: A dead letter that was written a second time.
    """

    REPLAYS = "replays"
    SPENT = "spent"
    UNKNOWN = "unknown"
    UNREADABLE = "unreadable"
    RESOLVED = "resolved"
    REDRIVEN = "redriven"
    REPEATED = "repeated"


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which records are asked for: all conditions must hold.

    Attributes:
        mode: What for.
        topic: Where they lie.
        starts, ends: By partition: from which offset on, and up to before which; both frozen.
        since_ms, until_ms: Unix milliseconds of the record: at or after, and before; None: any.
        key: Its key; None: any.
        headers: Headers that it has, the last of each name.
        where: Conditions on the decoded request.
        state: How the request ended, or `none`; None: either way.
        is_dead: Whether these are dead letters.
        reason: Why they are; None: any.
        ids: Requests by name; None: any.
        sample: So many of them, spread by hash; None: all.
        takes_replays: Whether also a replay's copies are taken.
    """

    mode: Mode
    topic: str
    starts: Mapping[int, int]
    ends: Mapping[int, int]
    since_ms: int | None = None
    until_ms: int | None = None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    where: tuple[Condition, ...] = ()
    state: str | None = None
    is_dead: bool = False
    reason: str | None = None
    ids: frozenset[str] | None = None
    sample: int | None = None
    takes_replays: bool = False

    @property
    def wants_state(self) -> bool:
        """Whether reply logs have to be asked."""
        return not self.is_dead and (self.state is not None or self.mode is Mode.VERIFY)


Decide = Callable[[Record, Letter], Left | None]
"""Says why a dead letter is not redriven; None: it is."""


class Selector:
    """Judges records one by one.

    Args:
        selection: What is asked for.
        service: Whose contract reads the requests.
        ends: What the reply logs say; None: they are not asked.
        decide: For dead letters that are redriven.
    """

    def __init__(
        self,
        selection: Selection,
        service: Service,
        ends: Ends | None = None,
        decide: Decide | None = None,
    ) -> None:
        self._asked = selection
        self._service = service
        self._ends = ends
        self._decide = decide
        self._is_copy = selection.mode is Mode.COPY

    def judge(self, record: Record) -> str:
        """Return `SELECTED`, `OUTSIDE` of what is asked for, or why it is `Left`."""
        if not self._is_within(record) or not self._has_headers(record):
            return OUTSIDE
        letter, request = self._read(record)
        if not self._is_named(record, letter, request):
            return OUTSIDE
        try:
            if request is None and not self._is_copy:
                return Left.UNREADABLE
            is_asked = self._holds(record)
        except RecordError:
            return Left.UNREADABLE
        return self._judge_past(record, letter, request) if is_asked else OUTSIDE

    def _judge_past(self, record: Record, letter: Letter | None, request: Request | None) -> str:
        """Judge by what has been done with a record already."""
        if self._asked.wants_state:
            state = self._find_state(record, request)
            if state == Left.UNKNOWN:
                return Left.UNKNOWN
            if self._asked.state not in (None, state):
                return OUTSIDE
        found = dict(record.headers)
        is_replay = found.get(REPLAY_ID) is not None
        if is_replay and not (self._asked.takes_replays or self._decide):
            return Left.REPLAYS
        if count_replays(found) >= MAX_REPLAYS:
            return Left.SPENT
        why = None if self._decide is None or letter is None else self._decide(record, letter)
        return why or SELECTED

    def _is_within(self, record: Record) -> bool:
        asked = self._asked
        place = record.partition or 0
        if not asked.starts.get(place, 1) <= record.offset < asked.ends.get(place, 0):
            return False
        if asked.since_ms is not None and record.timestamp_ms < asked.since_ms:
            return False
        if asked.until_ms is not None and record.timestamp_ms >= asked.until_ms:
            return False
        return asked.key is None or record.key == asked.key

    def _has_headers(self, record: Record) -> bool:
        if not self._asked.headers:
            return True
        found = dict(record.headers)
        return all(found.get(name) == value for name, value in self._asked.headers)

    def _read(self, record: Record) -> tuple[Letter | None, Request | None]:
        if record.headers is UNREADABLE:
            return None, None
        try:
            if not self._asked.is_dead:
                return None, parse_request(record)
            letter = read_letter(record)
        except RecordError:
            return None, None
        return letter, letter.request

    def _is_named(self, record: Record, letter: Letter | None, request: Request | None) -> bool:
        asked = self._asked
        if asked.is_dead and (letter is None or asked.reason not in (None, letter.verdict.reason)):
            return False
        return asked.ids is None or _name(record, letter, request) in asked.ids

    def _holds(self, record: Record) -> bool:
        if not self._asked.where:
            return True
        value = self._service.decode(record.value)
        return all(holds(condition, value) for condition in self._asked.where)

    def _find_state(self, record: Record, request: Request | None) -> str:
        if self._ends is None or request is None:
            return Left.UNKNOWN
        return self._ends.find_state(request, record.timestamp_ms)


def _name(record: Record, letter: Letter | None, request: Request | None) -> str:
    if letter is not None:
        return letter.request_id
    if request is not None:
        return request.request_id
    return f"{record.topic}/{record.partition}/{record.offset}"


class Draft:
    """Gathers what was selected.

    Args:
        selector: Judges.
        sample: So many, spread by hash; None: all.
    """

    def __init__(self, selector: Selector, sample: int | None = None) -> None:
        self._judge = selector.judge
        self._sample = sample
        self._nearest: list[tuple[bytes, int, int, int | None]] = []
        self._runs: dict[int, Runs] = {}
        self.left: Counter[str] = Counter()
        self.schemas: Counter[int | None] = Counter()
        self.seen = 0

    def take(self, record: Record) -> None:
        """Judge one record; each partition's in order."""
        self.seen += 1
        judged = self._judge(record)
        if judged == OUTSIDE:
            return
        if judged != SELECTED:
            self.left[judged] += 1
            return
        partition = record.partition or 0
        schema_id = find_schema_id(record.value)
        if self._sample is None:
            self._put(partition, record.offset, schema_id)
            return
        name = f"{record.topic}/{partition}/{record.offset}".encode()
        far = bytes(255 - byte for byte in hashlib.sha256(name).digest())
        entry = (far, partition, record.offset, schema_id)
        if len(self._nearest) < self._sample:
            heapq.heappush(self._nearest, entry)
        else:
            heapq.heappushpop(self._nearest, entry)

    def _put(self, partition: int, offset: int, schema_id: int | None) -> None:
        self._runs.setdefault(partition, Runs()).add(offset)
        self.schemas[schema_id] += 1

    def finish(self) -> dict[int, Runs]:
        """Return the selected offsets by partition; nothing is taken after that."""
        for _, partition, offset, schema_id in sorted(self._nearest, key=lambda each: each[1:3]):
            self._put(partition, offset, schema_id)
        self._nearest.clear()
        return dict(sorted(self._runs.items()))


def find_schema_id(value: bytes | None) -> int | None:
    """Read the schema ID of a value; None: it is not framed."""
    try:
        return schema_id_of(value)
    except RecordError:
        return None


def digest(mode: Mode, topic: str, selected: Mapping[int, Runs]) -> str:
    """Name a selection: SHA-256 over the mode, and each record's place, in numeric order."""
    summed = hashlib.sha256(f"{mode.value}\n".encode())
    for partition in sorted(selected):
        head = f"{topic}/{partition}/"
        offsets = iter(selected[partition])
        while chunk := "".join(f"{head}{offset}\n" for offset in islice(offsets, _CHUNK)):
            summed.update(chunk.encode())
    return summed.hexdigest()


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One partition of a plan.

    Attributes:
        start, end: The frozen bounds.
        selected: How many records.
        offsets: Which, as `offsets.Runs` writes them.
        gone: Offsets that were asked for and lie before the oldest record that is kept.
    """

    start: int
    end: int
    selected: int
    offsets: str
    gone: int = 0

    def runs(self) -> Runs:
        """Return the selected offsets."""
        return decode(self.offsets)


class SchemaCount(msgspec.Struct, frozen=True, kw_only=True):
    """Records of one schema ID, and whether today's contract reads them."""

    count: int
    readable: bool


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A replay as it was planned: written once, never changed.

    Attributes:
        id: Names it: a UUIDv7.
        service: Whose requests.
        mode: What for.
        source, source_id: The topic that they lie on, and Kafka's own ID of it.
        target: Where copies go.
        answers: Whether the answers go where those of the originals went.
        asked: What was asked for, as the operator said it.
        by: Who planned it.
        at_ms: When, Unix milliseconds.
        parts: What is selected, by partition.
        left: What was asked for and is not selected, by reason.
        schemas: Schema IDs of what is selected; "none": not framed.
        effects: What handling a request again does to the world.
        digest: Names the selection.
        rate: Records a second at the most; None: as fast as Kafka takes them.
    """

    id: str
    service: str
    mode: Mode
    source: str
    source_id: str
    target: str
    answers: bool
    asked: dict[str, object]
    by: str
    at_ms: int
    parts: dict[int, Part]
    left: dict[str, int]
    schemas: dict[str, SchemaCount]
    effects: str
    digest: str
    rate: float | None = None

    @property
    def selected(self) -> int:
        """How many records are selected."""
        return sum(part.selected for part in self.parts.values())
