"""A handler in child processes of its own: `isolation = "process"`.

Each child works on one request at a time. One that breaks down, or is still at work when the time
of its request is over, is killed; the next request that needs one starts another. So whatever a
handler does to its process, it does to its request alone.
"""

import asyncio
import pickle
import sys
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import structlog

from bridge.child import (
    BROKE,
    CANCEL,
    HELLO,
    PART,
    PROGRESS,
    REFUSED,
    REPLY,
    REQUEST,
    SPENT,
    Message,
    Messages,
    pack,
)
from bridge.context import Context
from bridge.errors import HandlingError, PermanentError, RetryableError, SettingsError
from bridge.service import Service
from bridge.worker.children import TICK_S, Child, Pause, end_all, start
from bridge.worker.handler import Handler

_log = structlog.get_logger("bridge.worker")

DIED = "process-died"
"""The code of a failure: the process that the handler ran in has ended."""

FULL_BYTES = 4 << 20
"""A child that has told so much more than was taken is not read from until it was."""


class _Place:
    """One child, and what it says about the request that it works on."""

    def __init__(self) -> None:
        self.child: Child
        self.number = 0
        self._told = 0
        self._messages = Messages()
        self._heard: deque[bytes] = deque()
        self._size = 0
        self._arrived = asyncio.Event()

    def take(self, chunk: bytes) -> None:
        for body in self._messages.feed(chunk):
            self._heard.append(body)
            self._size += len(body)
        self._arrived.set()
        if self._size > FULL_BYTES:
            self.child.read(is_wanted=False)

    def say(self, *message: object) -> None:
        """Tell the child; lost when it is gone, as `hear` will tell."""
        self.child.write(pack(message))

    async def hear(self, context: Context | None = None) -> Message:
        """Wait for what the child says; tell it meanwhile when its request is cancelled.

        Raises:
            RetryableError: It has ended, and said all that it had to say.
        """
        while not self._heard:
            if self.child.over.is_set():
                raise RetryableError(f"the handler's process {self.child.describe()}", code=DIED)
            if context is not None and self._told != self.number and context.was_cancelled():
                self._told = self.number
                self.say(CANCEL, self.number)
            await self._wait_tick()
        body = self._heard.popleft()
        self._size -= len(body)
        if self._size <= FULL_BYTES // 2:
            self.child.read(is_wanted=True)
        message: Message = pickle.loads(body)  # noqa: S301 - from a child of ours, with the author's own types
        return message

    async def _wait_tick(self) -> None:
        self._arrived.clear()
        try:
            async with asyncio.timeout(TICK_S):
                await self._arrived.wait()
        except TimeoutError:
            pass


