"""Many at once: two ingress processes, two workers, every reply to its own client."""

import asyncio
import secrets

import pytest

from tests.many import ask
from tests.stack import Stack

pytestmark = pytest.mark.timeout(120)

REQUESTS = 2000


async def test_of_2000_concurrent_requests_none_is_lost_and_none_is_mixed(stack: Stack) -> None:
    await asyncio.to_thread(stack.make_services, "echo")
    for _ in range(2):
        await asyncio.to_thread(stack.start_worker, "echo")
    ports = [
        int((await asyncio.to_thread(stack.start_ingress))[1].rpartition(":")[2]) for _ in range(2)
    ]
    path = f"/v1/services/{stack.name('echo')}/requests"
    texts = [secrets.token_hex(8) for _ in range(REQUESTS)]

    async with asyncio.TaskGroup() as tasks:
        asked = [
            tasks.create_task(ask(ports[n % 2], path, {"text": text}, prefer="wait=60"))
            for n, text in enumerate(texts)
        ]
    answers = [task.result() for task in asked]

    assert [answer.status for answer in answers] == [200] * REQUESTS
    assert [answer.body["text"] for answer in answers] == texts
    assert [answer.body["request_id"] for answer in answers] == [a.request_id for a in answers]
    assert len({answer.request_id for answer in answers}) == REQUESTS
    assert len({answer.body["pid"] for answer in answers}) == 2
