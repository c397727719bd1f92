"""Fails as it is told: how often, and how."""

import asyncio
import os
from pathlib import Path

from bridge import PermanentError, RetryableError
from bridge.context import Context


async def handle(request: dict[str, str], context: Context) -> dict[str, str]:
    """Do `do`, unless `after` attempts were made; each attempt is a line in the file `log`."""
    note(request, context)
    if context.attempt > int(request["after"]):
        return {"text": f"{request['text']} at {context.attempt}"}
    return await fail(request)


ERRORS: dict[str, Exception] = {
    "retryable": RetryableError("not now", code="busy"),
    "later": RetryableError("not now", code="busy", after_s=1.0),
    "permanent": PermanentError("never", code="no"),
    "break": RuntimeError("broken"),
}


async def mended(request: dict[str, str], context: Context) -> dict[str, str]:
    """Do what `handle` would not."""
    note(request, context)
    return {"text": f"{request['text']} mended"}


async def fail(request: dict[str, str]) -> dict[str, str]:
    match request["do"]:
        case "hang":
            await asyncio.Event().wait()
        case "die":
            os._exit(1)
        case "large":
            return {"text": "x" * 2_000_000}
        case "wrong":
            return {"txt": "x"}
        case _:
            pass
    raise ERRORS[request["do"]]


def note(request: dict[str, str], context: Context) -> None:
    """Write a line that survives whatever happens next."""
    with Path(os.environ["TEST_EFFECTS"]).open("a", encoding="utf-8") as effects:
        effects.write(f"{request['text']} {context.attempt}\n")
