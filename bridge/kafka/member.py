"""A membership of a consumer group: what it is told, what it commits, how it is shown to Kafka."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import confluent_kafka as ck

from bridge.envelope import Record

Place = tuple[str, int]
"""Topic and partition."""

_MARK = "#"
NO_MEMBER = b"CGMDv2:\xff\xff\xff\xff"
"""How the library writes membership metadata down: this, a generation of -1, when there is none."""


class Position(NamedTuple):
    """What is committed for a partition: the next offset to read, and a note of ours.

    The note has no `#`: what is behind one is the mark of a transaction, and not told.
    """

    offset: int
    note: str


class GroupMetadata(NamedTuple):
    """What shows Kafka that a process is a member of a group, as of one generation (KIP-447).

    Attributes:
        group: The group's name.
        token: Generation and member ID, in the library's own form.
    """

    group: str
    token: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Assigned:
    """A partition that this process now owns.

    Attributes:
        place: Topic and partition.
        position: What was committed; None: nothing ever was.
        start: The first offset to be handled: the committed one, else the first that there is.
        end: Its end at that moment: records beyond it were never in another owner's hands.
    """

    place: Place
    position: Position | None
    start: int
    end: int


class GroupMember(Protocol):
    """What a group consumer tells its owner, all of it in the event loop.

    Attributes:
        is_held: Whether nothing shall be fetched at present; looked at between two polls.
    """

    is_held: bool

    def assigned(self, partitions: Sequence[Assigned]) -> None:
        """Take over partitions; their records come afterwards."""

    async def revoked(self, places: Sequence[Place]) -> Mapping[Place, Position]:
        """Give partitions up: finish or abandon, and say what to commit. Others wait meanwhile."""

    def lost(self, places: Sequence[Place]) -> None:
        """Drop partitions that are another's already: no commit, no answer for them."""

    def committed(self, positions: Mapping[Place, Position], why: str | None) -> None:
        """Learn that these positions are committed, or why they are not."""

    def take(self, records: list[Record]) -> None:
        """Receive records in partition order; no more come before `Group.go_on`."""


def read_position(place: ck.TopicPartition) -> Position:
    """Read a committed position; behind its note may be the mark of a transaction."""
    return Position(place.offset, (place.metadata or "").partition(_MARK)[0])


def offsets_of(positions: Mapping[Place, Position], mark: str = "") -> list[ck.TopicPartition]:
    """Write positions as the library wants them, each with the mark of a transaction, if any."""
    end = mark and _MARK + mark
    return [
        ck.TopicPartition(topic, partition, position.offset, metadata=position.note + end)
        for (topic, partition), position in positions.items()
    ]
