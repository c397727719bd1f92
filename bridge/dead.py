"""Dead letters: records that no worker could bring to an answer, kept with the reason.

Pure. Key, value and all other headers are the record's own, untouched, so that a dead letter can be
sent again as it was. What an earlier round said is replaced, not piled up: headers that grow with
every round end as a record that is too large (Spring Kafka has the same rule).
"""

import msgspec

from bridge.envelope import UNREADABLE, Headers, Record, Request
from bridge.errors import RecordError

PREFIX = "bridge-dead-"
REASON, ERROR = f"{PREFIX}reason", f"{PREFIX}error"
TOPIC, PARTITION, OFFSET = f"{PREFIX}topic", f"{PREFIX}partition", f"{PREFIX}offset"
TIMESTAMP, ATTEMPTS = f"{PREFIX}timestamp", f"{PREFIX}attempts"
WORKER, GROUP = f"{PREFIX}worker", f"{PREFIX}group"
MAX_ERROR_BYTES = 1024
"""What is kept of an error's text: it must not make the record too large."""

KEEP_S = 30 * 86_400
"""How long a dead letter waits for somebody, in seconds."""
REPLAY_KEEP_S = 86_400
"""How long what replays and redrives write is kept, in seconds."""
MAX_RECORD_BYTES = 16 * 1024 * 1024
"""What `<service>.dead` and `<service>.replay` take: a dead letter is larger than its record by the
reason, and one that did not fit would stop its worker."""

DETAIL = "dead_letter"
"""The detail of a failure that names its dead letter, as topic/partition/offset."""
UNDECODABLE, WORKER_DIED = "undecodable", "worker-died"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Why a record ends as a dead letter.

    Attributes:
        reason: `undecodable`, `attempts-exhausted`, `deadline` (the next try would be past it),
            `worker-died`, or the code of a failure that no other try would mend: `reply-invalid`,
            `reply-too-large`.
        error: What happened, for people.
        attempts: Tries that were made; 0: none was.
    """

    reason: str
    error: str
    attempts: int


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One record of `<service>.dead`, as read.

    Attributes:
        record: All of it.
        request: What its other headers say; None: they cannot be read.
        verdict: Why it is here.
        topic, partition, offset: Where it was.
        timestamp_ms: The original's timestamp, Unix milliseconds.
        worker: Which process gave it up.
        group: Of which group.
    """

    record: Record
    request: Request | None
    verdict: Verdict
    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    worker: str
    group: str


def make_dead(record: Record, verdict: Verdict, *, topic: str, group: str, worker: str) -> Record:
    """Make the dead letter of a record.

    Args:
        record: As it was read.
        verdict: Why.
        topic: Where dead letters of its service go; the partition is the record's.
        group: The workers' group.
        worker: Names the process that gives it up.
    """
    kept: Headers = (
        []  # what they are the client library cannot say: their names are no text
        if record.headers is UNREADABLE
        else [(name, value) for name, value in record.headers if not name.startswith(PREFIX)]
    )
    error = verdict.error.encode(errors="replace")[:MAX_ERROR_BYTES].decode(errors="ignore")
    headers: Headers = [
        *kept,
        (REASON, verdict.reason.encode()),
        (ERROR, error.encode()),
        (TOPIC, record.topic.encode()),
        (PARTITION, b"%d" % (record.partition or 0)),
        (OFFSET, b"%d" % record.offset),
        (TIMESTAMP, b"%d" % record.timestamp_ms),
        (ATTEMPTS, b"%d" % verdict.attempts),
        (WORKER, worker.encode()),
        (GROUP, group.encode()),
    ]
    return Record(
        topic=topic, key=record.key, value=record.value, headers=headers, partition=record.partition
    )


def parse_dead(record: Record, request: Request | None) -> DeadLetter:
    """Read a record of `<service>.dead`.

    Args:
        record: As it was read.
        request: What `envelope.parse_request` says of it; None: it cannot.

    Raises:
        RecordError: It has not the headers of a dead letter; the message names the first that is
            missing or wrong.
    """
    found = {name: value for name, value in record.headers if name.startswith(PREFIX)}
    return DeadLetter(
        record=record,
        request=request,
        verdict=Verdict(
            reason=_text(found, REASON), error=_text(found, ERROR), attempts=_int(found, ATTEMPTS)
        ),
        topic=_text(found, TOPIC),
        partition=_int(found, PARTITION),
        offset=_int(found, OFFSET),
        timestamp_ms=_int(found, TIMESTAMP),
        worker=_text(found, WORKER),
        group=_text(found, GROUP),
    )


def _text(found: dict[str, bytes], name: str) -> str:
    value = found.get(name)
    if value is None:
        raise RecordError(f"no dead letter: header {name} is missing")
    return value.decode(errors="replace")


def _int(found: dict[str, bytes], name: str) -> int:
    text = _text(found, name)
    try:
        return int(text)
    except ValueError:
        raise RecordError(f"no dead letter: header {name} is {text[:32]!r}") from None
