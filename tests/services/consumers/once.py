"""Notes every execution in a file, as an effect in the world outside."""

import asyncio
import os

from bridge import Context


async def handle(request: dict[str, object], context: Context) -> dict[str, object]:
    file, sleep_s = request["file"], request["sleep_s"]
    assert isinstance(file, str)
    assert isinstance(sleep_s, float)
    noted = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(noted, f"{request['text']} {context.request_id}\n".encode())
    finally:
        os.close(noted)
    await asyncio.sleep(sleep_s)
    return {"text": request["text"], "request_id": context.request_id}
