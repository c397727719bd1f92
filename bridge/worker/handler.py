"""Handlers: one function per service, whatever its colour, called in one way.

`async def` runs in the event loop, a plain `def` in a thread, an async generator yields the parts
of a streamed reply. With `isolation = "thread"` all of them run in threads; with "process" they
are not run here at all: see `isolated.py`.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

from bridge.child import find_function
from bridge.context import Context
from bridge.service import Service
from bridge.worker.threads import run_in_thread, stream_in_thread


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """A handler made uniform: just one of the three is there.

    Attributes:
        call: Runs a coroutine function.
        thread: Runs a plain function in a thread, which cannot be stopped, only waited for.
        stream: Runs an async generator part by part.
        is_json: It is given the request, and gives the reply and parts, as JSON text in UTF-8, the
            form that HTTP clients see: whoever answers is a program of any language.
    """

    call: Callable[[object, Context], Awaitable[object]] | None = None
    thread: Callable[[object, Context], "asyncio.Future[object]"] | None = None
    stream: Callable[[object, Context], AsyncGenerator[object]] | None = None
    is_json: bool = False


def load_handler(where: str, service: Service, executor: Executor) -> Handler:
    """Import a handler and check that it fits its service.

    Args:
        where: `module:function`.
        service: Whose handler it is.
        executor: Runs plain functions.

    Raises:
        SettingsError: No such module or function, or its kind does not fit `reply`.
    """
    found = find_function(where, service.name, service.kind)
    if service.worker.isolation == "thread" and found.is_generator:
        return Handler(stream=partial(stream_in_thread, found, executor))
    if found.is_generator:
        return Handler(stream=found.begin)  # type: ignore[arg-type]  # checked when it was found
    if found.is_async and service.worker.isolation == "task":
        return Handler(call=found.begin)  # type: ignore[arg-type]  # as above
    return Handler(thread=partial(run_in_thread, found, executor, service.worker.timeout_s))
