"""How fast a service's workers are, and whether one more request would be answered in time.

Pure: observations come in with their time, decisions come out. All figures are estimates from
committed offsets, and every doubt counts for the client: nothing known, old news, free places at
the workers or a rate that nobody could measure yet all mean *take it*.

The rate is measured only between observations that both show more unfinished records than the
workers have places: at any other time it would be the clients' rate, not the workers', and so no
more than a lower bound. Lag over rate is then the time that a new request spends until its end
(Little's law). Where some requests take far longer than others, lag says little: offsets are
committed in order, so one long request hides what is done behind it. What tells then are answers: where
most of them come much sooner than was expected of them, the estimate is refuted, and nobody is refused
by it. One alone says little: whoever comes to a short queue is answered soon though the others are
long. So that there are answers, one request is taken on trial in the time that it is expected to take.
"""

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

WINDOW_S = 15.0
"""What the rate is measured over; longer follows a change of workers too late."""
STALE_S = 15.0
"""Observations older than this say nothing (Kafka is away, or may not be asked)."""
MIN_BUSY_S, MIN_DONE = 1.2, 8
"""A rate from less time or fewer records is chance: workers commit every 0.25 s."""
MIN_EXPECTED = 5
"""A partition that stands still where so many would have been finished is held up by one record."""
FORGET_S = 60.0
"""A rate is forgotten when the workers have not been busy for so long: they may be others by now."""
REFUTED_S = 5.0
"""Answers count for about so long, fading, where it is asked whether most of them came far too soon."""
MOST = 0.5
FAR_PART, FAR_S = 4, 1.0
"""Far too soon: in less than this part of the expected time, and sooner by so many seconds (what
workers have not committed yet, and a look that is a moment old, make up less than that)."""
EARLY = 0.8
"""From this part of the limit on, only those with less than their share are taken."""
SHARE_S, ACTIVE_S = 5.0, 10.0
"""Shares fade with this time constant; who has asked within so long has a share."""
MAX_RETRY_S = 60.0

COMMON = ""
"""Whoever is not told apart shares this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What Kafka said of a service's workers at one moment.

    Attributes:
        at_s: When, monotonic seconds.
        members: Processes in the workers' group.
        committed: Next offset to finish, by partition.
        ends: Next offset to be written, by partition.
    """

    at_s: float
    members: int
    committed: Mapping[int, int]
    ends: Mapping[int, int]

    @property
    def lag(self) -> int:
        """Records written and not finished."""
        return sum(self.lag_of(partition) for partition in self.ends)

    def lag_of(self, partition: int) -> int:
        """Return the records of one partition that are not finished."""
        return max(0, self.ends[partition] - self.committed.get(partition, 0))


@dataclass(frozen=True, slots=True)
class NoWorkers:
    """Refuse: nobody is there to do the work.

    Attributes:
        for_s: Since when, as far as was seen, in seconds.
        retry_after_s: When another try makes sense.
    """

    for_s: float
    retry_after_s: float


@dataclass(frozen=True, slots=True)
class TooMany:
    """Refuse: the work would come too late.

    Attributes:
        expected_s: How long the request would take.
        limit_s: How long it may take.
        is_share: The request would be in time, but its principal has had its share.
        retry_after_s: When another try makes sense.
    """

    expected_s: float
    limit_s: float
    is_share: bool
    retry_after_s: float


Refusal = NoWorkers | TooMany


class Shares:
    """Who was granted how much of late: counts that fade, by principal."""

    def __init__(self) -> None:
        self._granted: dict[str, float] = {}
        self._asked: dict[str, float] = {}
        self._total = 0.0
        self._faded_at_s = -math.inf

    def ask(self, principal: str, at_s: float) -> None:
        """Note that a principal wants something; it is active from now for a while."""
        self._asked[principal] = at_s
        if at_s - self._faded_at_s >= 1.0:
            self._fade(at_s)

    def grant(self, principal: str) -> None:
        """Note that it got it."""
        self._granted[principal] = self._granted.get(principal, 0.0) + 1.0
        self._total += 1.0

    @property
    def active(self) -> int:
        """Principals that have asked of late."""
        return len(self._asked)

    def is_used_up(self, principal: str) -> bool:
        """Tell whether a principal was granted its equal part of what was granted to all."""
        return self._granted.get(principal, 0.0) * len(self._asked) >= self._total

    def _fade(self, at_s: float) -> None:
        """Once a second: counts shrink, and who is silent loses its place."""
        factor = math.exp((self._faded_at_s - at_s) / SHARE_S)
        self._faded_at_s = at_s
        self._asked = {p: asked for p, asked in self._asked.items() if at_s - asked < ACTIVE_S}
        self._granted = {
            p: count * factor for p, count in self._granted.items() if p in self._asked
        }
        self._total = sum(self._granted.values())


