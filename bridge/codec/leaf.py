"""Leaves: the readers of single values, for each form that values come in.

Strict where fastavro is not (RELIABILITY, fact 6): 1.0, "1" and true are no integers, an integer
that a double cannot hold is refused, and so is a number that plain JSON could not carry back.
"""

import binascii
import math
import struct
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from uuid import UUID

from bridge.codec.logical import (
    BOUNDS,
    from_date,
    from_datetime,
    from_decimal,
    from_local_datetime,
    from_time,
    parse_date,
    parse_decimal,
    parse_local,
    parse_time,
    parse_timestamp,
    parse_uuid,
    to_bytes,
)
from bridge.codec.node import Enum, Fixed, Scalar
from bridge.codec.reader import Leaf, Left, Read
from bridge.codec.refusal import describe, refuse
from bridge.codec.text import check_text

_UNITS = {"millis": 1000, "micros": 1}  # microseconds
_FLOAT = struct.Struct("<f")


def json_leaf(node: Leaf) -> Read:
    """Make the reader of a leaf in plain JSON."""
    if isinstance(node, Enum):
        return read_enum(node)
    logical = node.logical
    if logical == "decimal":
        return _of_text(lambda text: parse_decimal(text, node.precision, node.scale), _packer(node))
    if isinstance(node, Fixed):
        return read_base64(node.size)
    if logical is None:
        return read_base64(None) if node.type == "bytes" else _plain(node.type)
    return _of_text(_text_parser(logical))


def json_types(node: Leaf) -> tuple[type, ...]:
    """Say what a leaf is in parsed JSON."""
    if isinstance(node, Scalar) and node.logical is None:
        return _PLAIN_TYPES.get(node.type, (str,))
    return (str,)


def native_leaf(node: Leaf) -> Read:
    """Make the reader of a leaf as handlers give it: datetime, Decimal, UUID, bytes."""
    if isinstance(node, Enum):
        return read_enum(node)
    if node.logical == "decimal":
        pack = _packer(node)
        precision, scale = node.precision, node.scale
        return _of_type(Decimal, lambda value: pack(from_decimal(value, precision, scale)))
    if isinstance(node, Fixed):
        return read_bytes(node.size)
    if node.logical is None:
        return read_bytes(None) if node.type == "bytes" else _plain(node.type)
    return _native_logical(node.logical)


def native_types(node: Leaf) -> tuple[type, ...]:
    """Say which Python types a leaf is read from."""
    if isinstance(node, Enum):
        return (str,)
    if node.logical is not None:
        return (_NATIVE[node.logical.removeprefix("local-").partition("-")[0]],)
    if isinstance(node, Fixed) or node.type == "bytes":
        return (bytes, bytearray)
    return _PLAIN_TYPES.get(node.type, (str,))


def default_leaf(node: Leaf) -> Read:
    """Make the reader of a leaf as Avro writes defaults: raw, with bytes as Latin-1 text."""
    if isinstance(node, Enum):
        return read_enum(node)
    if isinstance(node, Fixed):
        return read_latin1(node.size)
    return read_latin1(None) if node.type == "bytes" else _plain(node.type)


_PLAIN_TYPES: dict[str, tuple[type, ...]] = {
    "null": (type(None),),
    "boolean": (bool,),
    "int": (int, float),
    "long": (int, float),
    "float": (int, float),
    "double": (int, float),
}
_NATIVE: dict[str, type] = {
    "date": date,
    "time": time,
    "timestamp": datetime,
    "decimal": Decimal,
    "uuid": UUID,
}


def _plain(kind: str) -> Read:
    readers = {"null": read_null, "boolean": read_boolean, "string": read_string}
    if kind in readers:
        return readers[kind]
    if kind in ("float", "double"):
        return read_float if kind == "float" else read_double
    return read_integer(kind)


def read_null(value: object, _depth: int, _left: Left) -> object:
    """Read null."""
    if value is not None:
        raise refuse(f"found {describe(value)}: want null")
    return None


def read_boolean(value: object, _depth: int, _left: Left) -> object:
    """Read true or false."""
    if value is not True and value is not False:
        raise refuse(f"found {describe(value)}: want true or false")
    return value


def read_string(value: object, _depth: int, _left: Left) -> object:
    """Read text."""
    if type(value) is str and value.isascii():
        return value
    return check_text(value)


def read_integer(kind: str) -> Read:
    """Read whole numbers within the type's bounds."""
    low, high = BOUNDS[kind]

    def read(value: object, _depth: int, _left: Left) -> object:
        if not isinstance(value, int) or isinstance(value, bool):
            raise refuse(f"found {describe(value)}: want a whole number without fraction")
        if not low <= value <= high:
            raise refuse(f"found {describe(value)}: want {low} to {high}, an Avro {kind}")
        return value if type(value) is int else int(value)

    return read


