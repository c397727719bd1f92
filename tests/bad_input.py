"""Bodies that must be refused, and exactly how: one table for the codec and for HTTP.

Each row is (name, body, status, pointer): 400 when it is no acceptable JSON document, 422 when it
is one but does not fit `SCHEMA`; the pointer is where (RFC 6901), None where 400 cannot say.
`GOOD` fits, and most rows are `GOOD` with one member written differently.
"""

import json
from typing import Any, NamedTuple

SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "Everything",
    "namespace": "bad.input",
    "fields": [
        {"name": "text", "type": "string"},
        {"name": "flag", "type": "boolean", "default": False},
        {"name": "small", "type": "int", "default": 0},
        {"name": "large", "type": "long", "default": 0},
        {"name": "single", "type": "float", "default": 0},
        {"name": "number", "type": "double", "default": 0},
        {"name": "nothing", "type": "null", "default": None},
        {"name": "raw", "type": "bytes", "default": ""},
        {
            "name": "four",
            "type": {"type": "fixed", "name": "Four", "size": 4},
            "default": "\0\0\0\0",
        },
        {
            "name": "suit",
            "type": {"type": "enum", "name": "Suit", "symbols": ["HEARTS", "SPADES"]},
            "default": "HEARTS",
        },
        {"name": "list", "type": {"type": "array", "items": "int"}, "default": []},
        {"name": "table", "type": {"type": "map", "values": "string"}, "default": {}},
        {"name": "maybe", "type": ["null", "int"], "default": None},
        {"name": "either", "type": ["boolean", "string"], "default": True},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}, "default": 0},
        {"name": "clock", "type": {"type": "int", "logicalType": "time-millis"}, "default": 0},
        {"name": "clock_us", "type": {"type": "long", "logicalType": "time-micros"}, "default": 0},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}, "default": 0},
        {
            "name": "at_us",
            "type": {"type": "long", "logicalType": "timestamp-micros"},
            "default": 0,
        },
        {
            "name": "local",
            "type": {"type": "long", "logicalType": "local-timestamp-millis"},
            "default": 0,
        },
        {
            "name": "price",
            "type": {"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2},
            "default": "\0",
        },
        {
            "name": "uuid",
            "type": {"type": "string", "logicalType": "uuid"},
            "default": "00000000-0000-0000-0000-000000000000",
        },
        {
            "name": "place",
            "type": {
                "type": "record",
                "name": "Place",
                "fields": [{"name": "x", "type": "int"}],
            },
            "default": {"x": 0},
        },
        {"name": "next", "type": ["null", "Everything"], "default": None},
    ],
}

GOOD = {"text": "hello"}


class Row(NamedTuple):
    """One body that must be refused."""

    name: str
    body: bytes
    status: int
    pointer: str | None


def member(name: str, written: str) -> bytes:
    """GOOD with one more member, its value written exactly so."""
    others = "" if name in GOOD else '"text": "hello", '
    return f'{{{others}"{name}": {written}}}'.encode()


