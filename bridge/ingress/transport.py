"""What is under a connection: how it is closed, and the log of what was refused on it."""

import asyncio
import fcntl
import struct
import termios
from contextlib import suppress
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

    @property
    def is_given_up(self) -> bool:
        """Whether an answer was given up half-way because its client takes nothing."""


class Transport:
    """A transport that closes so that the client can read its answer, and surely.

    Closing a socket with unread bytes resets the connection, and the answer may be lost with it: so
    a client that is still sending is given a moment. Closing waits until all that is written has
    been taken, which a client that does not read can delay for ever: so one that takes nothing for
    `stalled_s` is cut off.

    Args:
        inner: What it wraps.
        connection: Whose it is.
        stalled_s: So long, in seconds, a client may take nothing of what is written.
    """

    __slots__ = ("_connection", "_inner", "_is_closing", "_stalled_s", "_timer", "_unsent")

    def __init__(self, inner: asyncio.Transport, connection: Owner, stalled_s: float) -> None:
        self._inner = inner
        self._connection = connection
        self._stalled_s = stalled_s
        self._is_closing = False
        self._timer: asyncio.TimerHandle | None = None
        self._unsent = 0

    def write(self, data: bytes) -> None:
        """Send, unless it is closing."""
        if not self.is_closing():  # else nobody is there to be answered
            self._inner.write(data)

    def close(self) -> None:
        """Send what is written, and close; at once where nobody takes it."""
        if self._is_closing:
            return
        self._is_closing = True
        if self._connection.is_given_up:
            self.abort()
            return
        if not self._connection.is_receiving:
            self._close()
            return
        self._connection.flow.pause_reading()
        self._inner.write_eof()
        self._connection.loop.call_later(LINGER_S, self._close)

    def _close(self) -> None:
        self._inner.close()
        self.watch()

    def abort(self) -> None:
        """Close now, whatever is written and not taken."""
        self._is_closing = True
        self.forget()
        self._inner.abort()

    def watch(self) -> None:
        """See to it that the client takes what is written."""
        if self._timer is None and self.unsent:
            self._unsent = self.unsent + self._in_kernel()
            self._timer = self._connection.loop.call_later(self._stalled_s, self._look)

    def lose(self) -> None:
        """Hear that the connection is lost."""
        self._is_closing = True
        self.forget()

    def forget(self) -> None:
        """Look no more: the client has taken enough."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self.unsent + self._in_kernel() < self._unsent:
            self.watch()
        else:
            _log.info("connection-stalled", seconds=self._stalled_s, unsent_bytes=self.unsent)
            self.abort()

    @property
    def unsent(self) -> int:
        """Bytes that are written and not handed to the kernel."""
        return self._inner.get_write_buffer_size()

    def _in_kernel(self) -> int:
        """Return bytes that the kernel holds, megabytes perhaps: a slow client takes from there first."""
        with suppress(OSError):
            descriptor = self._inner.get_extra_info("socket").fileno()
            (count,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))
            return int(count)
        return 0

    def is_closing(self) -> bool:
        """Tell whether nothing more is sent."""
        return self._is_closing or self._inner.is_closing()

    def get_extra_info(self, name: str) -> Any:
        """Tell of the socket, by asyncio's names."""
        return self._inner.get_extra_info(name)
