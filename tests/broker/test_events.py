"""Streams of events: told in order, whole, to whoever asks wherever."""

import asyncio
import secrets
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from bridge.envelope import Event, Record, Request, make_reply
from bridge.ids import parse
from bridge.kafka import open_producer
from bridge.registry import load_services
from tests.broker.conftest import Asked
from tests.sse import LINES, SSE, Told, ask, follow
from tests.stack import Stack, post, until

pytestmark = pytest.mark.timeout(120)


def start(url: str, service: str, body: object, *, deadline: str = "300") -> str:
    """Ask without waiting; returns where the events are."""
    answer = post(url, service, body, prefer="respond-async", bridge_deadline=deadline)
    assert answer.status_code == 202, answer.text
    return str(answer.headers["location"]) + "/events"


def names(told: list[Told]) -> list[str]:
    return [each.event for each in told]


def test_a_stream_tells_accepted_every_part_and_the_end(asked: Asked) -> None:
    path = start(asked.url, asked.name("parts"), {"to": 3})

    told = follow(asked.url + path)

    assert names(told) == ["accepted", "progress", "part", "part", "part", "completed"]
    assert [each.data.get("part") for each in told[2:-1]] == [
        {"number": number, "text": ""} for number in (1, 2, 3)
    ]
    assert told[1].data["progress"] == {"fraction": 0.0, "message": "begun"}
    assert [each.data["sequence"] for each in told] == [None, None, 0, 1, 2, 3]
    assert told[-1].data["reply"] is None
    assert "missing" not in told[-1].data
    assert all(each.data["request_id"] == path.split("/")[-2] for each in told)
    assert follow(asked.other_url + path) == told


@pytest.mark.parametrize("accept", [SSE, LINES])
def test_a_post_streams_its_own_request(asked: Asked, accept: str) -> None:
    answer, told = ask(asked.url, asked.name("echo"), {"text": "x", "do": "progress"}, accept)

    assert names(told) == ["accepted", "progress", "completed"]
    assert told[1].data["progress"] == {"fraction": 0.5, "message": "half way"}
    reply = told[2].data["reply"]
    assert isinstance(reply, dict)
    assert (reply["text"], reply["request_id"]) == ("x", answer.headers["request-id"])
    assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == (
        "no-store",
        "no",
    )
    assert follow(f"{asked.other_url}{answer.headers['location']}/events") == told


def test_a_post_with_a_key_that_is_taken_streams_the_first_request(asked: Asked) -> None:
    key = {"idempotency-key": secrets.token_hex(8)}
    body = {"to": 3, "sleep_s": 0.3}

    with ThreadPoolExecutor(2) as threads:
        (first, told), (second, told_again) = threads.map(
            lambda url: ask(url, asked.name("parts"), body, SSE, key), (asked.url, asked.other_url)
        )
    third, told_later = ask(asked.other_url, asked.name("parts"), body, LINES, key)

    assert told == told_again == told_later
    assert names(told) == ["accepted", "progress", "part", "part", "part", "completed"]
    assert {each.headers["request-id"] for each in (first, second, third)} == {
        told[0].data["request_id"]
    }
    replayed = [each.headers.get("idempotency-replayed") for each in (first, second, third)]
    assert sorted(replayed[:2], key=str) == [None, "true"]
    assert replayed[2] == "true"


def test_a_stream_ends_with_the_problem_that_a_look_up_answers(asked: Asked) -> None:
    answer, told = ask(asked.url, asked.name("echo"), {"text": "x", "do": "teapot"}, SSE)

    found = httpx.get(asked.other_url + answer.headers["location"])

    assert names(told) == ["accepted", "failed"]
    assert told[-1].data["problem"] == found.json()
    assert found.status_code == 418


def test_a_request_whose_client_waits_is_told_from_accepted_on_too(asked: Asked) -> None:
    answer = post(asked.url, asked.name("echo"), {"text": "x"})

    told = follow(
        f"{asked.url}/v1/services/{asked.name('echo')}/requests/"
        f"{answer.headers['request-id']}/events"
    )

    assert names(told) == ["accepted", "completed"]
    assert told[1].data["reply"] == answer.json()


def test_a_stream_goes_on_after_any_event_on_another_replica(asked: Asked) -> None:
    path = start(asked.url, asked.name("parts"), {"to": 4})
    whole = follow(asked.url + path)

    for cut, event in enumerate(whole, start=1):
        for url in (asked.url, asked.other_url):
            assert follow(url + path, since=event.id) == whole[cut:]
    last = httpx.get(asked.other_url + path, headers={"last-event-id": whole[-1].id})
    assert (last.status_code, last.content) == (204, b"")


