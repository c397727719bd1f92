"""The codec on single values: frames, natives, budgets, and how JSON is written."""

import datetime as dt
import enum
from collections import defaultdict
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from bridge.codec import Schema, parse_json, render_json, schema_id_of
from bridge.errors import InvalidPayloadError, MalformedBodyError, RecordError

GREETER = Schema.load(
    {
        "type": "record",
        "name": "Request",
        "namespace": "greeter",
        "fields": [{"name": "name", "type": "string"}],
    },
    where="greeter/request.avsc",
)
EAST = dt.timezone(dt.timedelta(hours=5, minutes=30))


class Color(enum.StrEnum):
    RED = "RED"


class Size(enum.IntEnum):
    SMALL = 1


def load(source: Any) -> Schema:
    return Schema.load(source, where="x.avsc")


def logical(base: str, name: str, **attributes: int) -> Schema:
    return load({"type": base, "logicalType": name, **attributes})


def test_a_request_is_a_zero_byte_the_schema_id_and_avro() -> None:
    framed = GREETER.from_json({"name": "Ada"})

    assert framed == b"\0" + GREETER.id.to_bytes(4, "big") + b"\x06Ada"
    assert schema_id_of(framed) == GREETER.id == 1920251480
    assert GREETER.decode(framed) == {"name": "Ada"}


@pytest.mark.parametrize("value", [None, b"", b"\0\0\0\0", b"\1\0\0\0\1", b"{}", b"hello"])
def test_what_has_no_frame_is_a_record_error(value: bytes | None) -> None:
    with pytest.raises(RecordError):
        schema_id_of(value)
    with pytest.raises(RecordError):
        GREETER.decode(value)


def test_another_schemas_value_is_a_record_error() -> None:
    other = load('"string"')

    with pytest.raises(RecordError, match=f"schema ID {other.id}: want {GREETER.id}"):
        GREETER.decode(other.from_json("Ada"))


NATIVES: list[tuple[Schema, Any, Any]] = [
    (load({"type": "enum", "name": "E", "symbols": ["RED"]}), Color.RED, "RED"),
    (load('"string"'), Color.RED, "RED"),
    (load('"int"'), Size.SMALL, 1),
    (load('"double"'), 3, 3.0),
    (load('"bytes"'), bytearray(b"ab"), b"ab"),
    (load({"type": "array", "items": "int"}), (1, 2), [1, 2]),
    (load({"type": "map", "values": "int"}), defaultdict(int, a=1), {"a": 1}),
    (load(["null", "int"]), Size.SMALL, 1),
    (
        logical("long", "timestamp-millis"),
        dt.datetime(2026, 1, 1, 5, 30, tzinfo=EAST),
        dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    ),
    (logical("int", "date"), dt.date(1, 1, 1), dt.date(1, 1, 1)),
    (logical("bytes", "decimal", precision=4, scale=2), Decimal("1.5000"), Decimal("1.50")),
    (logical("bytes", "decimal", precision=4, scale=2), Decimal("-0.00"), Decimal("0.00")),
    (logical("bytes", "decimal", precision=4), Decimal("1E+3"), Decimal(1000)),
    (logical("string", "uuid"), UUID(int=5), UUID(int=5)),
]


@pytest.mark.parametrize(("schema", "value", "want"), NATIVES)
def test_a_handlers_value_is_taken_as_what_it_means(schema: Schema, value: Any, want: Any) -> None:
    assert schema.decode(schema.from_native(value)) == want


