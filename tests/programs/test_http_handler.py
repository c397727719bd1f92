"""The handler that is an HTTP application: what it says to it, and what each answer means."""

import asyncio
import email.utils
import json
import socket
from collections.abc import Iterator
from contextlib import aclosing, suppress
from typing import Any

import pytest

from bridge.context import Context
from bridge.errors import (
    BridgeError,
    HandlingError,
    MalformedBodyError,
    PermanentError,
    RetryableError,
)
from bridge.service import Service, load
from bridge.worker import open_http
from tests.programs.node import App, run_app
from tests.stack import until

RECORD = '{"type": "record", "name": "Any", "fields": []}'


def service(kind: str = "one", settings: str = "") -> Service:
    text = f'reply = "{kind}"\n{settings}'
    return load("any", request=RECORD, reply=RECORD, settings=text)


@pytest.fixture(scope="module")
def app() -> Iterator[App]:
    with run_app() as running:
        yield running


async def say(app: App, context: Context | None = None, **answer: Any) -> object:
    """Have the application answer so; returns what the handler does."""
    one = service(settings='[http]\nreturn = ["x-cost"]')
    async with open_http(app.url("/say"), one) as handler:
        assert handler.is_json
        assert handler.call is not None
        body = json.dumps(answer).encode()
        return await handler.call(body, context or Context(request_id="r"))


async def stream(app: App, context: Context | None = None, **answer: Any) -> list[object]:
    async with open_http(app.url("/say"), service("stream")) as handler:
        assert handler.stream is not None
        body = json.dumps(answer).encode()
        return [part async for part in handler.stream(body, context or Context(request_id="r"))]


# What it says --------------------------------------------------------------------------------


async def test_the_body_is_the_request_and_headers_say_the_rest(app: App) -> None:
    context = Context(
        request_id="r-1",
        attempt=2,
        principal="billing",
        headers={"x-tenant": "t", "accept-encoding": "gzip"},
        trace={"traceparent": "00-1", "tracestate": "a=b"},
        seconds_left=lambda: 12.3456,
    )

    await say(app, context, marker=1)

    seen = app.facts()["seen"][-1]
    assert (seen["method"], json.loads(seen["body"])) == ("POST", {"marker": 1})
    assert {
        "bridge-request-id": "r-1",
        "bridge-attempt": "2",
        "bridge-deadline": "12.346",
        "bridge-principal": "billing",
        "x-tenant": "t",
        "traceparent": "00-1",
        "tracestate": "a=b",
        "content-type": "application/json",
        "accept": "application/json",
        "accept-encoding": "identity",
    }.items() <= seen["headers"].items()


async def test_without_a_deadline_it_is_told_what_an_attempt_may_take(app: App) -> None:
    await say(app)

    headers = app.facts()["seen"][-1]["headers"]
    assert headers["bridge-deadline"] == "60.000"
    assert "bridge-principal" not in headers


@pytest.mark.parametrize("text", ["a\r\nx-injected: b", "\u0416", " a", "a\0", "x" * 5000])
async def test_what_no_header_can_carry_is_left_out(app: App, text: str) -> None:
    await say(app, Context(request_id=text, principal=text, trace={"traceparent": text}))

    headers = app.facts()["seen"][-1]["headers"]
    assert not {"bridge-request-id", "bridge-principal", "traceparent", "x-injected"} & set(headers)


