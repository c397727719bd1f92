"""Handlers in threads: code that blocks holds up nobody else, and coroutines end in time."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import PermanentError
from bridge.service import Service
from bridge.worker import Handler, load_handler
from tests.handlers import Asked, make_service

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

WHERE = "tests.services.consumers.risky"
THREAD = '[worker]\nisolation = "thread"\ntimeout_s = 0.3\n'
ECHO = make_service("echo", THREAD)
COUNT = make_service("count", 'reply = "stream"\n' + THREAD)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4, thread_name_prefix="handler") as made:
        yield made


def load(name: str, service: Service, threads: ThreadPoolExecutor) -> Handler:
    return load_handler(f"{WHERE}:{name}", service, threads)


def begin(handler: Handler, do: str, sleep_s: float = 0.0, text: str = "") -> "asyncio.Future[Any]":
    assert handler.thread is not None
    request = {"do": do, "text": text, "sleep_s": sleep_s}
    return handler.thread(request, Asked().context)


async def test_a_coroutine_that_blocks_does_not_hold_up_the_event_loop(
    threads: ThreadPoolExecutor,
) -> None:
    handler = load("handle_async", ECHO, threads)

    blocking = [begin(handler, "", sleep_s=0.2) for _ in range(4)]
    turns = 0
    while not all(each.done() for each in blocking):
        await asyncio.sleep(0.01)
        turns += 1

    assert turns >= 5
    assert {each.result()["text"] for each in blocking} == {""}


async def test_a_coroutine_runs_in_a_thread_with_an_event_loop_of_its_own(
    threads: ThreadPoolExecutor,
) -> None:
    handler = load("handle_async", ECHO, threads)

    assert (await begin(handler, "thread"))["text"].startswith("handler")
    assert (await begin(handler, "loop"))["text"] != f"{id(asyncio.get_running_loop())}"


async def test_a_coroutine_past_its_time_is_cancelled_where_it_awaits(
    threads: ThreadPoolExecutor, tmp_path: Path
) -> None:
    handler = load("handle_async", ECHO, threads)
    mark = tmp_path / "cleaned-up"

    running = begin(handler, "until-cancelled", text=f"{mark}")

    done, _ = await asyncio.wait([running], timeout=0.3)
    assert not done  # the worker has said by then that it overran
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(running, 5)
    assert mark.exists()


@pytest.mark.parametrize("colour", ["handle", "handle_async"])
async def test_an_exit_in_a_thread_ends_its_request_and_not_the_worker(
    threads: ThreadPoolExecutor, colour: str
) -> None:
    with pytest.raises(RuntimeError, match="the handler raised SystemExit"):
        await begin(load(colour, ECHO, threads), "exit")


async def test_parts_come_from_another_thread_one_at_a_time(threads: ThreadPoolExecutor) -> None:
    handler = load("handle_stream", COUNT, threads)
    assert handler.stream is not None

    found = [part async for part in handler.stream({"to": 100}, Asked().context)]

    assert found == [{"number": number} for number in range(1, 101)]
    with pytest.raises(PermanentError, match="no fourteen"):
        _ = [part async for part in handler.stream({"to": 14}, Asked().context)]


async def test_a_stream_that_is_left_frees_its_thread(threads: ThreadPoolExecutor) -> None:
    handler = load("handle_stream", COUNT, threads)
    assert handler.stream is not None

    for _ in range(8):  # twice as many as there are threads
        async with aclosing(handler.stream({"to": 1_000_000}, Asked().context)) as parts:
            assert await asyncio.wait_for(anext(parts), 5) == {"number": 1}

    threads.shutdown()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("handler")]
