"""Conditions: read, checked against a contract, and asked of decoded records."""

from datetime import UTC, date, datetime, time
from decimal import Decimal
from uuid import UUID

import pytest

from bridge.codec import Schema
from bridge.where import Condition, check_path, holds, parse_condition

VALUE = {
    "name": "Ann",
    "count": 3,
    "ratio": 0.5,
    "price": Decimal("1.50"),
    "done": True,
    "nothing": None,
    "at": datetime(2026, 1, 31, 12, tzinfo=UTC),
    "local": datetime(2026, 1, 31, 12),  # noqa: DTZ001 - a local timestamp has no zone
    "day": date(2026, 1, 31),
    "hour": time(8, 30),
    "id": UUID("01998d5e-7c1a-7004-9f3b-0c7f6a1d2e3f"),
    "raw": b"\x00\x01",
    "tags": ["red", "blue"],
    "address": {"city": "Paris", "lines": [{"text": "a b"}]},
}

TRUE = """
name = Ann
name = "Ann"
name != Bob
name < Bob
name contains nn
count = 3
count = 3.0
count >= 3
count < 10
count != 4
ratio > 0.4
price = 1.5
price <= 1.50
done = true
nothing = null
at = 2026-01-31T12:00Z
at >= 2026-01-31
at < 2026-01-31T13:30+01:00
at > "2026-01-30"
local = 2026-01-31T12:00
day > 2026-01-30
hour < 09:00
id = 01998D5E-7C1A-7004-9F3B-0C7F6A1D2E3F
raw = AAE=
tags contains red
tags.1 = blue
address.city=Paris
address.lines.0.text = a b
address contains city
count = 3
""".strip().splitlines()

FALSE = """
name = ann
name > Bob
name contains xx
count = 4
count = many
count = "3"
count < 3
count contains 3
done = false
done = 1
done > 0
nothing != null
nothing = 0
nothing = "null"
at < yesterday
local = 2026-01-31T12:00Z
tags contains green
tags.7 = blue
tags = red
missing = 1
missing != 1
address.city.x = 1
ratio = NaN
""".strip().splitlines()


@pytest.mark.parametrize("text", TRUE)
def test_what_holds(text: str) -> None:
    assert holds(parse_condition(text), VALUE)


@pytest.mark.parametrize("text", FALSE)
def test_what_does_not_hold(text: str) -> None:
    assert not holds(parse_condition(text), VALUE)


def test_a_value_may_be_empty_or_have_operators_in_it() -> None:
    assert parse_condition("a.b != ") == Condition(("a", "b"), "!=", "")
    assert parse_condition("a = b = c") == Condition(("a",), "=", "b = c")
    assert parse_condition('a contains "x y "') == Condition(("a",), "contains", "x y ", True)


@pytest.mark.parametrize("text", ["", "name", "= 3", "name is Ann", "containsx", 'a = "open'])
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no condition: want|no text in quotes"):
        parse_condition(text)


SCHEMA = Schema.load(
    {
        "type": "record",
        "name": "R",
        "fields": [
            {"name": "name", "type": "string"},
            {"name": "tags", "type": {"type": "array", "items": "string"}},
            {"name": "by", "type": {"type": "map", "values": "int"}},
            {
                "name": "inner",
                "type": [
                    "null",
                    {"type": "record", "name": "I", "fields": [{"name": "x", "type": "int"}]},
                ],
            },
        ],
    },
    where="r/request.avsc",
)


@pytest.mark.parametrize("path", ["name", "tags", "tags.0", "by.anything", "inner.x", "inner"])
def test_a_field_of_the_contract_may_be_asked_for(path: str) -> None:
    check_path(parse_condition(f"{path} = 1"), SCHEMA)


@pytest.mark.parametrize("path", ["nam", "name.x", "tags.first", "inner.y", "by.a.b"])
def test_a_field_that_is_not_there_is_refused_with_those_that_are(path: str) -> None:
    with pytest.raises(ValueError, match=r"r/request\.avsc has no"):
        check_path(parse_condition(f"{path} = 1"), SCHEMA)
