"""What a key stands for, when things go wrong: lost requests are healed once, rules end by themselves."""

import asyncio
import json
import secrets
import time
from pathlib import Path

import httpx
import pytest

from bridge import claims, ids
from bridge.kafka import open_producer
from bridge.registry import load_services
from tests.broker.guarded import KEYS, bearer
from tests.broker.test_idempotency import executions
from tests.keyed import Keyed, post, post_many
from tests.stack import Stack

pytestmark = pytest.mark.timeout(120)

DELIVERY_MS = 4000
HEAL_S = 2 * DELIVERY_MS / 1000


def start(stack: Stack, lane: str, **environment: str) -> str:
    _, url = stack.start_ingress(
        BRIDGE_LANES=lane, BRIDGE_KAFKA__DELIVERY_TIMEOUT_MS=str(DELIVERY_MS), **environment
    )
    return url


def orphan(stack: Stack, body: dict[str, object], key: str) -> claims.Entry:
    """Make what an ingress has written when it dies between a claim and its request."""
    service = load_services(stack.schemas)[stack.name("once")]
    return claims.Entry(
        kind=claims.Kind.CLAIM,
        key=claims.claim_key(service.name, None, key),
        request_id=ids.make(
            time_ms=time.time_ns() // 1_000_000, lane=2, chance=secrets.randbits(62)
        ),
        lane=2,
        fingerprint=claims.fingerprint(service.encode(body)),
        service=service.name,
        rules_ms=service.topics.result_retention_s * 1000,
    )


async def write(stack: Stack, *entries: claims.Entry) -> None:
    async with open_producer({"bootstrap.servers": stack.kafka}) as producer:
        for entry in entries:
            await producer.route(0)(claims.format_entry(entry))


@pytest.mark.parametrize("is_healed_before", [False, True])
async def test_a_request_lost_behind_its_claim_is_written_once_by_whoever_asks_again(
    stack: Stack, tmp_path: Path, is_healed_before: bool
) -> None:
    """Also when whoever promised to write it again has died in turn."""
    await asyncio.to_thread(stack.make_services, "once")
    await asyncio.to_thread(stack.start_worker, "once")
    urls = [await asyncio.to_thread(start, stack, lane) for lane in ("0", "1")]
    service, file = stack.name("once"), tmp_path / "executions"
    body: dict[str, object] = {"text": "lost", "file": str(file), "sleep_s": 0.0}
    lost = orphan(stack, body, "k")
    heal = claims.Entry(
        kind=claims.Kind.HEAL,
        key=lost.key,
        request_id=lost.request_id,
        lane=lost.lane,
        fingerprint=lost.fingerprint,
        service=lost.service,
        rules_ms=int(HEAL_S * 1000),
        heal_id="somebody",
    )
    await write(stack, lost, *([heal] if is_healed_before else []))

    early = await post(urls[0], service, body, idempotency_key="k", prefer="wait=0.5")
    await asyncio.sleep(HEAL_S)
    found = await post_many(urls, 20, service, body, idempotency_key="k", prefer="wait=20")

    assert (early.status, early.json()["outcome"]) == (503, "unknown")
    assert 1 <= int(early.headers["retry-after"]) <= HEAL_S
    assert {answer.status for answer in found} == {200}
    assert {answer.request_id for answer in found} == {lost.request_id}
    assert all(answer.is_replayed for answer in found)
    assert executions(file) == {"lost": 1}
    records = stack_read(stack, f"{service}.requests")
    assert [dict(headers)["bridge-request-id"].decode() for headers in await records] == [
        lost.request_id
    ]
    async with httpx.AsyncClient() as http:
        for url in urls:
            answer = await http.get(f"{url}/v1/services/{service}/requests/{lost.request_id}")
            assert answer.json()["text"] == "lost"


async def test_asking_for_a_lost_request_again_and_again_does_not_keep_the_ingress_probing(
    stack: Stack, tmp_path: Path
) -> None:
    """Each such answer had all topics described, and every lane probed, one round after another."""
    await asyncio.to_thread(stack.make_services, "once")
    url = await asyncio.to_thread(start, stack, "0", BRIDGE_NO_WORKER_S="600")
    service = stack.name("once")
    body: dict[str, object] = {"text": "lost", "file": str(tmp_path / "x"), "sleep_s": 0.0}
    await write(stack, orphan(stack, body, "k"))

    async def count_probes() -> int:
        headers = await stack_read(stack, f"{service}.replies")
        return sum(("bridge-event", b"probe") in each for each in headers)

    before, begun_s = await count_probes(), time.perf_counter()
    answers = [
        await post(url, service, body, idempotency_key="k", prefer="wait=0.02") for _ in range(40)
    ]
    after, took_s = await count_probes(), time.perf_counter() - begun_s

    assert {answer.status for answer in answers} == {503}
    assert after - before <= took_s + 2


