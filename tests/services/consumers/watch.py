"""Works until its time is over or nobody wants the answer, and writes down both."""

import asyncio
import time
from pathlib import Path

from bridge import Context


def _write(request: dict[str, object], context: Context, word: str) -> None:
    with Path(str(request["diary"])).open("a", encoding="utf-8") as diary:
        diary.write(f"{word} {context.request_id}\n")


async def handle(request: dict[str, object], context: Context) -> dict[str, object]:
    _write(request, context, "begins")
    context.progress(None, "watching")
    assert isinstance(request["for_s"], float)
    for _ in range(int(request["for_s"] / 0.05)):
        if context.is_cancelled:
            break
        await asyncio.sleep(0.05)
    _write(request, context, "stops" if context.is_cancelled else "ends")
    return {"is_cancelled": context.is_cancelled}


def handle_in_thread(request: dict[str, object], context: Context) -> dict[str, object]:
    _write(request, context, "begins")
    context.progress(None, "watching")
    assert isinstance(request["for_s"], float)
    for _ in range(int(request["for_s"] / 0.05)):
        if context.is_cancelled:
            break
        time.sleep(0.05)
    _write(request, context, "stops" if context.is_cancelled else "ends")
    return {"is_cancelled": context.is_cancelled}
