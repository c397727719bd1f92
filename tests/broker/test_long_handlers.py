"""RELIABILITY 20: a handler takes longer than max.poll.interval.ms. Polling goes on meanwhile."""

import pytest

from tests.broker.test_worker import committed
from tests.effects import QUICK, Effects, Writer, pid_of, wait_works
from tests.stack import Stack, until

POLL_S = 3


@pytest.mark.parametrize(
    "sleep_s",
    [
        pytest.param(6, marks=pytest.mark.timeout(120)),
        pytest.param(20, marks=[pytest.mark.full, pytest.mark.timeout(200)]),
    ],
)
def test_a_handler_longer_than_the_poll_interval_keeps_its_worker_in_the_group(
    stack: Stack, sleep_s: int
) -> None:
    """One that waits, and one that holds up the event loop: the poll thread is neither's."""
    effects = Effects(stack)
    effects.make("long", "blocking", partitions=1)
    interval = {**QUICK, "BRIDGE_KAFKA__MAX_POLL_INTERVAL_MS": f"{POLL_S * 1000}"}
    workers = {
        "long": effects.start_worker("long", **interval),
        "blocking": effects.start_worker("blocking", handler="block", **interval),
    }
    for name in workers:
        writer = Writer(stack, effects.service(name))
        writer.write(name, sleep_s=sleep_s)
        writer.flush()
    wait_works(*workers.values())
    until(lambda: len(effects.begun()) == 2, timeout_s=30, what="both have begun")
    others = [effects.start_worker(name, **interval) for name in workers]  # would take over
    for name in workers:
        until(lambda n=name: committed(stack, n) == 1, timeout_s=60, what=f"{name} is committed")  # type: ignore[misc]  # bound to this turn's

    ends = {name: effects.ends(name)[name] for name in workers}
    for name, worker in workers.items():
        assert effects.begun()[name] == 1
        assert [end.event for end in ends[name]] == ["completed"]
        assert pid_of(effects.service(name), ends[name][0]) == worker.pid
        assert worker.events("partitions-lost") == []
    assert [other.child.poll() for other in others] == [None, None]
