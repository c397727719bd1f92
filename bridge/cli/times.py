"""Times as people write them on a command line, and as they are printed: UTC, always said so."""

import re
from datetime import UTC, datetime

_AGO = re.compile(r"-?(\d{1,9})([smhd])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def parse_time(text: str, *, now_ms: int) -> int:
    """Read a point in time: ISO 8601, UTC unless it says otherwise, or so long ago, as `-2h`.

    Returns:
        Unix milliseconds.

    Raises:
        ValueError: It is neither; the message says what is wanted.
    """
    ago = _AGO.match(text)
    if ago is not None:
        return now_ms - int(ago[1]) * _SECONDS[ago[2]] * 1000
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is no time: want ISO 8601, as 2026-01-31T12:00, or -30s, -5m, -2h, -1d"
        ) from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    return int(found.timestamp() * 1000)


def format_time(time_ms: int) -> str:
    """Write Unix milliseconds as ISO 8601 in UTC, in seconds; what no calendar has as a number."""
    try:
        return f"{datetime.fromtimestamp(time_ms // 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (ValueError, OverflowError, OSError):
        return str(time_ms)
