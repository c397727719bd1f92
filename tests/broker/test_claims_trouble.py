"""Idempotency-Keys when a process or a topic is gone: never twice, never lost, and said plainly."""

import asyncio
import resource
import secrets
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from confluent_kafka.admin import AdminClient

from bridge import claims
from bridge.cli.topics import shapes_of
from bridge.kafka import apply_topics, open_producer
from bridge.registry import load_services
from tests.broker.test_idempotency import executions
from tests.broker.test_trouble import free_port, own_kafka
from tests.keyed import post_many
from tests.stack import Process, Stack, open_stack, post, until

pytestmark = pytest.mark.timeout(120)

DELIVERY_MS = 4000
HEAL_S = 2 * DELIVERY_MS / 1000
CLAIMS = 50_000


def delete_topic(kafka: str, name: str) -> None:
    admin = AdminClient({"bootstrap.servers": kafka})
    for future in admin.delete_topics([name]).values():
        future.result()


def test_a_request_that_a_killed_ingress_never_wrote_is_written_once(
    stack: Stack, tmp_path: Path
) -> None:
    """The requests' topic is gone, so the ingress is surely between claim and request when it dies."""
    stack.make_services("once")
    service, file = stack.name("once"), tmp_path / "executions"
    victim, url = start(stack, "2")
    body = {"text": "lost", "file": str(file), "sleep_s": 0.0}

    delete_topic(stack.kafka, f"{service}.requests")
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(post, url, service, body, idempotency_key="k")
        until(lambda: bool(own_claims(stack)), timeout_s=10, what="the claim is there")
        victim.kill()
        with pytest.raises(httpx.TransportError):
            asked.result()
    (claim,) = own_claims(stack)
    seen = {reply.request_id for reply in stack.read_replies("once")}
    stack.make_services()
    stack.start_worker("once")
    urls = [start(stack, lane)[1] for lane in ("0", "1")]
    time.sleep(HEAL_S)
    found = asyncio.run(post_many(urls, 20, service, body, idempotency_key="k", prefer="wait=20"))

    assert claim.request_id not in seen  # not even `accepted`: nothing says that it is in Kafka
    assert {answer.status for answer in found} == {200}
    assert {answer.request_id for answer in found} == {claim.request_id}
    assert executions(file) == {"lost": 1}


def test_a_one_way_request_that_is_acknowledged_late_is_noted_and_not_written_again(
    stack: Stack,
) -> None:
    """Its topic is gone when it is sent, and there again before its producer gives up."""
    stack.make_services("oneway")
    service = stack.name("oneway")
    _, url = stack.start_ingress(BRIDGE_KAFKA__TOPIC_METADATA_PROPAGATION_MAX_MS="60000")

    delete_topic(stack.kafka, f"{service}.requests")
    first = post(url, service, {"to": 1}, idempotency_key="k")
    stack.apply_topics()
    until(
        lambda: claims.Kind.WRITTEN in [claim.kind for claim in own_claims(stack, "oneway")],
        timeout_s=20,
        what="it is noted",
    )
    second = post(url, service, {"to": 1}, idempotency_key="k")

    assert (first.status_code, first.json()["outcome"]) == (503, "unknown")
    assert (second.status_code, second.headers.get("idempotency-replayed")) == (202, "true")
    assert second.headers["request-id"] == first.headers["request-id"]
    assert len(stack.read(f"{service}.requests")) == 1


def start(stack: Stack, lane: str) -> tuple[Process, str]:
    return stack.start_ingress(
        BRIDGE_LANES=lane, BRIDGE_KAFKA__DELIVERY_TIMEOUT_MS=str(DELIVERY_MS)
    )


def own_claims(stack: Stack, service: str = "once") -> list[claims.Entry]:
    entries = [claims.parse_entry(record) for record in stack.read(claims.TOPIC)]
    return [entry for entry in entries if entry and entry.service == stack.name(service)]


def test_without_the_topic_of_claims_only_requests_with_a_key_are_refused(tmp_path: Path) -> None:
    port = free_port()
    with (
        own_kafka(tmp_path / "kafka", port),
        open_stack(f"127.0.0.1:{port}", tmp_path, "") as stack,
    ):
        stack.copy_services("echo")
        shapes = shapes_of(load_services(stack.schemas))
        others = [shape for shape in shapes if shape.name != claims.TOPIC]
        asyncio.run(apply_topics({"bootstrap.servers": stack.kafka}, others))
        stack.start_worker("echo")
        ingress = stack.start("ingress", "--port", "0")
        until(lambda: bool(ingress.events("ready")), timeout_s=20, what="its lanes are ready")
        url = f"http://127.0.0.1:{ingress.events('listening')[0]['port']}"
        until(lambda: bool(ingress.events("claims-away")), timeout_s=20, what="it is said")

        without = post(url, "echo", {"text": "x"})
        keyed = post(url, "echo", {"text": "x"}, idempotency_key="k")
        ready = httpx.get(url + "/readyz")
        asyncio.run(apply_topics({"bootstrap.servers": stack.kafka}, shapes))
        until(lambda: httpx.get(url + "/readyz").is_success, timeout_s=20, what="it heals")
        later = post(url, "echo", {"text": "x"}, idempotency_key="k")

    assert without.status_code == 200
    assert (keyed.status_code, keyed.json()["code"]) == (503, "topic-missing")
    assert (keyed.json()["outcome"], claims.TOPIC in keyed.json()["detail"]) == (
        "not_accepted",
        True,
    )
    assert (ready.status_code, claims.TOPIC in ready.json()["reason"]) == (503, True)
    assert later.status_code == 200


