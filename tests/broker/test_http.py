"""The HTTP side, asked from outside, on a real Kafka."""

import json
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests import bad_input
from tests.broker.conftest import ASKED, Asked
from tests.stack import post

pytestmark = pytest.mark.timeout(120)


def test_a_request_is_answered(asked: Asked) -> None:
    answer = post(asked.url, asked.name("echo"), {"text": "hello"})

    assert answer.status_code == 200
    assert answer.headers["bridge-state"] == "completed"
    body = answer.json()
    assert (body["text"], body["request_id"]) == ("hello", answer.headers["request-id"])


def test_respond_async_says_where_the_reply_will_be(asked: Asked) -> None:
    answer = post(asked.url, asked.name("echo"), {"text": "x"}, prefer="respond-async")

    assert answer.status_code == 202
    assert answer.headers["preference-applied"] == "respond-async"
    assert answer.headers["retry-after"] == "1"
    assert answer.json() == {"request_id": answer.headers["request-id"], "state": "accepted"}
    for url in (asked.url, asked.other_url):
        found = httpx.get(url + answer.headers["location"], headers={"prefer": "wait=10"})
        assert found.status_code == 200
        assert found.json()["text"] == "x"


def test_when_the_wait_is_over_the_work_goes_on(asked: Asked) -> None:
    answer = post(asked.url, asked.name("echo"), {"text": "x", "sleep_s": 1.5}, prefer="wait=0.3")
    at_once = httpx.get(asked.url + answer.headers["location"])
    found = httpx.get(asked.url + answer.headers["location"], headers={"prefer": "wait=10"})

    assert (answer.status_code, at_once.status_code, found.status_code) == (202, 202, 200)
    assert at_once.headers["bridge-state"] == "accepted"


def test_repeated_headers_of_a_look_up_are_one_list(asked: Asked) -> None:
    answer = post(asked.url, asked.name("echo"), {"text": "x"})
    name = answer.headers["request-id"]
    url = f"{asked.url}/v1/services/{asked.name('echo')}/requests/{name}"
    accepts = [("accept", "text/html"), ("accept", "application/json")]

    found = httpx.get(url, headers=[*accepts, ("prefer", "later"), ("prefer", "wait=1")])
    cancelled = httpx.delete(url, headers=accepts)
    ids = [("last-event-id", "0"), ("last-event-id", "1")]
    told = httpx.get(f"{url}/events", headers=ids)

    assert (found.status_code, found.headers["preference-applied"]) == (200, "wait=1")
    assert cancelled.json()["code"] == "already-ended"
    assert (told.status_code, told.json()["code"]) == (400, "malformed-header")


def test_another_replica_follows_a_lane_for_as_long_as_someone_waits(asked: Asked) -> None:
    answer = post(
        asked.url, asked.name("echo"), {"text": "x", "sleep_s": 1}, prefer="respond-async"
    )

    def look(_: int) -> int:
        headers = {"prefer": "wait=10"}
        return httpx.get(
            asked.other_url + answer.headers["location"], headers=headers, timeout=20
        ).status_code

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(look, range(4))) == [200] * 4


def test_progress_shows_as_running(asked: Asked) -> None:
    answer = post(
        asked.url,
        asked.name("echo"),
        {"text": "x", "sleep_s": 1, "do": "progress"},
        prefer="wait=0.5",
    )
    found = httpx.get(asked.url + answer.headers["location"])

    assert found.status_code == 202
    assert found.headers["bridge-state"] == "running"


def test_a_plain_function_runs_in_a_thread(asked: Asked) -> None:
    assert post(asked.url, asked.name("threaded"), {"text": "x"}).json()["text"] == "x"


def test_a_thread_that_takes_too_long_ends_the_request_not_the_worker(asked: Asked) -> None:
    answer = post(asked.url, asked.name("threaded"), {"text": "x", "sleep_s": 1.6})

    assert (answer.status_code, answer.json()["code"]) == (502, "handler-timeout")
    assert post(asked.url, asked.name("threaded"), {"text": "y"}).status_code == 200


def test_a_stream_is_collected_for_a_client_that_takes_json(asked: Asked) -> None:
    answer = post(asked.url, asked.name("count"), {"to": 3})

    assert answer.json() == {"parts": [{"number": n} for n in (1, 2, 3)], "reply": None}