def read_double(value: object, _depth: int, _left: Left) -> object:
    """Read a number that a double can hold."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise refuse(f"found {describe(value)}: want a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise refuse(f"found {describe(value)}: want a finite number, plain JSON has no other")
    if number != value:
        raise refuse(f"found {describe(value)}: an Avro double cannot hold it exactly")
    return number


def read_float(value: object, depth: int, left: Left) -> object:
    """Read a number that a float can hold: rounded as floats are, but no whole number changed."""
    number = read_double(value, depth, left)
    try:
        (kept,) = _FLOAT.unpack(_FLOAT.pack(number))
    except OverflowError:
        raise refuse(f"found {describe(value)}: too large for an Avro float") from None
    if isinstance(value, int) and kept != value:
        raise refuse(f"found {describe(value)}: an Avro float cannot hold it exactly")
    return number


def read_enum(node: Enum) -> Read:
    """Read one of the symbols."""
    symbols = frozenset(node.symbols)
    want = ", ".join(node.symbols)

    def read(value: object, _depth: int, _left: Left) -> object:
        if not isinstance(value, str) or value not in symbols:
            raise refuse(f"found {describe(value)}: want one of {want:.200}")
        return value if type(value) is str else str.__str__(value)

    return read


def read_base64(size: int | None) -> Read:
    """Read bytes written as base64; any other spelling of the same bytes is refused."""

    def read(value: object, _depth: int, _left: Left) -> object:
        try:
            raw = binascii.a2b_base64(value, strict_mode=True) if isinstance(value, str) else None
        except ValueError:
            raw = None
        if raw is None or binascii.b2a_base64(raw, newline=False) != str(value).encode():
            raise refuse(f"found {describe(value)}: want bytes as base64 with padding")
        return _sized(raw, size)

    return read


def read_bytes(size: int | None) -> Read:
    """Read bytes."""

    def read(value: object, _depth: int, _left: Left) -> object:
        if not isinstance(value, bytes | bytearray):
            raise refuse(f"found {describe(value)}: want bytes")
        return _sized(bytes(value), size)

    return read


def read_latin1(size: int | None) -> Read:
    """Read bytes as defaults have them: one character from U+0000 to U+00FF each."""

    def read(value: object, _depth: int, _left: Left) -> object:
        try:
            raw = value.encode("latin-1") if isinstance(value, str) else None
        except UnicodeEncodeError:
            raw = None
        if raw is None:
            raise refuse(f"found {describe(value)}: want bytes as text of U+0000 to U+00FF")
        return _sized(raw, size)

    return read


def _sized(raw: bytes, size: int | None) -> bytes:
    if size is not None and len(raw) != size:
        raise refuse(f"found {len(raw)} bytes: want exactly {size}")
    return raw


def _packer(node: Scalar | Fixed) -> Callable[[int], bytes]:
    if isinstance(node, Fixed):
        size = node.size
        return lambda unscaled: unscaled.to_bytes(size, "big", signed=True)
    return to_bytes


def _text_parser(logical: str) -> Callable[[str], object]:
    name, _, unit = logical.rpartition("-")
    if logical == "date":
        return parse_date
    if logical == "uuid":
        return parse_uuid
    parse = {"time": parse_time, "timestamp": parse_timestamp, "local-timestamp": parse_local}[name]
    return lambda text: parse(text, _UNITS[unit])


def _of_text(parse: Callable[[str], object], pack: Callable[[int], object] | None = None) -> Read:
    def read(value: object, _depth: int, _left: Left) -> object:
        if not isinstance(value, str):
            raise refuse(f"found {describe(value)}: want text")
        raw = parse(value)
        return pack(raw) if pack is not None and isinstance(raw, int) else raw

    return read


def _native_logical(logical: str) -> Read:
    name, _, unit = logical.rpartition("-")
    unit_us = _UNITS.get(unit, 1)
    match name or logical:
        case "date":
            return _of_type(date, from_date)
        case "uuid":
            return _of_type(UUID, str)
        case "time":
            return _of_type(time, lambda value: from_time(value, unit_us))
        case "timestamp":
            return _of_type(datetime, lambda value: from_datetime(value, unit_us))
        case _:
            return _of_type(datetime, lambda value: from_local_datetime(value, unit_us))


def _of_type(kind: type, convert: Callable[..., object]) -> Read:
    def read(value: object, _depth: int, _left: Left) -> object:
        if not isinstance(value, kind) or (kind is date and isinstance(value, datetime)):
            raise refuse(f"found {describe(value)}: want a Python {kind.__name__}")
        return convert(value)

    return read
