"""`accepted` at once, for those who look for it in the lane while the first client still waits."""

import asyncio
from pathlib import Path

import pytest

from bridge.envelope import Event
from bridge.ingress import Limits
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

    await ask_nobody(stack.kafka, stack.schemas, wait_s=wait_s, announce=announce)

    events = [reply.event for reply in await asyncio.to_thread(stack.read_replies, "echo")]
    assert [event for event in events if event is not Event.PROBE] == [Event.ACCEPTED]


async def ask_nobody(kafka: str, schemas: Path, *, wait_s: float, announce: bool) -> None:
    """Ask a service without a worker, through the ingress's own parts."""
    services = load_services(schemas)
    service = next(iter(services.values()))
    config = {"bootstrap.servers": kafka}
    limits = Limits()
    lanes = Lanes(config, services, (0,), "announce", lambda: 0)  # broker time, by the skew
    async with open_ingress(config, lanes, limits, chance=lambda: 1, probe_s=60) as ingress:
        await asyncio.to_thread(until, lambda: lanes.trouble is None, timeout_s=20, what="ready")
        head = read_head(service, {"content-type": "application/json"}, limits)
        made = make_job(ingress, service, head, b'{"text": "x"}')
        job = Job(service, made.request, made.record, wait_s, announce)
        await (ingress.ask(job) if wait_s else ingress.post(job))
