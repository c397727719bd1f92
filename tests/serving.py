"""Connections without a bridge: the ingress's protocol in front of a small application."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send

from bridge.ingress.intake import make_protocol
from bridge.ingress.limits import Limits

LARGE = bytes(16 << 20)
"""More than sockets hold."""


class Serving(uvicorn.Server):
    """A server on a port of its own; its state tells of its connections and tasks.

    Attributes:
        url: Where it listens.
    """

    url = ""

    def capture_signals(self) -> Any:
        return nullcontext()


@asynccontextmanager
async def serve(app: Any, limits: Limits) -> AsyncIterator[Serving]:
    """Serve an application for as long as the block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(
            app,
            loop="none",
            http=make_protocol(limits),  # type: ignore[arg-type]  # any protocol will do
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=1,
        )
        server = Serving(config)
        server.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.serve(sockets=[listener]))
            try:
                yield server
            finally:
                server.should_exit = True


async def small_app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer by path: `/early` unread, `/slow` late, `/never`, `/stall` without end, `/large` much, else the size."""
    path = scope["path"]
    if path == "/stall":
        await _stall(send)
        return
    size = 0
    if path == "/never":
        await receive()  # the body, all of it
        await receive()
        return
    if path == "/slow":
        await asyncio.sleep(0.3)
    elif path != "/early":
        is_more = True
        while is_more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size += len(message.get("body", b""))
            is_more = message.get("more_body", False)
    body = LARGE if path == "/large" else f"{path} {size};".encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _stall(send: Send) -> None:
    """Write as fast as the client reads, and give it up when it does not."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    try:
        while True:
            async with asyncio.timeout(0.5):
                await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
    except TimeoutError:
        return
