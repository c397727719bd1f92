"""Readers: compiled once per contract, they turn a value into what fastavro writes, or refuse it.

A reader is called as `read(value, depth, left)`: `depth` counts the containers around the value,
`left` holds the elements that may still come. The structure is the same for every form a value
comes in (plain JSON, a handler's Python, a default in a contract); what differs is the `Form`:
how a leaf is read, and which Python types mean which branch of a union.

A union's value becomes `(branch, raw)`: fastavro then writes that branch and guesses nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

from bridge.codec.node import (
    MAX_DEPTH,
    MAX_ELEMENTS,
    MISSING,
    Array,
    Contract,
    Enum,
    Field,
    Fixed,
    Map,
    Missing,
    Node,
    Record,
    Reference,
    Scalar,
    Union,
    branch_name,
)
from bridge.codec.refusal import MAX_VIOLATIONS, beneath, describe, pointer_step, refuse, refuse_all
from bridge.codec.text import check_text
from bridge.codec.union import Choice, choose_enum, choose_record
from bridge.errors import InvalidPayloadError, Violation

Left: TypeAlias = list[int]
Read: TypeAlias = Callable[[object, int, Left], object]
Leaf: TypeAlias = Scalar | Fixed | Enum


@dataclass(frozen=True, slots=True)
class Default:
    """A field's default, read once.

    Attributes:
        raw: What fastavro writes.
        plain: The same as plain JSON, for documents.
        depth: Containers within it.
        elements: What it takes of the budget.
    """

    raw: object
    plain: object
    depth: int
    elements: int


Defaults: TypeAlias = Mapping[tuple[str, str], Default]


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A form that values come in.

    Attributes:
        leaf: Make the reader of a scalar, a fixed or an enum.
        types: Which Python types stand for it, to find a union's branch.
        defaults: By record and field. None: the contract's own defaults are being read.
    """

    leaf: Callable[[Leaf], Read]
    types: Callable[[Leaf], tuple[type, ...]]
    defaults: Defaults | None


class Readers:
    """The readers of one contract in one form."""

    def __init__(self, contract: Contract, form: Form) -> None:
        self._contract = contract
        self._form = form
        self._named: dict[str, Read] = {}
        self.root = self.compile(contract.root)

    def compile(self, node: Node) -> Read:  # noqa: PLR0911 - a case for each kind of type
        """Make the reader of one type of the contract."""
        match node:
            case Reference(name=name):
                return self._refer(name)
            case Scalar():
                return self._form.leaf(node)
            case Fixed() | Enum():
                return self._named.setdefault(node.name, self._form.leaf(node))
            case Record():
                return self._named.setdefault(node.name, self._record(node))
            case Array(items=items, cost=cost):
                return read_array(self.compile(items), cost)
            case Map(values=values, cost=cost):
                return read_map(self.compile(values), cost)
            case Union():
                return self._union(node)

    def _refer(self, name: str) -> Read:
        named = self._named
        if name in named:
            return named[name]

        def read(value: object, depth: int, left: Left) -> object:
            return named[name](value, depth, left)

        return read

    def _record(self, node: Record) -> Read:
        plan = []
        for field in node.fields:
            read = self.compile(field.type)
            plan.append((field.name, read, self._fill(node.name, field, read)))
        return read_record(node.name, plan)

    def _fill(self, record: str, field: Field, read: Read) -> "Fill":
        if isinstance(field.default, Missing):
            return miss
        if self._form.defaults is None:
            return lambda depth, left: read(field.default, depth, left)
        return fill(self._form.defaults[record, field.name])

    def _union(self, node: Union) -> Read:
        branches = [(branch, self._branch(branch)) for branch in node.branches]
        if self._form.defaults is None:
            return read_first([read for _, read in branches])
        table: dict[type, list[Choice[Read]]] = {}
        for branch, read in branches:
            resolved = self._contract.resolve(branch)
            for kind in self._types(resolved):
                table.setdefault(kind, []).append((resolved, read))
        names = " or ".join(branch_name(branch) for branch in node.branches)
        return read_union({kind: _pick(choices) for kind, choices in table.items()}, names)

    def _types(self, node: Node) -> tuple[type, ...]:
        match node:
            case Scalar() | Fixed() | Enum():
                return self._form.types(node)
            case Array():
                return (list, tuple)
            case _:
                return (dict,)

    def _branch(self, node: Node) -> Read:
        name, read_value = branch_name(node), self.compile(node)

        def read(value: object, depth: int, left: Left) -> object:
            return name, read_value(value, depth, left)

        return read


Fill: TypeAlias = Callable[[int, Left], object]


def miss(_depth: int, _left: Left) -> object:
    """Refuse, since there is no default to put in."""
    raise refuse("missing, and it has no default")


