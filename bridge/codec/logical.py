"""Logical types: what they may stand on, what fits into them, and their two other forms.

A value has three forms: plain JSON (text), Python's own (datetime, Decimal, UUID) and raw, which
is what Avro writes (a number, bytes). Everything here is exact: what a type cannot keep, such as
microseconds in a `timestamp-millis`, is refused and never rounded. Dates are Python's and RFC
3339's: the years 1 to 9999 of the proleptic Gregorian calendar.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TypeVar

from bridge.codec.node import Fixed, Scalar
from bridge.codec.refusal import describe, refuse

MAX_PRECISION = 1000
"""Digits of a decimal: ten times what any database keeps; bounds the work a text can cause."""

PlainT = TypeVar("PlainT", Scalar, Fixed)

_BASES = {
    "date": ("int",),
    "time-millis": ("int",),
    "time-micros": ("long",),
    "timestamp-millis": ("long",),
    "timestamp-micros": ("long",),
    "local-timestamp-millis": ("long",),
    "local-timestamp-micros": ("long",),
    "decimal": ("bytes", "fixed"),
    "uuid": ("string", "fixed"),
}

_DAY_US = 86_400_000_000
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_FIRST_DAY, _LAST_DAY = 1 - _EPOCH_DAY, date.max.toordinal() - _EPOCH_DAY
_FIRST_US, _LAST_US = _FIRST_DAY * _DAY_US, (_LAST_DAY + 1) * _DAY_US - 1

BOUNDS: Mapping[str, tuple[int, int]] = {
    "int": (-(1 << 31), (1 << 31) - 1),
    "long": (-(1 << 63), (1 << 63) - 1),
    "date": (_FIRST_DAY, _LAST_DAY),
    "time-millis": (0, _DAY_US // 1000 - 1),
    "time-micros": (0, _DAY_US - 1),
    "timestamp-millis": (_FIRST_US // 1000, _LAST_US // 1000),
    "timestamp-micros": (_FIRST_US, _LAST_US),
    "local-timestamp-millis": (_FIRST_US // 1000, _LAST_US // 1000),
    "local-timestamp-micros": (_FIRST_US, _LAST_US),
}
"""Lowest and highest raw value of each type that is a number in Avro."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LOCAL_EPOCH = _EPOCH.replace(tzinfo=None)
_MICROSECOND = timedelta(microseconds=1)

_DATE_PART = r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
_TIME_PART = r"([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?"
_DATE = re.compile(_DATE_PART)
_TIME = re.compile(_TIME_PART)
_LOCAL = re.compile(f"{_DATE_PART}[Tt]{_TIME_PART}")
_ZONED = re.compile(f"{_DATE_PART}[Tt]{_TIME_PART}(?:[Zz]|([+-])([0-9]{{2}}):([0-9]{{2}}))")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def check_logical(node: PlainT, attributes: Mapping[str, object]) -> PlainT:
    """Give a type its logical type; unknown ones are ignored, as Avro asks.

    Raises:
        ValueError: The logical type is known but cannot be had like this; the message says why.
    """
    name = attributes.get("logicalType")
    base = _base(node)
    if not isinstance(name, str) or name not in _BASES:
        return node
    if base not in _BASES[name]:
        raise ValueError(f"logicalType {name} stands on {' or '.join(_BASES[name])}, not on {base}")
    if name == "decimal":
        precision, scale = _decimal_limits(node, attributes)
        return replace(node, logical=name, precision=precision, scale=scale)
    if base == "fixed":
        return node  # fastavro does not know a uuid on fixed: stays plain bytes
    return replace(node, logical=name)


def _base(node: Scalar | Fixed) -> str:
    return node.type if isinstance(node, Scalar) else "fixed"


def _decimal_limits(node: Scalar | Fixed, attributes: Mapping[str, object]) -> tuple[int, int]:
    precision, scale = attributes.get("precision"), attributes.get("scale", 0)
    most = MAX_PRECISION
    if isinstance(node, Fixed):
        most = min(most, math.floor(math.log10(2) * (8 * node.size - 1))) if node.size else 0
    if not isinstance(precision, int) or not 1 <= precision <= most:
        raise ValueError(f"a decimal of precision {precision}: want 1 to {most}")
    if not isinstance(scale, int) or not 0 <= scale <= precision:
        raise ValueError(f"a decimal of scale {scale}: want 0 to its precision, {precision}")
    return precision, scale


def parse_date(text: str) -> int:
    """Read `2026-11-23` as days since 1970."""
    found = _DATE.fullmatch(text)
    if found is None:
        raise refuse(f"found {describe(text)}: want a date such as 2026-11-23")
    return _day(*map(int, found.groups()))


def parse_time(text: str, unit_us: int) -> int:
    """Read `21:30:00.125` as units of `unit_us` microseconds since midnight."""
    found = _TIME.fullmatch(text)
    if found is None:
        raise refuse(f"found {describe(text)}: want a time such as 21:30:00.125")
    return _units(_since_midnight(*found.groups()), unit_us)


def parse_local(text: str, unit_us: int) -> int:
    """Read `2026-11-23T21:30:00` as units since 1970, wherever that was."""
    found = _LOCAL.fullmatch(text)
    if found is None:
        raise refuse(f"found {describe(text)}: want local time without offset, 2026-11-23T21:30:00")
    return _units(_instant(found.groups()), unit_us)


