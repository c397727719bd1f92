"""The pace beside simulated workers: who is refused, by what workers do and not by one figure.

Time is counted in ticks. Workers take what was written in order, finish it out of order, and commit
in order, as the bridge's do; the ingress looks at Kafka as often as `Load` does.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

from bridge.pace import Observation, Pace

TICK_S = 0.02
PARTITIONS = 4
COMMIT_S, BUSY_S, CALM_S = 0.25, 0.5, 2.0

Work = Callable[[int], float]
"""How long a request takes, in seconds, by its number."""


@dataclass
class Workers:
    """One worker process; `run` lets some seconds pass.

    Args:
        places: What it works on at once.
        deadline_s: Of every request; its client waits as long.
    """

    places: int
    deadline_s: float
    at_s: float = 0.0
    asked: float = 0.0
    number: int = 0
    running: list[tuple[float, int, float, float]] = field(default_factory=list)
    waiting: list[tuple[int, float, float]] = field(default_factory=list)
    next_look_s: float = 0.0
    next_commit_s: float = 0.0

    def __post_init__(self) -> None:
        self.pace = Pace(concurrency=self.places, no_worker_s=15)
        self.ends, self.low = [0] * PARTITIONS, [0] * PARTITIONS
        self.committed = [0] * PARTITIONS
        self.finished: list[set[int]] = [set() for _ in range(PARTITIONS)]

    def run(self, seconds: float, asked_per_s: float, work_s: Work) -> tuple[int, int, list[float]]:
        """Let clients ask; returns how many were taken and refused, and the times of answers."""
        taken, refused, took_s = 0, 0, []
        until_s = self.at_s + seconds
        while self.at_s < until_s:
            took_s += self._work(work_s)
            self._look()
            self.asked += asked_per_s * TICK_S
            while self.asked >= 1:
                self.asked -= 1
                is_taken = self._ask()
                taken, refused = taken + is_taken, refused + (not is_taken)
            self.at_s += TICK_S
        return taken, refused, took_s

    def _ask(self) -> bool:
        wait_s = self.deadline_s
        if self.pace.decide(self.at_s, wait_s=wait_s, deadline_s=wait_s, principal=None):
            return False
        self.pace.taken += 1
        self.waiting.append((self.number, self.at_s, self.pace.expected_s(self.at_s)))
        self.ends[self.number % PARTITIONS] += 1
        self.number += 1
        if self.pace.is_busy:
            self.next_look_s = min(self.next_look_s, self.at_s + BUSY_S)
        return True

    def _work(self, work_s: Work) -> list[float]:
        took_s = []
        while self.running and self.running[0][0] <= self.at_s:
            end_s, number, begun_s, expected_s = heapq.heappop(self.running)
            self._finish(number % PARTITIONS, number // PARTITIONS)
            took_s.append(end_s - begun_s)
            self.pace.note_answer(self.at_s, took_s[-1], expected_s)
        while self.waiting and len(self.running) < self.places:
            number, begun_s, expected_s = self.waiting.pop(0)
            heapq.heappush(self.running, (self.at_s + work_s(number), number, begun_s, expected_s))
        if self.at_s >= self.next_commit_s:
            self.committed, self.next_commit_s = list(self.low), self.at_s + COMMIT_S
        return took_s

    def _finish(self, partition: int, offset: int) -> None:
        finished = self.finished[partition]
        finished.add(offset)
        while self.low[partition] in finished:
            finished.discard(self.low[partition])
            self.low[partition] += 1

    def _look(self) -> None:
        if self.at_s < self.next_look_s:
            return
        committed, ends = dict(enumerate(self.committed)), dict(enumerate(self.ends))
        seen = Observation(at_s=self.at_s, members=1, committed=committed, ends=ends)
        self.pace.observe(seen, self.pace.taken)
        self.next_look_s = self.at_s + (BUSY_S if self.pace.is_busy else CALM_S)


def quick(_: int) -> float:
    return 0.005


def test_workers_that_were_slow_once_are_not_taken_for_slow_for_ever() -> None:
    for quiet_s in (0, 20, 80):
        workers = Workers(places=64, deadline_s=10)
        workers.run(40, 12, lambda _: 8.0)
        workers.run(quiet_s, 0, quick)
        workers.run(20, 300, quick)  # without quiet: until the slow ones are through

        _, refused, _ = workers.run(10, 300, quick)

        assert refused == 0


def test_one_long_request_among_many_short_ones_has_nobody_refused_while_places_are_free() -> None:
    """2 % take 18 s, the rest 10 ms: 15 of 64 places are used, and all partitions are held up."""
    workers = Workers(places=64, deadline_s=20)

    taken, refused, took_s = workers.run(120, 40, lambda number: 0.01 if number % 47 else 18.0)

    assert refused <= 2  # until the one on trial was answered
    assert taken + refused == 4800
    assert sorted(took_s)[len(took_s) // 2] < 0.1


def test_too_many_are_still_refused_and_those_taken_are_answered_in_time() -> None:
    workers = Workers(places=2, deadline_s=12)
    workers.run(5, 5, lambda _: 0.1)

    taken, refused, took_s = workers.run(60, 200, lambda _: 0.1)

    assert max(took_s) < 12
    assert 60 * 20 * 0.8 < taken < 60 * 20 + 12 * 20
    assert refused > 60 * 170


def test_too_many_are_refused_also_where_some_take_long() -> None:
    """Three times what the workers can do: what is refused is in proportion, what is taken in time."""
    workers = Workers(places=16, deadline_s=20)

    def work_s(number: int) -> float:
        return 0.2 if number % 21 else 4.0  # 0.38 s on the average, 42 a second

    workers.run(10, 20, work_s)
    workers.run(20, 120, work_s)
    taken, refused, took_s = workers.run(60, 120, work_s)

    assert sorted(took_s)[int(len(took_s) * 0.9)] < 20
    assert 60 * 41 * 0.8 < taken < 60 * 41 * 1.3
    assert refused > 60 * 50


def test_few_early_answers_refute_nothing() -> None:
    workers = Workers(places=2, deadline_s=12)
    workers.run(5, 5, lambda _: 0.1)
    workers.run(20, 200, lambda _: 0.1)

    for _ in range(40):
        for took_s in (9.0, 8.0, 0.2):
            workers.pace.note_answer(workers.at_s, took_s, expected_s=10.0)

    assert workers.run(1, 200, lambda _: 0.1)[1] > 150
