"""Server-sent events: wherever chunks end, and however lines do."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import MalformedBodyError
from bridge.worker.sse import Message, Messages


def read(*chunks: bytes) -> list[Message]:
    messages = Messages(1000)
    return [message for chunk in chunks for message in messages.feed(chunk)]


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        (b"data: a\n\n", [Message(b"", b"a")]),
        (b"data:a\ndata:  b\n\n", [Message(b"", b"a\n b")]),
        (
            b"event: progress\ndata: a\n\ndata: b\n\n",
            [Message(b"progress", b"a"), Message(b"", b"b")],
        ),
        (b": comment\n\nid: 7\nretry: 1\nnothing\n\n", []),
        (b"event: lost\n\ndata: a\n\n", [Message(b"", b"a")]),
        (b"\xef\xbb\xbfdata: a\n\n", [Message(b"", b"a")]),
        (b"data\n\n", [Message(b"", b"")]),
        (b"data: never ended\n", []),
    ],
)
def test_events_are_read_as_the_standard_has_them(text: bytes, messages: list[Message]) -> None:
    assert read(text) == messages


@given(
    st.lists(st.integers(0, 60), max_size=10),
    st.sampled_from([b"\n", b"\r", b"\r\n"]),
)
def test_it_does_not_matter_where_chunks_end(cuts: list[int], end: bytes) -> None:
    text = b"event: progress\ndata: a\ndata: b\n\n: x\n\ndata: c\n\n".replace(b"\n", end)
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})

    chunks = [text[a:b] for a, b in pairwise(places)]

    assert read(*chunks) == [Message(b"progress", b"a\nb"), Message(b"", b"c")]


@pytest.mark.parametrize("text", [b"data: a", b"data: a\n", b"eve"])
def test_an_event_that_has_begun_is_open(text: bytes) -> None:
    messages = Messages(1000)

    assert list(messages.feed(text)) == []
    assert messages.is_open


@pytest.mark.parametrize(
    "chunks", [[b"data: " + b"x" * 1001], [b"data: x\n"] * 600, [b"x" * 600, b"x" * 600]]
)
def test_an_event_is_bounded_and_a_stream_is_not(chunks: list[bytes]) -> None:
    with pytest.raises(MalformedBodyError, match="longer than 1000 bytes"):
        read(*chunks)

    assert len(read(*[b"data: x\n\n: stays\n\n"] * 600)) == 600
