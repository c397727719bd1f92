"""JSON in and out: strictly read, plainly written.

msgspec refuses what is not JSON in UTF-8, numbers beyond a double and lone surrogates. It takes a
member twice, where two parsers may disagree on what was said, and recursion up to Python's own
limit; both are settled here, on the bytes outside of strings, before or beside the decoding.
"""

import json
import re
from collections.abc import Mapping
from decimal import Decimal

import msgspec

from bridge.codec.node import MAX_DEPTH
from bridge.codec.refusal import pointer_step
from bridge.errors import MalformedBodyError

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

_BRACKETS = bytes(b"()"[c in b"]}"] if c in b"[]{}" else 0 for c in range(256))
_OTHERS = bytes(c for c in range(256) if c not in b"[]{}")
_EXPONENT = re.compile(rb'"-?[0-9](?:\.[0-9]+)?E[+-]?[0-9]+"')


def parse_json(body: bytes, *, max_depth: int = MAX_DEPTH) -> object:
    """Read one JSON document.

    Args:
        body: The document, in UTF-8 without byte order mark.
        max_depth: Arrays and objects within each other that are taken, at least 1.

    Raises:
        MalformedBodyError: It is not JSON, deeper than that, or has a member twice; with the
            pointer where it is known.
    """
    outside = _outside_strings(body)
    opened = outside.count(b"{") + outside.count(b"[")
    if opened > max_depth and _is_deeper(outside, max_depth):
        raise MalformedBodyError(f"arrays and objects nest deeper than {max_depth}")
    try:
        value = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(error) from None
    if _count_members(value, outside.count(b"{")) != outside.count(b":"):
        raise _twice(body)
    return value


def render_json(value: object) -> bytes:
    """Write a value of `Schema.decode`, or anything msgspec can, as plain JSON.

    Bytes become base64, decimals text without exponent, datetimes ISO 8601 (UTC as `Z`), UUIDs
    text. NaN and infinities, which `Schema` lets through in neither direction, would become null.
    """
    text = _encode(value)
    if _EXPONENT.search(text) is not None:  # str() of Decimal("0.0000000") is 0E-7
        text = _encode(_spell_out(value))
    return text


def _outside_strings(body: bytes) -> bytes:
    """Drop strings; what is malformed inside them msgspec will say. Linear in any case."""
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(body.split(b'"')[::2])


def _is_deeper(outside: bytes, max_depth: int) -> bool:
    """Peel innermost pairs off, one level a round, at the speed of memory.

    A run of openings alone can exceed the depth; seeing that first keeps the rounds from running
    over the same deep string again and again. What is not balanced is left to msgspec.
    """
    left = outside.translate(_BRACKETS, _OTHERS)
    run = b"(" * (max_depth + 1)
    for _ in range(max_depth):
        if run in left:
            return True
        peeled = left.replace(b"()", b"")
        if len(peeled) == len(left):
            return False
        left = peeled
    return bool(left)


def _count_members(value: object, objects: int) -> int:
    """Add up the members of all objects; stops when it has seen as many objects as there are."""
    members = 0
    stack = [value]
    while objects and stack:
        value = stack.pop()
        if type(value) is dict:
            objects -= 1
            members += len(value)
            stack.extend(item for item in value.values() if type(item) in _CONTAINERS)
        elif type(value) is list:
            stack.extend(item for item in value if type(item) in _CONTAINERS)
    return members


_CONTAINERS = frozenset((dict, list))


def _malformed(error: Exception) -> MalformedBodyError:
    if isinstance(error, UnicodeDecodeError):
        return MalformedBodyError(f"not UTF-8: {error.reason} in a string")
    reason = str(error).removeprefix("JSON is malformed: ").partition(" - at ")[0]
    return MalformedBodyError(f"not JSON as RFC 8259 has it: {reason}")


def _twice(body: bytes) -> MalformedBodyError:
    """Find the member that is there twice; the body is known to be JSON of bounded depth."""
    pointers: list[str] = []
    tree = json.loads(body, object_pairs_hook=_Pairs)
    _find_twice(tree, "", pointers)
    pointer = pointers[0] if pointers else None
    return MalformedBodyError("a member is there twice", pointer)


class _Pairs(tuple[tuple[str, object], ...]):
    """An object's members as they were written."""

    __slots__ = ()


def _find_twice(value: object, pointer: str, found: list[str]) -> None:
    if isinstance(value, _Pairs):
        seen: set[str] = set()
        for name, item in value:
            at = pointer + pointer_step(name)
            if name in seen:
                found.append(at)
            seen.add(name)
            _find_twice(item, at, found)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _find_twice(item, pointer + pointer_step(index), found)


def _spell_out(value: object) -> object:
    match value:
        case Decimal():
            return format(value, "f")
        case Mapping():
            return {key: _spell_out(item) for key, item in value.items()}
        case list() | tuple():
            return [_spell_out(item) for item in value]
        case _:
            return value
