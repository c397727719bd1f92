"""Contracts that must be refused at load, with the field's path; and their IDs."""

import hashlib
import json
from typing import Any

import pytest
from fastavro.schema import to_parsing_canonical_form

from bridge.codec import Schema
from bridge.errors import ContractError, InvalidPayloadError


def record(*types: Any, name: str = "R") -> dict[str, Any]:
    fields = [{"name": f"f{index}", "type": kind} for index, kind in enumerate(types)]
    return {"type": "record", "name": name, "fields": fields}


def field(**attributes: Any) -> dict[str, Any]:
    return {"type": "record", "name": "R", "fields": [{"name": "f", **attributes}]}


def enum(name: str, *symbols: str) -> dict[str, Any]:
    return {"type": "enum", "name": name, "symbols": list(symbols)}


def decimal(**attributes: Any) -> dict[str, Any]:
    return {"type": "bytes", "logicalType": "decimal", **attributes}


def fixed(size: Any, **attributes: Any) -> dict[str, Any]:
    return {"type": "fixed", "name": "F", "size": size, **attributes}


def tower(levels: int) -> list[Any]:
    """Records of two fields each, every one of the last: 2**levels values, and no byte."""
    steps = [(f"T{level}", f"T{level - 1}") for level in range(1, levels)]
    return [record("null", "null", name="T0"), *(record(low, low, name=up) for up, low in steps)]


def chain(levels: int) -> list[Any]:
    """Records of one field each, every one the last: as deep as they are many."""
    steps = [(f"C{level}", f"C{level - 1}") for level in range(1, levels)]
    return [record("int", name="C0"), *(record(low, name=up) for up, low in steps)]


def nested_arrays(levels: int) -> Any:
    schema: Any = "int"
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


