"""Processes: started, waited for, ended in any case."""

import asyncio
import http.client
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.meter import Cell, parse
from bridge.embedded import guarded

READY_S = 30.0
STOP_S = 20.0
_POLL_S = 0.1


@asynccontextmanager
async def open_process(
    arguments: Sequence[str], log: Path, *, line: bytes | None = None
) -> AsyncIterator[int]:
    """Run `python ARGUMENTS` for as long as the block; gives its process ID.

    Args:
        arguments: For the Python interpreter.
        log: What it says to stderr; added to the end.
        line: Wait until it has said this to stdout; None: do not wait.
    """
    with log.open("ab") as errors:
        child = await asyncio.create_subprocess_exec(
            *guarded([sys.executable, *arguments], on_parent_death=signal.SIGTERM),
            stdout=asyncio.subprocess.PIPE if line is not None else errors,
            stderr=errors,
        )
    try:
        if line is not None and child.stdout is not None:
            async with asyncio.timeout(READY_S):
                while (said := await child.stdout.readline()) != line:
                    if not said:
                        raise RuntimeError(f"{arguments} ended before it was ready: see {log}")
        yield child.pid
    finally:
        await _end(child)


async def _end(child: asyncio.subprocess.Process) -> None:
    if child.returncode is None:
        child.terminate()
    try:
        async with asyncio.timeout(STOP_S):
            await child.wait()
    except TimeoutError:
        child.kill()
        await child.wait()


async def run_load(arguments: Sequence[str], log: Path, limit_s: float) -> Cell:
    """Run a load generator to its end and read what it measured.

    Raises:
        TimeoutError: It did not end within `limit_s` seconds.
        RuntimeError: It failed.
    """
    with log.open("ab") as errors:
        child = await asyncio.create_subprocess_exec(
            *guarded([sys.executable, *arguments]), stdout=asyncio.subprocess.PIPE, stderr=errors
        )
    try:
        async with asyncio.timeout(limit_s):
            said, _ = await child.communicate()
    finally:
        await _end(child)
    if child.returncode != 0:
        raise RuntimeError(f"{arguments} ended with exit {child.returncode}: see {log}")
    return parse(said.decode())


async def wait_answer(port: int, method: str, path: str, body: str | None = None) -> None:
    """Ask again and again until the answer is 200.

    Raises:
        TimeoutError: It never was.
    """
    async with asyncio.timeout(READY_S):
        while not await asyncio.to_thread(_is_ok, port, method, path, body):  # noqa: ASYNC110 - another process is asked, over HTTP
            await asyncio.sleep(_POLL_S)


def _is_ok(port: int, method: str, path: str, body: str | None) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=READY_S)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


def find_port() -> int:
    """Find a free port of the loopback address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
