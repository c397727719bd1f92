"""An application that knows nothing of Kafka, reached through it: `kbridge worker SERVICE --http`."""

import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests import sse
from tests.programs.node import App, run_app
from tests.stack import READY_S, Process, Stack, free_port, listening, open_stack, post, until

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(120)

WAYS = {"echo": "/echo", "headed": "/headed", "parts": "/lines", "oneway": "/oneway"}


@dataclass(frozen=True)
class Bridge:
    """An ingress, and a worker beside the application for each service."""

    stack: Stack
    app: App
    url: str
    workers: dict[str, Process]

    def post(self, service: str, body: object, **headers: str) -> httpx.Response:
        return post(self.url, self.stack.name(service), body, timeout_s=60, **headers)


def start(stack: Stack, service: str, url: str) -> Process:
    worker = stack.start("worker", stack.name(service), "--http", url)
    until(lambda: bool(worker.events("working")), timeout_s=READY_S, what="it works")
    return worker


@pytest.fixture(scope="module")
def bridge(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    folder = tmp_path_factory.mktemp("http")
    with run_app() as app, open_stack(kafka, folder, f"-{secrets.token_hex(4)}") as stack:
        stack.make_services(*WAYS)
        workers = {service: start(stack, service, app.url(way)) for service, way in WAYS.items()}
        _, url = stack.start_ingress()
        yield Bridge(stack, app, url, workers)


def test_an_application_that_nobody_can_connect_to_is_reached_untouched(stack: Stack) -> None:
    """The seed of the bridge: the application binds loopback, the worker nothing at all."""
    shutil.copytree(ROOT / "schemas" / "greeter", stack.schemas / stack.name("greeter"))
    stack.apply_topics()
    with run_app() as app:
        worker = start(stack, "greeter", app.url("/greeter"))
        _, url = stack.start_ingress()

        answer = post(url, stack.name("greeter"), {"name": "Ada"})

        assert (answer.status_code, answer.json()) == (200, {"greeting": "Hello, Ada"})
        assert listening(app.pid) == {f"0100007F:{app.port:04X}"}
        assert listening(worker.pid) == set()


def test_the_application_is_told_which_request_it_is(bridge: Bridge) -> None:
    answer = bridge.post("echo", {"text": "hello"})

    assert answer.status_code == 200
    assert answer.json()["request_id"] == answer.headers["request-id"]


def test_its_refusal_is_the_clients_answer(bridge: Bridge) -> None:
    answer = bridge.post("echo", {"text": "x", "do": "refuse"})

    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (418, "teapot")  # by [http.errors]
    assert (problem["detail"], problem["outcome"]) == ("short and stout", "failed")


def test_a_reply_that_does_not_fit_its_contract_is_none(bridge: Bridge) -> None:
    answer = bridge.post("echo", {"text": "x", "do": "misfit"})

    assert (answer.status_code, answer.json()["code"]) == (502, "reply-invalid")


def test_named_headers_and_the_trace_go_there_and_come_back(bridge: Bridge) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    answer = bridge.post("headed", {}, X_Tenant="t-1", x_other="no", traceparent=trace)

    assert answer.json() == {"heard": {"x-tenant": "t-1", "traceparent": trace}}
    assert (answer.headers["x-cost"], "x-other" in answer.headers) == ("7", False)


def test_a_deadline_is_told_and_hangs_up(bridge: Bridge) -> None:
    before = bridge.app.facts()["left"]

    answer = bridge.post("echo", {"text": "d", "sleep_s": 30}, bridge_deadline="2")

    assert (answer.status_code, answer.json()["code"]) == (504, "expired")
    until(lambda: bridge.app.facts()["left"] == before + 1, timeout_s=10, what="it has hung up")
    told = bridge.app.facts()["seen"][-1]["headers"]["bridge-deadline"]
    assert 0 < float(told) < 3


def test_lines_are_parts_as_they_come(bridge: Bridge) -> None:
    name = bridge.stack.name("parts")

    _, told = sse.ask(bridge.url, name, {"to": 3, "sleep_s": 0.1}, sse.SSE)

    numbers = [event.data["part"] for event in told if event.event == "part"]
    assert numbers == [{"number": number, "text": "x"} for number in range(3)]
    assert told[-1].event == "completed"


def test_a_part_that_does_not_fit_ends_the_stream_and_hangs_up(stack: Stack) -> None:
    with run_app() as app:
        stack.make_services("parts")
        start(stack, "parts", app.url("/misfits"))
        _, url = stack.start_ingress()

        answer = post(url, stack.name("parts"), {"to": 3})

        assert (answer.status_code, answer.json()["code"]) == (502, "reply-invalid")
        until(lambda: app.facts()["left"] == 1, timeout_s=10, what="it has hung up")


def test_events_are_parts_and_progress(stack: Stack) -> None:
    with run_app() as app:
        stack.make_services("parts")
        start(stack, "parts", app.url("/events"))
        _, url = stack.start_ingress()

        _, told = sse.ask(url, stack.name("parts"), {"to": 2, "sleep_s": 0.1}, sse.SSE)

    kinds = [event.event for event in told]
    assert [kind for kind in kinds if kind != "accepted"] == [
        *("progress", "part", "progress", "part", "completed")
    ]
    fractions = [
        event.data["progress"]["fraction"]  # type: ignore[index]  # as the documents say
        for event in told
        if event.event == "progress"
    ]
    assert fractions == [0, 0.5]


def test_a_one_way_request_arrives(bridge: Bridge) -> None:
    answer = bridge.post("oneway", {"to": 7})

    assert answer.status_code == 202
    until(
        lambda: any(seen["body"] == '{"to":7}' for seen in bridge.app.facts()["seen"]),
        timeout_s=20,
        what="it has arrived",
    )


def test_the_worker_does_not_wait_for_the_application(stack: Stack) -> None:
    port = free_port()
    stack.make_services("echo")
    worker = start(stack, "echo", f"http://127.0.0.1:{port}/echo")
    _, url = stack.start_ingress()

    with run_app(port):
        answer = post(url, stack.name("echo"), {"text": "late"})

    assert (answer.status_code, answer.json()["text"]) == (200, "late")
    assert worker.stop() == 0


def test_a_bad_moment_is_tried_again_and_not_too_soon(stack: Stack) -> None:
    with run_app() as app:
        stack.make_services("echo")
        start(stack, "echo", app.url("/busy"))
        _, url = stack.start_ingress()

        answer = post(url, stack.name("echo"), {"text": "x"})

        tries = [seen["headers"]["bridge-attempt"] for seen in app.facts()["seen"]]
    assert (answer.status_code, tries) == (200, ["1", "2"])
    assert answer.elapsed.total_seconds() >= 1


def test_an_application_that_comes_back_finds_what_was_asked_meanwhile(stack: Stack) -> None:
    port = free_port()
    stack.make_services("echo")
    worker = start(stack, "echo", f"http://127.0.0.1:{port}/echo")
    _, url = stack.start_ingress()

    asked = post(url, stack.name("echo"), {"text": "early"}, prefer="respond-async")
    until(lambda: bool(worker.events("application-away")), timeout_s=20, what="it was tried")
    with run_app(port):
        answer = httpx.get(
            url + asked.headers["location"], headers={"prefer": "wait=20"}, timeout=30
        )

    assert (answer.status_code, answer.json()["text"]) == (200, "early")


def test_an_application_that_stays_away_is_a_bad_gateway(stack: Stack) -> None:
    stack.make_services("echo")
    start(stack, "echo", f"http://127.0.0.1:{free_port()}/echo")
    _, url = stack.start_ingress()

    answer = post(url, stack.name("echo"), {"text": "x"})

    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["retryable"]) == (
        *(502, "handler-failed", True),
    )
    assert problem["detail"] == "the application did not answer"


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (("--http", "ftp://127.0.0.1/x"), "--http 'ftp://127.0.0.1/x'", 1),
        (("--http", "http://a:secret@127.0.0.1/"), "credentials", 1),
        (("--http", "http://127.0.0.1/", "--handler", "a:b"), "--handler and --http", 2),
        (("other", "--http", "http://127.0.0.1/"), "--http is for one service", 2),
    ],
)
def test_what_cannot_be_is_told_in_one_line(
    stack: Stack, arguments: tuple[str, ...], said: str, code: int
) -> None:
    stack.copy_services("echo", "headed")
    names = [stack.name("headed") if each == "other" else each for each in arguments]

    worker = stack.start("worker", stack.name("echo"), *names)

    assert worker.child.wait(timeout=20) == code
    (line,) = worker.log.read_text(encoding="utf-8").splitlines()
    assert line.startswith("kbridge: ")
    assert said in line
    assert "secret" not in line


def test_every_line_about_a_request_names_it(bridge: Bridge) -> None:
    answer = bridge.post("echo", {"text": "x", "do": "misfit"})

    (line,) = [
        each
        for each in bridge.workers["echo"].events("reply-invalid")
        if each["request_id"] == answer.headers["request-id"]
    ]
    assert line["level"] == "error"
