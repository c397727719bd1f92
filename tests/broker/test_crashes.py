"""RELIABILITY 17: a worker is killed at each labelled point; nobody sees more than one end.

All six at once, each in a service of its own, so that the sessions are waited out together.
"""

import pytest

from bridge.envelope import Reply
from tests.crashing import POINTS
from tests.effects import QUICK, Effects, Writer, texts, wait_works
from tests.stack import Process, Stack, until

COUNT = 12
SLACK_S = 12.0
"""What is promised is the session and 4 s; the machine may have other work."""


@pytest.mark.parametrize(
    ("rounds", "session_s"),
    [
        pytest.param(1, 2, marks=pytest.mark.timeout(150)),
        pytest.param(20, 6, marks=[pytest.mark.full, pytest.mark.timeout(1800)]),
    ],
)
def test_wherever_a_worker_is_killed_each_request_has_one_end(
    stack: Stack, rounds: int, session_s: int
) -> None:
    effects = Effects(stack)
    effects.make(*POINTS, partitions=2)
    slowest_s = dict.fromkeys(POINTS, 0.0)
    twice = dict.fromkeys(POINTS, 0)

    for number in range(rounds):
        for point, (recovery_s, repeated) in go_round(effects, number, session_s).items():
            slowest_s[point] = max(slowest_s[point], recovery_s)
            twice[point] += repeated

    print(f"\n{rounds} rounds, session {session_s} s; from the crash to the last answer, at most:")
    for point in POINTS:
        print(f"  {point:26} {slowest_s[point]:5.1f} s, handled twice: {twice[point]}")
        assert slowest_s[point] < session_s + 4 + SLACK_S
        assert stack.read(f"{stack.name(point)}.dead") == []


def go_round(effects: Effects, number: int, session_s: int) -> dict[str, tuple[float, int]]:
    """Crash one worker at each point; returns how long its requests took, and how many ran twice."""
    short = QUICK if session_s == 2 else {}
    doomed = {
        point: effects.start_worker(point, crash=f"{point}:{passing(point, number)}", **short)
        for point in POINTS
    }
    wait_works(*doomed.values())
    writers = {point: Writer(effects.stack, effects.service(point)) for point in POINTS}
    asked = {point: texts(f"{point}-{number}", range(COUNT)) for point in POINTS}
    for point, names in asked.items():
        for place, name in enumerate(names):
            writers[point].write(name, sleep_s=0.05 * place)
        writers[point].flush()

    rescuer = effects.start_worker(*POINTS, **short)
    keep_busy(doomed["in-revoke"], writers["in-revoke"], asked["in-revoke"])
    for point, process in doomed.items():
        until(lambda p=process: p.child.poll() is not None, timeout_s=60, what=f"a death {point}")  # type: ignore[misc]  # bound to this turn's
    found = {point: wait_ends(effects, point, names) for point, names in asked.items()}

    assert rescuer.stop() == 0
    begun = effects.begun()
    return {
        point: judge(ends, begun, int(str(doomed[point].events("crash")[0]["at_ms"])))
        for point, ends in found.items()
    }


def passing(point: str, number: int) -> int:
    """Say at which passing of a point the worker dies: not the same one in each round."""
    most = {"in-revoke": 1, "before-commit": 2}.get(point, COUNT)
    return 1 + (number + 1) % most


def keep_busy(process: Process, writer: Writer, names: list[str]) -> None:
    """Ask again and again until the process is dead: so it has work in hand when it is revoked."""

    def ask_or_see_dead() -> bool:
        names.append(f"{names[0]}-more-{len(names)}")
        writer.write(names[-1], sleep_s=0.2)
        writer.flush()
        return process.child.poll() is not None

    until(ask_or_see_dead, timeout_s=60, what="it dies when its partitions are revoked")


def wait_ends(effects: Effects, point: str, names: list[str]) -> dict[str, list[Reply]]:
    """Wait until each request has an end; returns those of these requests."""
    until(lambda: set(names) <= effects.ends(point).keys(), timeout_s=60, what=f"ends {point}")
    found = effects.ends(point)
    return {name: found[name] for name in names}


def judge(
    ends: dict[str, list[Reply]], begun: dict[str, int], crashed_ms: int
) -> tuple[float, int]:
    assert {tuple(end.event for end in each) for each in ends.values()} == {("completed",)}
    assert all(begun[name] >= 1 for name in ends)
    before = [name for name, (end,) in ends.items() if end.time_ms <= crashed_ms]
    assert [name for name in before if begun[name] != 1] == []
    last_ms = max(end.time_ms for (end,) in ends.values())
    return (last_ms - crashed_ms) / 1000, sum(begun[name] > 1 for name in ends)
