"""What a client is told of a reply log: which events, in the order of the log, each once.

A fold over one request's events in log order, so that every replica tells the same and a client can
go on anywhere: each told event carries the offset at which reading goes on after it. Told are
`accepted`, when nothing else was before it; every `progress`; of one part number the first, since a
further attempt sends the same parts again; and the first last event of the log, after which nothing
is told. A log that does not begin with `accepted` (its client waited, so none was written) is told
with one in front, made from the request's ID: every whole telling begins alike.

A log is told to a principal, as `replylog` folds it for one: an event that does not say whose it is
is its log's, and what came before the log was known to be the principal's is told when it is.
"""

from collections.abc import Container
from itertools import islice

import msgspec

from bridge.envelope import Event, Reply

MAX_MISSING = 100
"""So many missing part numbers are named; who misses more needs none of their names."""

MAX_HELD, MAX_HELD_BYTES = 1000, 1 << 20
"""So much is held back of a log that has not said whose it is; of what is more, the end alone."""

OVER = (1 << 63) - 1
"""Where reading goes on after an end that is in no log: nowhere (offsets have 63 bits)."""


class Told(msgspec.Struct, frozen=True):
    """One event as a client is told it.

    Attributes:
        reply: The event.
        next: Offset in the lane at which reading goes on after it; grows from event to event.
        missing: Of a last event that counts parts: numbers of parts that are not in the log.
    """

    reply: Reply
    next: int
    missing: tuple[int, ...] = ()


class PartNumbers(Container[int]):
    """Part numbers that were seen; small for as long as they come in order, however many."""

    __slots__ = ("_early", "next")

    def __init__(self) -> None:
        self.next = 0
        self._early: set[int] = set()

    def add(self, number: int) -> bool:
        """Note a number; tells whether it is new."""
        if number in self:
            return False
        self._early.add(number)
        while self.next in self._early:
            self._early.remove(self.next)
            self.next += 1
        return True

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and (0 <= number < self.next or number in self._early)


def find_missing(numbers: Container[int], count: int, *, first: int = 0) -> tuple[int, ...]:
    """Name the parts that are missing of `count`, at most `MAX_MISSING` of them.

    Args:
        numbers: The numbers that are there.
        count: How many there should be, numbered from 0.
        first: Numbers below this are there.
    """
    absent = (number for number in range(first, count) if number not in numbers)
    return tuple(islice(absent, MAX_MISSING))


class Telling:
    """One request's log, told to one client; owned by whoever reads the log.

    Args:
        request_id: Whose log.
        began_ms: When the request was taken, Unix milliseconds of broker time.
        since: The `next` of the event that the client was told last; None: none yet.
        principal: Whose log it must be: another's events are passed over; None: nobody is told
            apart.

    Attributes:
        next: Offset in the lane at which reading goes on; 0 before the first event.
        accepted: The latest `accepted` of the log; None: not seen.
        is_over: Whether the last event was taken.
    """

    __slots__ = (
        "_began_ms",
        "_generation",
        "_has_begun",
        "_held",
        "_held_bytes",
        "_is_own",
        "_parts",
        "_principal",
        "_request_id",
        "_since",
        "accepted",
        "is_over",
        "next",
    )

    def __init__(
        self,
        request_id: str,
        *,
        began_ms: int,
        since: int | None = None,
        principal: str | None = None,
    ) -> None:
        self._request_id = request_id
        self._began_ms = began_ms
        self._since = -1 if since is None else since
        self._principal = principal
        self._is_own = principal is None
        self._held: list[Reply] = []
        self._held_bytes = 0
        self._parts = PartNumbers()
        self._generation = 0
        self._has_begun = False
        self.next = 0
        self.accepted: Reply | None = None
        self.is_over = False

    @property
    def is_seen(self) -> bool:
        """Whether anything at all is known of the request."""
        return self._has_begun

    def take(self, reply: Reply) -> list[Told]:
        """Take the log's next event; what was taken before is passed over.

        Returns:
            What is to be told of it: nothing, the event, or others and the event.
        """
        if self.is_over or reply.offset < self.next:
            return []
        self.next = reply.offset + 1
        if reply.event is None or reply.event is Event.PROBE or self._is_foreign(reply):
            return []
        if not self._is_own:
            self._hold(reply)
            return []
        events, self._held = [*self._held, reply], []
        return [told for event in events for told in self._tell_counting(event)]

    def _is_foreign(self, reply: Reply) -> bool:
        """Tell whether an event is another principal's; it may tell whose the log is."""
        if self._principal is None or reply.principal is None:
            return False
        self._is_own = self._is_own or reply.principal == self._principal
        return reply.principal != self._principal

    def _hold(self, reply: Reply) -> None:
        """Keep an event until it is known whose it is: nothing but the end, when it is too much."""
        self._held_bytes += len(reply.value or b"")
        is_last = reply.event is not None and reply.event.is_last
        if is_last or (len(self._held) < MAX_HELD and self._held_bytes <= MAX_HELD_BYTES):
            self._held.append(reply)

    def _tell_counting(self, reply: Reply) -> list[Told]:
        """Tell an event, if it counts."""
        if self.is_over or not self._counts(reply):
            return []
        told = []
        if not self._has_begun and reply.event is not Event.ACCEPTED:
            first = Reply(request_id=self._request_id, event=Event.ACCEPTED, time_ms=self._began_ms)
            told += self._tell(first, reply.offset)
        self._has_begun = True
        return told + self._tell(reply, reply.offset + 1)

    def expire(self, now_ms: int) -> list[Told]:
        """End a telling whose request expired without anybody writing it into the log."""
        if self.is_over:
            return []
        expired = Reply(request_id=self._request_id, event=Event.EXPIRED, time_ms=now_ms)
        return self._tell(expired, OVER)

    def _counts(self, reply: Reply) -> bool:
        if reply.event is Event.ACCEPTED:
            self.accepted = reply
            return not self._has_begun
        is_last = reply.event is not None and reply.event.is_last
        return is_last or self._is_new_work(reply)

    def _is_new_work(self, reply: Reply) -> bool:
        """Tell whether progress or a part is worth telling: not late, and no part again."""
        if reply.generation < self._generation:
            return False
        self._generation = reply.generation
        if reply.event is Event.PART and reply.sequence is not None:
            return self._parts.add(reply.sequence)
        return True

    def _tell(self, reply: Reply, next_offset: int) -> list[Told]:
        missing: tuple[int, ...] = ()
        if reply.event is not None and reply.event.is_last:
            self.is_over = True
            if reply.event is Event.COMPLETED and reply.sequence is not None:
                missing = find_missing(self._parts, reply.sequence, first=self._parts.next)
        return [Told(reply, next_offset, missing)] if next_offset > self._since else []
