"""Many clients at once, each on a connection of its own, with nothing between them and the socket."""

import asyncio
import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """What one client got."""

    status: int
    request_id: str
    body: dict[str, object]


async def ask(port: int, path: str, body: object, *, prefer: str) -> Answer:
    """Send one POST and read its answer (HTTP/1.1 with Content-Length)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        content = json.dumps(body).encode()
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Prefer: {prefer}\r\nContent-Length: {len(content)}\r\n\r\n".encode()
            + content
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        answer = json.loads(await reader.readexactly(int(fields["content-length"])))
        return Answer(int(head[0].split()[1]), fields["request-id"], answer)
    finally:
        writer.close()
