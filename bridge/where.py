"""Conditions on a decoded request: `field op value`, several of which must all hold.

Small on purpose: a dotted path, one of seven operators, one value. A value means what the field
makes of it: a number beside a number, a point in time beside a timestamp, text beside text. What
cannot be compared is not equal and not in order; a field that is not there holds nothing.
"""

import base64
import json
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple
from uuid import UUID

from bridge.codec import Schema
from bridge.codec.node import Array, Contract, Map, Missing, Node, Record, Reference, Union

_FORM = re.compile(
    r"\s*([^\s=!<>]+)\s*(!=|<=|>=|=|<|>|(?<=\s)contains(?=\s))\s*(.*?)\s*\Z", re.DOTALL
)
_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_FLAGS = {"true": True, "false": False}
_MISSING = Missing()


class Condition(NamedTuple):
    """One `field op value`.

    Attributes:
        path: The field, from the outermost record on; a number chooses an item of an array.
        op: `=`, `!=`, `<`, `<=`, `>`, `>=` or `contains`.
        text: The value, without quotes.
        is_quoted: Whether it was in quotes: then it is text, whatever it looks like.
    """

    path: tuple[str, ...]
    op: str
    text: str
    is_quoted: bool = False


def parse_condition(text: str) -> Condition:
    """Read a condition.

    Raises:
        ValueError: It is none; the message says what is wanted.
    """
    found = _FORM.match(text)
    if found is None:
        raise ValueError(
            f"{text!r} is no condition: want 'field op value', where op is = != < <= > >= or "
            "contains, as 'address.city = Paris' or 'count >= 3'"
        )
    path, op, value = found.groups()
    is_quoted = value.startswith('"')
    if is_quoted:
        try:
            value = json.loads(value)
        except ValueError:
            raise ValueError(f"{value} is no text in quotes, as JSON has it") from None
    return Condition(tuple(path.split(".")), op, value, is_quoted)


def check_path(condition: Condition, schema: Schema) -> None:
    """See that a contract has a condition's field.

    Raises:
        ValueError: It has not; the message names what it has there.
    """
    _follow(schema.contract, schema.contract.root, condition.path, ".".join(condition.path))


def _follow(contract: Contract, node: Node, path: Sequence[str], whole: str) -> None:
    node = contract.resolve(node)
    if not path:
        return
    match node:
        case Record(fields=fields):
            inner = {field.name: field.type for field in fields}
            if path[0] not in inner:
                raise ValueError(
                    f"{contract.where} has no field {whole}: there are {', '.join(inner)}"
                )
            _follow(contract, inner[path[0]], path[1:], whole)
        case Map(values=values):
            _follow(contract, values, path[1:], whole)
        case Array(items=items) if path[0].isdigit():
            _follow(contract, items, path[1:], whole)
        case Union(branches=branches):
            _follow_any(contract, branches, path, whole)
        case _:
            raise ValueError(f"{contract.where} has nothing named {path[0]} within {whole}")


def _follow_any(
    contract: Contract, branches: Sequence[Node | Reference], path: Sequence[str], whole: str
) -> None:
    troubles = []
    for branch in branches:
        try:
            _follow(contract, branch, path, whole)
        except ValueError as trouble:
            troubles.append(trouble)
        else:
            return
    raise troubles[-1]


def holds(condition: Condition, value: object) -> bool:
    """Tell whether a condition holds for a decoded record."""
    found = _find(value, condition.path)
    if isinstance(found, Missing):
        return False
    if condition.op == "contains":
        return _contains(found, condition)
    wanted = _read_as(found, condition)
    if condition.op in _ORDERS:
        if wanted is None or isinstance(found, bool):
            return False
        return _ORDERS[condition.op](_plain(found), wanted)
    is_equal = wanted is not None and _plain(found) == wanted
    if found is None:
        is_equal = condition.text == "null" and not condition.is_quoted
    return is_equal == (condition.op == "=")


def _find(value: object, path: Sequence[str]) -> object:
    for step in path:
        if isinstance(value, Mapping) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            return _MISSING
    return value


def _contains(found: object, condition: Condition) -> bool:
    match found:
        case str():
            return condition.text in found
        case Mapping():
            return condition.text in found
        case list():
            equal = condition._replace(path=(), op="=")
            return any(holds(equal, item) for item in found)
        case _:
            return False


def _plain(found: object) -> object:
    """Return what is compared of a value: one type for each kind."""
    match found:
        case bytes():
            return base64.b64encode(found).decode()
        case UUID():
            return str(found)
        case bool() | float():
            return found
        case int():
            return Decimal(found)
        case _:
            return found


def _read_as(found: object, condition: Condition) -> object:
    """Read a condition's value as what was found; None: it is nothing of the kind."""
    text = condition.text
    match found:
        case str() | bytes() | UUID():
            return text.lower() if isinstance(found, UUID) else text
        case date() | time():
            return _read_time(found, text)
        case int() | float() | Decimal() if not condition.is_quoted:
            return _read_number(found, text)
        case _:
            return None


def _read_number(found: float | Decimal, text: str) -> float | Decimal | None:
    if isinstance(found, bool):
        return _FLAGS.get(text)
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    if not number.is_finite():
        return None
    return float(number) if isinstance(found, float) else number


def _read_time(found: date | time, text: str) -> date | time | None:
    """Read a point in time as precisely as the one beside it; UTC unless it says otherwise."""
    try:
        if not isinstance(found, datetime):
            return type(found).fromisoformat(text)
        wanted = datetime.fromisoformat(text)
    except ValueError:
        return None
    if found.tzinfo is None:
        return wanted if wanted.tzinfo is None else None
    return wanted if wanted.tzinfo is not None else wanted.replace(tzinfo=UTC)
