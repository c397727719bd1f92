"""Random contracts and values that fit them, for property tests.

Written against the Avro specification and schemas as JSON, not against `bridge.codec`'s own tree,
so that the two can disagree.
"""

import base64
import datetime as dt
import struct
from collections.abc import Callable
from decimal import Context, Decimal
from typing import Any, TypeAlias
from uuid import UUID

from hypothesis import strategies as st

Json: TypeAlias = Any  # a schema as JSON: it comes from and goes to libraries that say so too

NUMBERS = ["int", "long", "float", "double"]
STRINGS: list[Json] = [
    "string",
    "bytes",
    {"type": "int", "logicalType": "date"},
    {"type": "int", "logicalType": "time-millis"},
    {"type": "long", "logicalType": "time-micros"},
    {"type": "long", "logicalType": "timestamp-millis"},
    {"type": "long", "logicalType": "timestamp-micros"},
    {"type": "long", "logicalType": "local-timestamp-millis"},
    {"type": "long", "logicalType": "local-timestamp-micros"},
    {"type": "string", "logicalType": "uuid"},
    {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 3},
    {"type": "bytes", "logicalType": "decimal", "precision": 40},
]


class _Maker:
    """Draws one schema; knows the names given away and the records around."""

    def __init__(self, draw: st.DrawFn, *, logical: bool) -> None:
        self.draw = draw
        self.logical = logical
        self.count = 0
        self.around: list[str] = []
        self.done: list[str] = []

    def name(self) -> str:
        self.count += 1
        return f"T{self.count}"

    def any(self, depth: int) -> Json:
        kinds = ["null", "boolean", "number", "string", "string", "enum", "fixed"]
        if depth:
            kinds += ["array", "map", "record", "record", "union", "union", "again"]
        return self.of_kind(self.draw(st.sampled_from(kinds)), depth)

    def of_kind(self, kind: str, depth: int) -> Json:  # noqa: C901, PLR0911, PLR0912 - a case for each
        match kind:
            case "null" | "boolean":
                return kind
            case "number":
                return self.draw(st.sampled_from(NUMBERS))
            case "string":
                return self.draw(st.sampled_from(STRINGS if self.logical else STRINGS[:2]))
            case "enum":
                return self.enum()
            case "fixed":
                return self.fixed()
            case "array":
                return {"type": "array", "items": self.any(depth - 1)}
            case "map":
                return {"type": "map", "values": self.any(depth - 1)}
            case "record":
                return self.record(depth)
            case "again":
                return self.again()
            case _:
                return self.union(depth)

    def enum(self) -> Json:
        name = self.name()
        symbols = [f"{name}_{letter}" for letter in "ABC"]
        self.done.append(name)
        return {"type": "enum", "name": name, "symbols": symbols}

    def fixed(self) -> Json:
        size = self.draw(st.integers(0, 17))
        made: Json = {"type": "fixed", "name": self.name(), "size": size}
        if self.logical and made["size"] and self.draw(st.booleans()):
            made |= {"logicalType": "decimal", "precision": 2, "scale": 1}
        self.done.append(made["name"])
        return made

    def record(self, depth: int) -> Json:
        name = self.name()
        self.around.append(name)
        fields = [
            {"name": f"f{index}", "type": self.any(depth - 1)}
            for index in range(self.draw(st.integers(0, 3)))
        ]
        fields.append({"name": f"only_{name}", "type": "boolean"})  # tells it from other records
        self.around.pop()
        self.done.append(name)
        return {"type": "record", "name": name, "fields": fields}

    def again(self) -> Json:
        if self.draw(st.booleans()) and self.around:
            name = self.draw(st.sampled_from(self.around))
            forms: list[Json] = [["null", name], {"type": "array", "items": name}]
            return self.draw(st.sampled_from([*forms, {"type": "map", "values": name}]))
        return self.draw(st.sampled_from(self.done)) if self.done else "string"

    def union(self, depth: int) -> Json:
        kinds = ["null", "boolean", "number", "array", "string", "enum", "object"]
        chosen = self.draw(st.lists(st.sampled_from(kinds), unique=True, min_size=1))
        branches: list[Json] = []
        for kind in chosen:
            if kind == "enum":
                if "string" not in chosen:
                    branches += [self.enum(), self.enum()]
            elif kind == "object":
                form = self.draw(st.sampled_from(["map", "record", "records"]))
                one = self.of_kind("map" if form == "map" else "record", depth)
                branches += [one, self.record(depth)] if form == "records" else [one]
            else:
                made = self.of_kind(kind, depth)
                if base_of(made) not in map(base_of, branches):
                    branches.append(made)
        return branches or ["null"]


@st.composite
def schemas(draw: st.DrawFn, depth: int = 3, *, logical: bool = True) -> Json:
    """Any schema that the bridge can serve, with or without logical types."""
    return _Maker(draw, logical=logical).any(depth)


def base_of(schema: Json) -> Json:
    """What a union may have only once, unless it has a name."""
    return schema["type"] if isinstance(schema, dict) and "name" not in schema else str(schema)


def names_of(schema: Json) -> dict[str, Json]:
    """Every named type of a schema."""
    if isinstance(schema, list):
        return {name: made for branch in schema for name, made in names_of(branch).items()}
    if not isinstance(schema, dict):
        return {}
    inner = [schema.get("items"), schema.get("values")]
    inner += [field["type"] for field in schema.get("fields", [])]
    found = {schema["name"]: schema} if "name" in schema else {}
    for child in inner:
        found |= names_of(child)
    return found