async def test_proxies_of_the_environment_are_not_used(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")

    assert await say(app) == b"{}"


async def test_no_cookie_of_one_request_is_told_with_another(app: App) -> None:
    async with open_http(app.url("/say"), service()) as handler:
        assert handler.call is not None
        for _ in range(2):
            body = b'{"headers": {"set-cookie": "session=secret"}}'
            await handler.call(body, Context(request_id="r"))

    assert "cookie" not in app.facts()["seen"][-1]["headers"]


# What an answer means ------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202, 299])
async def test_a_good_answer_is_the_reply_as_it_came(app: App, status: int) -> None:
    assert await say(app, status=status, body='{"a":\t1}') == b'{"a":\t1}'


async def test_only_headers_that_the_service_names_come_back(app: App) -> None:
    context = Context(request_id="r")

    await say(app, context, headers={"X-Cost": ["7", "8"], "x-other": "no"})

    assert context.reply_headers == {"x-cost": "7, 8"}


async def test_a_refusal_has_its_headers_too(app: App) -> None:
    context = Context(request_id="r")

    with pytest.raises(PermanentError):
        await say(app, context, status=404, headers={"x-cost": "7"})

    assert context.reply_headers == {"x-cost": "7"}


PROBLEM = {"content-type": "application/problem+json"}


@pytest.mark.parametrize(
    ("answer", "code", "message"),
    [
        ({"status": 404}, "http-404", "the application answered 404"),
        ({"status": 400, "body": '{"detail": "x"}'}, "http-400", "the application answered 400"),
        ({"headers": PROBLEM, "body": '{"code": "no-text", "detail": "d"}'}, "no-text", "d"),
        ({"headers": PROBLEM, "body": '{"type": "urn:x:no-text", "title": "t"}'}, "no-text", "t"),
        ({"headers": PROBLEM, "body": '{"type": "https://a/b/no-text/"}'}, "no-text", "answered"),
        ({"headers": PROBLEM, "body": '{"type": "https://a/b#no-text"}'}, "no-text", "answered"),
        ({"headers": PROBLEM, "body": '{"type": "about:blank"}'}, "http-422", "answered"),
        ({"headers": PROBLEM, "body": '{"code": 7, "detail": ["d"]}'}, "http-422", "answered"),
        ({"headers": PROBLEM, "body": '{"code": "no text\\n"}'}, "http-422", "answered"),
        ({"headers": PROBLEM, "body": "[1]"}, "http-422", "answered"),
        ({"headers": PROBLEM, "body": "no JSON"}, "http-422", "answered"),
        ({"headers": PROBLEM, "mib": 1}, "http-422", "answered"),
        ({"status": 304}, "http-304", "the application answered 304"),
    ],
)
async def test_4xx_ends_the_request_with_the_applications_own_words(
    app: App, answer: dict[str, Any], code: str, message: str
) -> None:
    with pytest.raises(PermanentError) as refused:
        await say(app, **{"status": 422, **answer})

    assert refused.value.failure_code == code
    assert message in str(refused.value)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_redirects_are_not_followed(app: App, status: int) -> None:
    before = len(app.facts()["seen"])

    with pytest.raises(PermanentError, match="redirects are not followed") as refused:
        await say(app, status=status, headers={"location": "/say"})

    assert refused.value.failure_code == f"http-{status}"
    assert len(app.facts()["seen"]) == before + 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 599])
async def test_a_bad_moment_may_be_tried_again(app: App, status: int) -> None:
    with pytest.raises(RetryableError, match=f"answered {status}") as refused:
        await say(app, status=status)

    assert (refused.value.failure_code, refused.value.after_s) == ("handler-failed", None)


async def test_a_bad_moment_may_say_why(app: App) -> None:
    with pytest.raises(RetryableError, match="full") as refused:
        await say(app, status=503, headers=PROBLEM, body='{"code": "busy", "detail": "full"}')

    assert refused.value.failure_code == "busy"


NOW = 1_800_000_000


def http_date(seconds: int) -> str:
    return email.utils.formatdate(NOW + seconds, usegmt=True)


@pytest.mark.parametrize(
    ("headers", "after_s"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "9" * 400}, 7 * 86_400),
        ({"retry-after": http_date(90), "date": http_date(0)}, 90.0),
        ({"retry-after": http_date(-90), "date": http_date(0)}, 0.0),
        ({"retry-after": "soon", "date": http_date(0)}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": http_date(90), "date": "today"}, None),
        ({"retry-after": "\u00b2"}, None),
    ],
)
async def test_retry_after_is_seconds_or_a_date(
    app: App, headers: dict[str, str], after_s: float | None
) -> None:
    with pytest.raises(RetryableError) as refused:
        await say(app, status=503, headers=headers)

    assert refused.value.after_s == after_s


async def test_an_application_that_is_not_there_may_come_back() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gone = App(free.getsockname()[1])

        with pytest.raises(RetryableError, match="the application did not answer"):
            await say(gone)


@pytest.mark.parametrize("answer", [{"cut": True}, {"cut": True, "status": 404}])
async def test_an_answer_that_breaks_off_may_be_tried_again(
    app: App, answer: dict[str, Any]
) -> None:
    with pytest.raises(RetryableError, match="did not answer"):
        await say(app, headers={"content-length": "100"}, **answer)


async def test_an_answer_that_is_encoded_is_no_reply(app: App) -> None:
    with pytest.raises(MalformedBodyError, match="Content-Encoding: gzip"):
        await say(app, headers={"content-encoding": "gzip"})


async def test_a_reply_is_bounded(app: App) -> None:
    with pytest.raises(MalformedBodyError, match="larger than 16777216 bytes"):
        await say(app, mib=17)


