"""A program in any language as a handler: `--exec`, one JSON line in, one JSON line out.

The program lives long and may work on several requests at once, answering in any order. Several
copies of it share the work. One that dies fails what it had in hand, so that each of those requests
counts an attempt, and is replaced.
"""

import asyncio
import shlex
import shutil
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

import msgspec
import structlog

from bridge.context import Context
from bridge.errors import HandlingError, PermanentError, RetryableError, SettingsError
from bridge.lines import Line, Lines
from bridge.service import Service
from bridge.worker.children import TICK_S, Child, Pause, start
from bridge.worker.handler import Handler

_log = structlog.get_logger("bridge.worker")

DIED = "program-died"
"""The code of a failure: the program ended with the request in hand."""
MAX_LINE_BYTES = 4 << 20
"""Longest line that a program may write, in bytes."""
FULL_BYTES = 4 << 20
"""A program that has told so much more than was taken is not read from until it was."""
_SHOWN = 200
_SILENT_SHARE = 0.9
"""A program that has been silent for so much of a request's whole time is taken for hung."""


class _Refused(msgspec.Struct):
    message: str = ""
    code: str | None = None
    retryable: bool = False
    details: dict[str, str] = {}
    after_s: float | None = None


class _Progress(msgspec.Struct):
    fraction: float | None = None
    message: str = ""


class _Said(msgspec.Struct):
    """A line of a program; what it says of a reply or part stays JSON, for the contract to read."""

    id: str
    reply: msgspec.Raw = msgspec.Raw()
    part: msgspec.Raw = msgspec.Raw()
    error: _Refused | None = None
    progress: _Progress | None = None

    @property
    def is_end(self) -> bool:
        return self.error is not None or bool(self.reply)


_read = msgspec.json.Decoder(_Said).decode
_write = msgspec.json.Encoder().encode


@dataclass(slots=True)
class _Held:
    """A request that a program has in hand, and what it has said about it."""

    id: str
    context: Context
    said: deque[_Said] = field(default_factory=deque)
    size: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    is_told: bool = False