REFUSED: list[tuple[Schema, Any]] = [
    (load('"double"'), float("nan")),
    (load('"double"'), float("inf")),
    (load('"double"'), 10**5000),
    (load('"long"'), -(10**5000)),
    (load('"double"'), "1"),
    (load('"int"'), True),
    (load('"int"'), 1.0),
    (load('"string"'), "half \ud800"),
    (load('"string"'), b"bytes"),
    (load('"bytes"'), "text"),
    (load({"type": "map", "values": "int"}), {1: 1}),
    (load({"type": "map", "values": "int"}), {"\ud800": 1}),
    (load({"type": "array", "items": "int"}), {1}),
    (GREETER, {"name": "a", 5: 6}),
    (GREETER, object()),
    (logical("long", "timestamp-millis"), dt.datetime(2026, 1, 1)),  # noqa: DTZ001 - the point
    (logical("long", "timestamp-millis"), dt.datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=dt.UTC)),
    (logical("long", "timestamp-micros"), dt.datetime(1, 1, 1, tzinfo=EAST)),
    (logical("long", "timestamp-micros"), "2026-01-01T00:00:00Z"),
    (logical("long", "local-timestamp-millis"), dt.datetime(2026, 1, 1, tzinfo=dt.UTC)),
    (logical("int", "date"), dt.datetime(2026, 1, 1, tzinfo=dt.UTC)),
    (logical("int", "time-millis"), dt.time(12, tzinfo=dt.UTC)),
    (logical("int", "time-millis"), dt.time(12, 0, 0, 1)),
    (logical("bytes", "decimal", precision=4, scale=2), Decimal(100)),
    (logical("bytes", "decimal", precision=4, scale=2), Decimal("0.001")),
    (logical("bytes", "decimal", precision=4, scale=2), Decimal("1E-999999")),
    (logical("bytes", "decimal", precision=4, scale=2), Decimal("1E+999999")),
    (logical("bytes", "decimal", precision=4, scale=2), Decimal("NaN")),
    (logical("bytes", "decimal", precision=4, scale=2), Decimal("-Infinity")),
    (logical("bytes", "decimal", precision=4, scale=2), 1.5),
    (logical("string", "uuid"), "00000000-0000-0000-0000-000000000000"),
]


@pytest.mark.parametrize(("schema", "value"), REFUSED, ids=range(len(REFUSED)))
def test_a_handlers_value_that_does_not_fit_is_refused(schema: Schema, value: Any) -> None:
    with pytest.raises(InvalidPayloadError) as refused:
        schema.from_native(value)

    render_json([found.pointer for found in refused.value.violations])  # can be told to anyone


def test_numbers_that_plain_json_cannot_carry_are_not_taken_from_topics_either() -> None:
    double = load('"double"')
    frame = double.from_json(1)[:5]

    for bits in ("000000000000f87f", "000000000000f07f", "000000000000f0ff"):
        with pytest.raises(RecordError, match="plain JSON"):
            double.decode(frame + bytes.fromhex(bits))


def test_what_is_accepted_is_within_the_budgets_of_reading() -> None:
    schema = load({"type": "array", "items": {"type": "array", "items": "null"}})
    most = [[None] * 49_999, [None] * 49_999]

    assert schema.decode(schema.from_json(most)) == most
    with pytest.raises(InvalidPayloadError, match="/1: more than 100000 array items"):
        schema.from_json([*most[:1], [None] * 50_000])


def test_values_that_take_no_byte_cost_what_they_build() -> None:
    nulls = [{"name": f"n{index}", "type": "null"} for index in range(1000)]
    schema = load({"type": "array", "items": {"type": "record", "name": "R", "fields": nulls}})
    item = dict.fromkeys((f"n{index}" for index in range(1000)), None)

    assert len(schema.from_json([item] * 100)) == 5 + 3
    with pytest.raises(InvalidPayloadError, match="more than 100000"):
        schema.from_json([item] * 101)
    with pytest.raises(RecordError, match="more than 100000"):
        schema.decode(schema.from_json([])[:5] + b"\xca\x01\x00")


def test_a_value_of_more_than_16_mib_is_refused_both_ways() -> None:
    schema = load('"bytes"')
    limit = 16 * 1024 * 1024
    head = schema.from_native(b"")[:5]

    with pytest.raises(InvalidPayloadError, match="want at most 16777216"):
        schema.from_native(bytes(limit))
    with pytest.raises(RecordError, match="want at most 16777216"):
        schema.decode(head + bytes(limit))


