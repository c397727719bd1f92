"""What is under a connection: how it is closed, and the log of what was refused on it."""

import asyncio
from typing import Any, Protocol

import structlog
from uvicorn.protocols.http.flow_control import FlowControl

from bridge import metrics
from bridge.errors import BridgeError

_log = structlog.get_logger("bridge.ingress")

LINGER_S = 1.0
"""So long a client that is still sending has to read its refusal before the connection is reset."""
LOG_S = 10.0
"""Refused connections are logged together, one line in so many seconds."""


class Refusals:
    """What was refused on connections, logged together: a flood of them must not become one of lines."""

    def __init__(self) -> None:
        self._count = 0
        self._until_s = 0.0

    def note(self, error: BridgeError, loop: asyncio.AbstractEventLoop) -> None:
        """Count one; the first is logged at once, the others with the next line."""
        metrics.HUNG_UP.labels(error.code).inc()
        self._count += 1
        now_s = loop.time()
        if now_s >= self._until_s:
            _log.warning("refused", count=self._count, latest=error.code, detail=str(error)[:200])
            self._count, self._until_s = 0, now_s + LOG_S


class Owner(Protocol):
    """The connection that a transport belongs to.

    Attributes:
        loop: Where it lives.
        flow: Pauses its reading.
    """

    loop: asyncio.AbstractEventLoop
    flow: FlowControl

    @property
    def is_receiving(self) -> bool:
        """Whether a request has begun to come and is not here yet."""


class Transport:
    """A transport that, on closing, first lets a client that is still sending read its answer.

    Closing a socket with unread bytes resets the connection, and the answer may be lost with it.
    """

    __slots__ = ("_connection", "_inner", "_is_closing")

    def __init__(self, inner: asyncio.Transport, connection: Owner) -> None:
        self._inner = inner
        self._connection = connection
        self._is_closing = False

    def write(self, data: bytes) -> None:
        """Send, unless it is closing."""
        if not self.is_closing():  # else nobody is there to be answered
            self._inner.write(data)

    def close(self) -> None:
        """Send what is written, and close."""
        if self._is_closing:
            return
        self._is_closing = True
        if not self._connection.is_receiving:
            self._inner.close()
            return
        self._connection.flow.pause_reading()
        self._inner.write_eof()
        self._connection.loop.call_later(LINGER_S, self._inner.close)

    def is_closing(self) -> bool:
        """Tell whether nothing more is sent."""
        return self._is_closing or self._inner.is_closing()

    def get_extra_info(self, name: str) -> Any:
        """Tell of the socket, by asyncio's names."""
        return self._inner.get_extra_info(name)