def test_while_many_claims_are_read_only_requests_with_a_key_wait(tmp_path: Path) -> None:
    port = free_port()
    with (
        own_kafka(tmp_path / "kafka", port),
        open_stack(f"127.0.0.1:{port}", tmp_path, "") as stack,
    ):
        stack.make_services("echo")
        stack.start_worker("echo")
        asyncio.run(write_claims(stack.kafka, CLAIMS))
        begun_s = time.perf_counter()
        ingress = stack.start("ingress", "--port", "0")
        until(lambda: bool(ingress.events("listening")), timeout_s=20, what="it listens")
        url = f"http://127.0.0.1:{ingress.events('listening')[0]['port']}"
        with asking(url) as waits_s:
            until(lambda: bool(ingress.events("claims-read")), timeout_s=60, what="all are read")
        took_s = time.perf_counter() - begun_s
        until(lambda: httpx.get(url + "/readyz").is_success, timeout_s=20, what="it is ready")
        answer = post(url, "echo", {"text": "x"}, idempotency_key="k")

        known = ingress.events("claims-read")[0]["known"]
        text = httpx.get(url + "/metrics").text
    assert known == CLAIMS
    assert answer.status_code == 200
    assert f"bridge_ingress_claims_known {CLAIMS + 1}.0" in text
    # The loop was never taken for long: a batch of 1,000 is folded in milliseconds.
    assert max(waits_s) < took_s / 2
    print(
        f"\n{CLAIMS} claims were read {took_s:.1f} s after the start of the process; meanwhile "
        f"/healthz answered {len(waits_s)} times, at the latest after {1000 * max(waits_s):.0f} ms"
    )


def test_a_batch_of_claims_that_does_not_fit_on_the_disk_lets_no_second_claim_win(
    stack: Stack, tmp_path: Path
) -> None:
    """It was lost without a word, and whoever came with one of its keys was worked on again."""
    stack.make_services("once")
    stack.start_worker("once")
    service, file = stack.name("once"), tmp_path / "executions"
    body = {"text": "paid", "file": str(file), "sleep_s": 0.0}
    folder = tmp_path / "claims"
    folder.mkdir()
    small, url = stack.start_ingress(BRIDGE_LANES="0", BRIDGE_CLAIMS_DIR=str(folder))
    _, other_url = stack.start_ingress(BRIDGE_LANES="1")

    _, hard = resource.prlimit(small.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(small.pid, resource.RLIMIT_FSIZE, (300_000, hard))
    # What SQLite has in its cache is written when a transaction ends: some claims are enough.
    asyncio.run(write_claims(stack.kafka, 3000))
    until(lambda: bool(small.events("claims-broke")), timeout_s=20, what="the disk is full")
    first = post(other_url, service, body, idempotency_key="k")
    meanwhile = post(url, service, body, idempotency_key="k")
    ready = httpx.get(url + "/readyz")
    resource.prlimit(small.pid, resource.RLIMIT_FSIZE, (hard, hard))
    until(lambda: httpx.get(url + "/readyz").is_success, timeout_s=20, what="it heals")
    second = post(url, service, body, idempotency_key="k")

    assert first.status_code == 200
    assert (meanwhile.status_code, meanwhile.json()["code"]) == (503, "claims-away")
    assert ready.status_code == 503
    assert (second.status_code, second.headers.get("idempotency-replayed")) == (200, "true")
    assert second.headers["request-id"] == first.headers["request-id"]
    assert executions(file) == {"paid": 1}


@contextmanager
def asking(url: str) -> Iterator[list[float]]:
    """Ask whether a process lives, again and again; gives how long each answer took, in seconds."""
    waits_s: list[float] = []
    is_over = threading.Event()

    def ask() -> None:
        with httpx.Client() as http:
            while not is_over.wait(0.005):
                begun_s = time.perf_counter()
                assert http.get(url + "/healthz").is_success
                waits_s.append(time.perf_counter() - begun_s)

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask)
        try:
            yield waits_s
        finally:
            is_over.set()
        asked.result()


async def write_claims(kafka: str, count: int) -> None:
    async with open_producer({"bootstrap.servers": kafka}) as producer:
        send = producer.route(1000)
        for _ in range(count // 1000):
            await asyncio.wait([send(claims.format_entry(some_claim())) for _ in range(1000)])


def some_claim() -> claims.Entry:
    return claims.Entry(
        kind=claims.Kind.CLAIM,
        key=secrets.token_hex(32),
        request_id=secrets.token_hex(16),
        lane=0,
        fingerprint=secrets.token_hex(32),
        service="echo",
        rules_ms=86_400_000,
    )
