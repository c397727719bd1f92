"""The note beside an offset, and what is remembered as answered."""

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bridge.worker.answered import Answered, Note, format_note, parse_note


@given(since_ms=st.none() | st.integers(0, 1 << 62), starts=st.integers(0, 1000))
def test_a_note_says_since_when_and_how_often_this_offset_was_begun_at(
    since_ms: int | None, starts: int
) -> None:
    note = Note(since_ms, starts)

    assert parse_note(format_note(note), otherwise_ms=7) == note


@pytest.mark.parametrize(
    ("text", "note"), [("1 -", Note(None, 0)), ("1 5", Note(5, 0)), ("1 5 x", Note(5, 0))]
)
def test_a_note_of_an_earlier_version_counts_no_starts(text: str, note: Note) -> None:
    assert parse_note(text, otherwise_ms=7) == note


@given(st.text(max_size=12) | st.sampled_from(["", "1", "1 x", "2 5", "set by another tool"]))
def test_a_note_that_is_not_ours_means_the_whole_window(text: str) -> None:
    assume(not re.match(r"1 ([0-9]+|-)( |$)", text))

    assert parse_note(text, otherwise_ms=7) == Note(7, 0)


def test_only_the_latest_are_remembered() -> None:
    answered = Answered(keep_s=600, limit=2)

    answered.add([("a", 0, None), ("b", 0, None), ("c", 0, None)], now_ms=0)

    assert ("a", 0, None) not in answered
    assert ("c", 0, None) in answered
    assert ("c", 1, None) not in answered
    assert len(answered) == 2


def test_what_is_older_than_the_window_is_forgotten() -> None:
    answered = Answered(keep_s=1)
    answered.add([("a", 0, None)], now_ms=0)

    answered.add([("b", 0, None)], now_ms=1001)

    assert ("a", 0, None) not in answered
    assert ("b", 0, None) in answered
