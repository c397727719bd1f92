"""Who asks: nobody without a key, and nobody sees another principal's request (scenario 47).

The matrix is made from the route table: a route without a row here fails.
"""

import asyncio
import json
import secrets
from pathlib import Path
from typing import Literal

import httpx
import pytest
from msgspec.structs import replace
from starlette.routing import Route

from bridge import claims, ids
from bridge.cli.processes import now_ms
from bridge.cli.topics import shapes_of
from bridge.envelope import Event, Request, make_reply
from bridge.ingress import Limits, make_app
from bridge.ingress.lanes import Lanes
from bridge.kafka import apply_topics, open_producer
from bridge.registry import load_services
from tests.broker.guarded import KEYS, Bridge, bearer
from tests.stack import Stack, until

pytestmark = pytest.mark.timeout(120)

ROWS: dict[tuple[str, str], Literal["open", "shared", "take", "request"]] = {
    ("POST", "/v1/services/{service}/requests"): "take",
    ("POST", "/v1/services/{service}/requests/batch"): "take",
    ("GET", "/v1/services/{service}/requests/{request_id}"): "request",
    ("DELETE", "/v1/services/{service}/requests/{request_id}"): "request",
    ("GET", "/v1/services/{service}/requests/{request_id}/events"): "request",
    ("GET", "/v1/services"): "shared",
    ("GET", "/v1/services/{service}"): "shared",
    ("GET", "/schemas/ids/{schema_id}"): "open",
    ("GET", "/healthz"): "open",
    ("GET", "/readyz"): "open",
    ("GET", "/metrics"): "open",
    ("GET", "/openapi.json"): "open",
    ("GET", "/docs"): "open",
}
"""Every route: open to all, the same for every principal, takes a request, or of one request."""

OF_A_REQUEST = [row for row, kind in ROWS.items() if kind == "request"]


def test_every_route_has_its_row() -> None:
    app = make_app({}, {}, Lanes({}, {}, (0,), "x", lambda: 0), Limits(), chance=lambda: 0)

    assert set(ROWS) == {
        (method, route.path)
        for route in app.routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }


@pytest.mark.parametrize(("method", "path"), ROWS)
def test_a_route_is_closed_without_a_key_unless_its_row_says_it_is_open(
    guarded: Bridge, method: str, path: str
) -> None:
    wrong = {"authorization": "Bearer kb_ann00_" + "A" * 43}
    answers = [
        httpx.request(method, guarded.url(path), headers=headers, content=b"{")
        for headers in ({}, wrong, {"authorization": "Basic YTpi"})
    ]

    if ROWS[method, path] == "open":
        assert all(answer.status_code in {200, 404} for answer in answers)
    else:
        for answer in answers:
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
            assert answer.headers["www-authenticate"] == "Bearer"
            assert ("request-id" in answer.headers) == (method == "POST")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/nothing",
        "/healthz/",
        "//healthz",
        "/HEALTHZ",
        "/healthz/../v1/services",
        "/healthz%2f..%2fv1%2fservices",
        "/schemas/ids/../../v1/services",
        "/schemas/ids/..%2f..%2fv1%2fservices",
        "/v1/services?x=/healthz",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PATCH"])
def test_no_form_of_a_path_gets_by(guarded: Bridge, method: str, path: str) -> None:
    # httpx would resolve the dots itself: they go out as they stand
    url = httpx.URL(guarded.urls[0]).copy_with(raw_path=path.encode())

    assert httpx.request(method, url).status_code == 401


def test_two_authorizations_are_none(guarded: Bridge) -> None:
    twice = [("authorization", bearer(name)["authorization"]) for name in ("ann", "ben")]

    assert httpx.get(guarded.url("/v1/services"), headers=twice).status_code == 401


def test_both_keys_of_a_principal_see_its_requests(guarded: Bridge) -> None:
    answer = guarded.post("ann", {"text": "x"}, {"prefer": "respond-async"})
    location = guarded.urls[1] + answer.headers["location"]

    found = [
        httpx.get(location, headers={**bearer(name), "prefer": "wait=20"}, timeout=30)
        for name in ("ann", "ann-new")
    ]

    assert [each.status_code for each in found] == [200, 200]


