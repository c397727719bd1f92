"""The walk over Avro bytes that comes before fastavro: nothing is built, everything is bounded.

fastavro crashes the process on deep recursion and builds gigabytes out of five bytes
(RELIABILITY, fact 5), so bytes from a topic are walked first: depth, elements, lengths, indexes,
numbers and ranges. UTF-8 and UUIDs are left to fastavro, which refuses what is wrong there. A
walker is called as `walk(data, at, depth, left)` and returns where the value ends; an end beyond
the data is found out at the latest when the whole value is compared with the length.
"""

import math
import struct
from collections.abc import Callable, Sequence
from typing import TypeAlias

from bridge.codec.logical import BOUNDS
from bridge.codec.node import (
    MAX_DEPTH,
    MAX_ELEMENTS,
    Array,
    Contract,
    Enum,
    Fixed,
    Map,
    Node,
    Record,
    Reference,
    Scalar,
    Union,
)
from bridge.errors import RecordError

Left: TypeAlias = list[int]
Walk: TypeAlias = Callable[[bytes, int, int, Left], int]

_LONG_BITS = 64
_FORMATS = {"float": struct.Struct("<f"), "double": struct.Struct("<d")}


def walk_all(walk: Walk, data: bytes, start: int) -> None:
    """Walk one whole value.

    Raises:
        RecordError: The bytes from `start` on are not exactly one value within the budgets.
    """
    try:
        end = walk(data, start, 0, [MAX_ELEMENTS])
    except (IndexError, struct.error):
        raise RecordError(f"the value of {len(data)} bytes ends too early") from None
    if end > len(data):
        raise RecordError(f"the value ends too early: it wants {end} bytes and has {len(data)}")
    if end < len(data):
        raise RecordError(f"{len(data) - end} bytes follow the value: want none")


def read_long(data: bytes, at: int) -> tuple[int, int]:
    """Read a zigzag number of at most 64 bits; returns it and where it ends."""
    byte = data[at]
    at += 1
    if byte < 0x80:  # noqa: PLR2004 - no more bytes follow
        return (byte >> 1) ^ -(byte & 1), at
    number, shift = byte & 0x7F, 7
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - no more bytes follow
            break
        shift += 7
        if shift >= _LONG_BITS:
            raise RecordError("a number of more than 10 bytes")
    if number >> _LONG_BITS:
        raise RecordError("a number of more than 64 bits")
    return (number >> 1) ^ -(number & 1), at