BAD: list[tuple[str, Any, str]] = [
    ("no schema", 1, "found 1: want a type"),
    ("no type", {}, '"type" is None'),
    ("a list for a type", {"type": ["null", "int"]}, '"type" is'),
    ("an unknown type", "strin", 'unknown type "strin"'),
    ("an unknown type in a field", record("strin"), 'field "f0": unknown type "strin"'),
    ("a type before its definition", record("E", enum("E", "A")), 'field "f0": unknown type "E"'),
    ("a type of another namespace", record({**enum("E", "A"), "namespace": "n"}, "E"), '"f1"'),
    ("a protocol's error", {"type": "error", "name": "E", "fields": []}, "unknown type"),
    ("a path for a name", {"type": "record", "name": "../../etc", "fields": []}, "is no name"),
    ("an empty name", enum("", "A"), "is no name"),
    ("a number for a name", {"type": "enum", "name": 1, "symbols": ["A"]}, "must be text"),
    ("a hyphen in a namespace", {**enum("E", "A"), "namespace": "a-b"}, "is no name"),
    ("a type's name", enum("string", "A"), "is a type of Avro"),
    ("a name twice", record(enum("E", "A"), enum("E", "B")), '"E" is defined twice'),
    ("its own name again", record(enum("R", "A")), '"R" is defined twice'),
    ("no name", {"type": "record", "fields": []}, 'needs "name"'),
    ("no fields", {"type": "record", "name": "R"}, 'needs "fields"'),
    ("an object for fields", {"type": "record", "name": "R", "fields": {}}, "must be a list"),
    ("text for a field", {"type": "record", "name": "R", "fields": ["f"]}, "want a field"),
    ("a field without name", {"type": "record", "name": "R", "fields": [{}]}, "field name None"),
    ("a field with a bad name", {**record(), "fields": [{"name": "a b"}]}, "field name 'a b'"),
    ("a field without type", {**record(), "fields": [{"name": "f"}]}, 'a field needs "type"'),
    (
        "a field twice",
        {**record(), "fields": [{"name": "f", "type": "int"}] * 2},
        'has the field "f" twice',
    ),
    ("no items", {"type": "array"}, 'a array needs "items"'),
    ("no values", {"type": "map"}, 'a map needs "values"'),
    ("no symbols", {"type": "enum", "name": "E"}, 'needs "symbols"'),
    ("no symbol", enum("E"), "must be a list of names"),
    ("a bad symbol", enum("E", "A B"), "is no symbol"),
    ("a symbol twice", enum("E", "A", "A"), "twice"),
    ("an enum's bad default", {**enum("E", "A"), "default": "B"}, "none of its symbols"),
    ("a negative size", fixed(-1), "size -1"),
    ("a size as text", fixed("4"), "size '4'"),
    ("a size of true", fixed(True), "size True"),
    ("a huge size", fixed(1 << 40), "size 1099511627776"),
    ("a decimal without precision", decimal(), "precision None"),
    ("a decimal of precision 0", decimal(precision=0), "precision 0"),
    ("a decimal of a million digits", decimal(precision=1_000_000), "precision 1000000"),
    ("a negative scale", decimal(precision=4, scale=-1), "scale -1"),
    ("a scale beyond precision", decimal(precision=4, scale=5), "scale 5"),
    ("a precision as text", decimal(precision="4"), "precision is '4'"),
    ("a decimal too large for its size", fixed(2, logicalType="decimal", precision=5), "1 to 4"),
    ("a decimal on a long", {"type": "long", "logicalType": "decimal", "precision": 4}, "not on"),
    ("a date on text", {"type": "string", "logicalType": "date"}, "date stands on int"),
    ("a logicalType of 1", {"type": "int", "logicalType": 1}, "logicalType is 1"),
    (
        "logicalType beside a field's type",
        field(type="long", logicalType="timestamp-millis"),
        'field "f": logicalType beside',
    ),
    ("no branch", [], "a union of nothing"),
    ("a union in a union", ["null", ["int"]], "directly within a union"),
    ("a branch twice", ["int", "int"], "has int twice"),
    ("a named branch twice", record(enum("E", "A"), ["E", "E"]), '"f1": the union has E twice'),
    ("a union in an array", record({"type": "array", "items": ["int", "long"]}), '"f0[]"'),
    ("a union in a map", record({"type": "map", "values": ["int", "long"]}), '"f0{}"'),
    ("a union in a record", record(record(["int", "long"], name="I")), '"f0.f0": int and long'),
    ("an endless record", record("R"), "record R contains itself without end"),
    (
        "endless in two steps",
        record(record("R", name="I")),
        "contains itself without end",
    ),
    ("endless in every branch", record(["R"]), "contains itself without end"),
    ("a wide tower", record(*tower(30)), "members: want 100000"),
    ("a chain of 65 records", record(*chain(65)), "record C64 nests deeper than 64"),
    ("65 arrays", nested_arrays(65), "nest deeper than 64"),
    ("70 arrays", nested_arrays(70), "nest deeper than 64"),
    ("text for an int", field(type="int", default="1"), 'field "f" of R: its default'),
    ("a fraction for an int", field(type="int", default=1.5), "its default does not fit"),
    ("an int too large", field(type="int", default=1 << 31), "its default does not fit"),
    ("null for text", field(type="string", default=None), "its default does not fit"),
    ("no branch takes it", field(type=["null", "int"], default="x"), "its default does not fit"),
    ("no symbol of it", field(type=enum("E", "A"), default="B"), "its default does not fit"),
    ("a default too short", field(type=fixed(2), default="a"), "found 1 bytes: want exactly 2"),
    ("no byte", field(type="bytes", default="€"), "U+0000 to U+00FF"),
    (
        "a date beyond its calendar",
        field(type={"type": "int", "logicalType": "date"}, default=1 << 30),
        "its default does not fit",
    ),
    (
        "a UUID that is none",
        field(type={"type": "string", "logicalType": "uuid"}, default="x"),
        "its default does not fit",
    ),
    (
        "a decimal of too many digits",
        field(type=decimal(precision=1), default="\u007f"),
        "its default does not fit",
    ),
    (
        "a default without a member",
        field(type=record("int", name="I"), default={}),
        "/f0: missing",
    ),
    (
        "a default that has itself",
        field(type={"type": "array", "items": "R"}, default=[{}]),
        "nested deeper than 64",
    ),
    (
        "a default that doubles",
        field(type={"type": "array", "items": "R"}, default=[{}, {}]),
        "its default does not fit",
    ),
]

