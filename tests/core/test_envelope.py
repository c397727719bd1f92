"""Headers: our dialect, Spring's, and what no reader can use."""

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.envelope import (
    Event,
    Headers,
    Record,
    Reply,
    Request,
    format_request,
    make_reply,
    parse_reply,
    parse_request,
)
from bridge.errors import RecordError

ID = "01a0c450-6c7b-7fff-bfff-ffffffffffff"


def record(headers: Headers) -> Record:
    return Record(
        topic="greeter.requests", key=b"k", value=b"v", headers=headers, partition=2, offset=7
    )


def test_a_request_survives_its_headers() -> None:
    request = Request(
        request_id=ID,
        reply_to="greeter.replies",
        reply_partition=3,
        deadline_ms=1_790_000_000_000,
        principal="ann",
        trace=(("traceparent", b"00-1-2-03"),),
    )

    assert parse_request(record(format_request(request))) == request


def test_the_wire_contract_byte_for_byte() -> None:
    request = Request(request_id=ID, reply_to="a.replies", reply_partition=3, deadline_ms=12)

    assert format_request(request) == [
        ("bridge-request-id", ID.encode()),
        ("bridge-reply-to", b"a.replies"),
        ("bridge-reply-partition", b"3"),
        ("bridge-deadline-ms", b"12"),
    ]
    assert make_reply(request, Event.COMPLETED, b"x", sequence=4) == Record(
        topic="a.replies",
        key=ID.encode(),
        value=b"x",
        partition=3,
        headers=[
            ("bridge-request-id", ID.encode()),
            ("bridge-event", b"completed"),
            ("bridge-attempt", b"1"),
            ("bridge-sequence", b"4"),
        ],
    )


def test_accepted_says_the_deadline_and_who_asked() -> None:
    request = Request(request_id=ID, reply_to="a.replies", deadline_ms=12, principal="ann")

    reply = parse_reply(make_reply(request, Event.ACCEPTED))

    assert reply is not None
    assert msgspec.structs.replace(reply, headers=[]) == Reply(
        request_id=ID, event=Event.ACCEPTED, deadline_ms=12, principal="ann"
    )


def test_spring_is_understood_and_answered_in_kind() -> None:
    correlation = bytes(range(16))
    request = parse_request(
        record(
            [
                ("kafka_replyTopic", b"answers"),
                ("kafka_replyPartition", b"\x00\x00\x00\x05"),
                ("kafka_correlationId", b"older"),
                ("kafka_correlationId", correlation),
            ]
        )
    )

    answer = make_reply(request, Event.COMPLETED, b"x")

    assert (answer.topic, answer.partition) == ("answers", 5)
    assert dict(answer.headers)["kafka_correlationId"] == correlation


def test_where_both_dialects_are_there_ours_is_used() -> None:
    request = parse_request(
        record(
            [
                ("kafka_replyTopic", b"answers"),
                ("bridge-reply-to", b"a.replies"),
                ("bridge-request-id", b"r"),
                ("kafka_correlationId", b"c"),
            ]
        )
    )

    assert (request.reply_to, request.correlation) == ("a.replies", None)


def test_a_reply_without_an_event_is_completed_and_an_unknown_event_is_passed_over() -> None:
    bare = parse_reply(record([("kafka_correlationId", ID.encode())]))
    unknown = parse_reply(record([("bridge-request-id", b"r"), ("bridge-event", b"dreamt")]))

    assert bare is not None
    assert (bare.request_id, bare.event) == (ID, Event.COMPLETED)
    assert unknown is not None
    assert unknown.event is None
    assert parse_reply(record([])) is None


def test_a_record_without_any_header_is_named_by_its_place_and_wants_no_reply() -> None:
    request = parse_request(record([]))

    assert request == Request(request_id="greeter.requests/2/7")


@pytest.mark.parametrize(
    "headers",
    [
        [("bridge-request-id", b"")],
        [("bridge-request-id", b"x" * 129)],
        [("bridge-request-id", b"\xff")],
        [("bridge-request-id", b"r"), ("bridge-reply-to", b"__consumer_offsets")],
        [("bridge-request-id", b"r"), ("bridge-reply-to", b"a/b")],
        [("bridge-request-id", b"r"), ("bridge-reply-to", b"")],
        [("bridge-request-id", b"r"), ("bridge-deadline-ms", b"-1")],
        [("bridge-request-id", b"r"), ("bridge-deadline-ms", b"1e3")],
        [("bridge-request-id", b"r"), ("bridge-deadline-ms", b"99999999999999999999")],
        [("bridge-request-id", b"r"), ("bridge-reply-partition", b"x")],
        [("kafka_replyTopic", b"a"), ("kafka_replyPartition", b"5")],
    ],
)
def test_headers_that_no_reader_can_use_are_refused(headers: Headers) -> None:
    with pytest.raises(RecordError):
        parse_request(record(headers))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "bridge-request-id",
                    "bridge-event",
                    "bridge-reply-to",
                    "bridge-sequence",
                    "kafka_correlationId",
                    "kafka_replyTopic",
                ]
            ),
            st.binary(max_size=40),
        )
    )
)
def test_random_headers_are_read_or_refused_and_nothing_else(headers: Headers) -> None:
    parse_reply(record(headers))
    with contextlib.suppress(RecordError):
        parse_request(record(headers))
