"""Request IDs: UUIDv7 (RFC 9562) that carry the time and the lane of their reply log.

The first 48 bits are Unix milliseconds in broker time, the 12 bits after the version (`rand_a`)
are the lane, the last 62 bits are chance. So any replica finds a request's log from its ID alone:
which partition, and from when on. Time and chance are arguments.
"""

import re
from dataclasses import dataclass
from typing import NewType

RequestId = NewType("RequestId", str)

LANES = 1 << 12
"""The lane field is 12 bits wide: a reply topic of more partitions cannot be addressed."""

_VERSION = 7
_VARIANT = 0b10
_TEXT = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a request's reply log starts: what an ID of ours says.

    Attributes:
        time_ms: When the request was taken, in Unix milliseconds of broker time.
        lane: The partition of the reply topic.
    """

    time_ms: int
    lane: int


def make(*, time_ms: int, lane: int, chance: int) -> RequestId:
    """Make a request ID.

    Args:
        time_ms: Unix milliseconds, 0 to 2**48 - 1.
        lane: Partition of the reply topic, 0 to 4095.
        chance: 62 random bits.
    """
    high = time_ms << 16 | _VERSION << 12 | lane
    text = f"{high << 64 | _VARIANT << 62 | chance:032x}"
    return RequestId(f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}")


def parse(text: str) -> Address | None:
    """Read time and lane out of an ID; None when the bridge did not make it."""
    if _TEXT.match(text) is None:
        return None
    return Address(time_ms=int(text[:8] + text[9:13], 16), lane=int(text[15:18], 16))


def normalize(text: str) -> str:
    """Return an ID as the bridge writes it: a UUID is read in either case (RFC 9562, section 4)."""
    lower = text.lower()
    return text if parse(lower) is None else lower
