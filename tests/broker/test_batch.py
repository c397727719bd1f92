"""Batches: NDJSON in, NDJSON out, on a real Kafka."""

import itertools
import json
import re
import shlex
import subprocess
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge.registry import load_services
from tests.batches import Batch, Json
from tests.broker.conftest import Asked
from tests.stack import Stack, until

pytestmark = pytest.mark.timeout(120)

MIXED = (
    b'{"text": "slow", "sleep_s": 0.5}\n'
    b"\n"
    b'{"text": 7}\r\n'
    b'{"text": "a", "do": "teapot"}\n'
    b'{"text": "b", "do": "refuse"}\n'
    b" \t \n"
    b'{"text": "c", "text": "d"}\n'
    b'{"text": "last", "sleep_s'
)


def send(
    url: str, service: str, body: bytes | Iterable[object], headers: Mapping[str, str] | None = None
) -> tuple[dict[object, Json], Json]:
    """Send a batch; returns its results by line, and its summary."""
    lines = body if isinstance(body, bytes) else b"".join(json_line(item) for item in body)
    batch = Batch(url, service, headers)
    batch.send(lines)
    batch.end()
    *results, last = batch.results()
    by_line = {result["line"]: result for result in results}
    assert len(by_line) == len(results)
    summary = last["summary"]
    assert isinstance(summary, dict)
    assert summary["lines"] == len(results) == sum(summary.values()) - summary["lines"]
    return by_line, summary


def json_line(item: object) -> bytes:
    return json.dumps(item).encode() + b"\n"


def test_lines_of_one_key_come_to_kafka_in_their_order(stack: Stack) -> None:
    """The first few took the producer for little load, the others the one for much, and overtook."""
    stack.make_services("watch")
    _, url = stack.start_ingress()
    name = stack.name("watch")
    service = load_services(stack.schemas)[name]
    lines = [{"key": "k", "for_s": float(number), "diary": ""} for number in range(200)]

    rounds = []
    for _ in range(5):
        before = len(stack.read(service.requests_topic))
        batch = Batch(url, name)
        batch.send(b"".join(json_line(line) for line in lines))
        until(
            lambda: len(stack.read(service.requests_topic)) == before + len(lines),  # noqa: B023 - called in this turn
            timeout_s=20,
            what="all are there",
        )
        batch.cut()
        records = stack.read(service.requests_topic)[before:]
        rounds.append([service.decode(record.value or b"") for record in records])

    assert rounds == [lines] * 5


def problem_of(result: Json) -> Json:
    found = result["problem"]
    assert isinstance(found, dict)
    return found


def test_each_line_has_its_result_and_the_summary_adds_up(asked: Asked) -> None:
    echo = asked.name("echo")

    results, summary = send(asked.url, echo, MIXED)

    assert summary == {
        "lines": 6,
        "completed": 1,
        "accepted": 0,
        "failed": 2,
        "expired": 0,
        "cancelled": 0,
        "refused": 3,
    }
    slow = results[1]
    reply = slow["reply"]
    assert isinstance(reply, dict)
    assert slow == {
        "line": 1,
        "status": 200,
        "request_id": reply["request_id"],
        "reply": {"text": "slow", "request_id": reply["request_id"], "pid": reply["pid"]},
    }
    assert results[3] == {
        "line": 3,
        "status": 422,
        "problem": {
            "type": "urn:kafka-bridge:problem:invalid-payload",
            "title": "The body does not fit the contract",
            "status": 422,
            "detail": problem_of(results[3])["detail"],
            "code": "invalid-payload",
            "outcome": "not_accepted",
            "retryable": False,
            "errors": [
                {"pointer": "/text", "reason": problem_of(results[3])["errors"][0]["reason"]}  # type: ignore[index]
            ],
        },
    }
    told = {line: (r["status"], problem_of(r)["code"]) for line, r in results.items() if line != 1}
    assert told == {
        3: (422, "invalid-payload"),
        4: (418, "teapot"),
        5: (422, "refused"),
        7: (400, "malformed-body"),
        8: (400, "malformed-body"),
    }
    found = httpx.get(f"{asked.url}/v1/services/{echo}/requests/{slow['request_id']}")
    assert found.json() == reply


def test_results_come_as_they_are_ready_not_in_order(asked: Asked) -> None:
    batch = Batch(asked.url, asked.name("echo"))
    batch.send(b'{"text": "slow", "sleep_s": 2}\n{"text": "quick"}\n')
    results = batch.results()

    first = next(results)
    batch.send(b'{"text": "later"}\n')
    second = next(results)
    batch.end()

    assert [first["line"], second["line"], next(results)["line"]] == [2, 3, 1]


def test_an_empty_batch_has_a_summary_too(asked: Asked) -> None:
    results, summary = send(
        asked.url, asked.name("echo"), b"\n\n", {"accept": "application/ndjson"}
    )

    assert (results, set(summary.values())) == ({}, {0})