def fill(default: Default) -> Fill:
    """Put a default in, within the budgets."""

    def put(depth: int, left: Left) -> object:
        if depth + default.depth > MAX_DEPTH:
            raise refuse(f"its default would nest deeper than {MAX_DEPTH}")
        spend(left, default.elements)
        return default.raw

    return put


def spend(left: Left, elements: int) -> None:
    """Take elements off the budget."""
    left[0] -= elements
    if left[0] < 0:
        raise refuse(f"more than {MAX_ELEMENTS} array items and map members in all")


def read_record(name: str, plan: Sequence[tuple[str, Read, Fill]]) -> Read:
    """Read members by name: none unknown, none missing that has no default."""
    known = frozenset(field for field, _, _ in plan)

    def read(value: object, depth: int, left: Left) -> object:
        if not isinstance(value, dict) or depth >= MAX_DEPTH:
            raise _no_container(value, depth, f"an object, {name}")
        raw: dict[str, object] = {}
        found: list[Violation] = []
        absent = 0
        for field, read_field, put in plan:
            item = value.get(field, MISSING)
            try:
                if item is MISSING:
                    absent += 1
                    raw[field] = put(depth + 1, left)
                else:
                    raw[field] = read_field(item, depth + 1, left)
            except InvalidPayloadError as refused:
                found.extend(beneath(field, refused.violations))
        if len(value) + absent != len(plan):
            found.extend(_unknown(value, known))
        if found:
            raise refuse_all(found)
        return raw

    return read


def read_array(read_item: Read, cost: int) -> Read:
    """Read items in order."""

    def read(value: object, depth: int, left: Left) -> object:
        if not isinstance(value, list | tuple) or depth >= MAX_DEPTH:
            raise _no_container(value, depth, "an array")
        spend(left, len(value) * cost)
        raw: list[object] = []
        found: list[Violation] = []
        for index, item in enumerate(value):
            try:
                raw.append(read_item(item, depth + 1, left))
            except InvalidPayloadError as refused:
                found.extend(beneath(index, refused.violations))
                if len(found) >= MAX_VIOLATIONS:
                    break
        if found:
            raise refuse_all(found)
        return raw

    return read


def read_map(read_value: Read, cost: int) -> Read:
    """Read values by text keys."""

    def read(value: object, depth: int, left: Left) -> object:
        if not isinstance(value, dict) or depth >= MAX_DEPTH:
            raise _no_container(value, depth, "an object")
        spend(left, len(value) * cost)
        raw: dict[str, object] = {}
        found: list[Violation] = []
        for key, item in value.items():
            try:
                raw[check_text(key)] = read_value(item, depth + 1, left)
            except InvalidPayloadError as refused:
                found.extend(beneath(key, refused.violations))
                if len(found) >= MAX_VIOLATIONS:
                    break
        if found:
            raise refuse_all(found)
        return raw

    return read


def read_union(table: Mapping[type, Read], names: str) -> Read:
    """Read a value with the branch that its type says."""

    def read(value: object, depth: int, left: Left) -> object:
        pick = table.get(type(value))
        if pick is None:
            kinds = (table[kind] for kind in type(value).__mro__ if kind in table)
            pick = next(kinds, None)
        if pick is None:
            raise refuse(f"found {describe(value)}: want {names}")
        return pick(value, depth, left)

    return read


def read_first(branches: Sequence[Read]) -> Read:
    """Read a default: with the first branch that takes it (Avro 1.12: any may)."""

    def read(value: object, depth: int, left: Left) -> object:
        reasons = []
        for read_branch in branches:
            try:
                return read_branch(value, depth, left)
            except InvalidPayloadError as refused:
                reasons.append(refused)
        raise reasons[0]

    return read


def _pick(choices: Sequence[Choice[Read]]) -> Read:
    """Make one reader of the branches that read the same kind of JSON."""
    if len(choices) == 1:
        return choices[0][1]
    choose = choose_enum(choices) if isinstance(choices[0][0], Enum) else choose_record(choices)

    def read(value: object, depth: int, left: Left) -> object:
        return choose(value)(value, depth, left)

    return read


def _no_container(value: object, depth: int, want: str) -> InvalidPayloadError:
    if depth >= MAX_DEPTH and isinstance(value, dict | list | tuple):
        return refuse(f"nested deeper than {MAX_DEPTH}")
    return refuse(f"found {describe(value)}: want {want}")


def _unknown(value: dict[object, object], known: frozenset[str]) -> list[Violation]:
    want = ", ".join(sorted(known)[:10]) or "none"
    unknown = (key for key in value if key not in known)
    return [
        Violation(pointer_step(key), f"unknown field: want {want:.200}")
        for key in islice(unknown, MAX_VIOLATIONS)
    ]
