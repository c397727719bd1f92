"""Media types of bodies and answers."""

import pytest

from bridge.errors import NotAcceptableError, UnsupportedMediaTypeError
from bridge.ingress.media import Body, Media, check_batch, choose_media, read_content


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("application/json", Body.JSON),
        ("Application/JSON; charset=UTF-8", Body.JSON),
        ("avro/binary", Body.AVRO),
        ("AVRO/Binary", Body.AVRO),
        ("avro/binary; frame=confluent", Body.FRAMED),
        ('avro/binary;Frame="Confluent"', Body.FRAMED),
    ],
)
def test_a_body_is_json_or_avro(text: str, wanted: Body) -> None:
    assert read_content(text, None) is wanted
    assert read_content(text, "identity") is wanted


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (None, None),
        ("", None),
        ("text/plain", None),
        ("application/json; charset=latin-1", None),
        ("application/json", "gzip"),
        ("avro/binary", "gzip"),
        ("avro/binary; frame=none", None),
        ("avro/binary; frame=confluent; v=2", None),
        ("avro/json", None),
    ],
)
def test_any_other_body_is_refused(text: str | None, encoding: str | None) -> None:
    with pytest.raises(UnsupportedMediaTypeError):
        read_content(text, encoding)


@pytest.mark.parametrize(
    "accept",
    [None, "*/*", "application/*", "application/x-ndjson;q=0.5", "a/b, application/ndjson"],
)
def test_a_batch_is_ndjson_both_ways(accept: str | None) -> None:
    check_batch("application/x-ndjson; charset=utf-8", None, accept)
    check_batch("application/ndjson", "identity", accept)


@pytest.mark.parametrize(
    "accept", ["", "application/json", "*/*;q=0", "application/x-ndjson;q=0.0"]
)
def test_a_batch_is_not_for_those_who_do_not_take_ndjson(accept: str) -> None:
    with pytest.raises(NotAcceptableError):
        check_batch("application/x-ndjson", None, accept)


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (None, Media.JSON),
        ("*/*", Media.JSON),
        ("application/json", Media.JSON),
        ("application/problem+json", Media.JSON),
        ("application/*", Media.JSON),
        ("text/event-stream", Media.EVENTS),
        ("text/*", Media.EVENTS),
        ("Text/Event-Stream; charset=utf-8", Media.EVENTS),
        ("application/x-ndjson", Media.LINES),
        ("application/ndjson", Media.LINES),
        ("text/event-stream, */*", Media.EVENTS),
        ("text/event-stream, */*;q=0.1", Media.EVENTS),
        ("application/json, text/event-stream", Media.JSON),
        ("application/json;q=0.5, text/event-stream", Media.EVENTS),
        ("text/event-stream;q=0.5, application/json;q=0.6", Media.JSON),
        ("text/event-stream;q=0, */*", Media.JSON),
        ("application/json;q=0, application/*", Media.LINES),
        ("text/event-stream;q=wrong", Media.EVENTS),
    ],
)
def test_what_is_liked_best_and_named_most_closely_is_answered(
    accept: str | None, wanted: Media
) -> None:
    assert choose_media(accept, (Media.JSON, Media.EVENTS, Media.LINES)) is wanted


@pytest.mark.parametrize("accept", ["", "text/html", "application/json;q=0", "*/*;q=0.0", "json"])
def test_who_takes_nothing_that_there_is_is_told_what_there_is(accept: str) -> None:
    with pytest.raises(NotAcceptableError, match="application/json"):
        choose_media(accept, (Media.JSON,))
