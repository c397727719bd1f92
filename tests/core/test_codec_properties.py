"""What must hold for every contract and every value."""

import json
from io import BytesIO
from typing import Any

import fastavro
import pytest
from fastavro.schema import to_parsing_canonical_form
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.codec import Schema, parse_json, render_json
from bridge.errors import InvalidPayloadError, MalformedBodyError, RecordError, Violation
from tests.avro import Json, is_valid, schemas, values

pytestmark = pytest.mark.slow

# drawing a schema, then a value of it, is slow beside what is tested
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@patient
@given(st.data())
def test_what_goes_in_comes_out(data: st.DataObject) -> None:
    source = data.draw(schemas())
    value = data.draw(values(source))
    schema = load(source)

    framed = schema.from_native(value)

    assert schema.decode(framed) == value


@patient
@given(st.data())
def test_fastavro_reads_the_same_with_the_authors_own_schema(data: st.DataObject) -> None:
    source = data.draw(schemas())
    value = data.draw(values(source))

    framed = load(source).from_native(value)

    parsed = fastavro.parse_schema(source)
    assert fastavro.schemaless_reader(BytesIO(framed[5:]), parsed) == value


@patient
@given(st.data())
def test_plain_json_says_the_same_as_python(data: st.DataObject) -> None:
    source = data.draw(schemas())
    value = data.draw(values(source))
    schema = load(source)
    framed = schema.from_native(value)

    text = render_json(schema.decode(framed))

    assert schema.from_json(parse_json(text)) == framed


@patient
@given(st.data())
def test_any_json_is_accepted_exactly_when_avro_can_say_it(data: st.DataObject) -> None:
    source = data.draw(schemas(depth=2))
    schema = load(source)
    value = data.draw(JSON_VALUES | values(source).map(to_plain).flatmap(damaged))

    violations: tuple[Violation, ...] = ()
    try:
        framed = schema.from_json(value)
    except InvalidPayloadError as refused:
        framed, violations = b"", refused.violations

    assert bool(framed) == is_valid(source, value)
    assert len(violations) <= 20
    assert all(points_into(value, found.pointer) for found in violations)
    if framed and '"float"' not in json.dumps(source):  # which rounds
        assert to_plain(schema.decode(framed)) == value


@patient
@given(st.data())
def test_any_bytes_are_a_value_or_a_record_error(data: st.DataObject) -> None:
    source = data.draw(schemas())
    schema = load(source)
    framed = schema.from_native(data.draw(values(source)))
    hurt = framed[:5] + data.draw(st.binary(max_size=40) | mutated(framed[5:]))

    try:
        value = schema.decode(hurt)
    except RecordError:
        return

    again = schema.decode(schema.from_native(value))
    assert again == value
    assert schema.from_json(parse_json(render_json(value))) == schema.from_native(value)


@patient
@given(st.data())
def test_avro_that_others_wrote_becomes_what_json_of_the_same_content_becomes(
    data: st.DataObject,
) -> None:
    source = data.draw(schemas())
    schema = load(source)
    framed = schema.from_native(data.draw(values(source)))
    written = data.draw(st.just(framed[5:]) | st.binary(max_size=40) | mutated(framed[5:]))

    try:
        ours, value = schema.from_binary(written, is_framed=False)
    except InvalidPayloadError:
        with pytest.raises(RecordError):
            schema.decode(framed[:5] + written)
        return

    assert schema.decode(framed[:5] + written) == value
    assert schema.from_json(parse_json(render_json(value))) == ours
    assert schema.from_binary(framed[:5] + written, is_framed=True) == (ours, value)


@patient
@given(schemas(logical=False))
def test_the_canonical_form_is_avros_where_no_logical_type_is(source: Json) -> None:
    assert load(source).canonical == to_parsing_canonical_form(source)


@patient
@given(schemas())
def test_the_canonical_form_is_a_schema_of_the_same_id(source: Json) -> None:
    schema = load(source)

    again = Schema.load(schema.canonical, where="canonical.avsc")

    assert (again.id, again.canonical) == (schema.id, schema.canonical)


@patient
@given(schemas())
def test_every_schema_has_a_json_schema_whose_references_lead_somewhere(source: Json) -> None:
    document = load(source).json_schema()

    refs = {line for line in json.dumps(document, indent=0).splitlines() if '"$ref"' in line}
    known = document.get("$defs", {})
    assert isinstance(known, dict)
    assert all(ref.split("#/$defs/")[1].strip('",') in known for ref in refs)


@given(st.binary(max_size=60))
def test_any_bytes_are_json_or_malformed(body: bytes) -> None:
    check_against_the_standard_library(body)


@given(st.text(alphabet='{}[]:,"\\au01.e- \n', max_size=30))
def test_anything_like_json_is_json_or_malformed(text: str) -> None:
    check_against_the_standard_library(text.encode())


def load(source: Json) -> Schema:
    return Schema.load(json.dumps(source), where="random.avsc")


def check_against_the_standard_library(body: bytes) -> None:
    try:
        ours = parse_json(body)
    except MalformedBodyError:
        return
    assert ours == json.loads(body)


def to_plain(value: object) -> Any:
    return json.loads(render_json(value))


def damaged(value: Any) -> st.SearchStrategy[Any]:
    """The value as it is, or with one thing in it replaced, removed or added."""
    if isinstance(value, dict) and value:
        keys = st.sampled_from(sorted(value))
        removed = keys.map(lambda key: {k: v for k, v in value.items() if k != key})
        added = st.just(value | {"unknown": 1})
        replaced = keys.flatmap(
            lambda key: damaged(value[key]).map(lambda item: value | {key: item})
        )
        return st.just(value) | removed | added | replaced
    if isinstance(value, list) and value:
        return st.just(value) | damaged(value[0]).map(lambda item: [item, *value[1:]])
    return st.just(value) | JSON_VALUES


def points_into(value: Any, pointer: str) -> bool:
    """Whether a pointer names a place in the value, or a member that is missing from one."""
    steps = [s.replace("~1", "/").replace("~0", "~") for s in pointer.split("/")[1:]]
    for index, step in enumerate(steps):
        if isinstance(value, list):
            value = value[int(step)]
        elif step in value:
            value = value[step]
        else:
            return index == len(steps) - 1
    return True


def mutated(data: bytes) -> st.SearchStrategy[bytes]:
    """Bytes with a few of them changed, dropped or put in."""
    place = st.integers(0, len(data))
    return st.builds(
        lambda at, drop, put: data[:at] + put + data[at + drop :],
        place,
        st.integers(0, 3),
        st.binary(max_size=3),
    )
