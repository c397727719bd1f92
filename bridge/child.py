"""The child that a handler runs in with `isolation = "process"`: its program, and what crosses.

`python -m bridge.child module:function SERVICE KIND MEMORY_BYTES` imports the handler once, says
hello, and then handles one request after the other. What crosses are pickled tuples, each with its
length in front, on standard input and output; both ends are ours. Whatever the handler prints goes
to standard error, which the worker logs.

Not in `bridge.worker`: importing that loads the Kafka client, which a child has no use for.
"""

import asyncio
import importlib
import inspect
import os
import pickle
import queue
import resource
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import aclosing
from functools import partial
from typing import Any, BinaryIO, NamedTuple, TypeAlias, cast

from bridge.context import Context
from bridge.errors import HandlingError, PermanentError, RetryableError, SettingsError

Message: TypeAlias = tuple[object, ...]
"""Its first member names it, its second is the number of the request that it is about."""

HELLO, PART, PROGRESS, REPLY, REFUSED, BROKE, SPENT = range(7)
"""What a child says. SPENT: it has run out of memory, and ends."""
REQUEST, CANCEL = range(2)
"""What a child is told."""

HINT = "want module:function, for example consumers.greeter:handle"
_MAX_TRACE = 20_000
"""Characters of a traceback that cross: the end says what it was."""
_SIZE = struct.Struct("!I")


_Request: TypeAlias = tuple[int, int, object, float, dict[str, Any]]
"""REQUEST, its number, what is asked, seconds left, and attributes of the context."""


class Found(NamedTuple):
    """A handler's function, and how it is called.

    Attributes:
        function: Takes the request, and the context if `takes_context`.
        takes_context: Whether it has a second parameter.
        is_generator: Whether it yields the parts of a stream.
        is_async: Whether it is a coroutine function.
    """

    function: Callable[..., object]
    takes_context: bool
    is_generator: bool
    is_async: bool

    def begin(self, request: object, context: Context) -> object:
        """Call it: the reply of a plain function, else what is to be awaited or iterated."""
        return self.function(request, context) if self.takes_context else self.function(request)


def find_function(where: str, service: str, kind: str) -> Found:
    """Import a handler and check that it fits its service.

    Args:
        where: `module:function`.
        service: Whose handler it is.
        kind: That service's `reply`.

    Raises:
        SettingsError: No such module or function, or its kind does not fit `reply`.
    """
    module_name, _, name = where.partition(":")
    if not module_name or not name:
        raise SettingsError(f"--handler {where}: {HINT}")
    try:
        function = getattr(importlib.import_module(module_name), name, None)
    except Exception as broken:
        said = f"{type(broken).__name__}: {broken}"
        raise SettingsError(f"handler {where} cannot be imported: {said}; {HINT}") from broken
    if not callable(function):
        raise SettingsError(f"module {module_name} has no function {name}: {HINT}")
    is_generator = inspect.isasyncgenfunction(function)
    if is_generator != (kind == "stream"):
        found = "an async generator" if is_generator else "a function that returns its reply"
        raise SettingsError(
            f"handler {where} is {found}, but service {service} says "
            f'reply = "{kind}": a "stream" wants an async generator, the others do not'
        )
    return Found(
        function,
        takes_context=len(inspect.signature(function).parameters) > 1,
        is_generator=is_generator,
        is_async=inspect.iscoroutinefunction(function),
    )


def pack(message: Message) -> bytes:
    """Write a message, with its length in front; whatever its values raise, it raises."""
    body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return _SIZE.pack(len(body)) + body


class Messages:
    """Messages out of the chunks of a pipe."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Give the messages that end in a chunk, still pickled."""
        self._held += chunk
        while len(self._held) >= _SIZE.size:
            (size,) = _SIZE.unpack_from(self._held)
            end = _SIZE.size + size
            if len(self._held) < end:
                return
            body = bytes(self._held[_SIZE.size : end])
            del self._held[:end]
            yield body


class _Talk:
    """Both directions of a child; a thread listens, since a cancellation comes while it works."""

    def __init__(self, heard: BinaryIO, told: BinaryIO) -> None:
        self._heard = heard
        self._told = told
        self._lock = threading.Lock()
        self._cancelled: set[object] = set()

    def say(self, *message: object) -> None:
        packed = pack(message)
        with self._lock:  # a handler's own threads may tell progress
            self._told.write(packed)
            self._told.flush()

    def was_cancelled(self, number: object) -> bool:
        return number in self._cancelled

    def listen(self, take: Callable[[Message | None], None]) -> None:
        """Hand requests on as they come; None at the end, when the worker has closed the pipe."""
        messages = Messages()
        while chunk := os.read(self._heard.fileno(), 1 << 18):
            for body in messages.feed(chunk):
                message: Message = pickle.loads(body)  # noqa: S301 - from the worker that started this
                if message[0] == CANCEL:
                    self._cancelled.add(message[1])
                else:
                    take(message)
        take(None)


