"""Look-ups that share reads: many that come at once for one lane read it once, not once each.

A batch that is sent again looks for as many requests as it has lines, all written within a short time.
Each would read the same records, and the denser they lie, the more of them.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

from bridge.envelope import REQUEST_ID, SPRING_CORRELATION, Record

Lane = tuple[str, int]

MAX_READS = 2
"""So many reads of one lane go on at once; who comes meanwhile shares the next one."""
NEAR_MS = 30_000
"""Look-ups that start no further apart share a read; the later one passes over what is between."""


class Look(NamedTuple):
    """What one look-up wants of a lane.

    Attributes:
        request_id: Whose events.
        since_ms: From when on, Unix milliseconds by the lane's timestamps.
        is_enough: Told each record of that request in order, on another thread; True: that was all.
        until_ms: Tells until when records matter; may grow.
    """

    request_id: str
    since_ms: int
    is_enough: Callable[[Record], bool]
    until_ms: Callable[[], int]


class Read(Protocol):
    """How a lane is read: `Reader.read`."""

    def __call__(
        self, lanes: Sequence[Lane], *, since_ms: int, is_enough: Callable[[Record], bool]
    ) -> Awaitable[None]:
        """Read from a time to the present end, or until `is_enough` says so."""


class SharedReads:
    """Reads of lanes on behalf of look-ups; used in one event loop.

    Args:
        read: Reads a lane.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._going: Counter[Lane] = Counter()
        self._waiting: defaultdict[Lane, list[_Waiting]] = defaultdict(list)

    async def look(self, lane: Lane, look: Look) -> None:
        """Read what a look-up wants, alone or with others; it has been told all when this returns.

        Whatever was in the lane when this was called is read.

        Raises:
            As the reading does.
        """
        if self._going[lane] >= MAX_READS:
            waiting = _Waiting(look, asyncio.get_running_loop().create_future())
            self._waiting[lane].append(waiting)
            if await self._wait(lane, waiting):
                return
        await self._lead(lane, look)

    async def _wait(self, lane: Lane, waiting: "_Waiting") -> bool:
        """Wait until another's read has served it; False: it shall read for itself and others."""
        try:
            return await waiting.is_served
        except asyncio.CancelledError:
            if waiting in self._waiting[lane]:
                self._waiting[lane].remove(waiting)
            elif not waiting.is_served.cancelled():  # chosen to lead just now
                self._choose(lane)
            raise

    async def _lead(self, lane: Lane, look: Look) -> None:
        """Read for oneself and for those who wait and start near by."""
        waiting = self._waiting[lane]
        near = [each for each in waiting if abs(each.look.since_ms - look.since_ms) <= NEAR_MS]
        self._waiting[lane] = [each for each in waiting if each not in near]
        looks = [look, *(each.look for each in near)]
        self._going[lane] += 1
        try:
            since_ms = min(each.since_ms for each in looks)
            await self._read([lane], since_ms=since_ms, is_enough=_Dispatch(looks).take)
        except asyncio.CancelledError:
            self._waiting[lane] = near + self._waiting[lane]  # they are not to blame: read again
            raise
        except Exception as error:
            for each in near:
                each.fail(error)
            raise
        else:
            for each in near:
                each.tell()
        finally:
            self._going[lane] -= 1
            self._choose(lane)

    def _choose(self, lane: Lane) -> None:
        """Let the first who waits lead the next read; forget a lane that nobody wants."""
        waiting = self._waiting[lane]
        while waiting:
            chosen = waiting.pop(0)
            if not chosen.is_served.done():  # else its client has left
                chosen.is_served.set_result(False)
                return
        if not self._going[lane]:
            del self._waiting[lane], self._going[lane]


class _Waiting:
    """A look-up that waits for a read."""

    __slots__ = ("is_served", "look")

    def __init__(self, look: Look, is_served: "asyncio.Future[bool]") -> None:
        self.look = look
        self.is_served = is_served

    def tell(self) -> None:
        """Let it go on: it was served."""
        if not self.is_served.done():
            self.is_served.set_result(True)

    def fail(self, error: Exception) -> None:
        """Let it fail as the read did."""
        if not self.is_served.done():
            self.is_served.set_exception(error)


class _Dispatch:
    """Gives each record of one read to the look-ups that want it; on the reader's thread."""

    def __init__(self, looks: list[Look]) -> None:
        self._open: dict[bytes, list[Look]] = {}
        for look in looks:
            self._open.setdefault(look.request_id.encode(), []).append(look)
        self._next_ms = self._earliest_ms()

    def take(self, record: Record) -> bool:
        """Tell whoever wants this record; True when nobody wants more."""
        if record.timestamp_ms > self._next_ms:
            self._drop_past(record.timestamp_ms)
        found = dict(record.headers)
        name = found.get(REQUEST_ID) or found.get(SPRING_CORRELATION) or b""
        looks = self._open.get(name)
        if looks is not None:
            looks = [look for look in looks if not look.is_enough(record)]
            self._keep(name, looks)
        return not self._open

    def _keep(self, name: bytes, looks: list[Look]) -> None:
        if looks:
            self._open[name] = looks
        else:
            del self._open[name]

    def _drop_past(self, time_ms: int) -> None:
        for name, looks in list(self._open.items()):
            self._keep(name, [look for look in looks if look.until_ms() >= time_ms])
        self._next_ms = self._earliest_ms()

    def _earliest_ms(self) -> int:
        return min((look.until_ms() for looks in self._open.values() for look in looks), default=0)
