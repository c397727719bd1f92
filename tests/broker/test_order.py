"""Order is kept per key, as the handler sees it, while other keys go on beside it."""

from collections import defaultdict

import pytest

from tests.broker.test_worker import committed
from tests.effects import Effects, Writer, wait_works
from tests.stack import Stack, until

CONCURRENCY = 64


@pytest.mark.parametrize(
    ("count", "serial", "keys"),
    [
        pytest.param(2_000, 200, 200, marks=pytest.mark.timeout(120)),
        pytest.param(50_000, 2_000, 1_000, marks=[pytest.mark.full, pytest.mark.timeout(600)]),
    ],
)
def test_a_key_is_handled_in_order_while_others_go_on(
    stack: Stack, count: int, serial: int, keys: int
) -> None:
    effects = Effects(stack)
    effects.make("many", concurrency=CONCURRENCY)
    effects.make("one", concurrency=1)
    asked = {"many": count, "one": serial}
    for name, number in asked.items():
        writer = Writer(stack, effects.service(name))
        for place in range(number):
            key = place * 7919 % keys  # no key's records are neighbours
            writer.write(f"{name}/{key}/{place}", key=f"{key}")
        writer.flush()

    wait_works(*(effects.start_worker(name, TEST_UP_TO_S="0.02") for name in asked))
    for name, number in asked.items():
        until(lambda n=name, c=number: committed(stack, n) == c, timeout_s=500, what=f"all {name}")  # type: ignore[misc]  # bound to this turn's

    words, wrong = read(effects)
    rates = {name: rate(effects, name) for name in asked}
    print(
        f"\n{count} records of {keys} keys, handlers of 0 to 20 ms: {wrong} out of order; "
        f"{CONCURRENCY} at once {rates['many']:.0f}/s, one {rates['one']:.0f}/s: "
        f"{rates['many'] / rates['one']:.1f} times"
    )
    assert words == 2 * (count + serial)
    assert wrong == 0
    assert rates["many"] > 3 * rates["one"]


def read(effects: Effects) -> tuple[int, int]:
    """Return how many lines the handlers wrote, and how many break a key's order.

    A key's lines must be: begin of its first record, end of it, begin of the next one, and so on.
    """
    lines = effects.lines()
    wrong = 0
    running: dict[str, int | None] = defaultdict(lambda: None)
    latest: dict[str, int] = defaultdict(lambda: -1)
    for line in lines:
        key, _, text = line.text.rpartition("/")
        number = int(text)
        if line.word == "begin":
            wrong += running[key] is not None or number <= latest[key]
            running[key] = latest[key] = number
        else:
            wrong += running[key] != number
            running[key] = None
    return len(lines), wrong


def rate(effects: Effects, name: str) -> float:
    """Return how many answers came in a second."""
    times = sorted(end.time_ms for each in effects.ends(name).values() for end in each)
    return (len(times) - 1) * 1000 / (times[-1] - times[0])