def test_a_one_way_request_is_taken_and_no_more(asked: Asked) -> None:
    answer = post(asked.url, asked.name("oneway"), {"to": 3})

    assert answer.status_code == 202


@pytest.mark.parametrize(
    ("do", "status", "code", "retryable"),
    [
        ("refuse", 422, "refused", False),
        ("teapot", 418, "teapot", False),
        ("retry", 502, "handler-failed", True),
        ("break", 502, "handler-failed", False),
        ("misfit", 502, "reply-invalid", False),
        ("big", 502, "reply-too-large", False),
    ],
)
def test_what_a_handler_says_becomes_a_problem(
    asked: Asked, do: str, status: int, code: str, retryable: bool
) -> None:
    answer = post(asked.url, asked.name("echo"), {"text": "x", "do": do})
    found = httpx.get(
        f"{asked.other_url}/v1/services/{asked.name('echo')}/requests/{answer.headers['request-id']}"
    )

    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == found.json()
    problem = answer.json()
    assert (answer.status_code, problem["status"]) == (status, status)
    assert (problem["code"], problem["retryable"], problem["outcome"]) == (
        code,
        retryable,
        "failed",
    )
    assert problem["request_id"] == answer.headers["request-id"]
    assert answer.headers["bridge-state"] == "failed"
    assert "secret" not in answer.text


def test_a_request_past_its_deadline_expires(asked: Asked) -> None:
    answer = post(asked.url, asked.name("echo"), {"text": "x", "sleep_s": 5}, bridge_deadline="0.5")

    assert (answer.status_code, answer.json()["code"]) == (504, "expired")


@pytest.mark.parametrize("row", bad_input.ROWS, ids=lambda row: row.name)
def test_a_bad_body_is_refused_with_status_and_pointer(asked: Asked, row: bad_input.Row) -> None:
    answer = post(asked.url, asked.name("everything"), row.body)

    assert answer.status_code == row.status
    problem = answer.json()
    assert problem["outcome"] == "not_accepted"
    pointers = [error["pointer"] for error in problem.get("errors", [])]
    assert row.pointer is None or row.pointer in pointers


def test_the_good_body_of_that_table_is_taken(asked: Asked) -> None:
    assert post(asked.url, asked.name("everything"), bad_input.GOOD).status_code == 202


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"content-type": "text/plain"}, 415, "unsupported-media-type"),
        ({"content-type": "application/x-www-form-urlencoded"}, 415, "unsupported-media-type"),
        ({"content-type": "application/json; charset=utf-16"}, 415, "unsupported-media-type"),
        ({"content-type": "application/json; charset=UTF-8"}, 200, None),
        ({"content-encoding": "gzip"}, 415, "unsupported-media-type"),
        ({"content-encoding": "identity"}, 200, None),
        ({"accept": "text/html"}, 406, "not-acceptable"),
        ({"accept": "text/html, application/*;q=0.5"}, 200, None),
        ({"accept": "application/json;q=0"}, 406, "not-acceptable"),
        ({"bridge-deadline": "soon"}, 400, "malformed-header"),
        ({"bridge-deadline": "-1"}, 400, "malformed-header"),
        ({"bridge-deadline": "0"}, 400, "malformed-header"),
        ({"prefer": "wait=abc, handling=lenient"}, 200, None),
        ({"x-large": "x" * 40_000}, 431, "headers-too-large"),
    ],
)
def test_headers_are_read_strictly_where_they_matter(
    asked: Asked, headers: dict[str, str], status: int, code: str | None
) -> None:
    answer = httpx.post(
        f"{asked.url}/v1/services/{asked.name('echo')}/requests",
        content=b'{"text": "x"}',
        headers={"content-type": "application/json", **headers},
    )

    assert answer.status_code == status
    assert answer.json().get("code") == code


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing/here", 404, "not-found"),
        ("POST", "/v1/services/ECHO/requests/", 404, "not-found"),
        ("GET", "/v1/services/", 404, "not-found"),
        ("GET", "/v1/services/none", 404, "unknown-service"),
        ("POST", "/v1/services/none/requests", 404, "unknown-service"),
        ("PUT", "/v1/services/none/requests", 405, "method-not-allowed"),
        ("GET", "/v1/services/none/requests/x", 404, "unknown-service"),
        ("GET", "/" + "x" * 9000, 414, "uri-too-long"),
        ("GET", "/v1/services/ECHO/requests/x", 404, "unknown-request"),
        (
            "GET",
            "/v1/services/ECHO/requests/01a0c450-6c7b-7fff-bfff-ffffffffffff",
            404,
            "unknown-request",
        ),
        ("GET", "/v1/services/ECHO/requests/x?partition=a&since_ms=1", 400, "malformed-header"),
        ("GET", "/v1/services/ECHO/requests/x?partition=²&since_ms=1", 400, "malformed-header"),
        (
            "GET",
            f"/v1/services/ECHO/requests/x?partition=1&since_ms={1 << 63}",
            400,
            "malformed-header",
        ),
        ("GET", "/v1/services/ECHO/requests/x?partition=1&since_ms=1", 410, "gone"),
        ("GET", "/v1/services/ECHO/requests/%ff%00", 404, "unknown-request"),
    ],
)
def test_what_is_not_there_is_said_so(
    asked: Asked, method: str, path: str, status: int, code: str
) -> None:
    answer = httpx.request(method, asked.url + path.replace("ECHO", asked.name("echo")), timeout=20)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("schema_id", ["x", "²", "0", "9" * 30])
