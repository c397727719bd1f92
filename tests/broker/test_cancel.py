"""Cancelling: whatever is not over ends as cancelled, for everybody, and workers spare the work."""

import asyncio
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from prometheus_client import Counter

from bridge import ids, metrics
from tests.broker.conftest import Asked
from tests.stack import open_stack, post, until
from tests.working import work_during

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def watched(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """A bridge of two replicas, with the topics of `watch` and no worker yet."""
    with open_stack(kafka, tmp_path_factory.mktemp("watched"), f"-{secrets.token_hex(4)}") as made:
        made.make_services("watch", "echo", "oneway")
        made.start_worker("echo")
        _, url = made.start_ingress(BRIDGE_LANES="1")
        _, other_url = made.start_ingress(BRIDGE_LANES="0")
        yield Asked(made, url, other_url)


@pytest.fixture
def diary(tmp_path: Path) -> Path:
    """Where the handler of `watch` writes what it does."""
    path = tmp_path / "diary"
    path.touch()
    return path


def take(watched: Asked, diary: Path, key: str, for_s: float) -> str:
    """Post a request that nobody waits for; returns its path."""
    body = {"key": key, "for_s": for_s, "diary": str(diary)}
    answer = post(watched.url, watched.name("watch"), body, prefer="respond-async")
    assert answer.status_code == 202
    return str(answer.headers["location"])


def id_of(path: str) -> str:
    return path.rpartition("/")[2]


def cancel(url: str, path: str) -> httpx.Response:
    return httpx.delete(url + path, timeout=30)


def assert_cancelled(watched: Asked, path: str) -> None:
    for url in (watched.url, watched.other_url):
        found = httpx.get(url + path, timeout=30)
        assert (found.status_code, found.json()["code"]) == (409, "cancelled")
        assert found.headers["bridge-state"] == "cancelled"


def test_what_is_cancelled_before_a_worker_comes_is_not_begun_and_is_counted(
    watched: Asked, diary: Path
) -> None:
    cancelled_path = take(watched, diary, "a", 0)
    kept_path = take(watched, diary, "b", 0)

    counted = metrics.HANDLED.labels(watched.name("watch"), "cancelled")

    def look() -> None:
        assert _wait(watched.url + kept_path).status_code == 200
        until(lambda: _read(counted) == 1, timeout_s=10, what="it is counted")

    answer = cancel(watched.url, cancelled_path)
    asyncio.run(work_during(watched.stack, "watch", look))

    assert answer.status_code == 200
    assert answer.json() == {"request_id": id_of(cancelled_path), "state": "cancelled"}
    assert answer.headers["bridge-state"] == "cancelled"
    assert answer.headers["request-id"] == id_of(cancelled_path)
    assert diary.read_text().split() == ["begins", id_of(kept_path), "ends", id_of(kept_path)]
    assert_cancelled(watched, cancelled_path)


def _read(counter: Counter) -> float:
    """Read a counter's value."""
    return next(iter(counter.collect())).samples[0].value


def _wait(url: str) -> httpx.Response:
    return httpx.get(url, headers={"prefer": "wait=30"}, timeout=40)


@pytest.mark.parametrize("function", ["handle", "handle_in_thread"])
def test_a_handler_at_work_sees_it_and_one_behind_its_key_is_not_begun(
    watched: Asked, diary: Path, function: str
) -> None:
    name = watched.name("watch")
    worker = watched.stack.start("worker", name, "--handler", f"consumers.watch:{function}")
    running, behind, last = (take(watched, diary, "k", for_s) for for_s in (25, 0, 0))
    until(lambda: bool(diary.read_text()), timeout_s=30, what="the first has begun")

    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(_wait, url + running) for url in (watched.url, watched.other_url)]
        answers = [cancel(watched.other_url, path) for path in (behind, running)]
        told = [one.result() for one in waiting]
    found = _wait(watched.url + last)

    assert [one.status_code for one in answers] == [200, 200]
    assert [(one.status_code, one.json()["code"]) for one in told] == [(409, "cancelled")] * 2
    assert (found.status_code, found.json()) == (200, {"is_cancelled": False})
    assert diary.read_text().split("\n") == [
        f"begins {id_of(running)}",
        f"stops {id_of(running)}",
        f"begins {id_of(last)}",
        f"ends {id_of(last)}",
        "",
    ]
    for path in (running, behind):
        assert_cancelled(watched, path)
    ended = [each for each in watched.stack.read_replies("watch") if each.event == "completed"]
    assert id_of(running) not in {each.request_id for each in ended}
    assert [e["request_id"] for e in worker.events("cancelled-at-work")] == [id_of(running)]
    assert [e["request_id"] for e in worker.events("cancelled-before-work")][-1] == id_of(behind)
    assert worker.stop() == 0


@pytest.mark.parametrize(("do", "state"), [("reply", "completed"), ("refuse", "failed")])
def test_what_has_ended_cannot_be_cancelled(watched: Asked, do: str, state: str) -> None:
    name = watched.name("echo")
    ended = post(watched.url, name, {"text": "x", "do": do})
    path = f"/v1/services/{name}/requests/{ended.headers['request-id']}"

    answers = [cancel(url, path) for url in (watched.url, watched.other_url)]

    for answer in answers:
        problem = answer.json()
        assert (answer.status_code, problem["code"], problem["state"]) == (
            409,
            "already-ended",
            state,
        )
        assert answer.headers["bridge-state"] == state
        assert answer.headers["content-type"] == "application/problem+json"
    log = [e for e in watched.stack.read_replies("echo") if e.request_id == id_of(path)]
    assert [e.event for e in log] == [state]


def test_cancelling_twice_is_answered_alike_on_every_replica(watched: Asked, diary: Path) -> None:
    path = take(watched, diary, "a", 0)

    answers = [cancel(url, path) for url in (watched.other_url, watched.url, watched.other_url)]

    assert [answer.status_code for answer in answers] == [200] * 3
    assert len({answer.content for answer in answers}) == 1
    log = [e.event for e in watched.stack.read_replies("watch") if e.request_id == id_of(path)]
    assert log == ["accepted", "cancelled"]


def test_what_is_unknown_to_a_get_is_unknown_here(watched: Asked) -> None:
    one_way = post(watched.url, watched.name("oneway"), {"to": 1})
    paths = [
        (watched.name("echo"), ids.make(time_ms=1_790_000_000_000, lane=0, chance=7)),
        (watched.name("echo"), "of-another-maker"),
        (watched.name("oneway"), one_way.headers["request-id"]),
        ("nothing", one_way.headers["request-id"]),
    ]
    for service, request_id in paths:
        path = f"/v1/services/{service}/requests/{request_id}"
        answer, found = cancel(watched.url, path), httpx.get(watched.url + path)

        assert answer.status_code in (404, 410)
        assert answer.content == found.content
        assert answer.headers.get("retry-after") == found.headers.get("retry-after")
