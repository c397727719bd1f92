"""The reply log of one request, folded: what has happened so far, and how it ended.

Events may be told twice and in any order (a look-up reads what the live lane delivers too); offsets
decide. The first last event of the highest generation counts, whoever wrote it; late work loses.
"""

from bridge.envelope import Event, Reply


class ReplyLog:
    """Events of one request, merged.

    Attributes:
        accepted: The ingress's word that the request is on its way; None: not seen.
        last: The event that ends the request; None: it goes on.
        parts: Parts of a streamed reply by number; of one number the first counts.
        is_running: Whether a worker has been heard of.
    """

    __slots__ = ("accepted", "is_running", "last", "parts")

    def __init__(self) -> None:
        self.accepted: Reply | None = None
        self.last: Reply | None = None
        self.parts: dict[int, Reply] = {}
        self.is_running = False

    def take(self, reply: Reply) -> None:
        """Merge one event; events of a later version are passed over."""
        event = reply.event
        if event is None or event is Event.PROBE:
            return
        if event.is_last:
            if self.last is None or _wins(reply, self.last):
                self.last = reply
        elif event is Event.ACCEPTED:
            self.accepted = reply
        else:
            self.is_running = True
            if event is Event.PART and reply.sequence is not None:
                self._take_part(reply, reply.sequence)

    def _take_part(self, reply: Reply, number: int) -> None:
        known = self.parts.get(number)
        if known is None or reply.offset < known.offset:
            self.parts[number] = reply

    @property
    def is_seen(self) -> bool:
        """Whether anything at all is known of the request."""
        return self.last is not None or self.accepted is not None or self.is_running

    @property
    def state(self) -> str:
        """Return `accepted`, `running` or the last event's name."""
        if self.last is not None and self.last.event is not None:
            return self.last.event.value
        return "running" if self.is_running else "accepted"


def _wins(one: Reply, other: Reply) -> bool:
    if one.generation != other.generation:
        return one.generation > other.generation
    return one.offset < other.offset
