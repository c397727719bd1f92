"""What a replay writes for a record: key and value byte for byte, headers for another try.

Pure, and called once a record: all that does not differ between records is made beforehand.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bridge import dead
from bridge.envelope import (
    ATTEMPT,
    DEADLINE,
    GENERATION,
    MAX_ID_BYTES,
    REPLAY_COUNT,
    REPLAY_ID,
    REPLAY_OF,
    REPLY_PARTITION,
    REPLY_TO,
    REQUEST_ID,
    SPRING_CORRELATION,
    SPRING_REPLY_PARTITION,
    SPRING_REPLY_TOPIC,
)

Received = Sequence[tuple[str, bytes | None]]
"""Headers as they lie on Kafka: a value may be missing."""

MAX_REPLAYS = 3
"""A record that was replayed so often is left: a loop ends here."""

_GONE = frozenset(
    {
        DEADLINE,
        ATTEMPT,
        REPLAY_ID,
        REPLAY_OF,
        REPLAY_COUNT,
        SPRING_REPLY_TOPIC,
        SPRING_REPLY_PARTITION,
    }
)
"""What is of the last try alone, or would answer somebody who has long stopped waiting."""
_DEAD = len(dead.PREFIX)
_MAX_DIGITS = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Copier:
    """Makes the headers of one replay's copies.

    Attributes:
        replay_id: Names the replay.
        topic: Where the records lie.
        reply_to: Where the answers go; None: where those of the originals went, as a further
            generation.
        is_verbatim: Whether nothing is left out, as in mode `copy`.
    """

    replay_id: str
    topic: str
    reply_to: str | None
    is_verbatim: bool = False
    _left_out: frozenset[str] = field(init=False)
    _named: tuple[str, bytes] = field(init=False)

    def __post_init__(self) -> None:
        own = frozenset({GENERATION} if self.reply_to is None else {REPLY_TO, REPLY_PARTITION})
        object.__setattr__(self, "_left_out", _GONE | own)
        object.__setattr__(self, "_named", (REPLAY_ID, self.replay_id.encode()))

    def make(
        self,
        headers: Received,
        partition: int,
        offset: int,
        *,
        deadline: bytes,
        generation: int = 0,
    ) -> list[tuple[str, bytes | None]]:
        """Make the headers of one copy.

        Args:
            headers: The record's own.
            partition: Its place.
            offset: Within that.
            deadline: Unix milliseconds by the broker, decimal.
            generation: The highest that is known of its request, where it answers.
        """
        found = dict(headers)
        place = self._place(found, partition, offset)
        of = found.get(REPLAY_OF) or place
        count = b"%d" % (count_replays(found) + 1) if REPLAY_COUNT in found else b"1"
        if self.is_verbatim:
            return [*headers, self._named, (REPLAY_OF, of), (REPLAY_COUNT, count)]
        left_out, prefix = self._left_out, dead.PREFIX
        made = [h for h in headers if h[0] not in left_out and h[0][:_DEAD] != prefix]
        if REQUEST_ID not in found:
            made.append((REQUEST_ID, _find_name(found) or place))
        made.append((DEADLINE, deadline))
        if self.reply_to is None:
            made.append((GENERATION, b"%d" % (generation + 1)))
        else:
            made.append((REPLY_TO, self.reply_to.encode()))
        made += (self._named, (REPLAY_OF, of), (REPLAY_COUNT, count))
        return made

    def _place(self, found: dict[str, bytes | None], partition: int, offset: int) -> bytes:
        """Tell where the original lies; of a dead letter, where the record was."""
        if dead.OFFSET not in found:
            return f"{self.topic}/{partition}/{offset}".encode()
        names = (dead.TOPIC, dead.PARTITION, dead.OFFSET)
        return b"/".join(found.get(name) or b"" for name in names)


def count_replays(found: Mapping[str, bytes | None]) -> int:
    """Tell how often a record was replayed; what is no number is more than any."""
    value = found.get(REPLAY_COUNT) or b"0"
    if not (value.isdigit() and len(value) <= _MAX_DIGITS):
        return int(10**_MAX_DIGITS)
    return int(value)


def _find_name(found: Mapping[str, bytes | None]) -> bytes:
    """Name a request of Spring's dialect as its worker did; empty: it is of ours."""
    if REPLY_TO in found or SPRING_REPLY_TOPIC not in found:
        return b""
    return (found.get(SPRING_CORRELATION) or b"").hex()[:MAX_ID_BYTES].encode()
