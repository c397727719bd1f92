"""Dead letters keep what they were made of, and say why."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.dead import MAX_ERROR_BYTES, Verdict, make_dead, parse_dead
from bridge.envelope import UNREADABLE, Record
from bridge.errors import RecordError

VERDICT = Verdict(reason="undecodable", error="bad magic", attempts=0)


def dead(record: Record, verdict: Verdict = VERDICT) -> Record:
    return make_dead(record, verdict, topic="s.dead", group="bridge.s", worker="w")


def record(**changes: object) -> Record:
    fields = {"topic": "s.requests", "key": b"k", "value": b"\x01", "partition": 3, "offset": 7}
    return Record(**{**fields, "timestamp_ms": 99, **changes})  # type: ignore[arg-type]  # of a table


@given(
    key=st.none() | st.binary(max_size=8),
    value=st.none() | st.binary(max_size=64),
    headers=st.lists(st.tuples(st.text(max_size=4), st.none() | st.binary(max_size=8)), max_size=5),
)
def test_key_value_and_other_headers_are_untouched(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]
) -> None:
    made = dead(record(key=key, value=value, headers=headers))

    assert (made.key, made.value, made.headers[: len(headers)]) == (key, value, headers)
    assert (made.topic, made.partition) == ("s.dead", 3)


def test_it_says_why_and_where_it_was() -> None:
    found = parse_dead(dead(record()), None)

    assert found.verdict == VERDICT
    assert (found.topic, found.partition, found.offset) == ("s.requests", 3, 7)
    assert (found.timestamp_ms, found.worker, found.group) == (99, "w", "bridge.s")


def test_a_second_round_replaces_what_the_first_one_said() -> None:
    again = Verdict(reason="attempts-exhausted", error="ä" * 5000, attempts=3)

    made = dead(dead(record(headers=[("x", b"1")])), again)

    assert parse_dead(made, None).verdict.reason == "attempts-exhausted"
    assert len(made.headers) == 10
    assert len(parse_dead(made, None).verdict.error.encode()) <= MAX_ERROR_BYTES


def test_headers_that_cannot_be_read_are_left_out() -> None:
    assert len(dead(record(headers=UNREADABLE)).headers) == 9


@pytest.mark.parametrize(
    "wrong", [[], [("bridge-dead-reason", b"x")], [("bridge-dead-offset", b"")]]
)
def test_another_record_is_none(wrong: list[tuple[str, bytes]]) -> None:
    with pytest.raises(RecordError, match="no dead letter"):
        parse_dead(record(headers=wrong), None)
