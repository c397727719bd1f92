"""Streams the numbers from 1, as slowly and with as much text beside each as it is asked to."""

import asyncio
from collections.abc import AsyncIterator

from bridge import Context


async def handle(
    request: dict[str, int | float], context: Context
) -> AsyncIterator[dict[str, object]]:
    context.progress(0.0, "begun")
    for number in range(1, int(request["to"]) + 1):
        await asyncio.sleep(request["sleep_s"])
        yield {"number": number, "text": "x" * int(request["size"])}