AMBIGUOUS: list[tuple[str, list[Any]]] = [
    ("int and long", ["int", "long"]),
    ("int and double", ["int", "double"]),
    ("float and double", ["float", "double"]),
    ("string and bytes", ["string", "bytes"]),
    ("string and enum", ["string", enum("E", "A")]),
    ("string and fixed", ["string", fixed(2)]),
    ("string and a date", ["string", {"type": "int", "logicalType": "date"}]),
    ("string and a decimal", ["string", decimal(precision=4)]),
    ("enums that share a symbol", [enum("E", "A", "B"), enum("F", "B", "C")]),
    ("a record and a map", [record("int"), {"type": "map", "values": "int"}]),
    ("records of the same members", [record("int"), record("string", name="S")]),
    ("a record within another", [record("int"), field(type="int", default=1) | {"name": "S"}]),
]
AMBIGUOUS[-1][1][1]["fields"].insert(0, {"name": "f0", "type": "int"})


@pytest.mark.parametrize(("source", "said"), [row[1:] for row in BAD], ids=[r[0] for r in BAD])
def test_it_is_refused_and_says_where(source: Any, said: str) -> None:
    with pytest.raises(ContractError) as refused:
        Schema.load(json.dumps(source), where="greeter/request.avsc")

    assert str(refused.value).startswith("greeter/request.avsc: ")
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "branches", [row[1] for row in AMBIGUOUS], ids=[row[0] for row in AMBIGUOUS]
)
def test_branches_that_read_the_same_json_are_refused(branches: list[Any]) -> None:
    with pytest.raises(ContractError, match=r'field "choice": .* read the same JSON'):
        Schema.load(
            {"type": "record", "name": "Top", "fields": [{"name": "choice", "type": branches}]},
            where="x.avsc",
        )


@pytest.mark.parametrize("text", ["", "{", '{"type": "int", "type": "int"}', "\ud800", "int"])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(ContractError, match=r"x\.avsc: not JSON"):
        Schema.load(text, where="x.avsc")


def test_records_are_told_apart_by_a_member_that_only_one_needs() -> None:
    cat = {"type": "record", "name": "Cat", "fields": [{"name": "lives", "type": "int"}]}
    dog = {"type": "record", "name": "Dog", "fields": [{"name": "tricks", "type": "int"}]}
    schema = Schema.load([cat, dog], where="x.avsc")

    assert schema.decode(schema.from_json({"tricks": 3})) == {"tricks": 3}
    assert schema.from_json({"lives": 9})[5:] == b"\0\x12"


def test_enums_are_told_apart_by_their_symbols() -> None:
    schema = Schema.load([enum("E", "A"), enum("F", "B")], where="x.avsc")

    assert (schema.from_json("A")[5:], schema.from_json("B")[5:]) == (b"\0\0", b"\2\0")
    with pytest.raises(InvalidPayloadError, match="want one of A, B"):
        schema.from_json("C")


def test_unknown_logical_types_are_ignored_as_avro_asks() -> None:
    schema = Schema.load({"type": "long", "logicalType": "timestamp-nanos"}, where="x.avsc")

    assert schema.decode(schema.from_json(1)) == 1
    assert schema.canonical == '{"type":"long","logicalType":"timestamp-nanos"}'


def test_a_uuid_on_fixed_stays_bytes_since_fastavro_does_not_know_it() -> None:
    schema = Schema.load(fixed(16, logicalType="uuid"), where="x.avsc")

    assert schema.decode(schema.from_native(bytes(16))) == bytes(16)


def test_a_default_may_be_of_a_type_that_is_defined_around_it() -> None:
    inner = record(["null", "R"], name="I")
    source: dict[str, Any] = {
        "type": "record",
        "name": "R",
        "fields": [
            {"name": "one", "type": inner},
            {"name": "two", "type": "I", "default": {"f0": None}},
        ],
    }
    schema = Schema.load(source, where="x.avsc")

    value = schema.decode(schema.from_json({"one": {"f0": None}}))

    assert value == {"one": {"f0": None}, "two": {"f0": None}}