class Walkers:
    """The walkers of one contract."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._named: dict[str, Walk] = {}
        self.root = self.compile(contract.root)

    def compile(self, node: Node) -> Walk:  # noqa: C901, PLR0911 - a case for each kind of type
        """Make the walker of one type of the contract."""
        match node:
            case Reference(name=name):
                return self._refer(name)
            case Scalar():
                return walk_scalar(node)
            case Fixed():
                return self._named.setdefault(node.name, walk_fixed(node))
            case Enum(symbols=symbols):
                return self._named.setdefault(node.name, walk_index(len(symbols)))
            case Record(fields=fields):
                walks = [self.compile(field.type) for field in fields]
                return self._named.setdefault(node.name, walk_record(walks))
            case Array(items=items, cost=cost):
                return walk_blocks(self.compile(items), cost)
            case Map(values=values, cost=cost):
                return walk_blocks(_after_key(self.compile(values)), cost)
            case Union(branches=branches):
                return walk_union([self.compile(branch) for branch in branches])

    def _refer(self, name: str) -> Walk:
        named = self._named
        if name in named:
            return named[name]

        def walk(data: bytes, at: int, depth: int, left: Left) -> int:
            return named[name](data, at, depth, left)

        return walk


def walk_scalar(node: Scalar) -> Walk:  # noqa: PLR0911 - a case for each primitive
    """Make the walker of a primitive."""
    if node.logical == "decimal":
        return _walk_decimal(node.precision)
    match node.type:
        case "null":
            return _walk_null
        case "boolean":
            return _walk_boolean
        case "float" | "double":
            return _walk_float(_FORMATS[node.type])
        case "bytes" | "string":
            return _walk_length
        case _:
            return _walk_integer(node)


def walk_fixed(node: Fixed) -> Walk:
    """Make the walker of a fixed."""
    size, limit = node.size, 10**node.precision

    def walk(data: bytes, at: int, _depth: int, _left: Left) -> int:
        if node.logical is not None:
            _check_decimal(data[at : at + size], limit)
        return at + size

    return walk


def walk_index(count: int) -> Walk:
    """Make the walker of an enum."""

    def walk(data: bytes, at: int, _depth: int, _left: Left) -> int:
        index, at = read_long(data, at)
        if not 0 <= index < count:
            raise RecordError(f"enum symbol number {index}: want 0 to {count - 1}")
        return at

    return walk


def walk_union(branches: Sequence[Walk]) -> Walk:
    """Make the walker of a union."""
    count = len(branches)

    def walk(data: bytes, at: int, depth: int, left: Left) -> int:
        index, at = read_long(data, at)
        if not 0 <= index < count:
            raise RecordError(f"union branch number {index}: want 0 to {count - 1}")
        return branches[index](data, at, depth, left)

    return walk


def walk_record(fields: Sequence[Walk]) -> Walk:
    """Make the walker of a record."""

    def walk(data: bytes, at: int, depth: int, left: Left) -> int:
        if depth >= MAX_DEPTH:
            raise RecordError(f"nested deeper than {MAX_DEPTH}")
        for walk_field in fields:
            at = walk_field(data, at, depth + 1, left)
        return at

    return walk


def walk_blocks(walk_item: Walk, cost: int) -> Walk:
    """Make the walker of an array, or of a map whose `walk_item` takes key and value."""

    def walk(data: bytes, at: int, depth: int, left: Left) -> int:
        if depth >= MAX_DEPTH:
            raise RecordError(f"nested deeper than {MAX_DEPTH}")
        while True:
            count, at, end = _open_block(data, at)
            if count == 0:
                return at
            left[0] -= count * cost
            if left[0] < 0:
                raise RecordError(f"more than {MAX_ELEMENTS} array items and map members in all")
            for _ in range(count):
                at = walk_item(data, at, depth + 1, left)
            if end not in (at, None):
                raise RecordError(f"a block ends at byte {at}: its size says {end}")

    return walk


def _open_block(data: bytes, at: int) -> tuple[int, int, int | None]:
    """Read a block's count; a negative one is followed by the block's bytes, which say its end."""
    count, at = read_long(data, at)
    if count >= 0:
        return count, at, None
    size, at = read_long(data, at)
    return -count, at, at + size


def _after_key(walk_value: Walk) -> Walk:
    def walk(data: bytes, at: int, depth: int, left: Left) -> int:
        return walk_value(data, _walk_length(data, at, depth, left), depth, left)

    return walk


def _walk_null(_data: bytes, at: int, _depth: int, _left: Left) -> int:
    return at


def _walk_boolean(data: bytes, at: int, _depth: int, _left: Left) -> int:
    if data[at] > 1:
        raise RecordError(f"a boolean of {data[at]}: want 0 or 1")
    return at + 1


def _walk_length(data: bytes, at: int, _depth: int, _left: Left) -> int:
    length, at = read_long(data, at)
    if not 0 <= length <= len(data) - at:
        raise RecordError(f"a length of {length}: want 0 to {len(data) - at}, what is left")
    return at + length


def _walk_integer(node: Scalar) -> Walk:
    low, high = BOUNDS[node.logical or node.type]

    def walk(data: bytes, at: int, _depth: int, _left: Left) -> int:
        number, at = read_long(data, at)
        if not low <= number <= high:
            name = node.logical or node.type
            raise RecordError(f"a number of {number}: want {low} to {high}, {name}")
        return at

    return walk


def _walk_float(form: struct.Struct) -> Walk:
    size, unpack = form.size, form.unpack_from

    def walk(data: bytes, at: int, _depth: int, _left: Left) -> int:
        if not math.isfinite(unpack(data, at)[0]):
            raise RecordError("NaN or an infinity: plain JSON cannot carry them")
        return at + size

    return walk


def _walk_decimal(precision: int) -> Walk:
    limit = 10**precision

    def walk(data: bytes, at: int, depth: int, left: Left) -> int:
        end = _walk_length(data, at, depth, left)
        _, start = read_long(data, at)
        _check_decimal(data[start:end], limit)
        return end

    return walk


def _check_decimal(raw: bytes, limit: int) -> None:
    if abs(int.from_bytes(raw, "big", signed=True)) >= limit:
        raise RecordError(f"a decimal of more digits than {len(str(limit)) - 1}")