async def stack_read(stack: Stack, topic: str) -> list[list[tuple[str, bytes]]]:
    records = await asyncio.to_thread(stack.read, topic)
    return [record.headers for record in records]


async def test_a_key_rules_as_long_as_the_result_is_kept_and_not_as_its_record_is_there(
    stack: Stack, tmp_path: Path
) -> None:
    await asyncio.to_thread(stack.copy_services, "once")
    contract = stack.schemas / stack.name("once") / "service.toml"
    text = contract.read_text(encoding="utf-8").replace(
        "lanes = 4", "lanes = 4\nresult_retention_s = 5"
    )
    contract.write_text(text, encoding="utf-8")
    await asyncio.to_thread(stack.apply_topics)
    await asyncio.to_thread(stack.start_worker, "once")
    url = await asyncio.to_thread(start, stack, "0")
    body = {"text": "t", "file": str(tmp_path / "executions"), "sleep_s": 0.0}

    async def ask() -> Keyed:
        return await post(url, stack.name("once"), body, idempotency_key='"k"')

    first, again = await ask(), await ask()
    await asyncio.sleep(5.5)
    later = await ask()

    assert (first.is_replayed, again.is_replayed, later.is_replayed) == (False, True, False)
    assert first.request_id == again.request_id != later.request_id
    assert executions(tmp_path / "executions") == {"t": 2}


async def test_a_key_is_the_principals_own(stack: Stack, tmp_path: Path) -> None:
    await asyncio.to_thread(stack.make_services, "once")
    await asyncio.to_thread(stack.start_worker, "once")
    file = tmp_path / "keys"
    file.write_text("\n".join(key.line for key in KEYS.values()), encoding="utf-8")
    url = await asyncio.to_thread(start, stack, "0", BRIDGE_API_KEYS_FILE=str(file))
    body = {"text": "t", "file": str(tmp_path / "executions"), "sleep_s": 0.0}

    got = [
        await post(url, stack.name("once"), body, idempotency_key="k", **bearer(who))
        for who in ("ann", "ben", "ann")
    ]

    assert [one.status for one in got] == [200] * 3
    assert [one.is_replayed for one in got] == [False, False, True]
    assert got[0].body == got[2].body != got[1].body


async def test_a_failure_is_given_again_and_a_one_way_request_is_taken_once(stack: Stack) -> None:
    await asyncio.to_thread(stack.make_services, "echo", "oneway")
    await asyncio.to_thread(stack.start_worker, "echo")
    urls = [await asyncio.to_thread(start, stack, lane) for lane in ("0", "1")]

    failed = await post_many(
        urls, 4, stack.name("echo"), {"text": "x", "do": "refuse"}, idempotency_key="k"
    )
    taken = await post_many(urls, 6, stack.name("oneway"), {"to": 1}, idempotency_key="k")

    assert {answer.status for answer in failed} == {422}
    assert len({answer.body for answer in failed}) == 1
    assert [json.loads(failed[0].body)["code"]] == ["refused"]
    assert {answer.status for answer in taken} == {202}
    assert sorted(answer.is_replayed for answer in taken) == [False] + [True] * 5
    assert len(await stack_read(stack, f"{stack.name('oneway')}.requests")) == 1


async def test_a_service_can_want_a_key(stack: Stack) -> None:
    await asyncio.to_thread(stack.copy_services, "oneway")
    contract = stack.schemas / stack.name("oneway") / "service.toml"
    text = contract.read_text(encoding="utf-8") + '\n[http]\nidempotency = "required"\n'
    contract.write_text(text, encoding="utf-8")
    await asyncio.to_thread(stack.apply_topics)
    url = await asyncio.to_thread(start, stack, "0")

    without = await post(url, stack.name("oneway"), {"to": 1})
    odd = await post(url, stack.name("oneway"), {"to": 1}, idempotency_key="a b")
    given = await post(url, stack.name("oneway"), {"to": 1}, idempotency_key="k")

    assert (without.status, without.json()["code"]) == (400, "idempotency-key-missing")
    assert (odd.status, odd.json()["code"]) == (400, "malformed-header")
    assert given.status == 202
