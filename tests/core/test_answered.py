"""The note beside an offset, and what is remembered as answered."""

import pytest

from bridge.worker.answered import Answered, format_note, parse_note


@pytest.mark.parametrize("since_ms", [None, 0, 1_790_000_000_000])
def test_a_note_says_from_when_answers_may_be_uncommitted(since_ms: int | None) -> None:
    assert parse_note(format_note(since_ms), otherwise_ms=7) == since_ms


@pytest.mark.parametrize("note", ["", "1", "1 x", "2 5", "set by another tool"])
def test_a_note_that_is_not_ours_means_the_whole_window(note: str) -> None:
    assert parse_note(note, otherwise_ms=7) == 7


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
