"""Has an effect in the world outside: a line in a file when it begins, another when it ends."""

import asyncio
import os
import threading
import zlib

FILE = os.environ["TEST_EFFECTS"]
UP_TO_S = float(os.environ.get("TEST_UP_TO_S", "0"))
"""A request that does not say how long it takes takes up to so long; its text decides."""


def note(word: str, request: dict[str, object]) -> None:
    file = os.open(FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(file, f"{word} {os.getpid()} {request['text']}\n".encode())
    finally:
        os.close(file)


def duration_s(request: dict[str, object]) -> float:
    sleep_s = request["sleep_s"]
    assert isinstance(sleep_s, float)
    return sleep_s or UP_TO_S * zlib.crc32(str(request["text"]).encode()) / 2**32


async def handle(request: dict[str, object]) -> dict[str, object]:
    note("begin", request)
    await asyncio.sleep(duration_s(request))
    note("end", request)
    return {"text": request["text"], "pid": os.getpid()}


async def block(request: dict[str, object]) -> dict[str, object]:
    """Hold up the event loop, as a handler must not."""
    note("begin", request)
    threading.Event().wait(duration_s(request))
    note("end", request)
    return {"text": request["text"], "pid": os.getpid()}
