"""Reads from sockets in small pieces, for the connections of one process."""

import asyncio
from typing import Any, ClassVar

from bridge import metrics
from bridge.ingress.limits import Limits
from bridge.ingress.protocol import READ_BYTES, Connection
from bridge.ingress.transport import Refusals


class Intake(asyncio.BufferedProtocol):
    """Reads from the socket in small pieces, and hands them to a connection.

    One buffer serves all connections of a process: a read fills it and it is emptied before the
    next one begins.
    """

    connection: ClassVar[type[Connection]]
    _buffer = bytearray(READ_BYTES)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        inner = self.connection(*args, **kwargs)
        self._inner = inner
        self.connection_made = inner.connection_made  # type: ignore[method-assign,assignment]  # saves a call
        self.connection_lost = inner.connection_lost  # type: ignore[method-assign]  # the same
        self.eof_received = inner.eof_received  # type: ignore[method-assign]  # the same
        self.pause_writing = inner.pause_writing  # type: ignore[method-assign]  # the same
        self.resume_writing = inner.resume_writing  # type: ignore[method-assign]  # the same

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 - asyncio's signature
        """Return where the next bytes go."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Pass on what has come."""
        metrics.RECEIVED.inc(nbytes)
        self._inner.data_received(bytes(memoryview(self._buffer)[:nbytes]))


def make_protocol(limits: Limits) -> type[Intake]:
    """Make the protocol of one process's connections, for uvicorn's `http`."""
    connection = type("Connection", (Connection,), {"limits": limits, "refusals": Refusals()})
    return type("Intake", (Intake,), {"connection": connection})