class _Copy:
    """One running copy of a program, and what it has in hand.

    Args:
        service: The contract.
        own_ms: Own clock, Unix milliseconds.
    """

    def __init__(self, service: Service, own_ms: Callable[[], int]) -> None:
        self.child: Child
        self.has_answered = False
        self._is_killed = False
        self._service = service
        self._own_ms = own_ms
        self._held: dict[str, _Held] = {}
        self._owed: set[str] = set()
        self._lines = Lines(MAX_LINE_BYTES)
        self._size = 0
        self._now_s = asyncio.get_running_loop().time
        self._heard_s = self._now_s()

    @property
    def is_over(self) -> bool:
        return self._is_killed or self.child.over.is_set()

    @property
    def in_hand(self) -> int:
        return len(self._held) + len(self._owed)

    # What the program says -----------------------------------------------------------------

    def take(self, chunk: bytes) -> None:
        """Hand what the program has written to the requests that it is about."""
        self._heard_s = self._now_s()
        for line in self._lines.feed(chunk):
            said = self._parse(line)
            if said is not None:
                self._hand(said, line.text or b"")
        if self.child.over.is_set():
            for held in self._held.values():
                held.arrived.set()

    def _parse(self, line: Line) -> _Said | None:
        if line.text is None:
            self._drop(f"longer than {MAX_LINE_BYTES} bytes", b"")
            return None
        try:
            return _read(line.text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._drop(str(error), line.text)
            return None

    def _hand(self, said: _Said, line: bytes) -> None:
        held = self._held.get(said.id)
        if held is None:
            if said.id not in self._owed:
                self._drop("no request of this id is in hand", line)
            elif said.is_end:  # of a request whose time was over: nobody wants it any more
                self._owed.discard(said.id)
            return
        if said.progress is not None:
            held.context.progress(said.progress.fraction, said.progress.message)
        if said.is_end or (said.part and self._service.kind == "stream"):
            self._queue(held, said, len(line))
        elif said.progress is None:
            self._drop("want reply, error, progress, or part of a stream", line)

    def _queue(self, held: _Held, said: _Said, size: int) -> None:
        held.said.append(said)
        held.size += size
        held.arrived.set()
        if said.is_end:
            self.has_answered = True
            del self._held[held.id]
        self._size += size
        if self._size > FULL_BYTES:
            self.child.read(is_wanted=False)

    def _drop(self, why: str, line: bytes) -> None:
        shown = line[:_SHOWN].decode(errors="replace")
        name = self._service.name
        _log.warning("program-line-dropped", service=name, pid=self.child.pid, why=why, line=shown)

    # What it is told -----------------------------------------------------------------------

    def give(self, request: bytes, context: Context) -> _Held:
        """Give the program a request."""
        name, number = context.request_id, 1
        while name in self._held or name in self._owed:  # a late answer must not be taken for it
            number += 1
            name = f"{context.request_id}#{number}"
        if not self.in_hand:
            self._heard_s = self._now_s()
        facts = {
            "id": name,
            "request_id": context.request_id,
            "attempt": context.attempt,
            "deadline_ms": deadline_ms(context, self._own_ms()),
            "principal": context.principal,
            "headers": dict(context.headers),
            "replay": context.replay,
        }
        held = self._held[name] = _Held(name, context)
        self.child.write(_write(facts)[:-1] + b',"request":' + request + b"}\n")
        return held

    async def hear(self, held: _Held) -> _Said:
        """Wait for the next line about a request.

        Raises:
            RetryableError: The program has ended without an answer.
        """
        while not held.said:
            if self.child.over.is_set():
                raise RetryableError(f"the program {self.child.describe()}", code=DIED)
            held.arrived.clear()
            try:
                async with asyncio.timeout(TICK_S):
                    await held.arrived.wait()
            except TimeoutError:
                self._look(held)
        return self._pop(held)

    def _pop(self, held: _Held) -> _Said:
        said = held.said.popleft()
        if not held.said:
            self._release(held)
        return said

    def _release(self, held: _Held) -> None:
        """What was said about a request has been taken, or is not wanted."""
        self._size -= held.size
        held.size = 0
        if self._size <= FULL_BYTES // 2:
            self.child.read(is_wanted=True)

    def _look(self, held: _Held) -> None:
        """See whether a request is cancelled, and whether the program still does anything."""
        if held.context.was_cancelled():
            self._tell_cancel(held)
        self._check_life(self._service.worker.timeout_s)

    def _tell_cancel(self, held: _Held) -> None:
        if not held.is_told:
            held.is_told = True
            self.child.write(_write({"id": held.id, "cancel": True}) + b"\n")

    def leave(self, held: _Held) -> None:
        """Give up a request, whose time is over; a program that says nothing at all is hung."""
        self._release(held)
        if self._held.pop(held.id, None) is None:
            return
        self._owed.add(held.id)
        self._tell_cancel(held)
        self._check_life(_SILENT_SHARE * self._service.worker.timeout_s)

    def _check_life(self, limit_s: float) -> None:
        silent_s = self._now_s() - self._heard_s
        if silent_s >= limit_s and self._size <= FULL_BYTES // 2 and not self.is_over:
            _log.error("program-silent", pid=self.child.pid, silent_s=round(silent_s, 1))
            self._is_killed = True
            self.child.kill()


class _Copies:
    """All copies of a program."""

    def __init__(
        self,
        argv: Sequence[str],
        service: Service,
        environ: Mapping[str, str],
        own_ms: Callable[[], int],
    ) -> None:
        self._argv = argv
        self._service = service
        self._environ = environ
        self._own_ms = own_ms
        self._copies: list[_Copy] = []
        self._added = asyncio.Event()

    async def keep(self) -> None:
        """Run one copy again and again until cancelled; then end it gently."""
        pause = Pause()
        while True:
            await asyncio.sleep(pause.before())
            copy = _Copy(self._service, self._own_ms)
            name = self._service.name
            try:
                await start(self._argv, copy, service=name, environ=self._environ)
            except OSError as trouble:
                _log.error("program-not-started", service=name, why=str(trouble))
                continue
            self._copies.append(copy)
            self._added.set()
            try:
                await copy.child.over.wait()
            finally:
                self._copies.remove(copy)
                await copy.child.end()
            _log.error("program-ended", service=name, how=copy.child.describe())
            if copy.has_answered:
                pause = Pause()

    async def call(self, request: object, context: Context) -> object:
        """Ask the program, and return its reply, as JSON."""
        async with aclosing(self._ask(request, context)) as lines:
            async for said in lines:
                if said.is_end:
                    return bytes(said.reply)
        raise RuntimeError("a program's last line is its end")

    async def stream(self, request: object, context: Context) -> AsyncGenerator[object]:
        """Ask the program, and yield the parts of its reply, as JSON."""
        async with aclosing(self._ask(request, context)) as lines:
            async for said in lines:
                if not said.is_end:
                    yield bytes(said.part)

    async def _ask(self, request: object, context: Context) -> AsyncGenerator[_Said]:
        if not isinstance(request, bytes):
            raise TypeError("a program is given JSON")
        while not (copies := [copy for copy in self._copies if not copy.is_over]):
            self._added.clear()
            await self._added.wait()
        copy = min(copies, key=lambda each: each.in_hand)
        held = copy.give(request, context)
        try:
            is_over = False
            while not is_over:
                said = await copy.hear(held)
                if said.error is not None:
                    raise _refusal(said.error)
                is_over = said.is_end
                yield said
        finally:
            copy.leave(held)


def _refusal(error: _Refused) -> HandlingError:
    message, code, details = error.message, error.code, error.details
    if error.retryable:
        return RetryableError(message, code=code, details=details, after_s=error.after_s)
    return PermanentError(message, code=code, details=details)


def deadline_ms(context: Context, now_ms: int) -> int | None:
    """Say until when the answer is wanted, by this machine's clock: Unix milliseconds."""
    left_s = context.deadline_s
    return now_ms + int(left_s * 1000) if left_s < float("inf") else None


def split_command(command: str) -> list[str]:
    """Split a command as a shell would; there is no shell that would do more with it.

    Raises:
        SettingsError: It is none, or its program is not there.
    """
    try:
        argv = shlex.split(command)
    except ValueError as wrong:
        raise SettingsError(f"--exec {command!r}: {str(wrong).lower()}") from None
    if not argv or shutil.which(argv[0]) is None:
        found = f"no program {argv[0]} is on PATH" if argv else "it is empty"
        raise SettingsError(f"--exec {command!r}: {found}; want 'program args'")
    return argv


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """Leave the bridge's own settings out of a program's environment: some are secrets."""
    return {name: value for name, value in environ.items() if not name.startswith("BRIDGE_")}


@asynccontextmanager
async def open_program(
    command: str,
    service: Service,
    *,
    processes: int,
    environ: Mapping[str, str],
    own_ms: Callable[[], int],
) -> AsyncIterator[Handler]:
    """Run copies of a program for as long as the block, and ask them.

    Args:
        command: The program and its arguments.
        service: Whose handler it is.
        processes: How many copies run.
        environ: Environment of this process; the program gets it without the bridge's settings.
        own_ms: Own clock, Unix milliseconds.

    Raises:
        SettingsError: There is no such program.
    """
    argv = split_command(command)
    copies = _Copies(argv, service, without_secrets(environ), own_ms)
    async with asyncio.TaskGroup() as tasks:
        keeping = [tasks.create_task(copies.keep()) for _ in range(processes)]
        try:
            if service.kind == "stream":
                yield Handler(stream=copies.stream, is_json=True)
            else:
                yield Handler(call=copies.call, is_json=True)
        finally:
            for task in keeping:
                task.cancel()
