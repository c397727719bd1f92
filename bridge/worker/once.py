"""A program that is started for each request: `--exec-once`.

The request is on its standard input, its standard output is the reply, its exit code says how it
went: `docs/reference/cli.md` has the table.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from bridge.context import Context
from bridge.errors import PermanentError, RetryableError
from bridge.lines import Lines
from bridge.service import Service
from bridge.worker.children import TICK_S, Child, start
from bridge.worker.handler import Handler
from bridge.worker.program import (
    DIED,
    FULL_BYTES,
    MAX_LINE_BYTES,
    deadline_ms,
    split_command,
    without_secrets,
)

_DATAERR, _TEMPFAIL = 65, 75
"""Of sysexits.h: the input is wrong; try again later."""


class _Run:
    """One run of a program, and what it has written: in pieces, or line by line."""

    def __init__(self, *, is_stream: bool) -> None:
        self.child: Child
        self.parts: deque[bytes] = deque()
        self.is_long = False
        self._arrived = asyncio.Event()
        self._size = 0
        self._lines = Lines(MAX_LINE_BYTES) if is_stream else None

    def take(self, chunk: bytes) -> None:
        self._arrived.set()
        if self._lines is None:
            self._add(chunk)
            self.is_long = self._size > MAX_LINE_BYTES
            return
        for line in self._lines.feed(chunk) if chunk else self._lines.end():
            self.is_long |= line.text is None
            self._add(line.text or b"")
        if self._size > FULL_BYTES:
            self.child.read(is_wanted=False)

    def _add(self, part: bytes) -> None:
        self.parts.append(part)
        self._size += len(part)

    def pop(self) -> bytes:
        """Take the next part of a stream."""
        part = self.parts.popleft()
        self._size -= len(part)
        if self._size <= FULL_BYTES // 2:
            self.child.read(is_wanted=True)
        return part

    async def wait(self, context: Context) -> None:
        """Wait until it has written or ended; SIGTERM tells it meanwhile that it is cancelled."""
        self._arrived.clear()
        try:
            async with asyncio.timeout(TICK_S):
                await self._arrived.wait()
        except TimeoutError:
            if context.was_cancelled():
                self.child.terminate()

    def check_size(self) -> None:
        if self.is_long:
            raise RuntimeError(f"the program wrote more than {MAX_LINE_BYTES} bytes at once")

    def judge(self) -> None:
        """Say what the end of the program means.

        Raises:
            PermanentError: It refuses the request.
            RetryableError: It asks for another time, or was killed.
            RuntimeError: It broke.
        """
        code = self.child.code
        if code == _DATAERR:
            raise PermanentError(self.child.said)
        if code == _TEMPFAIL:
            raise RetryableError(self.child.said)
        if code < 0:
            raise RetryableError(f"the program {self.child.describe()}", code=DIED)
        if code > 0:
            raise RuntimeError(f"the program {self.child.describe()}: {self.child.said}")


class _Runs:
    """Runs a program, once for each request."""

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

    async def call(self, request: object, context: Context) -> object:
        """Run the program, and return what it has written."""
        async with self._open(request, context) as run:
            while not run.child.over.is_set() and not run.is_long:
                await run.wait(context)
            run.check_size()
            run.judge()
            return b"".join(run.parts)

    async def stream(self, request: object, context: Context) -> AsyncGenerator[object]:
        """Run the program, and yield the lines that it writes."""
        async with self._open(request, context) as run:
            while not run.child.over.is_set() or run.parts:
                run.check_size()
                if run.parts:
                    yield run.pop()
                else:
                    await run.wait(context)
            run.judge()

    @asynccontextmanager
    async def _open(self, request: object, context: Context) -> AsyncIterator[_Run]:
        """Run the program with a request; it is over with the block."""
        if not isinstance(request, bytes):
            raise TypeError("a program is given JSON")
        run = _Run(is_stream=self._service.kind == "stream")
        environ = {**self._environ, **self._facts(context)}
        await start(self._argv, run, service=self._service.name, environ=environ)
        try:
            run.child.write(request)
            run.child.close_input()
            yield run
        finally:
            await run.child.end_now()

    def _facts(self, context: Context) -> dict[str, str]:
        """Say in the environment what is known beside the request."""
        facts = {
            "REQUEST_ID": context.request_id,
            "REQUEST_ATTEMPT": context.attempt,
            "REQUEST_DEADLINE_MS": deadline_ms(context, self._own_ms()),
            "REQUEST_PRINCIPAL": context.principal,
            "REQUEST_REPLAY": context.replay,
        }
        return {name: str(value) for name, value in facts.items() if value is not None}


@asynccontextmanager
async def open_once(
    command: str, service: Service, *, environ: Mapping[str, str], own_ms: Callable[[], int]
) -> AsyncIterator[Handler]:
    """Run a program for each request, for as long as the block.

    Args:
        command: The program and its arguments.
        service: Whose handler it is.
        environ: Environment of this process; the program gets it without the bridge's settings.
        own_ms: Own clock, Unix milliseconds.

    Raises:
        SettingsError: There is no such program.
    """
    runs = _Runs(split_command(command), service, without_secrets(environ), own_ms)
    if service.kind == "stream":
        yield Handler(stream=runs.stream, is_json=True)
    else:
        yield Handler(call=runs.call, is_json=True)