_DEEP = b'{"next": ' * 64 + b'{"text": "a"}' + b"}" * 64
_MALFORMED: list[tuple[str, bytes, str | None]] = [
    ("empty", b"", None),
    ("blank", b" \n\t", None),
    ("no JSON", b"hello", None),
    ("cut off", b'{"text": "hel', None),
    ("cut off after a member", b'{"text": "hello"', None),
    ("two documents", b'{"text": "a"} {"text": "b"}', None),
    ("something after", b'{"text": "hello"}]', None),
    ("comma at the end", b'{"text": "hello",}', None),
    ("comma at the end of an array", member("list", "[1,]"), None),
    ("single quotes", b"{'text': 'hello'}", None),
    ("name without quotes", b'{text: "hello"}', None),
    ("comment", b'{"text": "hello" /* hi */}', None),
    ("byte order mark", b'\xef\xbb\xbf{"text": "hello"}', None),
    ("UTF-16", '{"text": "hello"}'.encode("utf-16"), None),
    ("UTF-16 without mark", '{"text": "hello"}'.encode("utf-16-le"), None),
    ("UTF-32", '{"text": "hello"}'.encode("utf-32"), None),
    ("Latin-1", '{"text": "é"}'.encode("latin-1"), None),
    ("cut off UTF-8", b'{"text": "\xc3"}', None),
    ("overlong UTF-8", b'{"text": "\xc0\xaf"}', None),
    ("surrogate in UTF-8", b'{"text": "\xed\xa0\x80"}', None),
    ("lone high surrogate", rb'{"text": "\ud800"}', None),
    ("lone low surrogate", rb'{"text": "\udc00"}', None),
    ("surrogates in the wrong order", rb'{"text": "\udc00\ud800"}', None),
    ("NUL not escaped", b'{"text": "\x00"}', None),
    ("line end not escaped", b'{"text": "a\nb"}', None),
    ("unknown escape", rb'{"text": "\x41"}', None),
    ("short escape", rb'{"text": "\u12"}', None),
    ("NaN", member("number", "NaN"), None),
    ("Infinity", member("number", "Infinity"), None),
    ("-Infinity", member("number", "-Infinity"), None),
    ("1e400", member("number", "1e400"), None),
    ("-1e400", member("number", "-1e400"), None),
    ("leading zero", member("small", "01"), None),
    ("leading plus", member("small", "+1"), None),
    ("point without digits", member("number", "1."), None),
    ("point first", member("number", ".5"), None),
    ("hexadecimal", member("small", "0x1"), None),
    ("True", member("flag", "True"), None),
    ("5,000 digits", member("number", "1" * 5000), None),
    ("a member twice", b'{"text": "a", "text": "b"}', "/text"),
    ("a member twice, equal", b'{"text": "a", "text": "a"}', "/text"),
    ("a member twice, escaped", rb'{"text": "a", "\u0074ext": "b"}', "/text"),
    ("a member twice, _DEEP", member("place", '{"x": 1, "x": 2}'), "/place/x"),
    ("a member twice, in a map", member("table", '{"/": "a", "/": "b"}'), "/table/~1"),
    ("an unknown member twice", member("no", '[1, {"a~": 1, "a~": 2}]'), "/no/1/a~0"),
    ("65 levels", _DEEP, None),
    ("65 levels of arrays", b"[" * 65 + b"]" * 65, None),
    ("100,000 levels", b"[" * 100_000 + b"]" * 100_000, None),
    ("100,000 levels, never closed", b'{"a":' * 100_000, None),
]

