"""What workers are told of cancelled requests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.cancels import TOPIC, make_cancel, parse_cancel
from bridge.context import Context
from bridge.envelope import Headers, Record


@given(st.text(), st.text(), st.integers(0, 2**31))
def test_what_is_written_is_read(service: str, request_id: str, generation: int) -> None:
    try:
        record = make_cancel(service, request_id, generation)
    except UnicodeEncodeError:  # text that no header can carry is no name
        return

    assert parse_cancel(record) == (service, (request_id, generation, None))


def test_a_cancellation_on_the_wire() -> None:
    assert make_cancel("airports", "r-1", 0) == Record(
        topic="bridge.cancels",
        key=b"r-1",
        value=None,
        headers=[("bridge-request-id", b"r-1"), ("bridge-service", b"airports")],
        partition=0,
    )


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("bridge-request-id", b"r")],
        [("bridge-service", b"s")],
        [("bridge-request-id", b"\xff"), ("bridge-service", b"s")],
        [("bridge-request-id", b"r"), ("bridge-service", b"s"), ("bridge-generation", b"-1")],
    ],
)
def test_a_record_that_does_not_say_what_is_cancelled_is_passed_over(headers: Headers) -> None:
    assert parse_cancel(Record(topic=TOPIC, key=None, value=None, headers=headers)) is None


def test_a_handler_is_told_of_either_reason() -> None:
    assert not Context(request_id="r").is_cancelled
    assert Context(request_id="r", was_cancelled=lambda: True).is_cancelled
    assert Context(request_id="r", seconds_left=lambda: 0).is_cancelled
