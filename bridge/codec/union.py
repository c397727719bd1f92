"""Unions in plain JSON: a value stands bare, so its branch must follow from the value alone.

At load, branches that read the same JSON are refused, with the field's path. Two enums may stand
side by side when they share no symbol, two records when each value can be told by its members.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias, TypeVar

from bridge.codec.node import (
    MISSING,
    Array,
    Contract,
    Enum,
    Fixed,
    Map,
    Node,
    Record,
    Scalar,
    Union,
    branch_name,
)
from bridge.codec.refusal import describe, refuse
from bridge.errors import ContractError

T = TypeVar("T")
Choice: TypeAlias = tuple[Node, T]

_NUMBERS = frozenset(("int", "long", "float", "double"))


def json_kind(node: Node) -> str:
    """Say as what a type's values appear in JSON."""
    match node:
        case Scalar(type="null" | "boolean" as name):
            return name
        case Scalar(type=name, logical=None) if name in _NUMBERS:
            return "number"
        case Scalar() | Fixed() | Enum():
            return "string"
        case Array():
            return "array"
        case _:
            return "object"


def check_unions(contract: Contract) -> None:
    """Refuse the first union that plain JSON cannot tell apart.

    Raises:
        ContractError: Two branches are the same, or read the same JSON.
    """
    for path, union in _unions(contract.root, ""):
        at = f'{contract.where}: field "{path}"' if path else f"{contract.where}: the schema"
        branches = [(branch_name(node), contract.resolve(node)) for node in union.branches]
        for index, (name, node) in enumerate(branches):
            for other_name, other in branches[:index]:
                if name == other_name:
                    raise ContractError(f"{at}: the union has {name} twice")
                if _is_ambiguous(other, node):
                    raise ContractError(
                        f"{at}: {other_name} and {name} read the same JSON "
                        f"({json_kind(node)}): a value would not say which it is; put them "
                        "into two fields"
                    )


def choose_enum(choices: Sequence[Choice[T]]) -> Callable[[object], T]:
    """Choose an enum by its symbol."""
    by_symbol: dict[object, T] = {}
    for node, chosen in choices:
        if isinstance(node, Enum):
            by_symbol.update(dict.fromkeys(node.symbols, chosen))

    def choose(value: object) -> T:
        if value not in by_symbol:
            known = ", ".join(map(str, by_symbol))
            raise refuse(f"found {describe(value)}: want one of {known:.200}")
        return by_symbol[value]

    return choose


def choose_record(choices: Sequence[Choice[T]]) -> Callable[[object], T]:
    """Choose a record by its members: the one that fits, else the nearest, which says why not."""
    shapes = [(*_members(node), chosen) for node, chosen in choices if isinstance(node, Record)]

    def choose(value: object) -> T:
        keys = set(value) if isinstance(value, dict) else set()
        return min(shapes, key=lambda shape: len(shape[0] - keys) + len(keys - shape[1]))[2]

    return choose


def _unions(node: Node, path: str) -> Iterator[tuple[str, Union]]:
    match node:
        case Union(branches=branches):
            yield path, node
            for branch in branches:
                yield from _unions(branch, path)
        case Record(fields=fields):
            for field in fields:
                yield from _unions(field.type, f"{path}.{field.name}" if path else field.name)
        case Array(items=items):
            yield from _unions(items, f"{path}[]")
        case Map(values=values):
            yield from _unions(values, f"{path}{{}}")
        case _:
            return


def _is_ambiguous(one: Node, other: Node) -> bool:
    if json_kind(one) != json_kind(other):
        return False
    match one, other:
        case Enum(), Enum():
            return not set(one.symbols).isdisjoint(other.symbols)
        case Record(), Record():
            (needs, has), (other_needs, other_has) = _members(one), _members(other)
            return needs <= other_has and other_needs <= has
        case _:
            return True


def _members(node: Record) -> tuple[frozenset[str], frozenset[str]]:
    """List the members that a record needs, and all it may have."""
    needs = frozenset(field.name for field in node.fields if field.default is MISSING)
    return needs, frozenset(field.name for field in node.fields)
