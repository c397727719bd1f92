"""Handlers in processes of their own: what they do to their process, they do to one request."""

import asyncio
import os
import signal
from contextlib import aclosing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bridge.context import Context
from bridge.errors import (
    ContractError,
    HandlingError,
    PermanentError,
    RetryableError,
    SettingsError,
)
from bridge.worker import Handler, open_isolated
from tests.handlers import Asked, make_service

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

WHERE = "tests.services.consumers.risky"
PROCESS = '[worker]\nisolation = "process"\n'
ECHO = make_service("echo", PROCESS)
COUNT = make_service("count", 'reply = "stream"\n' + PROCESS)


def ask(do: str = "", text: str = "hello", sleep_s: float = 0.0) -> dict[str, object]:
    return {"do": do, "text": text, "sleep_s": sleep_s}


async def call(
    handler: Handler, do: str = "", context: Context | None = None, **more: Any
) -> dict[str, Any]:
    assert handler.call is not None
    reply = await handler.call({**ask(do), **more}, context or Asked().context)
    assert isinstance(reply, dict)
    return reply


async def failure(handler: Handler, do: str) -> tuple[str, str]:
    with pytest.raises(RetryableError) as caught:
        await call(handler, do)
    return caught.value.failure_code, str(caught.value)


async def is_gone(pid: int) -> bool:
    """Wait until a process is no more, for a while."""
    async with asyncio.timeout(5):
        while Path(f"/proc/{pid}").exists():  # noqa: ASYNC110, ASYNC240 - the kernel tells nobody
            await asyncio.sleep(0.01)
    return True


async def test_one_child_works_on_one_request_after_the_other() -> None:
    async with open_isolated(f"{WHERE}:handle", ECHO) as handler:
        replies = [await call(handler) for _ in range(3)]

        pids = {reply["pid"] for reply in replies}
        assert len(pids) == 1
        assert pids != {os.getpid()}
    assert await is_gone(pids.pop())


async def test_values_cross_as_what_they_are() -> None:
    given = {"at": datetime(2026, 1, 1, tzinfo=UTC), "many": [Decimal("1.50"), b"\xff", None]}
    async with open_isolated(f"{WHERE}:handle", ECHO) as handler:
        reply = await call(handler, text=given)

    assert reply["text"] == given


async def test_children_are_started_as_they_are_needed_up_to_the_concurrency() -> None:
    service = make_service("echo", PROCESS + "concurrency = 2")
    async with open_isolated(f"{WHERE}:handle", service) as handler, asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(call(handler, sleep_s=0.3)) for _ in range(4)]

    assert len({task.result()["pid"] for task in asked}) == 2


@pytest.mark.parametrize(
    ("do", "how"),
    [
        ("segfault", "was killed by SIGSEGV"),
        ("exit", "exited with 3"),
        ("os-exit", "exited with 4"),
        ("base-exception", "exited with 1"),
        ("kill", "was killed by SIGKILL"),
    ],
)
@pytest.mark.parametrize("colour", ["handle", "handle_async"])
async def test_a_process_that_ends_fails_its_request_alone(colour: str, do: str, how: str) -> None:
    async with (
        open_isolated(f"{WHERE}:{colour}", ECHO) as handler,
        asyncio.TaskGroup() as tasks,
    ):
        other = tasks.create_task(call(handler, sleep_s=0.5))

        died = await failure(handler, do)

        assert died == ("process-died", f"the handler's process {how}")
        assert (await call(handler))["text"] == "hello"
        assert (await other)["text"] == "hello"


async def test_a_handler_that_wants_too_much_memory_is_replaced() -> None:
    service = make_service("echo", PROCESS + f"memory_bytes = {256 << 20}")
    async with open_isolated(f"{WHERE}:handle", service) as handler:
        before = (await call(handler))["pid"]

        code, message = await failure(handler, "memory")

        assert code == "process-died"
        assert message.endswith("ran out of memory (worker.memory_bytes = 268435456)")
        assert (await call(handler))["pid"] != before


def test_a_limit_of_memory_wants_a_process() -> None:
    with pytest.raises(ContractError, match='memory_bytes wants isolation = "process"'):
        make_service("echo", f"[worker]\nmemory_bytes = {256 << 20}")


@pytest.mark.parametrize("colour", ["handle", "handle_async"])
async def test_one_past_its_time_is_killed_and_replaced(colour: str) -> None:
    async with open_isolated(f"{WHERE}:{colour}", ECHO) as handler:
        before = (await call(handler))["pid"]

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await call(handler, sleep_s=60.0)

        assert await is_gone(before)
        assert (await call(handler))["pid"] != before


async def test_one_that_died_while_it_had_nothing_to_do_is_not_given_anything() -> None:
    async with open_isolated(f"{WHERE}:handle", ECHO) as handler:
        before = (await call(handler))["pid"]
        os.kill(before, signal.SIGKILL)
        await is_gone(before)
        later = await asyncio.create_subprocess_exec("true")
        await later.wait()  # its end comes behind that of the child

        assert (await call(handler))["pid"] != before


