"""Offsets of one partition, as runs of consecutive ones: small to keep, exact to read.

A plan says which records it means one by one, not by a rule: a rule that looks at a reply log would
choose others a day later. A million consecutive offsets are one run; ten scattered ones are ten.
"""

import base64
import binascii
import zlib
from array import array
from collections.abc import Iterable, Iterator

from bridge.errors import RecordError

_SEVEN = 0x7F


class Runs:
    """Ascending offsets of one partition.

    Args:
        offsets: Which, ascending, none twice.
    """

    __slots__ = ("_count", "_starts", "_stops")

    def __init__(self, offsets: Iterable[int] = ()) -> None:
        self._starts = array("q")
        self._stops = array("q")
        self._count = 0
        for offset in offsets:
            self.add(offset)

    def add(self, offset: int) -> None:
        """Put one behind the others."""
        self.add_run(offset, offset + 1)

    def add_run(self, start: int, stop: int) -> None:
        """Put consecutive ones behind the others: from `start` to before `stop`."""
        if self._stops and start <= self._stops[-1]:
            if start < self._stops[-1]:
                raise ValueError(f"offset {start} after {self._stops[-1] - 1}: want ascending ones")
            self._stops[-1] = stop
        else:
            self._starts.append(start)
            self._stops.append(stop)
        self._count += stop - start

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        for start, stop in self.runs():
            yield from range(start, stop)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Runs):
            return NotImplemented
        return self._starts == other._starts and self._stops == other._stops

    __hash__ = None  # type: ignore[assignment]  # it grows

    def runs(self) -> Iterator[tuple[int, int]]:
        """Tell the runs: from where on, and up to before where."""
        return zip(self._starts, self._stops, strict=True)

    def since(self, offset: int) -> "Runs":
        """Leave out what comes before an offset."""
        left = Runs()
        for start, stop in self.runs():
            if stop > offset:
                left.add_run(max(start, offset), stop)
        return left

    def encode(self) -> str:
        """Write them as text: differences as variable-length numbers, compressed, base64."""
        out = bytearray()
        at = 0
        for start, stop in self.runs():
            _put(out, start - at)
            _put(out, stop - start)
            at = stop
        return base64.b64encode(zlib.compress(bytes(out), 6)).decode()


def decode(text: str) -> Runs:
    """Read what `Runs.encode` has written.

    Raises:
        RecordError: It is something else.
    """
    try:
        data = zlib.decompress(base64.b64decode(text, validate=True))
        found = Runs()
        at = place = 0
        while at < len(data):
            gap, at = _get(data, at)
            size, at = _get(data, at)
            found.add_run(place + gap, place + gap + size)
            place += gap + size
    except (binascii.Error, zlib.error, IndexError, OverflowError, ValueError) as wrong:
        raise RecordError(f"no list of offsets: {wrong}") from None
    return found


def _put(out: bytearray, number: int) -> None:
    while number > _SEVEN:
        out.append(number & _SEVEN | _SEVEN + 1)
        number >>= 7
    out.append(number)


def _get(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & _SEVEN) << shift
        if byte <= _SEVEN:
            return number, at
        shift += 7