def test_a_stream_that_goes_on_while_it_is_told_has_no_gap_either(asked: Asked) -> None:
    path = start(asked.url, asked.name("parts"), {"to": 12, "sleep_s": 0.15})
    urls = (asked.url, asked.other_url)

    told: list[Told] = []
    while names(told)[-1:] != ["completed"]:
        url = urls[len(told) % 2]
        told += follow(url + path, since=told[-1].id if told else None, at_most=3)

    assert told == follow(asked.url + path)
    assert len(told) == 15


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"last-event-id": "x"}, 400, "malformed-header"),
        ({"last-event-id": "-1"}, 400, "malformed-header"),
        ({"last-event-id": "9" * 19}, 400, "malformed-header"),
        ({"accept": "application/json"}, 406, "not-acceptable"),
        ({}, 404, "unknown-request"),
    ],
)
def test_what_cannot_be_streamed_is_a_problem(
    asked: Asked, headers: dict[str, str], status: int, code: str
) -> None:
    lately = post(asked.url, asked.name("echo"), {"text": "x"}).headers["request-id"]
    unknown = lately[:-4] + "0000"

    answer = httpx.get(
        f"{asked.url}/v1/services/{asked.name('echo')}/requests/{unknown}/events",
        headers=headers,
        timeout=20,
    )

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"


def test_who_takes_events_only_is_not_answered_by_a_one_way_service(asked: Asked) -> None:
    answer = post(asked.url, asked.name("oneway"), {"to": 1}, accept=SSE)

    assert (answer.status_code, answer.json()["code"]) == (406, "not-acceptable")


def test_missing_parts_are_said(asked: Asked) -> None:
    service = load_services(asked.stack.schemas)[asked.name("parts")]
    path = start(asked.url, service.name, {"to": 0})
    whole = follow(asked.url + path)
    # The log of a worker whose parts were lost: the ID's time and lane, another name.
    request_id = path.split("/")[-2][:-4] + "0000"
    where = parse(request_id)
    assert where is not None
    request = Request(
        request_id=request_id, reply_to=service.replies_topic, reply_partition=where.lane
    )
    part = service.encode_reply({"number": 1, "text": ""})
    write(
        asked.stack.kafka,
        [
            make_reply(request, Event.PART, part, sequence=1),
            make_reply(request, Event.PART, part, sequence=1),
            make_reply(request, Event.COMPLETED, sequence=4),
        ],
    )

    place = path.removesuffix("/events").replace(path.split("/")[-2], request_id)
    told = follow(f"{asked.url}{place}/events")
    collected = httpx.get(asked.url + place)

    assert names(whole) == ["accepted", "progress", "completed"]
    assert names(told) == ["accepted", "part", "completed"]
    assert told[-1].data["missing"] == [0, 2, 3]
    assert (collected.status_code, collected.json()["code"]) == (502, "parts-missing")
    assert collected.headers["bridge-state"] == "completed"


def write(kafka: str, records: list[Record]) -> None:
    async def run() -> None:
        async with open_producer({"bootstrap.servers": kafka}) as producer:
            send = producer.route(0)
            for record in records:
                await send(record)

    asyncio.run(run())


def test_an_open_stream_ends_as_expired_by_itself_and_lives_until_then(stack: Stack) -> None:
    stack.make_services("threaded")
    _, url = stack.start_ingress(BRIDGE_KEEP_ALIVE_S="1")
    path = start(url, stack.name("threaded"), {"text": "x"}, deadline="1")

    with httpx.stream("GET", url + path, timeout=5) as answer:
        lines = list(answer.iter_lines())

    assert lines[0] == "retry: 1000"
    assert lines.count(": keep-alive") >= 3
    assert [line for line in lines if line.startswith("event:")] == [
        "event: accepted",
        "event: expired",
    ]
    state = httpx.get(url + path.removesuffix("/events"))
    assert (state.status_code, state.headers["bridge-state"]) == (504, "expired")


def test_a_replica_that_stops_ends_its_streams_at_once(stack: Stack) -> None:
    stack.make_services("threaded")
    process, url = stack.start_ingress()
    _, other_url = stack.start_ingress()
    path = start(url, stack.name("threaded"), {"text": "x"})

    with httpx.stream("GET", url + path, timeout=20) as answer:
        lines = answer.iter_lines()
        begun = [next(lines) for _ in range(6)]
        process.child.terminate()
        rest = list(lines)

    assert [line for line in begun if line.startswith("event")] == ["event: accepted"]
    assert [line for line in rest if line] == ["retry: 1000"]
    assert process.stop() == 0
    last_id = next(line for line in begun if line.startswith("id: ")).removeprefix("id: ")
    stack.start_worker("threaded")
    assert names(follow(other_url + path, since=last_id)) == ["progress", "completed"]


@pytest.mark.slow
def test_an_ingress_killed_at_every_event_leaves_no_gap(stack: Stack) -> None:
    stack.make_services("parts")
    stack.start_worker("parts")
    process, url = stack.start_ingress()
    port = int(url.rpartition(":")[2])
    path = start(url, stack.name("parts"), {"to": 4, "sleep_s": 1.5})

    told: list[Told] = []
    while names(told)[-1:] != ["completed"]:
        told += follow(url + path, since=told[-1].id if told else None, at_most=1)
        process.kill()
        process, url = stack.start_ingress(port)

    print("told one by one through kills:", *(f"{each.event}@{each.id}" for each in told))
    assert told == follow(url + path)
    assert names(told) == ["accepted", "progress", *["part"] * 4, "completed"]
    until(lambda: follow(url + path, since=told[-1].id) == [], timeout_s=5, what="204")
