"""A contract written down again: for its ID, and for fastavro.

Three forms of the same tree. The canonical form is Avro's Parsing Canonical Form, except that
`logicalType`, `precision` and `scale` stay, directly after `type`: the plain form drops them, and
two decimals of different scale would share an ID. fastavro gets full names, and logical types
only where it is to convert them: on reading, never on writing, where it coerces silently.

Source:
    Avro 1.12 specification, "Parsing Canonical Form for Schemas".
"""

import hashlib
import json
from typing import Any, TypeAlias

from bridge.codec.node import (
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

AvroJson: TypeAlias = str | list[Any] | dict[str, Any]  # as fastavro types it


def render(node: Node) -> str:  # noqa: C901, PLR0911 - a case for each kind of type
    """Write a type's canonical form."""
    match node:
        case Scalar(type=name, kept=kept):
            return _object(type=name, **dict(kept)) if kept else _text(name)
        case Reference(name=name):
            return _text(name)
        case Union(branches=branches):
            return "[" + ",".join(render(branch) for branch in branches) + "]"
        case Array(items=items, kept=kept):
            return _wrap(_object(type="array", **dict(kept)), "items", render(items))
        case Map(values=values, kept=kept):
            return _wrap(_object(type="map", **dict(kept)), "values", render(values))
        case Fixed(name=name, size=size, kept=kept):
            return _object(name=name, type="fixed", **dict(kept), size=size)
        case Enum(name=name, symbols=symbols, kept=kept):
            return _object(name=name, type="enum", **dict(kept), symbols=symbols)
        case Record(name=name, fields=fields, kept=kept):
            members = (_wrap(_object(name=f.name), "type", render(f.type)) for f in fields)
            head = _object(name=name, type="record", **dict(kept))
            return _wrap(head, "fields", "[" + ",".join(members) + "]")


def identify(canonical: str) -> int:
    """Make the schema ID: the first 31 bits of the canonical form's SHA-256."""
    return int.from_bytes(hashlib.sha256(canonical.encode()).digest()[:4], "big") >> 1


def to_fastavro(contract: Contract, node: Node, *, logical: bool) -> AvroJson:
    """Write a type for `fastavro.parse_schema`, named types defined where they first appear.

    Args:
        contract: What `node` is part of.
        node: Any type of it.
        logical: Whether fastavro is to convert logical types.
    """
    return _Writer(contract, logical=logical).write(node)


class _Writer:
    """Remembers which names are written already."""

    def __init__(self, contract: Contract, *, logical: bool) -> None:
        self._contract = contract
        self._logical = logical
        self._written: set[str] = set()

    def write(self, node: Node) -> AvroJson:  # noqa: PLR0911 - a case for each kind of type
        match node:
            case Reference(name=name):
                return name if name in self._written else self.write(self._contract.names[name])
            case Scalar(type=name):
                logical = self._logical_of(node)
                return {"type": name, **logical} if logical else name
            case Union(branches=branches):
                return [self.write(branch) for branch in branches]
            case Array(items=items):
                return {"type": "array", "items": self.write(items)}
            case Map(values=values):
                return {"type": "map", "values": self.write(values)}
            case Fixed() | Enum() | Record():
                return self._define(node)

    def _define(self, node: Fixed | Enum | Record) -> AvroJson:
        if node.name in self._written:
            return node.name
        self._written.add(node.name)
        match node:
            case Fixed(size=size):
                logical = self._logical_of(node)
                return {"name": node.name, "type": "fixed", "size": size, **logical}
            case Enum(symbols=symbols):
                return {"name": node.name, "type": "enum", "symbols": list(symbols)}
            case Record(fields=fields):
                members = [{"name": f.name, "type": self.write(f.type)} for f in fields]
                return {"name": node.name, "type": "record", "fields": members}

    def _logical_of(self, node: Scalar | Fixed) -> dict[str, object]:
        if not self._logical or node.logical is None:
            return {}
        if node.logical == "decimal":
            return {"logicalType": "decimal", "precision": node.precision, "scale": node.scale}
        return {"logicalType": node.logical}


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _object(**members: object) -> str:
    return _text(members)


def _wrap(head: str, name: str, rendered: str) -> str:
    return f'{head[:-1]},"{name}":{rendered}}}'
