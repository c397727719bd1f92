"""Headers through the bridge and back, and what is tried with them (scenario 40)."""

import asyncio
import json
import secrets
import socket
from collections.abc import Iterator
from typing import NamedTuple

import httpx
import pytest

from bridge import ids
from bridge.envelope import Event, Record, Request, make_reply
from bridge.kafka import open_producer, open_reader
from tests.stack import Process, Stack, open_stack, post

pytestmark = pytest.mark.timeout(120)

OWN = {
    "bridge-request-id",
    "bridge-reply-to",
    "bridge-reply-partition",
    "bridge-deadline-ms",
    "traceparent",
    "tracestate",
}
LET_THROUGH = {"x-tenant", "accept-language"}
WRITTEN = {
    "bridge-state",
    "content-length",
    "content-type",
    "date",
    "location",
    "request-id",
    "retry-after",
}
HOSTILE = {
    "authorization": "Bearer secret",
    "bridge-attempt": "9",
    "bridge-principal": "root",
    "bridge-replay-id": "r",
    "bridge-reply-to": "elsewhere",
    "cookie": "session=secret",
    "kafka_correlationid": "x",
    "kafka_replytopic": "elsewhere",
    "x-bridge-principal": "root",
    "x-other": "secret",
}


class Bridge(NamedTuple):
    """A bridge for one service, which lets headers through."""

    stack: Stack
    url: str
    service: str
    worker: Process


