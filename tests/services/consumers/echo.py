"""Gives its text back, and misbehaves when asked to."""

import asyncio
import os
import signal

from bridge import Context, PermanentError, RetryableError


async def handle(  # noqa: C901, PLR0912 - one branch per way to misbehave
    request: dict[str, object], context: Context
) -> dict[str, object]:
    sleep_s, do = request["sleep_s"], request["do"]
    assert isinstance(sleep_s, float)
    if do == "progress":
        context.progress(0.5, "half way")
    await asyncio.sleep(sleep_s)
    match do:
        case "refuse":
            raise PermanentError("no")
        case "teapot":
            raise PermanentError("short and stout", code="teapot", details={"spout": "here"})
        case "retry":
            raise RetryableError("later")
        case "break":
            raise ValueError("a secret of the handler")
        case "misfit":
            return {"text": 7}
        case "surrogate":
            raise PermanentError("lone \ud800", details={"\ud800": "\udfff"})
        case "number-code":
            raise PermanentError("no", code=404)  # type: ignore[arg-type]  # an author's mistake
        case "number-details":
            raise PermanentError("no", details={"n": 5})  # type: ignore[dict-item]  # the same
        case "cancel":
            raise asyncio.CancelledError
        case "stop-iteration":
            next(iter(()))
        case "die":  # a moment after the answer
            asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGKILL)
        case "big":
            return {"text": "x" * 2_000_000, "request_id": "", "pid": 0}
        case _:
            pass
    return {"text": request["text"], "request_id": context.request_id, "pid": os.getpid()}
