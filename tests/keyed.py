"""Many clients that send one request under one Idempotency-Key, each on a connection of its own."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keyed:
    """What one client got."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def is_replayed(self) -> bool:
        return self.headers.get("idempotency-replayed") == "true"

    @property
    def request_id(self) -> str:
        return self.headers["request-id"]

    def json(self) -> dict[str, object]:
        found = json.loads(self.body)
        assert isinstance(found, dict)
        return found


async def post(url: str, service: str, body: object, **headers: str) -> Keyed:
    """Send one POST and read its answer (HTTP/1.1 with Content-Length)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    try:
        content = json.dumps(body).encode()
        fields = {"Host": "x", "Content-Type": "application/json"}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        fields["Content-Length"] = str(len(content))
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        start = f"POST /v1/services/{service}/requests HTTP/1.1\r\n"
        writer.write(f"{start}{head}\r\n".encode() + content)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        found = {name.lower(): value for name, value in (s.split(": ", 1) for s in lines[1:] if s)}
        answer = await reader.readexactly(int(found["content-length"]))
        return Keyed(int(lines[0].split()[1]), found, answer)
    finally:
        writer.close()


async def post_many(
    urls: Sequence[str], count: int, service: str, body: object, **headers: str
) -> list[Keyed]:
    """Send the same POST so many times at once, over all replicas in turn."""
    async with asyncio.TaskGroup() as tasks:
        asked = [
            tasks.create_task(post(urls[number % len(urls)], service, body, **headers))
            for number in range(count)
        ]
    return [task.result() for task in asked]