def test_a_handlers_endless_value_is_refused_not_followed() -> None:
    tree = load(
        {
            "type": "record",
            "name": "Node",
            "fields": [{"name": "next", "type": ["null", "Node"], "default": None}],
        }
    )
    endless: dict[str, Any] = {}
    endless["next"] = endless

    with pytest.raises(InvalidPayloadError, match="nested deeper than 64"):
        tree.from_native(endless)


def test_the_answer_to_a_client_does_not_grow_with_what_it_sent() -> None:
    schema = load({"type": "map", "values": {"type": "map", "values": "int"}})
    long = "é" * 100_000
    bodies: list[Any] = [
        {long: {f"{number}{long}": long for number in range(30)}},
        {long: 10**4000},
        {f"{number}{long}": 1 for number in range(30)},
    ]

    for body in bodies:
        with pytest.raises(InvalidPayloadError) as refused:
            schema.from_json(body)
        told = [(found.pointer, found.reason) for found in refused.value.violations]
        assert len(told) <= 20
        assert len(render_json(told)) < 30_000
    with pytest.raises(InvalidPayloadError) as refused:
        GREETER.from_json(dict.fromkeys(map(str, range(100_000)), 1))
    assert len(refused.value.violations) == 20


def test_decimals_are_written_without_exponent() -> None:
    schema = load(
        {
            "type": "array",
            "items": {"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 20},
        }
    )
    text = b'["0.00000000000000000000","-0.00000000000000000001","1E-7 is text elsewhere"]'

    value = schema.decode(schema.from_json(parse_json(text)[:2]))  # type: ignore[index]

    assert render_json([*value, "1E-7 is text elsewhere"]) == text  # type: ignore[misc]
    assert render_json({"a": Decimal("0E-7"), "b": (None,)}) == b'{"a":"0.0000000","b":[null]}'


def test_plain_json_has_each_type_in_its_usual_form() -> None:
    value = {
        "bytes": b"\0\xff",
        "at": dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC),
        "local": dt.datetime(2026, 1, 1, 12),  # noqa: DTZ001 - local time has no zone
        "day": dt.date(2026, 1, 1),
        "clock": dt.time(12, 0, 0, 500),
        "price": Decimal("1.50"),
        "id": UUID(int=1),
    }

    assert parse_json(render_json(value)) == {
        "bytes": "AP8=",
        "at": "2026-01-01T12:00:00Z",
        "local": "2026-01-01T12:00:00",
        "day": "2026-01-01",
        "clock": "12:00:00.000500",
        "price": "1.50",
        "id": "00000000-0000-0000-0000-000000000001",
    }


def test_a_depth_of_ones_own_is_kept_to() -> None:
    assert parse_json(b"[[]]", max_depth=2) == [[]]
    with pytest.raises(MalformedBodyError, match="deeper than 2"):
        parse_json(b"[[[]]]", max_depth=2)
    assert parse_json(b'[[],[],{"a":{}},"]]][[["]', max_depth=3) == [[], [], {"a": {}}, "]]][[["]


HOSTILE_JSON = {
    "depth 100,000": b"[" * 100_000 + b"]" * 100_000,
    "1 MiB of openings": b'{"":' * (1 << 18),
    "1 MiB of pairs": b"[]" * (1 << 19),
    "1 MiB of backslashes": b'"' + b"\\" * (1 << 20),
    "1 MiB of escaped quotes": b'"' + b'\\"' * (1 << 19),
    "1 MiB of quotes": b'"' * (1 << 20),
    "100,000 times the same member": b"{" + b",".join([b'"a":1'] * 100_000) + b"}",
}


@pytest.mark.parametrize("body", HOSTILE_JSON.values(), ids=HOSTILE_JSON.keys())
@pytest.mark.timeout(5)
def test_hostile_json_is_refused_in_time_that_grows_with_its_length_only(body: bytes) -> None:
    with pytest.raises(MalformedBodyError):
        parse_json(body)
