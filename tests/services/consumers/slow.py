"""Does twenty requests a second per worker: two at a time, each for a tenth of a second."""

import asyncio
import os

from bridge import Context


async def handle(request: dict[str, object], context: Context) -> dict[str, object]:
    await asyncio.sleep(0.1)
    return {"text": request["text"], "request_id": context.request_id, "pid": os.getpid()}
