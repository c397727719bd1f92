"""What the time of a refusal tells (scenarios 45 and 47): reported, since the machine is shared.

That digests are compared in constant time, also for an ID that is not there, is in test_apikey.
"""

import secrets
import statistics
import time
from collections.abc import Callable
from functools import partial

import httpx
import pytest

from bridge import ids
from tests.broker.guarded import KEYS, Bridge, bearer

UNKNOWN_ID = "kb_nobody00_" + "A" * 43
WRONG_SECRET = KEYS["ann"].key[:-43] + "A" * 43
SIZES = [100, pytest.param(2_000, marks=pytest.mark.full)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", SIZES)
def test_an_unknown_id_and_a_wrong_secret_are_refused_alike(guarded: Bridge, count: int) -> None:
    url = guarded.url("/v1/services")
    asked = {"unknown ID": UNKNOWN_ID, "wrong secret": WRONG_SECRET}
    with httpx.Client() as client:
        told = measure(
            count,
            {
                name: partial(client.get, url, headers={"authorization": f"Bearer {key}"})
                for name, key in asked.items()
            },
        )

    assert len(told["unknown ID"]) == 1
    assert told["unknown ID"] == told["wrong secret"]
    assert {status for status, _ in told["unknown ID"]} == {401}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", SIZES)
def test_anothers_request_and_one_that_never_was_take_alike(guarded: Bridge, count: int) -> None:
    own = guarded.post("ann", {"text": "ann's"}).headers["request-id"]
    where = ids.parse(own)
    assert where is not None
    unknown = ids.make(time_ms=where.time_ms, lane=where.lane, chance=secrets.randbits(62))
    path = "/v1/services/{service}/requests/{request_id}"
    with httpx.Client(headers=bearer("ben")) as client:
        told = measure(
            count,
            {
                name: partial(client.get, guarded.url(path, request_id))
                for name, request_id in (("another's", own), ("never was", unknown))
            },
        )

    assert {status for answers in told.values() for status, _ in answers} == {404}


def measure(
    count: int, ways: dict[str, Callable[[], httpx.Response]]
) -> dict[str, set[tuple[int, bytes]]]:
    """Ask in turns, print each way's median, and return what was told."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    told: dict[str, set[tuple[int, bytes]]] = {name: set() for name in ways}
    for _ in range(count):
        for name, ask in ways.items():
            begun = time.perf_counter()
            answer = ask()
            took[name].append(time.perf_counter() - begun)
            told[name].add((answer.status_code, answer.content))
    medians = {name: statistics.median(times) for name, times in took.items()}
    low, high = min(medians.values()), max(medians.values())
    shown = ", ".join(f"{name} {median * 1e6:.0f} us" for name, median in medians.items())
    print(f"medians of {count}: {shown}; they differ by {(high - low) / low:.1%}")
    return told
