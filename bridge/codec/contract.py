"""From a schema's JSON to a `Contract`, or to the sentence that tells its author what is wrong.

fastavro accepts names like `../../etc/passwd`, a field twice, a fixed size of -1 (RELIABILITY,
F16), so nothing is left to it: what passes here is within Avro 1.12 and within what plain JSON
can carry, and is bounded in depth and width however it was made.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from bridge.codec.logical import check_logical
from bridge.codec.node import (
    MAX_DEPTH,
    MAX_ELEMENTS,
    MISSING,
    Array,
    Contract,
    Enum,
    Field,
    Fixed,
    Kept,
    Map,
    Named,
    Node,
    Record,
    Reference,
    Scalar,
    Union,
)
from bridge.codec.union import check_unions
from bridge.errors import ContractError

PRIMITIVES = frozenset(("null", "boolean", "int", "long", "float", "double", "bytes", "string"))
_RESERVED = PRIMITIVES | {"record", "enum", "fixed", "array", "map", "union", "error"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_KEPT = ("logicalType", "precision", "scale")

JsonObject = dict[str, object]
NamedT = TypeVar("NamedT", Fixed, Enum, Record)
PlainT = TypeVar("PlainT", Scalar, Fixed)


def parse(source: object, *, where: str) -> Contract:
    """Build a contract from a schema's JSON.

    Args:
        source: The schema, as parsed JSON.
        where: What to call it in messages: the file's name.

    Raises:
        ContractError: It is no schema that the bridge can serve; the message names `where` and the
            path of the field. Defaults are looked at by `Schema`, which can read values.
    """
    parser = _Parser(where)
    root = parser.parse_root(source)
    contract = Contract(root=root, names=parser.names, where=where)
    _check_endless(contract)
    check_unions(contract)
    return contract


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in the schema the parser is.

    Attributes:
        path: Field names from the top, as `address.lines[]`.
        namespace: The enclosing one.
        depth: Records, arrays and maps around it.
    """

    path: str = ""
    namespace: str = ""
    depth: int = 0

    def inside(self, step: str) -> "_Place":
        """Go into an array, a map or a union's branch."""
        return replace(self, path=self.path + step, depth=self.depth + 1)

    def member(self, name: str, namespace: str) -> "_Place":
        """Go into a record's field."""
        path = f"{self.path}.{name}" if self.path else name
        return _Place(path, namespace, self.depth + 1)


@dataclass(frozen=True, slots=True)
class _Size:
    """What a type costs before any byte is read.

    Attributes:
        depth: Records, arrays and maps within each other, unless it refers to itself.
        values: Values that one value of it consists of, where the schema alone says so.
        empty: How many of those take no byte at all.
    """

    depth: int = 0
    values: int = 1
    empty: int = 0