class _Attempt:
    """One request in a child: its context, and the ways that it can end."""

    def __init__(self, talk: _Talk, message: Message) -> None:
        _, self.number, self.value, left_s, facts = cast(_Request, message)
        self._talk = talk
        ends_s = time.monotonic() + left_s  # noqa: TID251 - the entry point of a process
        self.context = Context(
            **facts,
            seconds_left=lambda: ends_s - time.monotonic(),  # noqa: TID251 - as above
            was_cancelled=partial(talk.was_cancelled, self.number),
            report=self._report,
        )

    def _report(self, fraction: float | None, message: str) -> None:
        try:
            self._talk.say(PROGRESS, self.number, fraction, message)
        except Exception as odd:  # noqa: BLE001 - progress never fails, whatever it is given
            print(f"progress cannot be told: {odd}", file=sys.stderr)  # noqa: T201 - the log

    def part(self, value: object) -> None:
        self._talk.say(PART, self.number, value)

    def reply(self, value: object) -> None:
        self._talk.say(REPLY, self.number, self._headers(), value)

    def fail(self, error: BaseException) -> None:
        """Tell what was raised, in values that surely cross; the exception itself may not."""
        if isinstance(error, MemoryError):
            traceback.print_exception(error)
            self._talk.say(SPENT, self.number)
            os._exit(1)
        if isinstance(error, HandlingError):
            after_s = error.after_s if isinstance(error, RetryableError) else None
            self._talk.say(
                *(REFUSED, self.number, self._headers(), _kind(error)),
                *(_text(error), _text(error.failure_code)),
                _details(error.details),
                after_s if type(after_s) in {int, float} else None,
            )
            return
        told = "".join(traceback.format_exception(error))[-_MAX_TRACE:]
        self._talk.say(BROKE, self.number, self._headers(), f"{type(error).__name__}: {told}")

    def _headers(self) -> dict[str, str | None]:
        """What the handler puts on the response; None stands for what is no text."""
        return {_text(k): _header(v) for k, v in self.context.reply_headers.items()}


def _header(value: object) -> str | None:
    return str.__str__(value) if isinstance(value, str) else None


def _text(value: object) -> str:
    try:
        text = str(value)
    except Exception:  # noqa: BLE001 - an author's __str__
        return type(value).__name__
    return str.__str__(text)


def _kind(error: Exception) -> str:
    kinds = (RetryableError, PermanentError, HandlingError)
    return next(kind.__name__ for kind in kinds if isinstance(error, kind))


def _details(given: object) -> dict[str, str]:
    if not isinstance(given, dict):
        return {}
    return {_text(key): _text(value) for key, value in given.items()}


def _serve_plain(found: Found, talk: _Talk) -> None:
    """Call a plain function in the main thread, as a program would: no event loop is around it."""
    requests: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
    threading.Thread(target=talk.listen, args=(requests.put,), daemon=True).start()
    while (message := requests.get()) is not None:
        attempt = _Attempt(talk, message)
        try:
            attempt.reply(found.begin(attempt.value, attempt.context))
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever a handler raises is told
            attempt.fail(error)


async def _serve_async(found: Found, talk: _Talk) -> None:
    """Run coroutines in one event loop that lasts: what the handler opens in it may stay open."""
    loop = asyncio.get_running_loop()
    requests: asyncio.Queue[Message | None] = asyncio.Queue()

    def take(message: Message | None) -> None:
        loop.call_soon_threadsafe(requests.put_nowait, message)

    threading.Thread(target=talk.listen, args=(take,), daemon=True).start()
    while (message := await requests.get()) is not None:
        attempt = _Attempt(talk, message)
        try:
            if found.is_generator:
                async with aclosing(found.begin(attempt.value, attempt.context)) as parts:  # type: ignore[type-var]  # checked when it was found
                    async for part in parts:  # type: ignore[attr-defined]  # as above
                        attempt.part(part)
                attempt.reply(None)
            else:
                attempt.reply(await found.begin(attempt.value, attempt.context))  # type: ignore[misc]  # as above
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever a handler raises is told
            attempt.fail(error)


def _main(where: str, service: str, kind: str, memory_bytes: str) -> None:
    # The pipes are the worker's; what the handler reads and prints must not meddle with them.
    heard, told = os.fdopen(os.dup(0), "rb", 0), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    talk = _Talk(heard, told)
    limit = int(memory_bytes)
    if limit:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    try:
        found = find_function(where, service, kind)
    except SettingsError as unusable:
        talk.say(HELLO, None, str(unusable))
        return
    talk.say(HELLO, None, None)
    if found.is_async or found.is_generator:
        asyncio.run(_serve_async(found, talk))
    else:
        _serve_plain(found, talk)


if __name__ == "__main__":
    _main(*sys.argv[1:])
