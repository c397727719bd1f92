"""One trace from the client to the handler and back."""

import asyncio
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from bridge.envelope import Record
from bridge.kafka import describe_topics, open_reader
from tests.stack import READY_S, Stack, open_stack, until

pytestmark = pytest.mark.timeout(120)

SDK = Path(__file__).parents[1] / "traced"
TRACE_ID, SPAN_ID = "1a" * 16, "2b" * 8
PARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"


@dataclass(frozen=True)
class Bridge:
    """A bridge whose processes have an SDK, or none."""

    stack: Stack
    url: str
    spans: Path

    def ask(self, **headers: str) -> httpx.Response:
        return httpx.post(
            f"{self.url}/v1/services/{self.stack.name('threaded')}/requests",
            json={"text": "x"},
            headers=headers,
            timeout=30,
        )

    def find_spans(self, request_id: str) -> dict[str, dict[str, object]]:
        """The spans of a request's trace by kind; waits for the last of them to end."""
        found: dict[str, dict[str, object]] = {}

        def read() -> bool:
            lines = self.spans.read_text(encoding="utf-8").splitlines()
            spans = [json.loads(line) for line in lines]
            traces = {
                span["context"]["trace_id"]
                for span in spans
                if span["attributes"].get("messaging.message.conversation_id") == request_id
            }
            found.update(
                {
                    span["kind"].removeprefix("SpanKind."): span
                    for span in spans
                    if span["context"]["trace_id"] in traces
                }
            )
            return len(found) == 4

        until(read, timeout_s=20, what="four spans")
        return found


@pytest.fixture(scope="module")
def traced(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    folder = tmp_path_factory.mktemp("traced")
    paths = [str(SDK), *filter(None, [os.environ.get("PYTHONPATH")])]
    environ = {"PYTHONPATH": os.pathsep.join(paths), "TEST_SPANS": str(folder / "spans")}
    with open_stack(kafka, folder, f"-{secrets.token_hex(4)}") as made:
        yield start(made, "consumers.traced:handle", environ)


@pytest.fixture(scope="module")
def plain(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    folder = tmp_path_factory.mktemp("plain")
    with open_stack(kafka, folder, f"-{secrets.token_hex(4)}") as made:
        yield start(made, "consumers.traced:handle", {"TEST_SPANS": str(folder / "spans")})


def start(made: Stack, handler: str, environ: dict[str, str]) -> Bridge:
    made.make_services("threaded")
    worker = made.start("worker", made.name("threaded"), "--handler", handler, **environ)
    until(lambda: bool(worker.events("working")), timeout_s=READY_S, what="the worker works")
    ingress = made.start("ingress", "--port", "0", **environ)
    until(lambda: bool(ingress.events("ready")), timeout_s=READY_S, what="the ingress is ready")
    url = f"http://127.0.0.1:{ingress.events('listening')[0]['port']}"
    return Bridge(made, url, Path(environ["TEST_SPANS"]))


def test_ingress_record_and_handler_are_one_trace_of_the_clients(traced: Bridge) -> None:
    answer = traced.ask(traceparent=PARENT, tracestate="a=b")

    spans = traced.find_spans(answer.headers["request-id"])
    ids = {kind: spans[kind]["context"]["span_id"].removeprefix("0x") for kind in spans}  # type: ignore[index]  # JSON
    parents = {kind: str(span["parent_id"]).removeprefix("0x") for kind, span in spans.items()}
    assert {span["context"]["trace_id"] for span in spans.values()} == {f"0x{TRACE_ID}"}  # type: ignore[index]  # JSON
    assert parents == {
        "SERVER": SPAN_ID,
        "PRODUCER": ids["SERVER"],
        "CONSUMER": ids["PRODUCER"],
        "INTERNAL": ids["CONSUMER"],
    }
    assert answer.json()["request_id"] == ids["CONSUMER"]  # the handler's thread is inside of it
    assert answer.json()["text"] == f"00-{TRACE_ID}-{ids['CONSUMER']}-01"  # what it passes on
    assert traceparents(traced.stack, answer.headers["request-id"]) == {
        f"00-{TRACE_ID}-{ids['PRODUCER']}-01"
    }


def test_a_request_without_context_begins_a_trace(traced: Bridge) -> None:
    answer = traced.ask()

    spans = traced.find_spans(answer.headers["request-id"])
    topic = f"{traced.stack.name('threaded')}.requests"
    assert spans["SERVER"]["parent_id"] is None
    assert [spans[kind]["name"] for kind in ("SERVER", "PRODUCER", "CONSUMER")] == [
        "POST /v1/services/{service}/requests",
        f"create {topic}",
        f"process {topic}",
    ]
    assert spans["SERVER"]["attributes"]["http.response.status_code"] == 200  # type: ignore[index]  # JSON
    assert spans["CONSUMER"]["attributes"]["bridge.event"] == "completed"  # type: ignore[index]  # JSON


@pytest.mark.parametrize(
    ("given", "expected"), [(PARENT, {PARENT}), ("00-junk", set()), (None, set())]
)
def test_without_an_sdk_context_goes_through_untouched_unless_malformed(
    plain: Bridge, given: str | None, expected: set[str]
) -> None:
    answer = plain.ask(**({} if given is None else {"traceparent": given}))

    assert answer.json()["request_id"] == "0" * 16
    assert answer.json()["text"] == next(iter(expected), "")
    assert traceparents(plain.stack, answer.headers["request-id"]) == expected
    assert not plain.spans.exists()


def traceparents(made: Stack, request_id: str) -> set[str]:
    """The trace context of everything on Kafka that is of a request: record and events."""
    found = asyncio.run(read_both(made.kafka, made.name("threaded")))
    mine = [dict(record.headers) for record in found]
    of_it = [h for h in mine if h.get("bridge-request-id") == request_id.encode()]
    assert len(of_it) >= 2
    return {h["traceparent"].decode() for h in of_it if "traceparent" in h}


async def read_both(kafka: str, service: str) -> list[Record]:
    found: list[Record] = []

    def note(record: Record) -> bool:
        found.append(record)
        return False

    config = {"bootstrap.servers": kafka}
    async with open_reader(config) as reader:
        topics = await describe_topics(config)
        for topic in (f"{service}.requests", f"{service}.replies"):
            lanes = [(topic, number) for number in range(topics[topic])]
            await reader.read(lanes, since_ms=0, is_enough=note)
    return found
