"""Works for one second per dot in its task, and says how far it is."""

import asyncio

from bridge import Context


async def handle(request: dict[str, str], context: Context) -> dict[str, str | int]:
    """Take one second per dot, reporting progress after each."""
    task = request["task"]
    seconds = task.count(".")
    for second in range(1, seconds + 1):
        await asyncio.sleep(1)
        context.progress(second / seconds, f"{second} of {seconds} s")
    return {"task": task, "seconds": seconds}