@pytest.fixture(scope="module")
def bridge(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    folder = tmp_path_factory.mktemp("forward")
    with open_stack(kafka, folder, f"-{secrets.token_hex(4)}") as made:
        made.make_services("headed")
        worker = made.start_worker("headed")
        yield Bridge(made, made.start_ingress(BRIDGE_LANES="0")[1], made.name("headed"), worker)


def test_named_headers_reach_the_handler_and_come_back(bridge: Bridge) -> None:
    _, url, service, _ = bridge
    body = {"say": {"X-Cost": "7", "x-other": "no"}}

    answer = post(url, service, body, X_Tenant="t-1", accept_language="de", x_other="no")
    found = httpx.get(f"{url}/v1/services/{service}/requests/{answer.headers['request-id']}")

    assert answer.json() == {"heard": {"x-tenant": "t-1", "accept-language": "de"}}
    for each in (answer, found):
        assert (each.headers["x-cost"], "x-other" in each.headers) == ("7", False)


def test_a_batch_passes_them_to_each_line(bridge: Bridge) -> None:
    _, url, service, _ = bridge
    headers = {"content-type": "application/x-ndjson", "x-tenant": "t-2"}

    answer = httpx.post(
        f"{url}/v1/services/{service}/requests/batch", content=b"{}\n{}\n", headers=headers
    )

    first, second, _ = (json.loads(line) for line in answer.text.splitlines())
    assert first["reply"] == second["reply"] == {"heard": {"x-tenant": "t-2"}}


def test_a_refusal_has_its_headers_too(bridge: Bridge) -> None:
    _, url, service, _ = bridge

    answer = post(url, service, {"say": {"x-cost": "7"}, "refuse": True})

    assert (answer.status_code, answer.headers["x-cost"]) == (422, "7")


def test_a_header_that_is_repeated_is_a_list(bridge: Bridge) -> None:
    _, url, service, _ = bridge
    headers = [("content-type", "application/json"), ("x-tenant", "a"), ("X-TENANT", "b")]

    answer = httpx.post(f"{url}/v1/services/{service}/requests", content=b"{}", headers=headers)

    assert answer.json() == {"heard": {"x-tenant": "a, b"}}


@pytest.mark.parametrize(
    "line",
    [
        b"X-Tenant: a\rInjected: b",
        b"X-Tenant: a\nInjected: b",
        b"X-Tenant: a\r\n Injected: b",
        b"X-Tenant: a\0b",
        "X-Tenant: \u00fc\u0416".encode(),
        b"X-Tenant: \xff",
        b"X-Tenant: \x7f",
        b"X-Tenant: " + b"x" * 4097,
        b"X-Tenant\r\n: a",
        "X-Ten\u0430nt: a".encode(),
        b"X-Tenant : a",
    ],
)
def test_what_could_end_a_line_is_refused(bridge: Bridge, line: bytes) -> None:
    _, url, service, _ = bridge

    assert raw_post(url, service, line) == 400


def test_nothing_but_what_is_named_is_on_any_record(bridge: Bridge) -> None:
    """After all of the above, and what a client may try: names are the allow-list and our own."""
    made, url, service, _ = bridge
    answer = httpx.post(
        f"{url}/v1/services/{service}/requests",
        content=b"{}",
        headers={"content-type": "application/json", "x-tenant": "t", **HOSTILE},
    )
    assert answer.status_code == 200

    records = asyncio.run(read_all(made.kafka, f"{service}.requests", 1))

    names = {name for record in records for name, _ in record.headers}
    values = b" ".join(value for record in records for _, value in record.headers)
    print(f"{len(records)} requests, headers: {sorted(names)}")
    assert names <= OWN | LET_THROUGH
    assert b"secret" not in values
    assert b"elsewhere" not in values


SAID = {
    "x-cost": "1\r\nset-cookie: a=b",
    "x-note": "nul\0",
    "set-cookie": "a=b",
    "location": "elsewhere",
    "bridge-event": "failed",
    "content-type": "text/html",
    "x-other\r\nset-cookie": "a=b",
    "": "x",
}


def test_what_a_handler_may_not_say_is_dropped_and_logged(bridge: Bridge) -> None:
    made, url, service, worker = bridge

    answer = post(url, service, {"say": SAID})

    records = asyncio.run(read_all(made.kafka, f"{service}.replies", 2))
    names = {name for record in records for name, _ in record.headers}
    assert (answer.status_code, set(answer.headers) - WRITTEN) == (200, set())
    assert names <= {
        *("bridge-request-id", "bridge-event", "bridge-attempt", "bridge-deadline-ms"),
        *("x-cost", "x-note"),
    }
    dropped = [
        str(event["why"])
        for event in worker.events("reply-header-dropped")
        if event["request_id"] == answer.headers["request-id"]
    ]
    assert len(dropped) == len(SAID)
    assert all(any(repr(name)[1:-1] in why for why in dropped) for name in SAID)


def test_a_foreign_workers_headers_are_checked_again(bridge: Bridge) -> None:
    made, url, service, _ = bridge
    known = ids.parse(post(url, service, {}).headers["request-id"])
    assert known is not None
    name = ids.make(time_ms=known.time_ms, lane=0, chance=secrets.randbits(62))
    request = Request(request_id=name, reply_to=f"{service}.replies", reply_partition=0)
    extra = [
        ("x-cost", b"1\r\nset-cookie: a=b"),
        ("x-note", b"fine"),
        ("set-cookie", b"a=b"),
        ("X-Cost", b"2"),
    ]

    asyncio.run(write(made.kafka, make_reply(request, Event.EXPIRED, extra=extra)))
    answer = httpx.get(f"{url}/v1/services/{service}/requests/{name}")

    assert answer.status_code == 504
    assert set(answer.headers) - WRITTEN == {"x-note"}


def raw_post(url: str, service: str, line: bytes) -> int:
    """Send a POST with a header line as it stands; returns the status."""
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=20) as sock:
        sock.sendall(
            f"POST /v1/services/{service}/requests HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            "Content-Type: application/json\r\nContent-Length: 2\r\n".encode()
            + line
            + b"\r\n\r\n{}"
        )
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    return int(answer.split()[1])


async def read_all(kafka: str, topic: str, partitions: int) -> list[Record]:
    found: list[Record] = []

    def note(record: Record) -> bool:
        found.append(record)
        return False

    async with open_reader({"bootstrap.servers": kafka}) as reader:
        lanes = [(topic, number) for number in range(partitions)]
        await reader.read(lanes, since_ms=0, is_enough=note)
    return [record for record in found if not (record.key or b"").startswith(b"probe-")]


async def write(kafka: str, record: Record) -> None:
    async with open_producer({"bootstrap.servers": kafka}) as producer:
        await producer.route(0)(record)
