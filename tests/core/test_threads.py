"""Poll threads: one that ends before its block is found out, and its process is not healthy."""

import threading

import httpx
import pytest

from bridge.kafka import dead_threads
from bridge.kafka.client import polling
from bridge.worker import make_admin


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_poll_thread_that_ended_is_named_until_its_block_ends() -> None:
    wait = threading.Event()

    def linger() -> None:
        wait.wait()

    async with polling("lives", linger):
        assert await healthz() == (200, {"alive": True, "dead": []})
        async with polling("ends", exit_thread):
            while "ends" in {thread.name for thread in threading.enumerate()}:
                wait.wait(0.01)

            assert dead_threads() == ["ends"]
            assert await healthz() == (503, {"alive": False, "dead": ["ends"]})

        assert dead_threads() == []
        wait.set()


async def healthz() -> tuple[int, object]:
    transport = httpx.ASGITransport(app=make_admin({}))
    async with httpx.AsyncClient(transport=transport, base_url="http://worker") as client:
        answer = await client.get("/healthz")
        return answer.status_code, answer.json()


def exit_thread() -> None:
    raise SystemExit
