"""Cancelling races against the worker's answer: whoever looks, and wherever, sees the same end."""

import threading
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from bridge.replylog import ReplyLog
from tests.broker.conftest import Asked
from tests.sse import follow

WORK_S = 0.08
SPREAD_S = 0.12
"""Requests to cancel come up to so long after the request: before, while and after it is answered."""
AT_ONCE = 4


@pytest.mark.timeout(120)
def test_150_races_of_cancel_against_completion(asked: Asked) -> None:
    assert_one_end(asked, 150)


@pytest.mark.full
@pytest.mark.timeout(900)
def test_1000_races_of_cancel_against_completion(asked: Asked) -> None:
    assert_one_end(asked, 1000)


def assert_one_end(asked: Asked, count: int) -> None:
    with (
        httpx.Client(timeout=60) as client,
        ThreadPoolExecutor(AT_ONCE) as races,
        ThreadPoolExecutor(4 * AT_ONCE) as observers,
    ):
        ends = dict(races.map(lambda number: _race(asked, client, observers, number), range(count)))
    logs: dict[str, ReplyLog] = defaultdict(ReplyLog)
    lasts: Counter[str] = Counter()
    for event in asked.stack.read_replies("echo"):
        if event.request_id in ends:
            logs[event.request_id].take(event)
            lasts[event.request_id] += bool(event.event and event.event.is_last)

    found = Counter(state for states in ends.values() for state in set(states))
    close = sum(many > 1 for many in lasts.values())
    print(f"{count} races: {dict(found)}; both ends were written in {close}")
    assert all(len(set(states)) == 1 for states in ends.values()), ends
    assert {each: log.state for each, log in logs.items()} == {
        each: states[0] for each, states in ends.items()
    }
    assert close > 0  # else nothing has raced
    assert set(found) == {"completed", "cancelled"}
    assert found.total() == count


def _race(
    asked: Asked, client: httpx.Client, observers: ThreadPoolExecutor, number: int
) -> tuple[str, list[str]]:
    """Run one race; returns what the DELETE, two waiting clients, a stream and two look-ups saw."""
    urls = (asked.url, asked.other_url)
    taken = client.post(
        f"{urls[number % 2]}/v1/services/{asked.name('echo')}/requests",
        json={"text": f"race {number}", "sleep_s": WORK_S},
        headers={"prefer": "respond-async"},
    )
    path = taken.headers["location"]
    waiting = [
        observers.submit(client.get, url + path, headers={"prefer": "wait=30"}) for url in urls
    ]
    streamed = observers.submit(follow, f"{urls[number // 3 % 2]}{path}/events")
    threading.Event().wait(SPREAD_S * (number % 50) / 50)
    answer = client.delete(urls[number // 2 % 2] + path)
    seen = [one.result() for one in waiting] + [client.get(url + path) for url in urls]
    for one in seen:
        assert one.status_code == {"completed": 200, "cancelled": 409}[_state(one)]
    assert answer.status_code == {"completed": 409, "cancelled": 200}[_state(answer)]
    told = [streamed.result()[-1].event, *streamed_again(urls, path)]
    return taken.headers["request-id"], [*(_state(one) for one in (answer, *seen)), *told]


def streamed_again(urls: tuple[str, str], path: str) -> list[str]:
    """Return the end that streams of what has ended tell, on each replica."""
    return [follow(f"{url}{path}/events")[-1].event for url in urls]


def _state(answer: httpx.Response) -> str:
    return str(answer.headers["bridge-state"])
