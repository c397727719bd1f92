"""The strictness table, through the codec alone; another test sends the same rows over HTTP."""

import json

import pytest

from bridge.codec import Schema, parse_json, render_json
from bridge.errors import InvalidPayloadError, MalformedBodyError
from tests.bad_input import GOOD, ODD_BUT_GOOD, ROWS, SCHEMA_TEXT

SCHEMA = Schema.load(SCHEMA_TEXT, where="bad_input.avsc")


def test_the_table_is_large_and_its_names_are_its_own() -> None:
    assert len(ROWS) >= 80
    assert len({row.name for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize(
    ("body", "status", "pointer"), [row[1:] for row in ROWS], ids=[row.name for row in ROWS]
)
def test_it_is_refused_there(body: bytes, status: int, pointer: str | None) -> None:
    want = MalformedBodyError if status == MalformedBodyError.status else InvalidPayloadError

    try:
        SCHEMA.from_json(parse_json(body))
        found = None
    except (MalformedBodyError, InvalidPayloadError) as refused:
        found = (type(refused), [violation.pointer for violation in refused.violations])

    assert found == (want, [] if pointer is None else [pointer])


@pytest.mark.parametrize(
    ("body", "want"), [row[1:] for row in ODD_BUT_GOOD], ids=[row[0] for row in ODD_BUT_GOOD]
)
def test_it_is_accepted_however_odd(body: bytes, want: dict[str, object]) -> None:
    value = SCHEMA.decode(SCHEMA.from_json(parse_json(body)))

    plain = json.loads(render_json(value))
    assert {name: plain[name] for name in want} == want


def test_all_violations_come_at_once_and_at_most_twenty() -> None:
    body = {"flag": 1, "list": ["x"] * 100, "unknown": None}

    with pytest.raises(InvalidPayloadError) as refused:
        SCHEMA.from_json(body)

    pointers = [found.pointer for found in refused.value.violations]
    assert pointers == ["/text", "/flag", *(f"/list/{n}" for n in range(18))]


def test_a_map_tells_at_most_twenty_too() -> None:
    with pytest.raises(InvalidPayloadError) as refused:
        SCHEMA.from_json(GOOD | {"table": dict.fromkeys(map(str, range(100)), 1)})

    assert len(refused.value.violations) == 20


def test_defaults_nest_no_deeper_than_what_is_sent() -> None:
    body = b'{"text": "a", "next": ' * 63 + b'{"text": "a"}' + b"}" * 63

    with pytest.raises(InvalidPayloadError) as refused:
        SCHEMA.from_json(parse_json(body))

    deepest = "/next" * 63
    assert [found.pointer for found in refused.value.violations] == [
        f"{deepest}/{name}" for name in ("list", "table", "place")
    ]


def test_what_is_left_out_has_its_default() -> None:
    value = SCHEMA.decode(SCHEMA.from_json(GOOD))

    plain = json.loads(render_json(value))
    assert plain["four"] == "AAAAAA=="
    assert plain["price"] == "0.00"
    assert plain["at"] == "1970-01-01T00:00:00Z"
    assert plain["place"] == {"x": 0}