class Isolated:
    """The children of one service's handler.

    Args:
        service: The contract.
        command: What a child runs.
        first: A child that is there already: so a handler that cannot be used is known at once.
        tasks: In which further children are started.
    """

    def __init__(
        self, service: Service, command: list[str], first: _Place, tasks: asyncio.TaskGroup
    ) -> None:
        self._service = service
        self._command = command
        self._tasks = tasks
        self._starting: set[asyncio.Task[None]] = set()
        self._places = {first}
        self._idle: asyncio.LifoQueue[_Place] = asyncio.LifoQueue()
        self._idle.put_nowait(first)
        self._pause = Pause()

    async def call(self, request: object, context: Context) -> object:
        """Run the handler on one request in a child, and return its reply."""
        async with aclosing(self._run(request, context)) as said:
            async for message in said:
                if message[0] == REPLY:
                    return message[3]
        raise RuntimeError("the handler's process said nothing")

    async def stream(self, request: object, context: Context) -> AsyncGenerator[object]:
        """Run the handler on one request in a child, and yield the parts of its reply."""
        async with aclosing(self._run(request, context)) as said:
            async for message in said:
                if message[0] == PART:
                    yield message[2]

    async def _run(self, request: object, context: Context) -> AsyncGenerator[Message]:
        """Yield what a child says about a request, up to its end.

        Raises:
            HandlingError: The handler refused, or its process died.
            RuntimeError: The handler broke.
        """
        place = await self._find()
        is_idle = False
        try:
            place.number += 1
            place.say(REQUEST, place.number, request, context.deadline_s, _facts(context))
            while not is_idle:
                message = await place.hear(context)
                if message[1] != place.number:
                    continue  # a thread that an earlier request has left behind
                if message[0] == PROGRESS:
                    context.report(*message[2:])  # type: ignore[arg-type]  # checked where it is written
                    continue
                is_idle = message[0] in {REPLY, REFUSED, BROKE}
                if message[0] != PART:
                    self._end(message, context)
                yield message
        finally:
            await self._leave(place, is_idle=is_idle)

    def _end(self, message: Message, context: Context) -> None:
        """Take the end of a request for what it would be in this process."""
        if message[0] == SPENT:
            limit = self._service.worker.memory_bytes
            raise RetryableError(
                f"the handler's process ran out of memory (worker.memory_bytes = {limit})",
                code=DIED,
            )
        context.reply_headers.update(message[2])  # type: ignore[call-overload]  # a dict, by the child
        if message[0] == REFUSED:
            raise _refusal(*message[3:])  # type: ignore[arg-type]  # what the child makes
        if message[0] == BROKE:
            raise RuntimeError(f"the handler broke in its process: {message[3]}")

    async def _find(self) -> _Place:
        """Take an idle child; start one where there is none."""
        while True:
            count = len(self._places) + len(self._starting)
            if self._idle.empty() and count < self._service.worker.concurrency:
                task = self._tasks.create_task(self._add())
                self._starting.add(task)
                task.add_done_callback(self._starting.discard)
            place = await self._idle.get()
            if place.child.is_well:
                return place
            self._places.discard(place)  # it died while it had nothing to do

    async def _leave(self, place: _Place, *, is_idle: bool) -> None:
        """Give a child back; one that is still at work, or dead, is replaced when it is needed."""
        if is_idle and place.child.is_well:
            self._idle.put_nowait(place)
            return
        self._places.discard(place)
        _log.warning("child-replaced", service=self._service.name, pid=place.child.pid)
        await place.child.end_now()

    async def _add(self) -> None:
        """Start a child, again and again until there is one."""
        while True:
            await asyncio.sleep(self._pause.before())
            try:
                place = await _open(self._command, self._service.name)
            except (OSError, HandlingError, SettingsError) as trouble:
                _log.error("child-not-started", service=self._service.name, why=str(trouble))
            else:
                self._pause = Pause()
                self._places.add(place)
                self._idle.put_nowait(place)
                return

    async def end(self) -> None:
        """End all children."""
        for task in self._starting:
            task.cancel()
        await end_all(place.child for place in self._places)


async def _open(command: list[str], service: str) -> _Place:
    """Start a child and wait until it has imported the handler.

    Raises:
        SettingsError: The handler cannot be used.
        RetryableError: The child died.
        OSError: The system starts no more processes.
    """
    place = _Place()
    is_usable = False
    await start(command, place, service=service)
    try:
        kind, _, unusable = await place.hear()
        is_usable = kind == HELLO and unusable is None
    finally:
        if not is_usable:
            await place.child.end_now()
    if not is_usable:
        raise SettingsError(str(unusable))
    return place


def _facts(context: Context) -> dict[str, object]:
    """Take from a context what crosses; no type of ours does, so there is no version of it."""
    return {
        "request_id": context.request_id,
        "attempt": context.attempt,
        "principal": context.principal,
        "headers": dict(context.headers),
        "replay": context.replay,
    }


def _refusal(
    kind: str, message: str, code: str, details: dict[str, str], after_s: float | None
) -> HandlingError:
    """Make the exception that a handler has raised in its process."""
    match kind:
        case "RetryableError":
            return RetryableError(message, code=code, details=details, after_s=after_s)
        case "PermanentError":
            return PermanentError(message, code=code, details=details)
        case _:
            return HandlingError(message, code=code, details=details)


@asynccontextmanager
async def open_isolated(where: str, service: Service) -> AsyncIterator[Handler]:
    """Run a handler in child processes for as long as the block.

    Args:
        where: `module:function`; imported by the children only.
        service: Whose handler it is.

    Raises:
        SettingsError: No such module or function, or its kind does not fit `reply`.
    """
    command = [
        *(sys.executable, "-m", "bridge.child", where, service.name, service.kind),
        str(service.worker.memory_bytes or 0),
    ]
    try:
        first = await _open(command, service.name)
    except RetryableError as died:
        raise SettingsError(f"handler {where} cannot be used: {died}; its log says why") from died
    async with asyncio.TaskGroup() as tasks:
        isolated = Isolated(service, command, first, tasks)
        try:
            if service.kind == "stream":
                yield Handler(stream=isolated.stream)
            else:
                yield Handler(call=isolated.call)
        finally:
            await isolated.end()
