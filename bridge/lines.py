"""Lines out of the chunks of a body, as they come: NDJSON without ever holding the whole of it."""

from collections.abc import Iterator
from typing import NamedTuple

_BLANK = b" \t\r"


class Line(NamedTuple):
    """One line that is not blank.

    Attributes:
        number: Its place in the body, from 1; blank lines count.
        text: What it says, without the line feed; None: it is longer than the limit.
    """

    number: int
    text: bytes | None


class Lines:
    """Splits chunks at line feeds; holds the beginning of one line at most.

    Args:
        limit: Longest line, in bytes without its line feed; of a longer one nothing is kept.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._number = 0
        self._held: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[Line]:
        """Give the lines that end in a chunk; to be read to its end before the next chunk."""
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            self._hold(chunk[start:end])
            yield from self._close()
            start = end + 1
        self._hold(chunk[start:])

    def end(self) -> Iterator[Line]:
        """Give the last line, which needs no line feed. Not for a body that was cut off."""
        if self._size:
            yield from self._close()

    def _hold(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size <= self._limit:
            self._held.append(piece)
        else:
            self._held.clear()

    def _close(self) -> Iterator[Line]:
        is_long = self._size > self._limit
        text = None if is_long else b"".join(self._held)
        self._number += 1
        self._held.clear()
        self._size = 0
        if text is None or text.strip(_BLANK):
            yield Line(self._number, text)