def values(schema: Json) -> st.SearchStrategy[Any]:
    """Python values that fit a schema, as a handler would give them."""
    return st.deferred(lambda: _values(schema, names_of(schema), 6))


def _values(  # noqa: C901, PLR0911, PLR0912 - a case for each kind of type
    schema: Json, names: dict[str, Json], depth: int
) -> st.SearchStrategy[Any]:
    if isinstance(schema, str):
        return _values(names[schema], names, depth) if schema in names else _PLAIN[schema]
    if isinstance(schema, list):
        branches = schema if depth > 0 else [b for b in schema if b == "null"] or schema
        return st.one_of([_values(branch, names, depth) for branch in branches])
    match schema["type"]:
        case "array":
            items = st.deferred(lambda: _values(schema["items"], names, depth - 2))
            return st.lists(items, max_size=3 if depth > 0 else 0)
        case "map":
            items = st.deferred(lambda: _values(schema["values"], names, depth - 2))
            return st.dictionaries(st.text(max_size=3), items, max_size=3 if depth > 0 else 0)
        case "record":
            fields = {f["name"]: _values(f["type"], names, depth - 1) for f in schema["fields"]}
            return st.fixed_dictionaries(fields)
        case "enum":
            return st.sampled_from(schema["symbols"])
        case "fixed" if "logicalType" in schema:
            return _decimals(schema["precision"], schema["scale"])
        case "fixed":
            return st.binary(min_size=schema["size"], max_size=schema["size"])
        case _:
            return _logical(schema)


def _logical(schema: Json) -> st.SearchStrategy[Any]:
    name = schema["logicalType"]
    if name == "decimal":
        return _decimals(schema["precision"], schema.get("scale", 0))
    if name in _LOGICAL:
        return _LOGICAL[name]
    zone = st.none() if name.startswith("local") else st.just(dt.UTC)
    moments = st.datetimes(timezones=zone)
    return moments.map(_to_millis) if name.endswith("millis") else moments


def _to_millis(value: Any) -> Any:
    return value.replace(microsecond=value.microsecond // 1000 * 1000)


def _decimals(precision: int, scale: int) -> st.SearchStrategy[Decimal]:
    most = 10**precision - 1
    return st.integers(-most, most).map(lambda n: Decimal(n).scaleb(-scale, _wide))


_wide = Context(prec=60)
_PLAIN: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "double": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53),
    "bytes": st.binary(max_size=5),
    "string": st.text(max_size=5),
}
_LOGICAL: dict[str, st.SearchStrategy[Any]] = {
    "date": st.dates(),
    "time-millis": st.times().map(_to_millis),
    "time-micros": st.times(),
    "uuid": st.uuids(),
}


def is_valid(schema: Json, value: Any) -> bool:
    """Whether plain JSON says a value of the schema, by the rules alone."""
    return _is_valid(schema, value, names_of(schema))


def _is_valid(  # noqa: PLR0911 - a case for each kind of type
    schema: Json, value: Any, names: dict[str, Json]
) -> bool:
    if isinstance(schema, str):
        named = schema in names
        return _is_valid(names[schema], value, names) if named else _RULES[schema](value)
    if isinstance(schema, list):
        return any(_is_valid(branch, value, names) for branch in schema)
    match schema["type"]:
        case "array":
            items = schema["items"]
            return isinstance(value, list) and all(_is_valid(items, v, names) for v in value)
        case "map":
            kind = schema["values"]
            return isinstance(value, dict) and all(
                _is_valid(kind, v, names) for v in value.values()
            )
        case "record":
            fields = {f["name"]: f["type"] for f in schema["fields"]}
            return (
                isinstance(value, dict)
                and value.keys() == fields.keys()
                and all(_is_valid(fields[name], v, names) for name, v in value.items())
            )
        case "enum":
            return value in schema["symbols"]
        case _:
            return isinstance(value, str) and _is_text_of(schema, value)


def _is_text_of(schema: Json, value: str) -> bool:  # noqa: PLR0911 - a case for each
    name = schema.get("logicalType", "bytes")
    try:
        match name.rpartition("-")[0] or name:
            case "bytes":
                size = schema.get("size")
                raw = base64.b64decode(value, validate=True)
                return base64.b64encode(raw).decode() == value and size in (None, len(raw))
            case "decimal":
                number, scale = Decimal(value), schema.get("scale", 0)
                limit = Decimal(10) ** (schema["precision"] - scale)
                exact = number == number.quantize(Decimal(1).scaleb(-scale), context=_wide)
                return "E" not in value.upper() and number.copy_abs() < limit and exact
            case "uuid":
                return str(UUID(value)) == value
            case "date":
                return dt.date.fromisoformat(value).isoformat() == value
            case "time":
                return len(value) > 7 and dt.time.fromisoformat(value).tzinfo is None
            case "local-timestamp":
                return len(value) > 18 and dt.datetime.fromisoformat(value).tzinfo is None
            case _:
                return len(value) > 18 and dt.datetime.fromisoformat(value).tzinfo is not None
    except (ValueError, ArithmeticError):
        return False


def _is_integer(bits: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and -(1 << bits) <= value < 1 << bits


def _is_float(form: str) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        if type(value) not in (int, float):
            return False
        try:
            (kept,) = struct.unpack(form, struct.pack(form, value))
        except (OverflowError, struct.error):
            return False
        return type(value) is float or kept == value

    return check


_RULES: dict[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: type(value) is bool,
    "int": _is_integer(31),
    "long": _is_integer(63),
    "float": _is_float("<f"),
    "double": _is_float("<d"),
    "string": lambda value: type(value) is str,
    "bytes": lambda value: isinstance(value, str) and _is_text_of({}, value),
}