STATES = {
    "answered while it waited": ({"text": "ann's"}, {}, 200),
    "answered later": ({"text": "ann's", "sleep_s": 0.2}, {"prefer": "wait=0.1"}, 202),
    "running": ({"text": "ann's", "sleep_s": 5, "do": "progress"}, {"prefer": "wait=0.3"}, 202),
    "accepted": ({"text": "ann's", "sleep_s": 5}, {"prefer": "respond-async"}, 202),
    "failed": ({"text": "ann's", "do": "teapot"}, {}, 418),
    "expired": ({"text": "ann's", "sleep_s": 5}, {"bridge-deadline": "0.4"}, 504),
    "claimed": ({"text": "ann's"}, {"idempotency-key": "ann's"}, 200),
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("route", OF_A_REQUEST)
def test_anothers_request_is_as_one_that_never_was(
    guarded: Bridge, route: tuple[str, str], state: str
) -> None:
    body, headers, status = STATES[state]
    answer = guarded.post("ann", body, headers)
    assert answer.status_code == status
    own = answer.headers["request-id"]
    where = ids.parse(own)
    assert where is not None
    unknown = ids.make(time_ms=where.time_ms, lane=where.lane, chance=secrets.randbits(62))

    for replica in (0, 1):
        for extra in ({}, {"prefer": "wait=0.2"}):
            foreign, invented = (
                told(guarded, route, request_id, "ben", replica=replica, headers=extra)
                for request_id in (own, unknown)
            )
            assert foreign == invented
            assert foreign[0] == 404
    assert told(guarded, route, own, "ann", replica=1)[0] not in {401, 404, 410}


@pytest.mark.parametrize("route", OF_A_REQUEST)
async def test_anothers_request_that_was_lost_and_healed_is_as_one_that_never_was(
    guarded: Bridge, route: tuple[str, str]
) -> None:
    """Its age was counted from when it was written again, and told in `Retry-After`."""
    made_ms = now_ms() - 3_600_000
    own, unknown = (
        ids.make(time_ms=made_ms, lane=1, chance=secrets.randbits(62)) for _ in range(2)
    )
    claim = claims.Entry(
        kind=claims.Kind.CLAIM,
        key=secrets.token_hex(32),
        request_id=own,
        lane=1,
        fingerprint="f" * 64,
        service=guarded.service,
        rules_ms=86_400_000,
    )
    heal = replace(claim, kind=claims.Kind.HEAL, rules_ms=60_000, heal_id="somebody")
    request = Request(
        request_id=own,
        reply_to=f"{guarded.service}.replies",
        reply_partition=1,
        deadline_ms=now_ms() + 60_000,
        principal="ann",
    )
    async with open_producer({"bootstrap.servers": guarded.stack.kafka}) as producer:
        send = producer.route(0)
        for entry in (claim, heal):
            await send(claims.format_entry(entry))
        await send(make_reply(request, Event.ACCEPTED))
    look = OF_A_REQUEST[0]
    await asyncio.to_thread(
        until,
        lambda: all(told(guarded, look, own, "ann", replica=n)[0] == 202 for n in (0, 1)),
        timeout_s=10,
        what="it is known to be healed",
    )

    for replica in (0, 1):
        foreign, invented = [
            await asyncio.to_thread(told, guarded, route, request_id, "ben", replica=replica)
            for request_id in (own, unknown)
        ]
        assert foreign == invented
        assert foreign[0] == 404


def test_the_lines_of_a_batch_are_its_senders(guarded: Bridge) -> None:
    answer = httpx.post(
        guarded.url("/v1/services/{service}/requests/batch"),
        content=b'{"text": "one"}\n{"text": "two"}\n',
        headers={**bearer("ann"), "content-type": "application/x-ndjson"},
        timeout=30,
    )
    names = [json.loads(line).get("request_id") for line in answer.text.splitlines()]
    route = ("GET", "/v1/services/{service}/requests/{request_id}")

    for name in names[:2]:
        assert told(guarded, route, name, "ann")[0] == 200
        assert told(guarded, route, name, "ben")[0] == 404


@pytest.mark.parametrize("request_id", ["x", "%ff%00", "0" * 128, "../requests", "%2e%2e"])
@pytest.mark.parametrize("route", OF_A_REQUEST)
def test_a_malformed_id_is_the_same_for_all(
    guarded: Bridge, route: tuple[str, str], request_id: str
) -> None:
    ann, ben = (told(guarded, route, request_id, who) for who in ("ann", "ben"))

    assert ann == ben
    assert ann[0] in {404, 405}


@pytest.mark.parametrize("route", [r for r, kind in ROWS.items() if kind == "shared"])
def test_what_is_shared_is_the_same_for_all(guarded: Bridge, route: tuple[str, str]) -> None:
    ann, ben = (
        httpx.request(route[0], guarded.url(route[1]), headers=bearer(who))
        for who in ("ann", "ben")
    )

    assert (ann.status_code, ben.status_code) == (200, 200)
    assert settled(ann.json()) == settled(ben.json())


def test_every_event_says_whose_it_is(guarded: Bridge) -> None:
    made = guarded.post("ann", {"text": "x", "do": "progress"}, {"prefer": "wait=0"}).headers
    httpx.get(
        guarded.urls[0] + made["location"],
        headers={**bearer("ann"), "prefer": "wait=20"},
        timeout=30,
    )

    events = [
        reply
        for reply in guarded.stack.read_replies("echo")
        if reply.request_id == made["request-id"]
    ]

    assert [reply.principal for reply in events] == ["ann"] * 3


def settled(told: object) -> object:
    """Leave out what changes from moment to moment: live workers, lag and rate."""
    if isinstance(told, dict):
        live = {"workers", "lag", "rate"}
        return {name: settled(value) for name, value in told.items() if name not in live}
    return [settled(each) for each in told] if isinstance(told, list) else told


def told(
    guarded: Bridge,
    route: tuple[str, str],
    request_id: str,
    who: str,
    *,
    replica: int = 0,
    headers: dict[str, str] | None = None,
) -> tuple[int, list[tuple[str, str]], bytes]:
    """Everything that an answer tells, but for the date and the ID that was asked for."""
    answer = httpx.request(
        route[0],
        guarded.url(route[1], request_id, replica=replica),
        headers={**bearer(who), **(headers or {})},
        timeout=30,
    )
    fields = [
        (name, value.replace(request_id, "ID"))
        for name, value in answer.headers.items()
        if name != "date"
    ]
    return answer.status_code, fields, answer.content.replace(request_id.encode(), b"ID")


def test_documents_say_that_a_key_is_needed(guarded: Bridge) -> None:
    openapi = httpx.get(guarded.url("/openapi.json")).json()
    page = httpx.get(guarded.url("/docs")).text

    assert openapi["security"] == [{"apiKey": []}]
    assert openapi["components"]["securitySchemes"]["apiKey"]["scheme"] == "bearer"
    operations = [each for path in openapi["paths"].values() for each in path.values()]
    assert all("401" in operation["responses"] for operation in operations)
    assert "id=key" in page


@pytest.mark.parametrize("text", ["", "# none yet", "ann00 hush ann"])
def test_an_ingress_does_not_start_with_keys_that_it_cannot_read(
    guarded: Bridge, tmp_path: Path, text: str
) -> None:
    file = tmp_path / "keys"
    file.write_text(text, encoding="utf-8")

    process = guarded.stack.start("ingress", "--port", "0", BRIDGE_API_KEYS_FILE=str(file))

    assert process.child.wait(timeout=30) == 1
    told = process.log.read_text(encoding="utf-8")
    assert "BRIDGE_API_KEYS" in told
    assert "hush" not in told
    assert len(told.splitlines()) == 1


def test_no_key_is_in_any_log(guarded: Bridge) -> None:
    """After everything that this file has done with them, refusals and bugs included."""
    folder = guarded.stack.schemas.parent
    logs = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.log"))

    assert "listening" in logs
    assert all(made.key.rpartition("_")[2] not in logs for made in KEYS.values())


def test_past_the_retention_anothers_request_is_gone_like_one_that_never_was(
    stack: Stack, tmp_path: Path
) -> None:
    """Kafka deletes whole segments, so the log of a request outlives its retention for a while."""
    file = tmp_path / "keys"
    file.write_text(f"{KEYS['ann'].line}\n{KEYS['ben'].line}", encoding="utf-8")
    stack.copy_services("headed")
    contract = stack.schemas / stack.name("headed") / "service.toml"
    text = contract.read_text(encoding="utf-8")
    contract.write_text(text.replace("lanes = 2", "lanes = 2\nresult_retention_s = 1"))
    services = load_services(stack.schemas)
    asyncio.run(apply_topics({"bootstrap.servers": stack.kafka}, shapes_of(services)))
    _, url = stack.start_ingress(BRIDGE_API_KEYS_FILE=str(file))
    bridge = Bridge(stack, (url, url), stack.name("headed"))
    own = bridge.post("ann", {}, {"prefer": "respond-async"}).headers["request-id"]
    where = ids.parse(own)
    assert where is not None
    unknown = ids.make(time_ms=where.time_ms, lane=where.lane, chance=secrets.randbits(62))
    route = ("GET", "/v1/services/{service}/requests/{request_id}")

    until(lambda: told(bridge, route, unknown, "ben")[0] == 410, timeout_s=20, what="it is old")

    assert told(bridge, route, own, "ann")[0] == 202
    # The text has the age in seconds, which may change in between.
    until(
        lambda: told(bridge, route, own, "ben") == told(bridge, route, unknown, "ben"),
        timeout_s=5,
        what="they are told alike",
    )
    assert told(bridge, route, own, "ben")[0] == 410
