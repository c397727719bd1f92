"""Does to its process what it is told to; in three colours."""

import asyncio
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

from bridge import Context, PermanentError, RetryableError
from bridge.errors import HandlingError


class OddError(Exception):
    """An exception that cannot be pickled."""

    def __init__(self, one: object, two: object) -> None:
        super().__init__(f"odd: {one}")
        self.lock = threading.Lock()
        self.two = two


def _harm(do: object) -> None:  # noqa: C901, PLR0912 - one branch per harm
    match do:
        case "segfault":
            ctypes.string_at(0)
        case "exit":
            sys.exit(3)
        case "os-exit":
            os._exit(4)
        case "base-exception":
            raise BaseException("none of the usual ones")  # noqa: TRY002 - that is the point
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "memory":
            bytearray(1 << 30)
        case "refuse":
            raise PermanentError("no", code="never", details={"field": "do"})
        case "later":
            raise RetryableError("not now", code="busy", after_s=2.5)
        case "handling":
            raise HandlingError("plain")
        case "odd":
            raise OddError("one", "two")
        case "cancel":
            raise asyncio.CancelledError
        case _:
            pass


def _tell(context: Context) -> dict[str, object]:
    facts = f"{context.attempt} {context.principal} {context.headers} {context.replay}"
    context.reply_headers["x-facts"] = facts
    return {"text": facts, "request_id": context.request_id, "pid": os.getpid()}


def handle(request: dict[str, object], context: Context) -> dict[str, object]:
    do, sleep_s, text = request["do"], request["sleep_s"], request["text"]
    assert isinstance(sleep_s, float)
    print(f"does {do}")
    if do == "progress":
        context.progress(0.5, "half way")
        context.progress(threading.Lock(), "cannot be told")  # type: ignore[arg-type]  # an author's mistake
    if do == "watch":
        context.progress(None, "watching")
        for _ in range(int(sleep_s / 0.01)):
            if context.is_cancelled:
                break
            time.sleep(0.01)
        return {"text": f"{context.is_cancelled}", "request_id": "", "pid": 0}
    if do == "thread":
        return {"text": threading.current_thread().name, "request_id": "", "pid": os.getpid()}
    time.sleep(sleep_s)
    _harm(do)
    if do == "lock":
        return {"text": threading.Lock(), "request_id": "", "pid": 0}
    return _tell(context) if do == "tell" else {"text": text, "request_id": "", "pid": os.getpid()}


async def handle_async(request: dict[str, object], context: Context) -> dict[str, object]:
    await asyncio.sleep(0)
    if request["do"] == "loop":  # one that lasts: what is opened in it stays open
        return {"text": f"{id(asyncio.get_running_loop())}", "request_id": "", "pid": os.getpid()}
    if request["do"] == "until-cancelled":
        try:
            await asyncio.sleep(60)
        finally:
            Path(str(request["text"])).touch()  # noqa: ASYNC240 - a moment
    return handle(request, context)


async def handle_stream(request: dict[str, int], context: Context) -> AsyncIterator[object]:
    context.progress(0.0, "begun")
    for number in range(1, request["to"] + 1):
        yield {"number": number}
    if request["to"] == 13:
        os.kill(os.getpid(), signal.SIGSEGV)
    if request["to"] == 14:
        raise PermanentError("no fourteen")
    if request["to"] == 15:
        time.sleep(60)  # noqa: ASYNC251 - it blocks: that is the point