def test_an_id_is_31_bits_of_the_canonical_forms_sha256() -> None:
    source: dict[str, Any] = {
        "namespace": "shop",
        "doc": "not part of it",
        "fields": [
            {"type": {"scale": 2, "precision": 9, **decimal()}, "name": "price", "doc": "euros"},
            {"type": {"type": "string"}, "name": "note", "default": ""},
            {"type": ["null", "Order"], "name": "last", "default": None},
        ],
        "name": "Order",
        "type": "record",
    }
    canonical = (
        '{"name":"shop.Order","type":"record","fields":['
        '{"name":"price","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}},'
        '{"name":"note","type":"string"},{"name":"last","type":["null","shop.Order"]}]}'
    )

    schema = Schema.load(source, where="x.avsc")

    assert schema.canonical == canonical
    digest = hashlib.sha256(canonical.encode()).digest()
    assert schema.id == int.from_bytes(digest[:4], "big") >> 1
    assert schema.source is source


NAMESPACES: list[Any] = [
    {"type": "enum", "name": "a.b.E", "namespace": "ignored", "symbols": ["A"]},
    {**record({**enum("E", "A"), "namespace": "other"}, "other.E"), "namespace": "n"},
    {**record(enum("E", "A"), "E", "n.E"), "namespace": "n"},
    {**record(record(enum("E", "A"), "E", name="x.I"), "x.E", "x.I"), "namespace": "n"},
    {**record({**enum("E", "A"), "namespace": ""}), "namespace": "n"},
    {**record(["null", "R"], ["null", "n.R"]), "namespace": "n"},
    {**record(enum("E", "A"), {"type": "int", "doc": "é"}), "aliases": ["Q"]},
]


@pytest.mark.parametrize("source", NAMESPACES)
def test_names_are_written_in_full_as_avro_does(source: Any) -> None:
    schema = Schema.load(source, where="x.avsc")

    assert schema.canonical == to_parsing_canonical_form(json.loads(json.dumps(source)))


def test_a_name_may_be_wrapped_as_java_takes_it() -> None:
    schema = Schema.load(record(enum("E", "A"), {"type": "E"}), where="x.avsc")

    assert schema.canonical == Schema.load(record(enum("E", "A"), "E"), where="x.avsc").canonical


def test_decimals_of_different_scale_have_different_ids() -> None:
    one, two = (Schema.load(decimal(precision=9, scale=s), where="x.avsc") for s in (2, 3))

    assert one.id != two.id


def test_json_schema_refers_to_what_is_used_again() -> None:
    source: dict[str, Any] = {
        "type": "record",
        "name": "Node",
        "doc": "A tree.",
        "fields": [
            {"name": "size", "type": "int", "doc": "In bytes."},
            {
                "name": "at",
                "type": {"type": "long", "logicalType": "timestamp-millis"},
                "default": 0,
            },
            {"name": "kids", "type": {"type": "array", "items": "Node"}, "default": []},
        ],
    }
    schema = Schema.load(source, where="x.avsc")

    assert schema.json_schema(refs="#/components/schemas/") == {
        "$ref": "#/components/schemas/Node",
        "$defs": {
            "Node": {
                "title": "Node",
                "description": "A tree.",
                "type": "object",
                "properties": {
                    "size": {
                        "type": "integer",
                        "format": "int32",
                        "minimum": -(2**31),
                        "maximum": 2**31 - 1,
                        "description": "In bytes.",
                    },
                    "at": {
                        "type": "string",
                        "format": "date-time",
                        "default": "1970-01-01T00:00:00Z",
                    },
                    "kids": {
                        "type": "array",
                        "items": {"$ref": "#/components/schemas/Node"},
                        "default": [],
                    },
                },
                "required": ["size"],
                "additionalProperties": False,
            }
        },
    }
