"""Handlers in threads: plain functions, and with `isolation = "thread"` coroutines too.

A coroutine gets an event loop of its own, so that code in it which blocks holds up nobody else. A
thread cannot be stopped: what blocks past its time keeps its thread until it returns. Where that
must not be, isolate in processes.
"""

import asyncio
import contextvars
from collections.abc import AsyncGenerator
from concurrent.futures import Executor
from contextlib import aclosing
from functools import partial
from typing import NamedTuple

from bridge.child import Found
from bridge.context import Context

_MARGIN_S = 0.2
"""So long after its time a coroutine is cancelled: by then the worker has said that it overran."""

_ODD = (StopIteration, SystemExit, KeyboardInterrupt, GeneratorExit)
"""What must not leave a handler as it is: no future carries the first, the others end a process."""


def run_in_thread(
    found: Found, executor: Executor, timeout_s: float, request: object, context: Context
) -> "asyncio.Future[object]":
    """Run a plain function, or a coroutine in an event loop of its own, in a thread."""
    limit_s = min(timeout_s, context.deadline_s) + _MARGIN_S

    async def limited() -> object:
        async with asyncio.timeout(limit_s):
            return await found.begin(request, context)  # type: ignore[misc]  # checked when it was found

    def finish() -> object:
        try:
            return asyncio.run(limited()) if found.is_async else found.begin(request, context)
        except _ODD as error:
            raise RuntimeError(f"the handler raised {type(error).__name__}") from error

    run = contextvars.copy_context().run  # what the handler calls finds its span
    return asyncio.get_running_loop().run_in_executor(executor, run, finish)


class _End(NamedTuple):
    """The end of a stream, and what it was ended by."""

    error: BaseException | None


class _Pump:
    """Carries parts from the event loop of a thread to the worker's, one at a time."""

    def __init__(self) -> None:
        self._outer = asyncio.get_running_loop()
        self._parts: asyncio.Queue[object] = asyncio.Queue()
        self._inner: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    async def get(self) -> object:
        part = await self._parts.get()
        self._parts.task_done()
        return part

    def close(self) -> None:
        """Cancel the handler, where it awaits."""
        self._is_closed = True
        if self._inner is not None and self._task is not None and not self._inner.is_closed():
            self._inner.call_soon_threadsafe(self._task.cancel)

    def run(self, parts: AsyncGenerator[object]) -> None:
        """Run a handler to its end; in a thread."""
        error: BaseException | None = None
        try:
            asyncio.run(self._run(parts))
        except _ODD as odd:
            error = RuntimeError(f"the handler raised {type(odd).__name__}")
            error.__cause__ = odd
        except BaseException as ended:  # noqa: BLE001 - told to whoever waits, in another thread
            error = ended
        self._outer.call_soon_threadsafe(self._parts.put_nowait, _End(error))

    async def _run(self, parts: AsyncGenerator[object]) -> None:
        self._inner, self._task = asyncio.get_running_loop(), asyncio.current_task()
        async with aclosing(parts):
            if self._is_closed:
                return
            async for part in parts:
                handed = asyncio.run_coroutine_threadsafe(self._hand(part), self._outer)
                await asyncio.wrap_future(handed)

    async def _hand(self, part: object) -> None:
        await self._parts.put(part)
        await self._parts.join()


async def stream_in_thread(
    found: Found, executor: Executor, request: object, context: Context
) -> AsyncGenerator[object]:
    """Run an async generator in an event loop of its own, in a thread, and yield its parts."""
    pump = _Pump()
    run = contextvars.copy_context().run
    begin = partial(found.begin, request, context)
    running = asyncio.get_running_loop().run_in_executor(
        executor,
        run,
        lambda: pump.run(begin()),  # type: ignore[arg-type]  # checked when it was found
    )
    try:
        while not isinstance(part := await pump.get(), _End):
            yield part
        if part.error is not None:
            raise part.error
    finally:
        pump.close()
        running.cancel()  # where it waits for a thread still
