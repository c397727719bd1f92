"""Child processes of a worker: started, listened to, ended; none outlives the worker.

A child leads a process group of its own, which is ended with it: a shell's children would else live
on and hold its pipes. What it writes to standard error goes to the worker's log, a line at a time.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol, cast

import structlog

from bridge.embedded import guarded
from bridge.lines import Line, Lines

_log = structlog.get_logger("bridge.worker")

TICK_S = 0.2
"""So often whoever waits for a child looks whether it still makes sense."""
MAX_ERROR_BYTES = 8192
"""Longest line of standard error that is logged, in bytes."""
END_S = 1.0
"""A child has so long to end by itself when its input is closed, and so long again after SIGTERM."""
DRAIN_S = 1.0
"""What a dead child wrote before its end is read for so long: a stranger may hold its pipe open."""
_OUTPUTS = 2
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 10.0


class _Pipe(asyncio.Protocol):
    """This process's end of one of a child's pipes: what comes, if anything does, and its end."""

    def __init__(self, take: Callable[[bytes], None], end: Callable[[], None]) -> None:
        self._take = take
        self._end = end

    def data_received(self, data: bytes) -> None:
        self._take(data)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._end()


class Owner(Protocol):
    """Who has a child."""

    child: "Child"
    """Set before anything is taken."""

    def take(self, chunk: bytes) -> None:
        """Take what the child writes to standard output, as it comes; b"" when it is over."""


class Child(asyncio.SubprocessProtocol):
    """One child process.

    Args:
        owner: Takes what it writes.
        service: Whose it is, for the log.

    Attributes:
        over: Set when it has ended, and all that it wrote has been taken.
        said: The last line that it wrote to standard error.
    """

    def __init__(self, owner: Owner, service: str) -> None:
        owner.child = self
        self.over = asyncio.Event()
        self.said = ""
        self._take = owner.take
        self._log = _log.bind(service=service)
        self._errors = Lines(MAX_ERROR_BYTES)
        self._process: asyncio.SubprocessTransport
        self._input: asyncio.WriteTransport | None = None
        self._pipes: list[asyncio.ReadTransport] = []
        self._open = _OUTPUTS
        self._has_exited = False

    async def connect(self, pipes: "_Pipes") -> None:
        """Take over this process's ends of the pipes."""
        loop = asyncio.get_running_loop()
        make_input = partial(_Pipe, self._note, self._lose_input)
        self._input, _ = await loop.connect_write_pipe(make_input, pipes.input)
        for take, file in ((self._take, pipes.output), (self._note, pipes.errors)):
            make = partial(_Pipe, take, self._lose)
            transport, _ = await loop.connect_read_pipe(make, file)
            self._pipes.append(transport)
        if self.over.is_set():
            self._close()

    # What the event loop tells -------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Learn the process that was started."""
        self._process = cast(asyncio.SubprocessTransport, transport)
        self.pid = self._process.get_pid()

    def process_exited(self) -> None:
        """Learn that it has ended: so shall whatever it has started."""
        self._has_exited = True
        self._signal(signal.SIGKILL)
        asyncio.get_running_loop().call_later(DRAIN_S, self._finish)
        self._settle()

    def _lose_input(self) -> None:
        self._input = None

    def _lose(self) -> None:
        self._open -= 1
        self._settle()

    def _settle(self) -> None:
        if self._has_exited and not self._open:
            self._finish()

    def _finish(self) -> None:
        if not self.over.is_set():
            self._tell(self._errors.end())
            self.over.set()
            self._take(b"")
            self._close()

    def _close(self) -> None:
        self._process.close()
        for each in self._pipes:
            each.close()
        if self._input is not None:
            self._input.abort()  # nobody reads what is not written yet

    def _note(self, data: bytes) -> None:
        self._tell(self._errors.feed(data))

    def _tell(self, lines: Iterable[Line]) -> None:
        for line in lines:
            long = f"(a line of more than {MAX_ERROR_BYTES} bytes)"
            text = long if line.text is None else line.text.decode(errors="replace").rstrip()
            self.said = text
            self._log.info("child-says", pid=self.pid, line=text)

    # What its owner does -------------------------------------------------------------------

    @property
    def is_well(self) -> bool:
        """Whether it runs, and has closed none of its outputs."""
        return not self._has_exited and self._open == _OUTPUTS

    @property
    def code(self) -> int:
        """How it ended: its exit code, or minus the number of the signal that killed it."""
        return self._process.get_returncode() or 0

    def describe(self) -> str:
        """Say how it ended."""
        if self.code >= 0:
            return f"exited with {self.code}"
        with suppress(ValueError):
            return f"was killed by {signal.Signals(-self.code).name}"
        return f"was killed by signal {-self.code}"

    def write(self, data: bytes) -> None:
        """Write to its standard input; lost when it is gone, as `over` will tell."""
        if self._input is not None and not self._input.is_closing():
            self._input.write(data)

    def close_input(self) -> None:
        """Let its standard input end, once what was written has been read."""
        if self._input is not None:
            self._input.close()

    def read(self, *, is_wanted: bool) -> None:
        """Go on, or stop, taking what it writes; it waits when its pipe is full."""
        output = self._pipes[0] if self._pipes else None
        if output is None or output.is_closing():
            return
        if is_wanted:
            output.resume_reading()
        else:
            output.pause_reading()

    def terminate(self) -> None:
        """Ask it, and what it has started, to stop."""
        if not self._has_exited:
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once; `process_exited` ends what it has started."""
        if not self._has_exited:
            with suppress(ProcessLookupError):
                self._process.kill()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    async def end_now(self) -> None:
        """End it at once, and wait until it is over; not for ever, should the kernel not let it."""
        self.kill()
        await self._is_over_soon()

    async def end(self) -> None:
        """End it gently: its input is closed, then SIGTERM, then SIGKILL; wait until it is over."""
        try:
            self.close_input()
            if not await self._is_over_soon():
                self.terminate()
                await self._is_over_soon()
        finally:
            await self.end_now()

    async def _is_over_soon(self) -> bool:
        try:
            async with asyncio.timeout(END_S):
                await self.over.wait()
        except TimeoutError:
            return False
        return True


class Pause:
    """How long to wait before a child is started in place of another: longer from time to time.

    A program that ends again and again without having been of any use must not keep the machine
    busy with starting it.
    """

    def __init__(self) -> None:
        self._next_s = 0.0

    def before(self) -> float:
        """Return the seconds to wait before the next one is started."""
        pause_s, self._next_s = self._next_s, min(2 * self._next_s, _LONGEST_PAUSE_S)
        self._next_s = self._next_s or _FIRST_PAUSE_S
        return pause_s


async def start(
    command: Sequence[str],
    owner: Owner,
    *,
    service: str,
    environ: Mapping[str, str] | None = None,
) -> None:
    """Start a child, which dies with this process.

    Args:
        command: The program and its arguments.
        owner: Gets it, and takes what it writes.
        service: Whose it is, for the log.
        environ: Its environment; None: that of this process.

    Raises:
        OSError: The system starts no more processes.
    """
    pipes = _Pipes()
    try:
        _, child = await asyncio.get_running_loop().subprocess_exec(
            lambda: Child(owner, service),
            *guarded(command),
            stdin=pipes.theirs[0],
            stdout=pipes.theirs[1],
            stderr=pipes.theirs[2],
            env=environ,
        )
    except BaseException:
        pipes.close()
        raise
    finally:
        for fd in pipes.theirs:
            os.close(fd)
    await child.connect(pipes)


class _Pipes:
    """Pipes of a child. Not the event loop's own, which are sockets: `> /dev/stderr` fails on one."""

    def __init__(self) -> None:
        (stdin, ours_in), (ours_out, stdout), (ours_err, stderr) = (os.pipe() for _ in range(3))
        self.theirs = (stdin, stdout, stderr)
        self.input = os.fdopen(ours_in, "wb", 0)
        self.output = os.fdopen(ours_out, "rb", 0)
        self.errors = os.fdopen(ours_err, "rb", 0)

    def close(self) -> None:
        for file in (self.input, self.output, self.errors):
            file.close()


async def end_all(children: Iterable[Child]) -> None:
    """End children together."""
    async with asyncio.TaskGroup() as tasks:
        for child in children:
            tasks.create_task(child.end())