@dataclass(slots=True)
class _Parser:
    where: str
    names: dict[str, Named] = field(default_factory=dict)
    sizes: dict[str, _Size] = field(default_factory=dict)
    open_names: set[str] = field(default_factory=set)

    def parse_root(self, source: object) -> Node:
        root = self.parse(source, _Place())
        if self._size(root).depth > MAX_DEPTH:
            raise self.error(_Place(), f"types nest deeper than {MAX_DEPTH}: flatten them")
        return root

    def parse(self, source: object, place: _Place) -> Node:
        if place.depth > MAX_DEPTH + 1:
            raise self.error(place, f"types nest deeper than {MAX_DEPTH}: flatten them")
        match source:
            case str():
                return self._by_name(source, {}, place)
            case list():
                return self._union(source, place)
            case dict():
                return self._by_object(source, place)
            case _:
                raise self.error(place, f"found {source!r:.40}: want a type")

    def error(self, place: _Place, reason: str) -> ContractError:
        at = f'field "{place.path}"' if place.path else "the schema"
        return ContractError(f"{self.where}: {at}: {reason}")

    def _by_object(self, source: JsonObject, place: _Place) -> Node:
        kind = source.get("type")
        if not isinstance(kind, str):
            raise self.error(place, f'"type" is {kind!r:.40}: want the name of a type')
        builders: dict[str, Callable[[JsonObject, _Place], Node]] = {
            "record": self._record,
            "enum": self._enum,
            "fixed": self._fixed,
            "array": self._array,
            "map": self._map,
        }
        build = builders.get(kind)
        return self._by_name(kind, source, place) if build is None else build(source, place)

    def _by_name(self, name: str, source: JsonObject, place: _Place) -> Node:
        if name in PRIMITIVES:
            plain = Scalar(type=name, kept=self._kept(source, place))
            return self._logical(plain, place)
        full = name if "." in name or not place.namespace else f"{place.namespace}.{name}"
        if full not in self.names and full not in self.open_names:
            raise self.error(place, f'unknown type "{name}": define it before it is used')
        return Reference(name=full)

    def _union(self, source: list[object], place: _Place) -> Union:
        if any(isinstance(branch, list) for branch in source):
            raise self.error(place, "a union directly within a union: write it as one")
        if not source:
            raise self.error(place, "a union of nothing: name its types")
        inner = _Place(place.path, place.namespace, place.depth)
        return Union(branches=tuple(self.parse(branch, inner) for branch in source))

    def _array(self, source: JsonObject, place: _Place) -> Array:
        items = self.parse(self._need(source, "items", place), place.inside("[]"))
        return Array(items=items, cost=self._cost(items), kept=self._kept(source, place))

    def _map(self, source: JsonObject, place: _Place) -> Map:
        values = self.parse(self._need(source, "values", place), place.inside("{}"))
        return Map(values=values, cost=self._cost(values), kept=self._kept(source, place))

    def _enum(self, source: JsonObject, place: _Place) -> Enum:
        name = self._open(source, place)
        symbols = self._need(source, "symbols", place)
        if not isinstance(symbols, list) or not symbols:
            raise self.error(place, f'enum {name}: "symbols" must be a list of names')
        for symbol in symbols:
            if not isinstance(symbol, str) or _NAME.match(symbol) is None:
                raise self.error(place, f"enum {name}: {symbol!r} is no symbol: {_NAME_RULE}")
        if len(set(symbols)) < len(symbols):
            raise self.error(place, f"enum {name}: a symbol is there twice")
        if source.get("default", symbols[0]) not in symbols:
            raise self.error(place, f"enum {name}: its default is none of its symbols")
        kept = self._kept(source, place)
        node = Enum(name=name, symbols=tuple(symbols), kept=kept, doc=_doc(source))
        return self._close(node, _Size())

    def _fixed(self, source: JsonObject, place: _Place) -> Fixed:
        name = self._open(source, place)
        size = self._need(source, "size", place)
        if type(size) is not int or not 0 <= size <= _MAX_FIXED:
            raise self.error(place, f"fixed {name}: size {size!r}: want 0 to {_MAX_FIXED}")
        plain = Fixed(name=name, size=size, kept=self._kept(source, place))
        node = self._logical(plain, place)
        return self._close(node, _Size(empty=int(size == 0)))

    def _record(self, source: JsonObject, place: _Place) -> Record:
        name = self._open(source, place)
        members = self._need(source, "fields", place)
        if not isinstance(members, list):
            raise self.error(place, f'record {name}: "fields" must be a list')
        fields: dict[str, Field] = {}
        for member in members:
            made = self._field(member, name, place)
            if made.name in fields:
                raise self.error(place, f'record {name} has the field "{made.name}" twice')
            fields[made.name] = made
        kept = self._kept(source, place)
        node = Record(name=name, fields=tuple(fields.values()), kept=kept, doc=_doc(source))
        return self._close(node, self._sum(node, place))

    def _field(self, member: object, record: str, place: _Place) -> Field:
        if not isinstance(member, dict):
            raise self.error(place, f"record {record}: found {member!r:.40}: want a field")
        name = member.get("name")
        if not isinstance(name, str) or _NAME.match(name) is None:
            raise self.error(place, f"record {record}: field name {name!r}: {_NAME_RULE}")
        inner = place.member(name, record.rpartition(".")[0])
        if "logicalType" in member:
            raise self.error(
                inner,
                "logicalType beside a field's type means nothing in Avro: write "
                '{"type": {"type": …, "logicalType": …}}',
            )
        kind = self.parse(self._need(member, "type", inner), inner)
        default = member.get("default", MISSING)
        return Field(name=name, type=kind, default=default, doc=_doc(member))

    def _need(self, source: JsonObject, name: str, place: _Place) -> object:
        if name not in source:
            kind = source.get("type", "field")
            raise self.error(place, f'a {kind} needs "{name}"')
        return source[name]

    def _open(self, source: JsonObject, place: _Place) -> str:
        name, namespace = self._need(source, "name", place), source.get("namespace")
        space = place.namespace if namespace is None else namespace
        if not isinstance(name, str) or not isinstance(space, str):
            raise self.error(place, "name and namespace must be text")
        full = name if "." in name or not space else f"{space}.{name}"
        parts = full.split(".")
        if any(_NAME.match(part) is None for part in parts):
            raise self.error(place, f'"{full}" is no name: {_NAME_RULE}, dots between')
        if parts[-1] in _RESERVED:
            raise self.error(place, f'"{full}": {parts[-1]} is a type of Avro: choose another name')
        if full in self.names or full in self.open_names:
            raise self.error(place, f'type "{full}" is defined twice: refer to it by name')
        self.open_names.add(full)
        return full

    def _close(self, node: NamedT, size: _Size) -> NamedT:
        self.open_names.discard(node.name)
        self.names[node.name] = node
        self.sizes[node.name] = size
        return node

    def _kept(self, source: JsonObject, place: _Place) -> Kept:
        kept = tuple((name, source[name]) for name in _KEPT if name in source)
        for name, value in kept:
            want = str if name == "logicalType" else int
            if type(value) is not want:
                raise self.error(place, f"{name} is {value!r:.40}: want {want.__name__}")
        return kept

    def _logical(self, node: PlainT, place: _Place) -> PlainT:
        try:
            return check_logical(node, dict(node.kept))
        except ValueError as error:
            raise self.error(place, str(error)) from None

    def _size(self, node: Node) -> _Size:
        match node:
            case Reference(name=name):
                return self.sizes.get(name, _Size(values=0))  # itself: one level at a time
            case Fixed(name=name) | Enum(name=name) | Record(name=name):
                return self.sizes[name]
            case Array(items=inner) | Map(values=inner):
                return _Size(depth=1 + self._size(inner).depth)
            case Union(branches=branches):
                sizes = [self._size(branch) for branch in branches]
                return _Size(max(s.depth for s in sizes), max(s.values for s in sizes))
            case Scalar(type=name):
                return _Size(empty=int(name == "null"))

    def _sum(self, node: Record, place: _Place) -> _Size:
        sizes = [self._size(member.type) for member in node.fields]
        size = _Size(
            depth=1 + max((s.depth for s in sizes), default=0),
            values=1 + sum(s.values for s in sizes),
            empty=sum(s.empty for s in sizes) if sizes else 1,
        )
        if size.depth > MAX_DEPTH:
            raise self.error(place, f"record {node.name} nests deeper than {MAX_DEPTH}: flatten it")
        if size.values > MAX_ELEMENTS:
            raise self.error(
                place, f"one record {node.name} has {size.values} members: want {MAX_ELEMENTS}"
            )
        return size

    def _cost(self, node: Node) -> int:
        return max(1, self._size(node).empty)


_MAX_FIXED = 1 << 20
_NAME_RULE = "want letters, digits and _, no digit first"


def _doc(source: JsonObject) -> str:
    doc = source.get("doc", "")
    return doc if isinstance(doc, str) else ""


def _check_endless(contract: Contract) -> None:
    """Refuse a record that contains itself with no way out: it has no value at all."""
    records = [node for node in contract.names.values() if isinstance(node, Record)]
    finite: set[str] = set()
    for _ in records:
        before = len(finite)
        finite.update(
            r.name for r in records if all(_ends(f.type, finite, contract) for f in r.fields)
        )
        if len(finite) == before:
            break
    for record in records:
        if record.name not in finite:
            raise ContractError(
                f"{contract.where}: record {record.name} contains itself without end: put "
                '"null" beside one of the types that lead back to it'
            )


def _ends(node: Node, finite: set[str], contract: Contract) -> bool:
    match node:
        case Reference(name=name):
            return name in finite or not isinstance(contract.names[name], Record)
        case Record(name=name):
            return name in finite
        case Union(branches=branches):
            return any(_ends(branch, finite, contract) for branch in branches)
        case _:
            return True
