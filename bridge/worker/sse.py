"""Server-sent events out of the chunks of a body, as they come.

As the HTML standard has them (9.2.6): lines end with CR, LF or both, a chunk may end anywhere, a
blank line ends an event. One whose blank line never comes is none; whoever reads asks `is_open`.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from bridge.errors import MalformedBodyError

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class Message(NamedTuple):
    """One event with data.

    Attributes:
        event: Its type; "" where none was said.
        data: Its lines, joined by line feeds.
    """

    event: bytes
    data: bytes


class Messages:
    """Splits chunks into events; holds the beginning of one event at most.

    Args:
        limit: Most bytes of one event.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._line = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._event = b""
        self._is_first = True
        self._may_skip_lf = False

    @property
    def is_open(self) -> bool:
        """Whether an event has begun that has not ended."""
        return bool(self._data or self._line)

    def feed(self, chunk: bytes) -> Iterator[Message]:
        """Give the events that end in a chunk; to be read to its end before the next chunk.

        Raises:
            MalformedBodyError: One is longer than the limit.
        """
        if not chunk:
            return
        if self._may_skip_lf:  # of a CR LF that two chunks share
            chunk = chunk.removeprefix(b"\n")
        self._may_skip_lf = chunk.endswith(b"\r")
        *ended, rest = _LINE_END.split(chunk)
        for piece in ended:
            self._line += piece
            line = bytes(self._line)
            self._line.clear()
            yield from self._take(line)
        self._line += rest
        self._check(len(self._line))

    def _take(self, line: bytes) -> Iterator[Message]:
        if self._is_first:
            line, self._is_first = line.removeprefix(_BOM), False
        if not line:
            yield from self._close()
            return
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._check(len(value))
            self._data.append(value)
            self._size += len(value) + 1
        elif name == b"event":
            self._event = value

    def _close(self) -> Iterator[Message]:
        if self._data:
            yield Message(self._event, b"\n".join(self._data))
        self._data.clear()
        self._size, self._event = 0, b""

    def _check(self, more: int) -> None:
        if self._size + more > self._limit:
            raise MalformedBodyError(f"an event is longer than {self._limit} bytes")