def test_with_respond_async_each_line_is_taken_and_found_later(asked: Asked) -> None:
    echo = asked.name("echo")
    batch = Batch(asked.url, echo, {"prefer": "respond-async, wait=5"})
    batch.send(b'{"text": "x", "sleep_s": 1}\n')
    batch.end()
    result, last = batch.results()

    assert result == {"line": 1, "status": 202, "request_id": result["request_id"]}
    assert isinstance(last["summary"], dict)
    assert last["summary"]["accepted"] == 1
    found = httpx.get(
        f"{asked.other_url}/v1/services/{echo}/requests/{result['request_id']}",
        headers={"prefer": "wait=10"},
    )
    assert found.status_code == 200


def test_one_way_lines_are_taken_and_streams_are_collected(asked: Asked) -> None:
    taken, one_way = send(asked.url, asked.name("oneway"), [{"to": 1}, {"to": 2}])
    counted, stream = send(asked.url, asked.name("count"), [{"to": 3}])

    assert [result["status"] for result in taken.values()] == [202, 202]
    assert (one_way["accepted"], stream["completed"]) == (2, 1)
    assert counted[1]["reply"] == {"parts": [{"number": n} for n in (1, 2, 3)], "reply": None}


def test_a_line_that_is_too_long_is_refused_and_the_next_one_is_not(asked: Asked) -> None:
    long = json_line({"text": "x" * 1_000_000})

    results, _ = send(asked.url, asked.name("echo"), long + json_line({"text": "short"}))

    assert (results[1]["status"], problem_of(results[1])["code"]) == (413, "body-too-large")
    assert results[2]["status"] == 200


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"content-type": "application/json"}, 415, "unsupported-media-type"),
        ({"content-type": "application/x-ndjson; charset=latin-1"}, 415, "unsupported-media-type"),
        ({"content-encoding": "gzip"}, 415, "unsupported-media-type"),
        ({"accept": "application/json"}, 406, "not-acceptable"),
        ({"accept": "application/x-ndjson;q=0"}, 406, "not-acceptable"),
        ({"bridge-deadline": "soon"}, 400, "malformed-header"),
    ],
)
def test_what_is_wrong_with_all_of_it_is_an_ordinary_problem(
    asked: Asked, headers: dict[str, str], status: int, code: str
) -> None:
    answer = httpx.post(
        f"{asked.url}/v1/services/{asked.name('echo')}/requests/batch",
        content=b'{"text": "x"}\n',
        headers={"content-type": "application/x-ndjson", **headers},
    )

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"


def test_an_unknown_service_has_no_batches(asked: Asked) -> None:
    answer = httpx.post(f"{asked.url}/v1/services/nobody/requests/batch", content=b"{}\n")

    assert (answer.status_code, answer.json()["code"]) == (404, "unknown-service")


def test_a_line_whose_worker_never_comes_ends_as_expired(stack: Stack) -> None:
    stack.make_services("echo")
    _, url = stack.start_ingress()

    results, summary = send(url, stack.name("echo"), [{"text": "x"}] * 3, {"bridge-deadline": "1"})

    assert summary["expired"] == 3
    assert {(r["status"], problem_of(r)["code"]) for r in results.values()} == {(504, "expired")}
    lasts = [reply.event for reply in stack.read_replies("echo") if reply.event is not None]
    assert lasts.count(lasts[0]) == len(lasts) == 3


PAGE = (Path(__file__).parents[2] / "docs/howto/send-a-batch.md").read_text(encoding="utf-8")


def test_the_curl_of_the_page_works_and_reads_while_it_writes(asked: Asked) -> None:
    curl = re.search(r"(curl .*?)\n```", PAGE, re.DOTALL)
    assert curl is not None
    line = curl[1].replace("http://127.0.0.1:8080", asked.url)
    line = line.replace("greeter", asked.name("echo")).replace("\\\n", " ")
    body = b"".join(json_line({"text": str(n)}) for n in range(1, 3001))

    done = subprocess.run(  # noqa: S603 - the page's own line
        shlex.split(line), input=body, capture_output=True, check=True
    )

    *results, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert {result["line"] for result in results} == set(range(1, 3001))
    assert last["summary"]["completed"] == 3000


def test_the_python_of_the_page_works(asked: Asked) -> None:
    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {}
    exec(code[1], names)  # noqa: S102 - the page's own code

    host = asked.url.removeprefix("http://")
    requests = ({"text": str(number)} for number in range(3000))
    *results, last = names["ask_all"](host, asked.name("echo"), requests)

    assert len(results) == 3000
    assert last["summary"]["completed"] == 3000


def test_the_python_of_the_page_says_why_a_batch_is_refused_and_ends(asked: Asked) -> None:
    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {}
    exec(code[1], names)  # noqa: S102 - the page's own code
    endless = ({"text": "x" * 10_000} for _ in itertools.repeat(None))

    with pytest.raises(RuntimeError, match=r"404.*unknown-service"):
        list(names["ask_all"](asked.url.removeprefix("http://"), "nothing", endless))

    left = [thread.name for thread in threading.enumerate() if "(write)" in thread.name]
    assert left == []