def parse_timestamp(text: str, unit_us: int) -> int:
    """Read `2026-11-23T21:30:00Z` as units since 1970 in UTC."""
    found = _ZONED.fullmatch(text)
    if found is None:
        raise refuse(f"found {describe(text)}: want a time with Z or offset, 2026-11-23T21:30:00Z")
    *moment, sign, hours, minutes = found.groups()
    instant = _instant(moment)
    if sign is not None:
        if int(hours) > 23 or int(minutes) > 59:  # noqa: PLR2004 - a day, an hour
            raise refuse(f"found {describe(text)}: want an offset of less than a day")
        offset = (int(hours) * 60 + int(minutes)) * 60_000_000
        instant += offset if sign == "-" else -offset
    if not _FIRST_US <= instant <= _LAST_US:
        raise refuse(f"found {describe(text)}: in UTC not within the years 1 to 9999")
    return _units(instant, unit_us)


def parse_decimal(text: str, precision: int, scale: int) -> int:
    """Read `-12.50` as an unscaled integer."""
    if _DECIMAL.fullmatch(text) is None:
        raise refuse(f"found {describe(text)}: want a decimal number as text, such as -12.50")
    whole, _, fraction = text.partition(".")
    kept, lost = fraction[:scale], fraction[scale:]
    if lost.strip("0"):
        raise refuse(f"found {describe(text)}: want at most {scale} digits after the point")
    digits = len(whole.lstrip("-").lstrip("0")) + scale
    if digits > precision:
        raise refuse(f"found {describe(text)}: want at most {precision - scale} digits in front")
    return int(whole + kept.ljust(scale, "0"))


def parse_uuid(text: str) -> str:
    """Read a UUID; both cases are read, small letters are written (RFC 9562)."""
    if _UUID.fullmatch(text) is None:
        raise refuse(f"found {describe(text)}: want a UUID, 8-4-4-4-12 hexadecimal digits")
    return text.lower()


def from_datetime(value: datetime, unit_us: int) -> int:
    """Turn an aware datetime into units since 1970 in UTC."""
    if value.utcoffset() is None:
        raise refuse(f"found the naive datetime {value.isoformat()}: want one with a time zone")
    micros = (value - _EPOCH) // _MICROSECOND
    if not _FIRST_US <= micros <= _LAST_US:
        raise refuse(f"{value.isoformat()} is in UTC not within the years 1 to 9999")
    return _units(micros, unit_us)


def from_local_datetime(value: datetime, unit_us: int) -> int:
    """Turn a naive datetime into units since 1970."""
    if value.tzinfo is not None:
        raise refuse(f"found {value.isoformat()}: want a datetime without a time zone")
    return _units((value - _LOCAL_EPOCH) // _MICROSECOND, unit_us)


def from_time(value: time, unit_us: int) -> int:
    """Turn a naive time of day into units since midnight."""
    if value.tzinfo is not None:
        raise refuse(f"found {value.isoformat()}: want a time without a time zone")
    seconds = (value.hour * 60 + value.minute) * 60 + value.second
    return _units(seconds * 1_000_000 + value.microsecond, unit_us)


def from_date(value: date) -> int:
    """Turn a date into days since 1970."""
    return value.toordinal() - _EPOCH_DAY


def from_decimal(value: Decimal, precision: int, scale: int) -> int:
    """Turn a Decimal into an unscaled integer."""
    if not value.is_finite():
        raise refuse(f"found {value}: want a finite number, plain JSON has no other")
    sign, digits, exponent = value.as_tuple()
    shift = int(exponent) + scale
    if not any(digits):
        return 0
    if len(digits) + shift > precision:
        raise refuse(f"found {value}: want at most {precision - scale} digits before the point")
    if shift < 0:
        lost, digits = digits[shift:], digits[:shift]
        if any(lost):
            raise refuse(f"found {value}: want at most {scale} digits after the point")
    unscaled = int("".join(map(str, digits)) + "0" * shift)
    return -unscaled if sign else unscaled


def to_bytes(unscaled: int) -> bytes:
    """Write an unscaled decimal in the fewest bytes, big-endian two's complement."""
    length = (unscaled + (unscaled < 0)).bit_length() // 8 + 1
    return unscaled.to_bytes(length, "big", signed=True)


def _day(year: int, month: int, day: int) -> int:
    try:
        return date(year, month, day).toordinal() - _EPOCH_DAY
    except ValueError as error:
        raise refuse(f"{year:04}-{month:02}-{day:02}: {error}") from None


def _since_midnight(hour: str, minute: str, second: str, fraction: str | None) -> int:
    if int(hour) > 23 or int(minute) > 59 or int(second) > 59:  # noqa: PLR2004 - a clock
        raise refuse(f"{hour}:{minute}:{second}: want 00:00:00 to 23:59:59")
    seconds = (int(hour) * 60 + int(minute)) * 60 + int(second)
    micros, beyond = (fraction or "")[:6], (fraction or "")[6:]
    if beyond.strip("0"):
        raise refuse(f"the fraction .{fraction:.20} is finer than a microsecond")
    return seconds * 1_000_000 + int(micros.ljust(6, "0"))


def _instant(parts: Sequence[str]) -> int:
    year, month, day, *clock = parts
    return _day(int(year), int(month), int(day)) * _DAY_US + _since_midnight(*clock)


def _units(micros: int, unit_us: int) -> int:
    units, lost = divmod(micros, unit_us)
    if lost:
        raise refuse(f"the fraction .{micros % 1_000_000:06} is finer than a millisecond")
    return units
