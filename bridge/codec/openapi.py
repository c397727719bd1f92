"""A contract as JSON Schema 2020-12: the plain JSON that its readers take.

What is used once is written where it is used; what is used again, or within itself, is named and
referred to, so the document is no larger than the schema and recursion needs no case of its own.
JSON Schema cannot say all of it (that 1.0 is no integer, which days a month has); the reader can.
"""

from bridge.codec.logical import BOUNDS
from bridge.codec.node import (
    Array,
    Contract,
    Enum,
    Fixed,
    Map,
    Missing,
    Node,
    Record,
    Reference,
    Scalar,
    Union,
    children,
)
from bridge.codec.reader import Defaults

JsonObject = dict[str, object]

_TIME = r"[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?"
_LOGICAL: dict[str, JsonObject] = {
    "date": {"format": "date"},
    "uuid": {"format": "uuid"},
    "time": {"pattern": f"^{_TIME}$"},
    "timestamp": {"format": "date-time"},
    "local": {"pattern": f"^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}[Tt]{_TIME}$"},
}


def render(contract: Contract, defaults: Defaults, refs: str) -> JsonObject:
    """Write a contract as JSON Schema.

    Args:
        contract: The contract.
        defaults: Its defaults, as plain JSON.
        refs: What stands before a type's name where it is referred to; the named types are in
            `$defs`, to be moved there.
    """
    writer = _Writer(contract, defaults, refs)
    document = writer.write(contract.root)
    named = {name: writer.define(contract.names[name]) for name in sorted(writer.shared)}
    return document | {"$defs": named} if named else document


class _Writer:
    """Knows which types are used more than once."""

    def __init__(self, contract: Contract, defaults: Defaults, refs: str) -> None:
        self._defaults = defaults
        self._refs = refs
        types = [contract.root, *contract.names.values()]
        self.shared = {name for node in types for name in _referred(node)}

    def write(self, node: Node) -> JsonObject:  # noqa: PLR0911 - a case for each kind of type
        """Write a type where it is used."""
        match node:
            case Fixed(name=name) | Enum(name=name) | Record(name=name) | Reference(name=name):
                if isinstance(node, Reference) or name in self.shared:
                    return {"$ref": f"{self._refs}{name}"}
                return self.define(node)
            case Scalar():
                return _scalar(node)
            case Union(branches=branches):
                return {"anyOf": [self.write(branch) for branch in branches]}
            case Array(items=items):
                return {"type": "array", "items": self.write(items)}
            case Map(values=values):
                return {"type": "object", "additionalProperties": self.write(values)}

    def define(self, node: Fixed | Enum | Record) -> JsonObject:
        """Write a named type."""
        match node:
            case Fixed(logical=None):
                length = (node.size + 2) // 3 * 4
                return _base64(node.name) | {"minLength": length, "maxLength": length}
            case Fixed():
                return {"title": node.name, **_decimal(node.precision, node.scale)}
            case Enum(symbols=symbols):
                return _head(node) | {"type": "string", "enum": list(symbols)}
            case Record():
                return self._record(node)

    def _record(self, node: Record) -> JsonObject:
        properties: JsonObject = {}
        for field in node.fields:
            written = self.write(field.type)
            if field.doc:
                written = written | {"description": field.doc}
            if not isinstance(field.default, Missing):
                written = written | {"default": self._defaults[node.name, field.name].plain}
            properties[field.name] = written
        return _head(node) | {
            "type": "object",
            "properties": properties,
            "required": [f.name for f in node.fields if isinstance(f.default, Missing)],
            "additionalProperties": False,
        }


def _referred(node: Node) -> set[str]:
    if isinstance(node, Reference):
        return {node.name}
    return {name for child in children(node) for name in _referred(child)}


def _head(node: Enum | Record) -> JsonObject:
    title: JsonObject = {"title": node.name}
    return title | {"description": node.doc} if node.doc else title


def _scalar(node: Scalar) -> JsonObject:  # noqa: PLR0911 - a case for each kind of scalar
    if node.logical == "decimal":
        return _decimal(node.precision, node.scale)
    if node.logical is not None:
        return {"type": "string", **_LOGICAL[node.logical.partition("-")[0]]}
    match node.type:
        case "int" | "long":
            low, high = BOUNDS[node.type]
            form = "int32" if node.type == "int" else "int64"
            return {"type": "integer", "format": form, "minimum": low, "maximum": high}
        case "float" | "double":
            return {"type": "number", "format": node.type}
        case "bytes":
            return _base64("")
        case _:
            return {"type": node.type}


def _base64(title: str) -> JsonObject:
    head: JsonObject = {"title": title} if title else {}
    return head | {"type": "string", "contentEncoding": "base64"}


def _decimal(precision: int, scale: int) -> JsonObject:
    digits = precision - scale
    whole = f"(0|[1-9][0-9]{{0,{digits - 1}}})" if digits else "0"
    fraction = f"[0-9]{{1,{scale}}}0*" if scale else "0+"
    return {"type": "string", "pattern": rf"^-?{whole}(\.{fraction})?$"}
