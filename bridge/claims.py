"""Claims: which request an `Idempotency-Key` stands for. The order of `bridge.claims` decides.

A key's records lie in one partition, so every reader folds them in the same order and comes to the
same ruling, whoever wrote them and when they were read. A record rules for its `bridge-rules-ms` by
the broker's time: until then no other record of its kind and key changes anything. That rule alone
is expiry; what retention has deleted, or not yet, makes no difference.
"""

import hashlib
import re
from collections.abc import Iterable
from enum import StrEnum

import msgspec

from bridge.envelope import MAX_ID_BYTES, Headers, Record

TOPIC = "bridge.claims"
PARTITIONS = 4
"""Few: a broker pays per batch, and a producer's batch is for one partition."""

CLAIM_HEADER = "bridge-claim"
REQUEST_ID = "bridge-request-id"
LANE = "bridge-lane"
FINGERPRINT = "bridge-fingerprint"
SERVICE = "bridge-service"
RULES = "bridge-rules-ms"
HEAL_ID = "bridge-heal-id"

_FRAME_BYTES = 5
_HEX = re.compile(r"[0-9a-f]{64}\Z")
_MAX_DIGITS = 15


class Kind(StrEnum):
    """What a record of `bridge.claims` says."""

    CLAIM = "claim"
    HEAL = "heal"
    WRITTEN = "written"


_KINDS = {kind.value.encode(): kind for kind in Kind}


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One record of `bridge.claims`.

    Attributes:
        kind: Whether it claims the key for a request, promises to write a claimed request again,
            or tells that a one-way request is written.
        key: The claim key: 64 hexadecimal digits.
        request_id: The request that the key shall stand for.
        lane: Where that request's log is; 0 for one without.
        fingerprint: Of the request's body: 64 hexadecimal digits.
        service: Whose request.
        rules_ms: How long it rules, in milliseconds of broker time.
        heal_id: Names a heal, so that its writer knows it again; "" on the other kinds.
        time_ms: Broker time, Unix milliseconds; -1 before it is written.
    """

    kind: Kind
    key: str
    request_id: str
    lane: int
    fingerprint: str
    service: str
    rules_ms: int
    heal_id: str = ""
    time_ms: int = -1


class Ruling(msgspec.Struct, frozen=True, kw_only=True):
    """What the log says of a key.

    Attributes:
        key: The claim key.
        request_id: The request that it stands for.
        lane: Where that request's log is.
        fingerprint: Of the request's body.
        time_ms: When it was claimed, Unix milliseconds of broker time.
        rules_ms: How long the claim rules.
        heal_id: The heal that counts; "": none.
        heal_ms: When that was, Unix milliseconds; -1: never.
        heal_rules_ms: How long no other heal counts.
        is_written: Whether a one-way request is known to be written.
    """

    key: str
    request_id: str
    lane: int
    fingerprint: str
    time_ms: int
    rules_ms: int
    heal_id: str = ""
    heal_ms: int = -1
    heal_rules_ms: int = 0
    is_written: bool = False

    @property
    def until_ms(self) -> int:
        """From when on another claim wins."""
        return self.time_ms + self.rules_ms

    @property
    def begun_ms(self) -> int:
        """When the request was last about to be written: at the claim, or at the latest heal."""
        return max(self.time_ms, self.heal_ms)


def claim_key(service: str, principal: str | None, key: str, line: int | None = None) -> str:
    """Name what is claimed; the same for whoever asks the same, on any replica.

    Args:
        service: The service's name.
        principal: Who asks; None: nobody was asked to say.
        key: The `Idempotency-Key`.
        line: The line of a batch; None: not in a batch.
    """
    digest = hashlib.sha256()
    for part in (service, principal or "", key, "" if line is None else str(line)):
        data = part.encode()
        digest.update(len(data).to_bytes(4, "big"))
        digest.update(data)
    return digest.hexdigest()


def fingerprint(value: bytes | None) -> str:
    """Tell bodies apart by their Avro bytes, so that white space and order do not matter.

    The frame with the schema ID is left out: a retry may meet a replica of the next version.
    """
    return hashlib.sha256((value or b"")[_FRAME_BYTES:]).hexdigest()


def fold(ruling: Ruling | None, entry: Entry) -> Ruling | None:
    """Return what rules for a key after its next record; the same object when nothing changes."""
    if entry.kind is Kind.CLAIM:
        return ruling if _rules(ruling, entry.time_ms) else _start(entry)
    if ruling is None or entry.request_id != ruling.request_id:
        return ruling
    if entry.kind is Kind.WRITTEN:
        return ruling if ruling.is_written else msgspec.structs.replace(ruling, is_written=True)
    if ruling.heal_id and entry.time_ms - ruling.heal_ms < ruling.heal_rules_ms:
        return ruling
    return msgspec.structs.replace(
        ruling, heal_id=entry.heal_id, heal_ms=entry.time_ms, heal_rules_ms=entry.rules_ms
    )


def _rules(ruling: Ruling | None, now_ms: int) -> bool:
    return ruling is not None and now_ms - ruling.time_ms < ruling.rules_ms


def _start(entry: Entry) -> Ruling:
    return Ruling(
        key=entry.key,
        request_id=entry.request_id,
        lane=entry.lane,
        fingerprint=entry.fingerprint,
        time_ms=entry.time_ms,
        rules_ms=entry.rules_ms,
    )


def fold_all(entries: Iterable[Entry]) -> dict[str, Ruling]:
    """Return what rules for each key after these records, in log order."""
    rulings: dict[str, Ruling] = {}
    for entry in entries:
        ruling = fold(rulings.get(entry.key), entry)
        if ruling is not None:
            rulings[entry.key] = ruling
    return rulings


def is_orphan(ruling: Ruling, now_ms: int, heal_after_ms: int) -> bool:
    """Tell whether a request that shows no event at all was lost between claim and write."""
    return now_ms - ruling.begun_ms >= heal_after_ms


def may_write(ruling: Ruling, now_ms: int, heal_after_ms: int) -> bool:
    """Tell whether whoever won may still write the request.

    The producer tries for half of `heal_after_ms`. Who begins within the first half has therefore
    written, or never will, before anybody else may heal; a process that slept may not begin.
    """
    return now_ms - ruling.begun_ms < heal_after_ms // 2


def format_entry(entry: Entry) -> Record:
    """Make the record of an entry; Kafka's partitioner places it by its key."""
    headers: Headers = [
        (CLAIM_HEADER, entry.kind.value.encode()),
        (REQUEST_ID, entry.request_id.encode()),
        (LANE, b"%d" % entry.lane),
        (FINGERPRINT, entry.fingerprint.encode()),
        (SERVICE, entry.service.encode()),
        (RULES, b"%d" % entry.rules_ms),
    ]
    if entry.heal_id:
        headers.append((HEAL_ID, entry.heal_id.encode()))
    return Record(topic=TOPIC, key=entry.key.encode(), value=None, headers=headers)


