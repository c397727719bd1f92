"""How the requests of a service ended, by what its reply logs say, for many requests at once.

One entry a request, not a folded log: a plan asks about millions. What counts is the same: the
first last event of the highest generation, and of a request with a principal no other's events.
"""

from collections.abc import Mapping

from bridge import ids
from bridge.envelope import Event, Record, Request, parse_reply

UNKNOWN, NONE = "unknown", "none"
_Found = tuple[int, int, str]
"""Generation, the offset with its sign turned, the last event: the greatest counts."""


class Ends:
    """Folds reply logs.

    Args:
        topic: Where they lie.
        known_since_ms: By lane, from when on it has all of its events, Unix milliseconds; 0: all
            that ever were; None: it has none of them any more.
    """

    def __init__(self, topic: str, known_since_ms: Mapping[int, int | None]) -> None:
        self._topic = topic
        self._since = known_since_ms
        self._ends: dict[tuple[str, str | None], _Found] = {}
        self._any: dict[str, _Found] = {}

    def take(self, record: Record) -> None:
        """Merge one event; each lane's in order."""
        reply = parse_reply(record)
        if reply is None or reply.event is None or not reply.event.is_last:
            return
        found = (reply.generation, -reply.offset, reply.event.value)
        name = (reply.request_id, reply.principal)
        self._ends[name] = max(found, self._ends.get(name, found))
        if reply.principal is not None:  # else both say the same
            known = self._any.get(reply.request_id, found)
            self._any[reply.request_id] = max(found, known)

    def find_state(self, request: Request, time_ms: int) -> str:
        """Return the last event's name, `none`, or `unknown` where the log does not go back so far.

        Args:
            request: Which.
            time_ms: The timestamp of its record, Unix milliseconds; where the ID says when it was
                taken, that counts.
        """
        if request.reply_to != self._topic or not self._is_known(request, time_ms):
            return UNKNOWN
        found = self._find(request)
        return NONE if found is None else found[2]

    def find_generation(self, request: Request) -> int:
        """Return the highest generation that has ended; 0: none has, or the first."""
        found = self._find(request)
        return 0 if found is None else found[0]

    def _find(self, request: Request) -> _Found | None:
        found = [self._ends.get((request.request_id, None))]
        if request.principal is None:
            found.append(self._any.get(request.request_id))
        else:
            found.append(self._ends.get((request.request_id, request.principal)))
        return max((each for each in found if each is not None), default=None)

    def _is_known(self, request: Request, time_ms: int) -> bool:
        address = ids.parse(request.request_id)
        if address is not None:
            time_ms = address.time_ms
        lane = request.reply_partition
        if lane is None and address is not None:
            lane = address.lane
        lanes = [lane] if lane in self._since else list(self._since)
        since = [self._since[each] for each in lanes if each is not None]
        return all(each is not None and time_ms >= each for each in since)


STATES = (
    *(event.value for event in (Event.COMPLETED, Event.FAILED, Event.EXPIRED, Event.CANCELLED)),
    NONE,
)
"""What may be asked for."""
