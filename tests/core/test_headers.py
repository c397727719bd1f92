"""What a client's headers ask for."""

import pytest

from bridge.errors import MalformedHeaderError
from bridge.ingress.head import read_headers
from bridge.ingress.headers import (
    Preference,
    parse_event_id,
    parse_idempotency_key,
    parse_prefer,
    parse_trace,
)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (None, Preference()),
        ("", Preference()),
        ("wait=10", Preference(10, applied="wait=10")),
        ("Wait = 10", Preference(10, applied="wait=10")),
        ('wait="10"', Preference(10, applied="wait=10")),
        ("wait=0.5", Preference(0.5, applied="wait=0.5")),
        ("wait=1000", Preference(300, applied="wait=300")),
        ("wait=1, wait=2", Preference(1, applied="wait=1")),
        ("wait=-1", Preference()),
        ("wait=abc", Preference()),
        ("wait", Preference()),
        ("respond-async", Preference(0, is_async=True, applied="respond-async")),
        ("respond-async, wait=5", Preference(5, is_async=True, applied="respond-async, wait=5")),
        (
            "return=minimal; x=y, respond-async;a",
            Preference(0, is_async=True, applied="respond-async"),
        ),
    ],
)
def test_prefer_is_read_as_rfc_7240_asks(text: str | None, wanted: Preference) -> None:
    assert parse_prefer(text, max_wait_s=300) == wanted


PARENT = "00-" + "1a" * 16 + "-" + "2b" * 8 + "-01"


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "x",
        PARENT[:-1],
        PARENT + "-more",
        PARENT.upper(),
        "ff" + PARENT[2:],
        PARENT.replace("1a", "00"),
        PARENT.replace("2b", "00"),
        PARENT + ", " + PARENT,
        PARENT + "\n",
        "00-é" + PARENT[4:],
    ],
)
def test_a_malformed_trace_context_is_dropped(parent: str) -> None:
    expected = () if parent != PARENT + "\n" else (("traceparent", PARENT.encode()),)

    assert parse_trace({"traceparent": parent}) == expected
    assert parse_trace({"tracestate": "a=b"}) == ()


@pytest.mark.parametrize("parent", [PARENT, "01" + PARENT[2:], "01" + PARENT[2:] + "-more"])
def test_trace_context_is_passed_on_as_it_is(parent: str) -> None:
    assert parse_trace({"traceparent": parent, "tracestate": "a=b,c=d"}) == (
        ("traceparent", parent.encode()),
        ("tracestate", b"a=b,c=d"),
    )


@pytest.mark.parametrize("state", ["", "a=\x01", "a=é", "a=" + "b" * 2047])
def test_a_state_that_cannot_be_passed_on_leaves_its_parent(state: str) -> None:
    found = parse_trace({"traceparent": PARENT, "tracestate": state})

    assert found == (("traceparent", PARENT.encode()),)


def test_fields_that_are_repeated_are_one_list() -> None:
    raw = [(b"prefer", b"wait=1"), (b"x", b"1"), (b"prefer", b"respond-async"), (b"x", b"\xfc")]

    assert read_headers(raw) == {"prefer": "wait=1, respond-async", "x": "1, ü"}
    assert read_headers(raw[:2]) == {"prefer": "wait=1", "x": "1"}


@pytest.mark.parametrize(
    ("text", "wanted"), [(None, None), ("", None), ("0", 0), (str((1 << 63) - 1), (1 << 63) - 1)]
)
def test_an_event_id_is_an_offset_or_none(text: str | None, wanted: int | None) -> None:
    assert parse_event_id(text) == wanted


@pytest.mark.parametrize("text", ["x", "-1", "1.5", " 1", "٣", "²", str(1 << 63), "1" * 30])
def test_any_other_event_id_is_refused(text: str) -> None:
    with pytest.raises(MalformedHeaderError):
        parse_event_id(text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("k", "k"),
        ('"k"', "k"),
        (' "k" ', "k"),
        ('"a\\"b\\\\"', 'a"b\\'),
        ("a;b,c", "a;b,c"),
        ("x" * 255, "x" * 255),
        ('"' + "x" * 255 + '"', "x" * 255),
    ],
)
def test_a_key_is_what_stands_between_its_quotes_or_without_them(text: str, wanted: str) -> None:
    assert parse_idempotency_key(text) == wanted


@pytest.mark.parametrize(
    "text",
    ["", '""', '"', '"k', '"k"x', "a b", '"a b"', "k\t1", "\x7f", "\xe9", '"\xe9"', "x" * 256],
)
def test_any_other_key_is_refused(text: str) -> None:
    with pytest.raises(MalformedHeaderError, match="want 1 to 255 visible ASCII characters"):
        parse_idempotency_key(text)