class _Answers:
    """How many answers came of late, and how many of them far too soon: counts that fade."""

    def __init__(self) -> None:
        self._count = self._early = 0.0
        self._at_s = -math.inf

    def take(self, at_s: float, *, is_early: bool) -> None:
        """Count an answer."""
        faded = math.exp((self._at_s - at_s) / REFUTED_S)
        self._count = self._count * faded + 1.0
        self._early = self._early * faded + is_early
        self._at_s = at_s

    def is_refuting(self, at_s: float) -> bool:
        """Tell whether most of those that came of late, if any did, came far too soon."""
        return at_s - self._at_s < REFUTED_S and self._early >= MOST * self._count


class _Look(NamedTuple):
    """An observation, and whether the workers had more to do than places at that moment."""

    seen: Observation
    is_busy: bool


class Pace:
    """What is known of one service's workers; owned by one ingress, used in its event loop only.

    Args:
        concurrency: Records that one worker process has at work at once.
        no_worker_s: Seconds without any worker after which nobody shall wait; 0: never.
    """

    def __init__(self, *, concurrency: int, no_worker_s: float) -> None:
        self._concurrency = concurrency
        self._no_worker_s = no_worker_s
        self._window: deque[_Look] = deque()
        self._alone_since_s: float | None = None
        self._rate: float | None = None
        self._rate_per_worker: float | None = None
        self._busy_at_s = -math.inf
        self._answers = _Answers()
        self._trial_at_s = -math.inf
        self._quickest_s = math.inf
        self._backlog = 0
        self._places = 0
        self._taken_before = 0
        self._shares = Shares()
        self.taken = 0
        """Requests that this ingress has taken, of any kind; whoever writes one counts it here."""

    @property
    def last(self) -> Observation | None:
        """The latest observation; None: there was none yet."""
        return self._window[-1].seen if self._window else None

    @property
    def rate(self) -> float | None:
        """Records that the workers finish in a second when they have enough; None: not known."""
        if self._rate is None and self._places and self._quickest_s < math.inf:
            return self._places / self._quickest_s
        return self._rate

    @property
    def is_busy(self) -> bool:
        """Whether more is unfinished than the workers have places for, as far as is known."""
        return self._backlog + self.taken - self._taken_before > self._places

    def note_answer(self, at_s: float, took_s: float, expected_s: float) -> None:
        """Learn how long an answer took: until a rate is measured, the quickest says what could be.

        So the first burst is met with a guess after its first answer, not after two looks at Kafka.

        Args:
            at_s: When it came, monotonic seconds.
            took_s: How long it took, in seconds.
            expected_s: How long it was expected to take when it was taken: `expected_s` of then.
        """
        self._quickest_s = min(self._quickest_s, took_s)
        if expected_s > FAR_S:  # else it says nothing about the estimate
            is_early = took_s * FAR_PART < expected_s and took_s + FAR_S < expected_s
            self._answers.take(at_s, is_early=is_early)

    def observe(self, seen: Observation, taken_before: int) -> None:
        """Take in what Kafka said.

        Args:
            seen: What it said.
            taken_before: `taken` as it was when Kafka was asked: what came later is not in `seen`.
        """
        last = self.last
        if last is not None and (seen.at_s - last.at_s > STALE_S or _went_back(last, seen)):
            self._window.clear()
            self._alone_since_s = None
        while self._window and seen.at_s - self._window[0].seen.at_s > WINDOW_S:
            self._window.popleft()
        if seen.members:
            self._alone_since_s = None
        elif self._alone_since_s is None:
            self._alone_since_s = seen.at_s
        self._taken_before = taken_before
        self._places = self._places_of(seen)
        self._backlog = seen.lag - self._held_up(seen)
        self._window.append(_Look(seen, self._backlog > self._places))
        self._measure(seen)

    def decide(
        self, at_s: float, *, wait_s: float, deadline_s: float, principal: str | None
    ) -> Refusal | None:
        """Say whether a request that somebody waits for is to be refused, and count who asked.

        Where several principals are there, one that has had its share must leave time for the
        others' waits; else the deadline alone is the limit, for who stops waiting gets `202`.

        Returns:
            Why not, and when to come again; None: take it.
        """
        last = self.last
        if last is None or at_s - last.at_s > STALE_S:
            return None
        if self._alone_since_s is not None and self._no_worker_s:
            for_s = last.at_s - self._alone_since_s
            if for_s >= self._no_worker_s:
                return NoWorkers(for_s, retry_after_s=5.0)
        if self._answers.is_refuting(at_s) or not self.is_busy or self.rate is None:
            return None
        refusal = self._weigh(at_s, wait_s, deadline_s, principal or COMMON)
        if refusal is not None and at_s >= self._trial_at_s:
            # One is taken all the same: if nobody is, no answer can show that the estimate is wrong.
            self._trial_at_s = at_s + max(1.0, refusal.expected_s)
            self._shares.grant(principal or COMMON)
            return None
        return refusal

    def expected_s(self, at_s: float) -> float:
        """Estimate how long a request waits for its turn that comes now; 0: not known, or none."""
        rate, last = self.rate, self.last
        if rate is None or last is None or not self.is_busy:
            return 0.0
        done = rate * (at_s - last.at_s)
        return max(0.0, self._backlog + self.taken - self._taken_before - done) / rate

    def _weigh(
        self, at_s: float, wait_s: float, deadline_s: float, principal: str
    ) -> TooMany | None:
        self._shares.ask(principal, at_s)
        expected_s = self.expected_s(at_s)
        limit_s, is_share = deadline_s, False
        if self._shares.is_used_up(principal):
            limit_s = EARLY * (deadline_s if self._shares.active == 1 else min(wait_s, deadline_s))
            is_share = expected_s < deadline_s
        if expected_s < limit_s:
            self._shares.grant(principal)
            return None
        retry_after_s = min(MAX_RETRY_S, max(1.0, expected_s - limit_s))
        return TooMany(expected_s, limit_s, is_share, retry_after_s)

    def _places_of(self, seen: Observation) -> int:
        return self._concurrency * min(seen.members, len(seen.ends))

    def _measure(self, seen: Observation) -> None:
        """Measure the rate where the workers had enough to do; else reckon with the last one.

        What they finish at other times is a lower bound: a rate from a slow time is raised by it.
        """
        pairs = list(pairwise(self._window))
        measured = _throughput((b.seen, a.seen) for b, a in pairs if b.is_busy and a.is_busy)
        if measured is not None:
            self._busy_at_s = seen.at_s
            self._rate = measured
            if seen.members:
                self._rate_per_worker = measured / seen.members
        elif seen.at_s - self._busy_at_s > FORGET_S:
            self._rate = self._rate_per_worker = None
        elif self._rate_per_worker is not None and seen.members:
            alike = ((b.seen, a.seen) for b, a in pairs if b.seen.members == seen.members)
            least = _throughput(alike) or 0.0
            self._rate_per_worker = max(self._rate_per_worker, least / seen.members)
            self._rate = self._rate_per_worker * seen.members

    def _held_up(self, seen: Observation) -> int:
        """Count the lag of partitions whose commits one record holds up while the rest goes on.

        A record that waits for another try keeps its partition's committed offset where it is,
        though what comes behind it is being finished.
        """
        if not self._window:
            return 0
        first = self._window[0].seen
        waiting = [p for p in seen.ends if p in first.ends and first.lag_of(p) > 0]
        if not waiting or _done(first, seen) < MIN_EXPECTED * len(waiting):
            return 0
        return sum(
            seen.lag_of(p) for p in waiting if seen.committed.get(p) == first.committed.get(p)
        )


def _throughput(pairs: Iterable[tuple[Observation, Observation]]) -> float | None:
    """Return what was finished in a second between observations; None: too little to tell."""
    passed_s, done = 0.0, 0
    for before, after in pairs:
        passed_s += after.at_s - before.at_s
        done += _done(before, after)
    return done / passed_s if passed_s >= MIN_BUSY_S and done >= MIN_DONE else None


def _done(before: Observation, after: Observation) -> int:
    """Count what was finished between two observations."""
    return sum(
        offset - before.committed[partition]
        for partition, offset in after.committed.items()
        if partition in before.committed
    )


def _went_back(before: Observation, after: Observation) -> bool:
    """Tell whether offsets were set back: the topic was made anew, or somebody reset the group."""
    return any(
        partition in before.committed and offset < before.committed[partition]
        for partition, offset in after.committed.items()
    )