_WHOLE = [
    ("null for a record", b"null"),
    ("an array for a record", b"[]"),
    ("a number for a record", b"1"),
    ("text for a record", b'"hello"'),
]
_MEMBERS = [
    ("a number for text", "text", "1"),
    ("null for text", "text", "null"),
    ("text for a boolean", "flag", '"true"'),
    ("a number for a boolean", "flag", "1"),
    ("null for a boolean", "flag", "null"),
    ("2**31 for an int", "small", "2147483648"),
    ("-2**31 - 1 for an int", "small", "-2147483649"),
    ("1.5 for an int", "small", "1.5"),
    ("1.0 for an int", "small", "1.0"),
    ("1e2 for an int", "small", "1e2"),
    ("-0.0 for an int", "small", "-0.0"),
    ("text for an int", "small", '"1"'),
    ("a boolean for an int", "small", "true"),
    ("2**63 for a long", "large", "9223372036854775808"),
    ("-2**63 - 1 for a long", "large", "-9223372036854775809"),
    ("30 digits for a long", "large", "1" * 30),
    ("1e300 for a float", "single", "1e300"),
    ("3.5e38 for a float", "single", "3.5e38"),
    ("2**24 + 1 for a float", "single", "16777217"),
    ("text for a float", "single", '"1.5"'),
    ("2**53 + 1 for a double", "number", "9007199254740993"),
    ("400 digits for a double", "number", "1" * 400),
    ("text for a double", "number", '"1.5"'),
    ("a boolean for a double", "number", "true"),
    ("null for a double", "number", "null"),
    ("0 for null", "nothing", "0"),
    ("empty text for null", "nothing", '""'),
    ("no base64", "raw", '"hello!"'),
    ("base64 without padding", "raw", '"QQ"'),
    ("base64 with too much padding", "raw", '"QQ==="'),
    ("base64 of a URL", "raw", '"_-8="'),
    ("base64 with a line end", "raw", '"QUJD\\n"'),
    ("base64 with bits left over", "raw", '"QR=="'),
    ("a number for bytes", "raw", "1"),
    ("3 bytes for 4", "four", '"QUJD"'),
    ("5 bytes for 4", "four", '"QUJDREU="'),
    ("no symbol", "suit", '"CLUBS"'),
    ("a symbol in small letters", "suit", '"hearts"'),
    ("a symbol's number", "suit", "0"),
    ("an object for an array", "list", "{}"),
    ("null for an array", "list", "null"),
    ("an array for a map", "table", "[]"),
    ("text for a nullable int", "maybe", '"1"'),
    ("a tagged union", "maybe", '{"int": 1}'),
    ("1.5 for a nullable int", "maybe", "1.5"),
    ("null where the union has none", "either", "null"),
    ("a number where the union has none", "either", "1"),
    ("a date as a number", "day", "20780"),
    ("a date with one digit", "day", '"2026-1-1"'),
    ("30 February", "day", '"2026-02-30"'),
    ("29 February of no leap year", "day", '"2026-02-29"'),
    ("the year 0", "day", '"0000-01-01"'),
    ("a date with time", "day", '"2026-01-01T00:00:00Z"'),
    ("digits of another script", "day", '"٢٠٢٦-01-01"'),
    ("24 o'clock", "clock", '"24:00:00"'),
    ("61 minutes", "clock", '"00:61:00"'),
    ("a leap second", "clock", '"23:59:60"'),
    ("a time without seconds", "clock", '"12:00"'),
    ("a time with offset", "clock", '"12:00:00Z"'),
    ("microseconds for milliseconds", "clock", '"12:00:00.123456"'),
    ("nanoseconds for microseconds", "clock_us", '"12:00:00.123456789"'),
    ("a timestamp without offset", "at", '"2026-01-01T00:00:00"'),
    ("a timestamp as a number", "at", "0"),
    ("a timestamp with a blank", "at", '"2026-01-01 00:00:00Z"'),
    ("an offset of a day", "at", '"2026-01-01T00:00:00+24:00"'),
    ("an offset without colon", "at", '"2026-01-01T00:00:00+0100"'),
    ("microseconds for a timestamp in ms", "at", '"2026-01-01T00:00:00.000001Z"'),
    ("before the year 1 in UTC", "at", '"0001-01-01T00:00:00+01:00"'),
    ("after the year 9999 in UTC", "at_us", '"9999-12-31T23:59:59-01:00"'),
    ("nanoseconds for a timestamp in us", "at_us", '"2026-01-01T00:00:00.0000001Z"'),
    ("a local time with offset", "local", '"2026-01-01T00:00:00Z"'),
    ("a decimal as a number", "price", "1.50"),
    ("a decimal of too many digits", "price", '"1000.00"'),
    ("a decimal of too small parts", "price", '"1.005"'),
    ("a decimal with exponent", "price", '"1e2"'),
    ("a decimal with comma", "price", '"1,50"'),
    ("a decimal NaN", "price", '"NaN"'),
    ("a decimal with blank", "price", '" 1.50"'),
    ("a UUID in braces", "uuid", '"{00000000-0000-0000-0000-000000000000}"'),
    ("a UUID without hyphens", "uuid", '"00000000000000000000000000000000"'),
    ("a UUID too short", "uuid", '"00000000-0000-0000-0000-00000000000"'),
]
_INNER = [
    ("text among ints", member("list", '[1, "2"]'), "/list/1"),
    ("null among ints", member("list", "[null]"), "/list/0"),
    ("a number among texts", member("table", '{"a/b": 1}'), "/table/a~1b"),
    ("a number under a tilde", member("table", '{"~": 1}'), "/table/~0"),
    ("a number under an empty name", member("table", '{"": 1}'), "/table/"),
    ("text in a record", member("place", '{"x": "1"}'), "/place/x"),
    ("a member missing in a record", member("place", "{}"), "/place/x"),
    ("a member unknown in a record", member("place", '{"x": 1, "y": 2}'), "/place/y"),
    ("an unknown member", member("extra", "1"), "/extra"),
    ("an unknown member in other letters", b'{"text": "a", "Flag": true}', "/Flag"),
    ("an unknown member with NUL", rb'{"text": "a", "\u0000": 1}', "/\0"),
    ("everything missing", b"{}", "/text"),
    ("missing further in", member("next", '{"next": {"text": "a"}}'), "/next/text"),
    (
        "wrong at the 62nd level",
        b'{"text": "a", "next": ' * 61 + b'{"text": 1}' + b"}" * 61,
        "/next" * 61 + "/text",
    ),
]

