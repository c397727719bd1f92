"""Lines come out of chunks as they come, whatever the chunks are."""

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from bridge.lines import Line, Lines

TEXT = st.lists(st.sampled_from([b"a", b"{}", b" ", b"\r", b"\n", b"\n\n", b"long line"]))


def split(chunks: list[bytes], limit: int = 100) -> list[Line]:
    lines = Lines(limit)
    found = [line for chunk in chunks for line in lines.feed(chunk)]
    return found + list(lines.end())


@given(TEXT, st.data())
def test_the_chunks_do_not_matter(pieces: list[bytes], data: st.DataObject) -> None:
    body = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=6)))
    chunks = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    limit = data.draw(st.integers(1, 12))

    assert split(chunks, limit) == split([body], limit)


@given(TEXT)
def test_every_line_is_there_with_its_number_but_blank_ones(pieces: list[bytes]) -> None:
    body = b"".join(pieces)

    wanted = [(n, text) for n, text in enumerate(body.split(b"\n"), 1) if text.strip()]

    assert split([body], limit=1000) == wanted


def test_a_line_that_is_too_long_is_skipped_to_its_end_and_nothing_of_it_is_kept() -> None:
    lines = Lines(5)
    found = list(lines.feed(b"first\nxxxxxx"))
    tracemalloc.start()
    for _ in range(1000):
        found += lines.feed(b"x" * 1000)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    found += lines.feed(b"x\nlast")
    found += lines.end()

    assert found == [(1, b"first"), (2, None), (3, b"last")]
    assert most < 100_000


def test_a_line_of_the_longest_length_is_taken_and_one_of_a_byte_more_is_not() -> None:
    assert split([b"12345\n", b"123456\n", b"123", b"456"], 5) == [
        (1, b"12345"),
        (2, None),
        (3, None),
    ]


def test_the_last_line_needs_no_line_feed_and_carriage_returns_do_no_harm() -> None:
    assert split([b"1\r\n\r\n2"]) == [(1, b"1\r"), (3, b"2")]
