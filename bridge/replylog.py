"""The reply log of one request, folded: what has happened so far, and how it ended.

Events may be told twice and in any order (a look-up reads what the live lane delivers too); offsets
decide. The first last event of the highest generation counts, whoever wrote it; late work loses.

A log is read for a principal. Another's is as if it were not there: its events are passed over, so
nothing that follows from them can differ from a request that never was.
"""

from bridge.envelope import Event, Reply

MAX_BYTES = 16 << 20
"""Parts are collected up to this, which is what one Avro value may have; a longer stream is read as events."""
_PART_BYTES = 200
"""What a part takes beside its value."""


class ReplyLog:
    """Events of one request, merged.

    Args:
        principal: Whose log it must be; None: nobody is told apart.

    Attributes:
        accepted: The ingress's word that the request is on its way; None: not seen.
        last: The event that ends the request; None: it goes on.
        parts: Parts of a streamed reply by number; of one number the first counts.
        is_too_large: They are more than are collected; then `parts` is empty.
        is_running: Whether a worker has been heard of.
        generation: The highest that any event told of.
    """

    __slots__ = (
        "_bytes",
        "_is_own",
        "accepted",
        "generation",
        "is_running",
        "is_too_large",
        "last",
        "parts",
        "principal",
    )

    def __init__(self, principal: str | None = None) -> None:
        self.principal = principal
        self._is_own = principal is None
        self.accepted: Reply | None = None
        self.last: Reply | None = None
        self.parts: dict[int, Reply] = {}
        self._bytes = 0
        self.is_too_large = False
        self.is_running = False
        self.generation = 0

    def take(self, reply: Reply) -> None:
        """Merge one event; those of a later version, and other principals', are passed over."""
        event = reply.event
        if event is None or event is Event.PROBE or self._is_foreign(reply):
            return
        self.generation = max(self.generation, reply.generation)
        if event.is_last:
            if self.last is None or _wins(reply, self.last):
                self.last = reply
        elif event is Event.ACCEPTED:
            self.accepted = reply
        else:
            self.is_running = True
            if event is Event.PART and reply.sequence is not None:
                self._take_part(reply, reply.sequence)

    def _is_foreign(self, reply: Reply) -> bool:
        """Tell whether an event is another principal's; one that does not say is its log's."""
        if self.principal is None or reply.principal is None:
            return False
        self._is_own = self._is_own or reply.principal == self.principal
        return reply.principal != self.principal

    def _take_part(self, reply: Reply, number: int) -> None:
        known = self.parts.get(number)
        if self.is_too_large or (known is not None and reply.offset >= known.offset):
            return
        self._bytes += _size(reply) - (0 if known is None else _size(known))
        self.parts[number] = reply
        if self._bytes > MAX_BYTES:
            self.is_too_large = True
            self.parts.clear()

    @property
    def is_seen(self) -> bool:
        """Whether anything at all is known of the request, by one who may know."""
        return self._is_own and (
            self.last is not None or self.accepted is not None or self.is_running
        )

    @property
    def state(self) -> str:
        """Return `accepted`, `running` or the last event's name."""
        if self.last is not None and self.last.event is not None:
            return self.last.event.value
        return "running" if self.is_running else "accepted"


def _size(part: Reply) -> int:
    return _PART_BYTES + len(part.value or b"")


def _wins(one: Reply, other: Reply) -> bool:
    if one.generation != other.generation:
        return one.generation > other.generation
    return one.offset < other.offset