ROWS = [
    *(Row(name, body, 400, pointer) for name, body, pointer in _MALFORMED),
    *(Row(name, body, 422, "") for name, body in _WHOLE),
    *(Row(name, member(field, text), 422, f"/{field}") for name, field, text in _MEMBERS),
    *(Row(name, body, 422, pointer) for name, body, pointer in _INNER),
]

ODD_BUT_GOOD: list[tuple[str, bytes, dict[str, object]]] = [
    ("NUL, escaped", rb'{"text": "\u0000"}', {"text": "\0"}),
    ("a pair of surrogates", rb'{"text": "\ud83d\ude00"}', {"text": "\U0001f600"}),
    ("not a character", '{"text": "\uffff"}'.encode(), {"text": "\uffff"}),
    ("blank space around", b' \r\n\t{"text":"hello"} \n', {"text": "hello"}),
    ("-0 for an int", member("small", "-0"), {"small": 0}),
    ("2**31 - 1 for an int", member("small", "2147483647"), {"small": 2147483647}),
    ("-2**63 for a long", member("large", str(-(2**63))), {"large": -(2**63)}),
    ("-0.0 for a double", member("number", "-0.0"), {"number": -0.0}),
    ("1e2 for a double", member("number", "1e2"), {"number": 100.0}),
    ("2**64 for a double", member("number", str(2**64)), {"number": 2.0**64}),
    ("1e-400 for a double", member("number", "1e-400"), {"number": 0.0}),
    ("no bytes", member("raw", '""'), {"raw": ""}),
    ("an offset", member("at", '"2026-01-01T00:00:00+05:30"'), {"at": "2025-12-31T18:30:00Z"}),
    (
        "zeros at the end",
        member("at", '"2026-01-01T00:00:00.120000000Z"'),
        {"at": "2026-01-01T00:00:00.120000Z"},
    ),
    (
        "the last moment",
        member("at_us", '"9999-12-31T23:59:59.999999Z"'),
        {"at_us": "9999-12-31T23:59:59.999999Z"},
    ),
    ("the first day", member("day", '"0001-01-01"'), {"day": "0001-01-01"}),
    ("zeros at a decimal's end", member("price", '"-1.5000"'), {"price": "-1.50"}),
    ("the largest decimal", member("price", '"999.99"'), {"price": "999.99"}),
    (
        "a UUID in capitals",
        member("uuid", '"ABCDEF00-0000-0000-0000-000000000000"'),
        {"uuid": "abcdef00-0000-0000-0000-000000000000"},
    ),
    ("63 levels", b'{"text": "a", "next": ' * 62 + b'{"text": "a"}' + b"}" * 62, {"text": "a"}),
]
"""(name, body, members of the result as plain JSON): accepted, however odd it looks."""

SCHEMA_TEXT = json.dumps(SCHEMA)