def parse_entry(record: Record) -> Entry | None:
    """Read a record of `bridge.claims`; None when it is not one, or of a later version."""
    found = dict(record.headers)
    kind = _KINDS.get(found.get(CLAIM_HEADER) or b"")
    lane, rules_ms = _number(found.get(LANE)), _number(found.get(RULES))
    if kind is None or lane is None or rules_ms is None:
        return None
    try:
        entry = Entry(
            kind=kind,
            key=(record.key or b"").decode(),
            request_id=(found.get(REQUEST_ID) or b"").decode(),
            lane=lane,
            fingerprint=(found.get(FINGERPRINT) or b"").decode(),
            service=(found.get(SERVICE) or b"").decode(),
            rules_ms=rules_ms,
            heal_id=(found.get(HEAL_ID) or b"").decode(),
            time_ms=record.timestamp_ms,
        )
    except UnicodeDecodeError:
        return None
    return entry if _is_whole(entry) else None


def _is_whole(entry: Entry) -> bool:
    return (
        _HEX.match(entry.key) is not None
        and _HEX.match(entry.fingerprint) is not None
        and 0 < len(entry.request_id.encode()) <= MAX_ID_BYTES
        and bool(entry.heal_id) == (entry.kind is Kind.HEAL)
    )


def _number(value: bytes | None) -> int | None:
    if not value or not value.isdigit() or len(value) > _MAX_DIGITS:
        return None
    return int(value)