async def test_what_a_handler_raises_crosses_as_what_it_means() -> None:
    async with open_isolated(f"{WHERE}:handle", ECHO) as handler:
        with pytest.raises(PermanentError, match="no") as never:
            await call(handler, "refuse")
        with pytest.raises(RetryableError, match="not now") as later:
            await call(handler, "later")
        with pytest.raises(HandlingError, match="plain") as plain:
            await call(handler, "handling")
        with pytest.raises(RuntimeError, match=r"(?s)OddError: .*risky.py.*odd: one"):
            await call(handler, "odd")
        with pytest.raises(RuntimeError, match="CancelledError"):
            await call(handler, "cancel")
        with pytest.raises(RuntimeError, match="cannot pickle"):
            await call(handler, "lock")

    assert type(plain.value) is HandlingError
    assert (never.value.failure_code, never.value.details) == ("never", {"field": "do"})
    assert (later.value.failure_code, later.value.after_s) == ("busy", 2.5)


async def test_the_context_works_on_the_other_side() -> None:
    told = Asked("id-1", attempt=2, principal="ann", headers={"a": "b"}, replay="r-7")
    async with open_isolated(f"{WHERE}:handle", ECHO) as handler:
        reply = await call(handler, "tell", told.context)
        await call(handler, "progress", told.context)

    assert reply["request_id"] == "id-1"
    assert reply["text"] == "2 ann {'a': 'b'} r-7"
    assert told.context.reply_headers == {"x-facts": reply["text"]}
    assert told.progress == [(0.5, "half way")]


@pytest.mark.parametrize("colour", ["handle", "handle_async"])
async def test_a_cancellation_and_a_deadline_are_seen_by_a_handler_at_work(colour: str) -> None:
    cancelled, late = Asked(), Asked(left_s=0.1)
    async with (
        open_isolated(f"{WHERE}:{colour}", ECHO) as handler,
        asyncio.TaskGroup() as tasks,
    ):
        both = [
            tasks.create_task(call(handler, "watch", asked.context, sleep_s=10.0))
            for asked in (cancelled, late)
        ]
        cancelled.is_cancelled = True

    assert [task.result()["text"] for task in both] == ["True", "True"]


async def test_a_cancellation_is_of_one_request_only() -> None:
    cancelled = Asked()
    cancelled.is_cancelled = True
    async with open_isolated(f"{WHERE}:handle", ECHO) as handler:
        await call(handler, "watch", cancelled.context, sleep_s=10.0)
        reply = await call(handler, "watch", sleep_s=0.05)

    assert reply["text"] == "False"


async def test_a_plain_function_runs_in_the_main_thread_and_a_coroutine_in_a_loop_that_lasts() -> (
    None
):
    async with open_isolated(f"{WHERE}:handle", ECHO) as handler:
        assert (await call(handler, "thread"))["text"] == "MainThread"
    async with open_isolated(f"{WHERE}:handle_async", ECHO) as handler:
        loops = [(await call(handler, "loop"))["text"] for _ in range(2)]
    assert len(set(loops)) == 1


async def parts(handler: Handler, to: int, context: Context | None = None) -> list[object]:
    assert handler.stream is not None
    return [part async for part in handler.stream({"to": to}, context or Asked().context)]


async def test_parts_come_as_they_are_made() -> None:
    told = Asked()
    async with open_isolated(f"{WHERE}:handle_stream", COUNT) as handler:
        found = await parts(handler, 3, told.context)

        assert found == [{"number": 1}, {"number": 2}, {"number": 3}]
        assert told.progress == [(0.0, "begun")]
        assert len(await parts(handler, 5_000)) == 5_000


async def test_a_stream_that_breaks_off_tells_what_came_before() -> None:
    async with open_isolated(f"{WHERE}:handle_stream", COUNT) as handler:
        assert handler.stream is not None
        broken = handler.stream({"to": 13}, Asked().context)
        assert [await anext(broken) for _ in range(13)][-1] == {"number": 13}
        with pytest.raises(RetryableError, match="SIGSEGV"):
            await anext(broken)
        with pytest.raises(PermanentError, match="no fourteen"):
            await parts(handler, 14)
        assert await parts(handler, 1) == [{"number": 1}]


async def test_a_stream_that_is_left_frees_its_child() -> None:
    service = make_service("count", 'reply = "stream"\n' + PROCESS + "concurrency = 1")
    async with open_isolated(f"{WHERE}:handle_stream", service) as handler:
        assert handler.stream is not None
        async with aclosing(handler.stream({"to": 15}, Asked().context)) as left:
            assert await anext(left) == {"number": 1}

        assert await parts(handler, 1) == [{"number": 1}]


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("tests.nowhere:handle", "cannot be imported: ModuleNotFoundError"),
        (f"{WHERE}:nobody", "has no function nobody"),
        (f"{WHERE}:handle_stream", "is an async generator"),
        ("bridge", "want module:function"),
    ],
)
async def test_a_handler_that_cannot_be_used_is_known_at_once(where: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        async with open_isolated(where, ECHO):
            pass


async def test_what_a_handler_prints_is_in_the_log() -> None:
    with capture_logs() as logs:
        async with open_isolated(f"{WHERE}:handle", ECHO) as handler:
            await call(handler, "this")

    assert "does this" in [entry.get("line") for entry in logs]
