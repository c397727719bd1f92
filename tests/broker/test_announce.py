"""`accepted` at once, for those who look for it in the lane while the first client still waits."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import pytest
from confluent_kafka.admin import AdminClient

from bridge.envelope import Event
from bridge.errors import BridgeError
from bridge.ingress import Limits
from bridge.ingress.ask import Ingress
from bridge.ingress.head import make_job, read_head
from bridge.ingress.job import Job
from bridge.ingress.lanes import Lanes
from bridge.ingress.life import open_ingress
from bridge.registry import load_services
from tests.stack import Stack, until

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("wait_s", [0.0, 0.5])
@pytest.mark.parametrize("announce", [True, False])
async def test_accepted_is_written_once_whether_announced_or_handed_off(
    stack: Stack, wait_s: float, announce: bool
) -> None:
    await asyncio.to_thread(stack.make_services, "echo")

    async with open_front(stack) as (ingress, make):
        job = make(wait_s, announce=announce)
        await (ingress.ask(job) if wait_s else ingress.post(job))

    assert await events(stack) == [Event.ACCEPTED]


async def test_a_request_that_kafka_refuses_is_not_announced(stack: Stack) -> None:
    await asyncio.to_thread(stack.make_services, "echo")

    async with open_front(stack) as (ingress, make):
        admin = AdminClient({"bootstrap.servers": stack.kafka})
        for deleted in admin.delete_topics([f"{stack.name('echo')}.requests"]).values():
            await asyncio.to_thread(deleted.result, 20)
        with pytest.raises(BridgeError):
            await ingress.post(make(0.0, announce=True))

    assert await events(stack) == []


async def events(stack: Stack) -> list[Event | None]:
    found = [reply.event for reply in await asyncio.to_thread(stack.read_replies, "echo")]
    return [event for event in found if event is not Event.PROBE]


class Make(Protocol):
    def __call__(self, wait_s: float, *, announce: bool) -> Job: ...


@asynccontextmanager
async def open_front(stack: Stack) -> AsyncIterator[tuple[Ingress, Make]]:
    """Open the ingress's own parts for a service without a worker, and what makes its requests."""
    kafka, schemas = stack.kafka, stack.schemas
    services = load_services(schemas)
    service = next(iter(services.values()))
    config = {"bootstrap.servers": kafka}
    limits = Limits()
    lanes = Lanes(config, services, (0,), "announce", lambda: 0)  # broker time, by the skew
    async with open_ingress(config, lanes, limits, chance=lambda: 1, probe_s=60) as ingress:
        await asyncio.to_thread(until, lambda: lanes.trouble is None, timeout_s=20, what="ready")
        head = read_head(service, {"content-type": "application/json"}, limits)

        def make(wait_s: float, *, announce: bool) -> Job:
            made = make_job(ingress, service, head, b'{"text": "x"}')
            return Job(service, made.request, made.record, wait_s, announce)

        yield ingress, make