def test_no_other_schema_id_has_a_schema(asked: Asked, schema_id: str) -> None:
    answer = httpx.get(f"{asked.url}/schemas/ids/{schema_id}")

    assert (answer.status_code, answer.json()["error_code"]) == (404, 40403)


def test_a_body_beyond_the_limit_is_refused_while_it_comes(asked: Asked) -> None:
    def chunks() -> object:
        for _ in range(2000):
            yield b" " * 1000

    for content in (b" " * 2_000_000, chunks()):
        answer = httpx.post(
            f"{asked.url}/v1/services/{asked.name('echo')}/requests",
            content=content,  # type: ignore[arg-type]  # a generator, for a body without a length
            headers={"content-type": "application/json"},
        )
        assert (answer.status_code, answer.json()["code"]) == (413, "body-too-large")


def test_health_readiness_and_metrics(asked: Asked) -> None:
    post(asked.url, asked.name("echo"), {"text": "x"})

    assert httpx.get(asked.url + "/healthz").json() == {"status": "alive"}
    assert httpx.get(asked.url + "/readyz").json() == {"status": "ready"}
    text = httpx.get(asked.url + "/metrics").text
    assert f'bridge_ingress_answers_total{{service="{asked.name("echo")}",status="200"}}' in text


def test_documents_describe_every_service(asked: Asked) -> None:
    openapi = httpx.get(asked.url + "/openapi.json").json()
    page = httpx.get(asked.url + "/docs").text
    directory = httpx.get(asked.url + "/v1/services").json()["services"]

    names = {asked.name(name) for name in ASKED}
    assert openapi["openapi"] == "3.1.0"
    operation = openapi["paths"][f"/v1/services/{asked.name('echo')}/requests"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert schema["properties"]["text"] == {"type": "string"}
    assert {service["name"] for service in directory} == names
    echo = next(each for each in directory if each["name"] == asked.name("echo"))
    assert echo["worker"]["group"] == f"bridge.{asked.name('echo')}"
    assert echo["worker"]["attempts"] >= 1
    assert echo["topics"]["lanes"] >= 1
    assert (echo["effects"], echo["http"]["idempotency"]) == ("idempotent", "optional")
    assert all(name in page for name in names)


def test_schemas_are_served_in_the_form_of_the_registry(asked: Asked) -> None:
    one = httpx.get(f"{asked.url}/v1/services/{asked.name('echo')}").json()

    found = httpx.get(f"{asked.url}/schemas/ids/{one['request_schema_id']}")

    assert json.loads(found.json()["schema"]) == one["request_schema"]
    assert httpx.get(f"{asked.url}/schemas/ids/1").status_code == 404


def test_a_request_is_found_by_its_id_in_either_case(asked: Asked) -> None:
    path = post(asked.url, asked.name("echo"), {"text": "x"}, prefer="respond-async").headers[
        "location"
    ]
    request_id = path.rpartition("/")[2]

    found = httpx.get(
        asked.other_url + path.replace(request_id, request_id.upper()), headers={"prefer": "wait=9"}
    )

    assert found.status_code == 200
    assert found.headers["request-id"] == request_id
