"""Handlers: one function per service, whatever its colour, called in one way.

`async def` runs in the event loop, a plain `def` in a thread, an async generator yields the parts
of a streamed reply. The second parameter, the context, may be left out.
"""

import asyncio
import contextvars
import importlib
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from bridge.context import Context
from bridge.errors import SettingsError
from bridge.service import Service

_HINT = "want module:function, for example consumers.greeter:handle"


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
    module_name, _, name = where.partition(":")
    if not module_name or not name:
        raise SettingsError(f"--handler {where}: {_HINT}")
    try:
        function = getattr(importlib.import_module(module_name), name, None)
    except Exception as broken:
        kind = type(broken).__name__
        raise SettingsError(
            f"handler {where} cannot be imported: {kind}: {broken}; {_HINT}"
        ) from broken
    if not callable(function):
        raise SettingsError(f"module {module_name} has no function {name}: {_HINT}")
    is_generator = inspect.isasyncgenfunction(function)
    if is_generator != (service.kind == "stream"):
        found = "an async generator" if is_generator else "a function that returns its reply"
        raise SettingsError(
            f"handler {where} is {found}, but service {service.name} says "
            f'reply = "{service.kind}": a "stream" wants an async generator, the others do not'
        )
    return _uniform(function, is_generator, executor)


def _uniform(function: Callable[..., object], is_generator: bool, executor: Executor) -> Handler:
    takes_context = len(inspect.signature(function).parameters) > 1

    def begin(request: object, context: Context) -> object:
        return function(request, context) if takes_context else function(request)

    if is_generator:
        return Handler(stream=begin)  # type: ignore[arg-type]  # checked above: it is a generator
    if inspect.iscoroutinefunction(function):
        return Handler(call=begin)  # type: ignore[arg-type]  # checked here: it is a coroutine

    def finish(request: object, context: Context) -> object:
        try:
            return begin(request, context)
        except StopIteration as error:  # no future can carry it, so its waiter would wait for ever
            raise RuntimeError("the handler raised StopIteration") from error

    def in_thread(request: object, context: Context) -> "asyncio.Future[object]":
        run = contextvars.copy_context().run  # what the handler calls finds its span
        return asyncio.get_running_loop().run_in_executor(executor, run, finish, request, context)

    return Handler(thread=in_thread)
