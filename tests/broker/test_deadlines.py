"""Deadlines: what nobody finishes in time expires, for whoever asks, whatever clocks say."""

import asyncio
import os
import re
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from bridge import claims, ids
from bridge.cli.processes import now_ms
from bridge.envelope import Event, Reply, Request, make_reply
from bridge.kafka import open_producer
from bridge.registry import load_services
from tests.broker.conftest import Asked
from tests.broker.test_leaving import gauge
from tests.stack import Stack, open_stack, post, until
from tests.working import work_during

pytestmark = pytest.mark.timeout(120)

FIVE_MINUTES_MS = 300_000
BODY = {"text": "x"}


@pytest.fixture(scope="module")
def idle(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """A bridge of two replicas without a worker; a request is waited for 1 s at most."""
    with open_stack(kafka, tmp_path_factory.mktemp("idle"), f"-{secrets.token_hex(4)}") as made:
        made.make_services("echo", "watch", "threaded")
        _, url = made.start_ingress(BRIDGE_LANES="1", BRIDGE_NO_WORKER_S="600")
        _, other_url = made.start_ingress(BRIDGE_LANES="0", BRIDGE_MAX_WAIT_S="1")
        yield Asked(made, url, other_url)


def take_short(idle: Asked, service: str, body: object) -> httpx.Response:
    return post(idle.url, idle.name(service), body, prefer="respond-async", bridge_deadline="0.5")


def log_of(stack: Stack, service: str, path: str) -> list[Reply]:
    return [e for e in stack.read_replies(service) if e.request_id == path.rpartition("/")[2]]


def test_a_request_whose_workers_are_all_gone_expires_for_whoever_asks(idle: Asked) -> None:
    paths = [take_short(idle, "echo", {"text": "x"}).headers["location"] for _ in range(3)]

    waited = httpx.get(idle.url + paths[0], headers={"prefer": "wait=60"}, timeout=70)
    cancelled = httpx.delete(idle.url + paths[1])
    elsewhere = httpx.get(idle.other_url + paths[2])

    assert waited.elapsed.total_seconds() < 20  # it waits for the end, not for its 60 s
    assert cancelled.status_code == 409
    assert (cancelled.json()["code"], cancelled.json()["state"]) == ("already-ended", "expired")
    for answer in (waited, elsewhere):
        assert (answer.status_code, answer.json()["code"]) == (504, "expired")
    for path in paths:
        for url in (idle.url, idle.other_url):
            found = httpx.get(url + path)
            assert (found.status_code, found.headers["bridge-state"]) == (504, "expired")
        events = [event.event for event in log_of(idle.stack, "echo", path)]
        assert events == [Event.ACCEPTED, Event.EXPIRED]


def test_a_wait_that_began_before_the_deadline_was_known_ends_with_it_all_the_same(
    idle: Asked,
) -> None:
    """A worker's word came first, `accepted` while somebody waited: the wait went on to its own end."""
    service = idle.name("echo")
    request = Request(
        request_id=ids.make(time_ms=now_ms(), lane=1, chance=secrets.randbits(62)),
        reply_to=f"{service}.replies",
        reply_partition=1,
        deadline_ms=now_ms() + 500,
    )
    path = f"/v1/services/{service}/requests/{request.request_id}"
    asyncio.run(_write(idle.stack, request, Event.PROGRESS))

    with ThreadPoolExecutor(1) as threads:
        headers = {"prefer": "wait=40"}
        waiting = threads.submit(httpx.get, idle.url + path, headers=headers, timeout=50)
        until(lambda: gauge(idle.url, "bridge_ingress_waiters") == 1, timeout_s=10, what="it waits")
        asyncio.run(_write(idle.stack, request, Event.ACCEPTED))
        found = waiting.result()

    assert (found.status_code, found.json()["code"]) == (504, "expired")
    assert found.elapsed.total_seconds() < 20


def test_a_client_that_waits_is_told_when_its_request_has_expired(idle: Asked) -> None:
    answer = post(
        idle.url,
        idle.name("echo"),
        {"text": "x"},
        timeout_s=70,
        prefer="wait=60",
        bridge_deadline="0.5",
    )

    assert (answer.status_code, answer.json()["code"]) == (504, "expired")
    assert answer.elapsed.total_seconds() < 20


def test_long_after_its_deadline_a_request_is_expired_by_rule_and_late_events_say_nothing(
    idle: Asked,
) -> None:
    """The lane is written by hand, for its end lies a minute after the deadline."""
    service = idle.name("echo")
    at_ms = now_ms() - 57_000
    request = Request(
        request_id=ids.make(time_ms=at_ms, lane=3, chance=secrets.randbits(62)),
        reply_to=f"{service}.replies",
        reply_partition=3,
        deadline_ms=at_ms + 500,
    )
    path = f"/v1/services/{service}/requests/{request.request_id}"
    asyncio.run(_claim(idle.stack, service, request))
    asyncio.run(_write(idle.stack, request, Event.ACCEPTED))

    until(lambda: now_ms() > at_ms + 61_500, timeout_s=10, what="the end of the log is past")
    before = httpx.get(idle.other_url + path)
    asyncio.run(_write(idle.stack, request, Event.COMPLETED))
    after = httpx.get(idle.other_url + path)
    cancelled = httpx.delete(idle.other_url + path)
    repeated = [
        post(idle.other_url, service, BODY, idempotency_key="late", prefer=prefer)
        for prefer in ("wait=1", "respond-async")
    ]

    assert {answer.headers["idempotency-replayed"] for answer in repeated} == {"true"}
    assert {answer.headers["request-id"] for answer in repeated} == {request.request_id}
    for answer in (before, after, *repeated):
        assert (answer.status_code, answer.json()["code"]) == (504, "expired")
    assert cancelled.json()["state"] == "expired"
    events = [event.event for event in log_of(idle.stack, "echo", path)]
    assert events == [Event.ACCEPTED, Event.COMPLETED]  # nobody had to write that it expired


async def _claim(stack: Stack, service: str, request: Request) -> None:
    """Let an `Idempotency-Key` stand for a request."""
    body = load_services(stack.schemas)[service].encode(BODY)
    entry = claims.Entry(
        kind=claims.Kind.CLAIM,
        key=claims.claim_key(service, None, "late"),
        request_id=request.request_id,
        lane=request.reply_partition or 0,
        fingerprint=claims.fingerprint(body),
        service=service,
        rules_ms=86_400_000,
    )
    async with open_producer({"bootstrap.servers": stack.kafka}) as producer:
        await producer.route(0)(claims.format_entry(entry))


async def _write(stack: Stack, request: Request, event: Event) -> None:
    async with open_producer({"bootstrap.servers": stack.kafka}) as producer:
        await producer.route(0)(make_reply(request, event))


@pytest.mark.parametrize("off_ms", [-FIVE_MINUTES_MS, FIVE_MINUTES_MS], ids=["slow", "fast"])
def test_a_worker_whose_clock_is_wrong_expires_what_is_late_and_nothing_else(
    idle: Asked, tmp_path: Path, off_ms: int
) -> None:
    diary = tmp_path / "diary"
    diary.touch()
    body = {"key": "k", "for_s": 0, "diary": str(diary)}
    late = take_short(idle, "watch", body)
    good = post(idle.url, idle.name("watch"), body, prefer="respond-async", bridge_deadline="40")
    until(lambda: now_ms() > _time_ms(late) + 600, timeout_s=5, what="the first is late")
    ends: list[httpx.Response] = []

    def look() -> None:
        headers = {"prefer": "wait=30"}
        ends.extend(
            httpx.get(idle.url + one.headers["location"], headers=headers, timeout=40)
            for one in (good, late)
        )

    asyncio.run(
        work_during(idle.stack, "watch", look, own_ms=lambda: now_ms() + off_ms),
    )

    assert [one.headers["bridge-state"] for one in ends] == ["completed", "expired"]
    assert set(re.findall(r"\w+ (\S+)\n", diary.read_text())) == {good.headers["request-id"]}


def _time_ms(answer: httpx.Response) -> int:
    where = ids.parse(answer.headers["request-id"])
    assert where is not None
    return where.time_ms


def test_a_clock_that_is_set_back_meanwhile_does_not_turn_a_deadline_into_a_timeout(
    idle: Asked, tmp_path: Path
) -> None:
    """The time left was counted down, and then the clock asked again which limit it had been."""
    diary = tmp_path / "diary"
    diary.touch()
    ends: list[httpx.Response] = []

    def look() -> None:
        body = {"key": "k", "for_s": 20, "diary": str(diary)}
        answer = post(idle.url, idle.name("watch"), body, prefer="wait=30", bridge_deadline="4")
        ends.append(answer)

    def own_ms() -> int:
        return now_ms() - (10_000 if diary.read_text(encoding="utf-8") else 0)

    asyncio.run(work_during(idle.stack, "watch", look, own_ms=own_ms))

    assert [one.json()["code"] for one in ends] == ["expired"]
    assert diary.read_text(encoding="utf-8")


def test_a_handler_is_told_how_much_time_is_left(idle: Asked) -> None:
    left: list[float] = []

    def look() -> None:
        body = {"text": "", "do": "deadline"}
        answer = post(idle.url, idle.name("threaded"), body, prefer="wait=30", bridge_deadline="40")
        left.append(float(answer.json()["text"]))

    asyncio.run(work_during(idle.stack, "threaded", look))

    assert 5 < left[0] <= 40


CLOCK = """
import os, time
real, off_ns = time.time_ns, int(os.environ["TEST_CLOCK_OFF_S"]) * 10**9
time.time_ns = lambda: real() + off_ns
time.time = lambda: time.time_ns() / 1e9
"""
"""Python's wall clock, set wrong before anything else runs. (libfaketime 0.9.10 stops librdkafka: its
waits for a condition do not end.)"""


@pytest.mark.parametrize(("ingress", "worker"), [(300, -300), (-300, 300)])
def test_processes_whose_clocks_are_ten_minutes_apart(
    stack: Stack, tmp_path: Path, ingress: int, worker: int
) -> None:
    stack.make_services("echo")
    (tmp_path / "sitecustomize.py").write_text(CLOCK, encoding="utf-8")
    paths = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
    python_path = os.pathsep.join(path for path in paths if path)

    service = stack.name("echo")
    stack.start(
        *("worker", service, "--handler", "consumers.echo:handle"),
        PYTHONPATH=python_path,
        TEST_CLOCK_OFF_S=str(worker),
    )
    _, url = stack.start_ingress(PYTHONPATH=python_path, TEST_CLOCK_OFF_S=str(ingress))

    answers = [
        post(url, service, {"text": f"{n}"}, prefer="wait=30", bridge_deadline="40")
        for n in range(20)
    ]
    late = post(url, service, {"text": "x", "sleep_s": 3}, prefer="wait=30", bridge_deadline="0.5")
    text = httpx.get(f"{url}/metrics").text
    skew_s = float(re.findall(r"^bridge_clock_skew_seconds (\S+)$", text, re.MULTILINE)[0])

    print(f"ingress {ingress:+d} s, worker {worker:+d} s: skew metric {skew_s:+.3f} s")
    assert {answer.status_code for answer in answers} == {200}
    assert (late.status_code, late.headers["bridge-state"]) == (504, "expired"), late.text
    assert abs(skew_s + ingress) < 1
    assert abs(_time_ms(late) - now_ms()) < 30_000
