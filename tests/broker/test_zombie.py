"""RELIABILITY 18: a worker sleeps for longer than its session while it has work in hand.

Another one does the work meanwhile. What the sleeper still says when it wakes must change nothing.
Only the classic group protocol is meant: the bridge speaks no other.
"""

import os
import signal
import time
from dataclasses import dataclass, field

import httpx
import pytest

from tests.broker.test_worker import committed
from tests.effects import QUICK, Effects, pid_of, wait_works
from tests.stack import Process, Stack, post, until

SHORT_S = 0.5
KNOWN_S = 3.0
"""So long after it has woken, the sleeper has surely learned what it has lost."""
REJOIN_S = 15.0


@dataclass
class Scene:
    """A service with two workers.

    Attributes:
        effects: What was done.
        url: An ingress.
        workers: By their pid.
        asked: Where each request's answer is to be found.
    """

    effects: Effects
    url: str
    workers: dict[int, Process]
    asked: dict[str, str] = field(default_factory=dict)

    def post(self, text: str, sleep_s: float, prefer: str = "wait=50") -> httpx.Response:
        body = {"text": text, "sleep_s": sleep_s}
        return post(self.url, self.effects.stack.name("woken"), body, prefer=prefer, timeout_s=60)

    def start(self, text: str, sleep_s: float) -> None:
        """Ask, and do not wait."""
        self.asked[text] = self.post(text, sleep_s, "respond-async").headers["location"]

    def look(self, text: str, wait_s: int = 50) -> httpx.Response:
        """Look a request up."""
        headers = {"prefer": f"wait={wait_s}"}
        return httpx.get(self.url + self.asked[text], headers=headers, timeout=60)

    def unfinished(self) -> dict[str, list[int]]:
        """What is begun and not ended, with the workers that began it."""
        found: dict[str, list[int]] = {}
        for line in self.effects.lines():
            if line.word == "begin":
                found.setdefault(line.text, []).append(line.pid)
            else:
                found.pop(line.text, None)
        return found

    def wait_answer_of(self, *pids: int) -> None:
        """Ask until each of these workers has answered: each has a partition."""
        missing = set(pids)

        def ask() -> bool:
            missing.discard(self.post("who", 0.01).json()["pid"])
            return not missing

        until(ask, timeout_s=REJOIN_S, what=f"{pids} answer")


@pytest.mark.parametrize(
    ("rounds", "environment", "stopped_s"),
    [
        pytest.param(1, QUICK, 3.0, marks=pytest.mark.timeout(120)),
        pytest.param(10, {}, 15.0, marks=[pytest.mark.full, pytest.mark.timeout(900)]),
    ],
)
def test_what_a_worker_says_that_slept_past_its_session_changes_nothing(
    stack: Stack, rounds: int, environment: dict[str, str], stopped_s: float
) -> None:
    effects = Effects(stack)
    effects.make("woken", partitions=2)
    _, url = stack.start_ingress()
    workers = [effects.start_worker("woken", **environment) for _ in "ab"]
    wait_works(*workers)
    scene = Scene(effects, url, {worker.pid: worker for worker in workers})

    told = [go_round(scene, number, stopped_s) for number in range(rounds)]

    print(
        f"\n{rounds} rounds, stopped for {stopped_s:g} s: {sum(late for late, _ in told)} last "
        f"events of the sleeper, each behind the first and none after it knew; it worked again "
        f"{max(seconds for _, seconds in told):.1f} s after it woke at most"
    )
    assert stack.read(f"{stack.name('woken')}.dead") == []


def go_round(scene: Scene, number: int, stopped_s: float) -> tuple[int, float]:
    """Stop a worker that has work in hand, let the other take over, wake it.

    Returns:
        How many last events of the sleeper came, and after how long it worked again.
    """
    scene.wait_answer_of(*scene.workers)
    sleeper, other = start_work(scene, number, stopped_s + KNOWN_S)
    os.kill(sleeper, signal.SIGSTOP)
    stopped_at = time.perf_counter()
    mine = [name for name, (pid, *_) in scene.unfinished().items() if pid == sleeper]
    *short, late = mine
    assert short
    before = scene.look(short[0])  # the other worker's answer: nobody else is there
    until(lambda: time.perf_counter() - stopped_at > stopped_s, timeout_s=60, what="it has slept")
    offset = committed(scene.effects.stack, "woken")
    os.kill(sleeper, signal.SIGCONT)
    woken_at = time.perf_counter()

    assert woken_at - stopped_at < stopped_s + 2  # or else its long handler might be over
    scene.wait_answer_of(sleeper)
    seconds = time.perf_counter() - woken_at
    answers = {name: scene.look(name) for name in mine}
    assert committed(scene.effects.stack, "woken") >= offset
    assert {answer.status_code for answer in answers.values()} == {200}
    assert {answer.json()["pid"] for answer in answers.values()} == {other}
    assert answers[short[0]].content == before.content
    assert scene.workers[sleeper].events("partitions-lost")
    return count_late(scene, answers, late, sleeper), seconds


def start_work(scene: Scene, number: int, late_s: float) -> tuple[int, int]:
    """Give both workers something to do, and one of them something long.

    Returns:
        The worker with the long one, and the other.
    """
    begun: set[int] = set()

    def ask() -> bool:
        scene.start(f"{number}-{len(scene.asked)}", SHORT_S)
        pids = [pid for each in scene.unfinished().values() for pid in each]
        begun.update(pid for pid in pids if pids.count(pid) >= 2)
        return begun == set(scene.workers)

    until(ask, timeout_s=20, what="both have begun two")
    scene.start(late := f"{number}-late", late_s)
    until(lambda: late in scene.unfinished(), timeout_s=10, what="the long one is begun")
    (sleeper,) = scene.unfinished()[late]
    (other,) = set(scene.workers) - {sleeper}
    return sleeper, other


def count_late(scene: Scene, answers: dict[str, httpx.Response], late: str, sleeper: int) -> int:
    """Count the sleeper's last events: behind the first ones, and none of what it knew was lost."""
    ends, service = scene.effects.ends("woken"), scene.effects.service("woken")
    pids = {
        name: [pid_of(service, end) for end in ends[answer.headers["request-id"]]]
        for name, answer in answers.items()
    }
    assert sleeper not in pids[late]
    assert all(sleeper not in each[:1] for each in pids.values())
    assert all(len(each) == len(set(each)) for each in pids.values())
    return sum(each.count(sleeper) for each in pids.values())