async def test_of_a_one_way_service_the_body_means_nothing(app: App) -> None:
    async with open_http(app.url("/say"), service("none")) as handler:
        assert handler.call is not None
        for answer in (b'{"body": "no JSON"}', b'{"headers": {"content-encoding": "gzip"}}'):
            assert await handler.call(answer, Context(request_id="r")) is None


# Streams -------------------------------------------------------------------------------------

SSE = {"content-type": "text/event-stream; charset=utf-8"}


async def test_each_line_is_a_part(app: App) -> None:
    pieces = ['{"a":', "1}\n\n{}", '\n{"b":2}']

    assert await stream(app, pieces=pieces, wait_s=0.02) == [b'{"a":1}', b"{}", b'{"b":2}']


async def test_each_event_is_a_part_and_progress_is_told(app: App) -> None:
    told: list[tuple[float | None, str]] = []
    context = Context(request_id="r", report=lambda *said: told.append(said))
    events = [
        'event: progress\ndata: {"fraction": 0.5, "message": "half"}\n\n',
        'data: {"a":\ndata: 1}\n\n',
        'event: progress\ndata: {"message": "more"}\n\n',
        'event: progress\ndata: {"fraction": 2}\n\n',
    ]

    parts = await stream(app, context, headers=SSE, pieces=events)

    assert parts == [b'{"a":\n1}', b'{"fraction": 2}']
    assert told == [(0.5, "half"), (None, "more")]


@pytest.mark.parametrize(
    ("answer", "expected", "said"),
    [
        ({"headers": SSE, "pieces": ["data: {}\n\n", "data: {"]}, RetryableError, "within an"),
        ({"pieces": ["{}\n"], "cut": True}, RetryableError, "did not answer"),
        ({"pieces": ["{}\n"], "mib": 17}, MalformedBodyError, "line 2 is longer than"),
        ({"headers": SSE, "pieces": ["data: "], "mib": 17}, MalformedBodyError, "longer than"),
        ({"status": 404}, PermanentError, "answered 404"),
        ({"headers": {"content-encoding": "br"}}, MalformedBodyError, "Content-Encoding: br"),
    ],
)
async def test_a_stream_that_is_none(
    app: App, answer: dict[str, Any], expected: type[BridgeError], said: str
) -> None:
    with pytest.raises(expected, match=said):
        await stream(app, **answer)


# Connections ---------------------------------------------------------------------------------


async def test_connections_are_used_again_and_no_more_than_there_are_handlers() -> None:
    with run_app() as own:
        one = service(settings="[worker]\nconcurrency = 4")
        async with open_http(own.url("/say"), one) as handler:
            call = handler.call
            assert call is not None

            async def ask(status: int) -> None:
                with suppress(HandlingError):
                    await call(json.dumps({"status": status}).encode(), Context(request_id="r"))

            async with asyncio.TaskGroup() as tasks:
                for number in range(200):
                    tasks.create_task(ask((200, 404, 503)[number % 3]))

        facts = own.facts()
    assert len(facts["seen"]) == 200
    assert facts["most"] <= 5  # and the one that asks for the facts
    assert facts["connections"] <= 20


@pytest.mark.parametrize("kind", ["one", "stream"])
async def test_who_is_cancelled_hangs_up_and_leaves_room(kind: str) -> None:
    with run_app() as own:
        one = service(kind, settings="[worker]\nconcurrency = 2")
        async with open_http(own.url("/say"), one) as handler:

            async def ask(body: bytes) -> object:
                context = Context(request_id="r")
                if handler.call is not None:
                    return await handler.call(body, context)
                assert handler.stream is not None
                return [part async for part in handler.stream(body, context)]

            for _ in range(5):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.3):
                        await ask(b'{"hang": true}')

            assert await ask(b'{"body": "{}"}') in (b"{}", [b"{}"])
            await asyncio.to_thread(
                until, lambda: own.facts()["left"] == 5, timeout_s=10, what="5 have hung up"
            )


async def test_who_reads_no_further_hangs_up() -> None:
    with run_app() as own:
        async with open_http(own.url("/say"), service("stream")) as handler:
            assert handler.stream is not None
            parts = handler.stream(b'{"pieces": ["{}\\n"], "hang": true}', Context(request_id="r"))
            async with aclosing(parts):
                assert await anext(parts) == b"{}"

            await asyncio.to_thread(
                until, lambda: own.facts()["left"] == 1, timeout_s=10, what="it has hung up"
            )
