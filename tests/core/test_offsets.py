"""Lists of offsets: what goes in comes out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import RecordError
from bridge.offsets import Runs, decode

OFFSETS = st.sets(st.integers(0, 2**62) | st.integers(0, 60), max_size=40).map(sorted)


@given(OFFSETS)
def test_what_is_written_is_read_back(offsets: list[int]) -> None:
    runs = Runs(offsets)

    found = decode(runs.encode())

    assert list(found) == offsets
    assert found == runs
    assert len(found) == len(offsets)


@given(OFFSETS, st.integers(0, 70))
def test_the_rest_is_what_does_not_come_before(offsets: list[int], since: int) -> None:
    assert list(Runs(offsets).since(since)) == [each for each in offsets if each >= since]


def test_a_million_consecutive_ones_are_one_run() -> None:
    runs = Runs(range(5, 1_000_005))

    assert list(runs.runs()) == [(5, 1_000_005)]
    assert len(runs.encode()) < 40


def test_runs_that_touch_are_one() -> None:
    runs = Runs()
    runs.add_run(0, 5)
    runs.add_run(5, 7)

    assert list(runs.runs()) == [(0, 7)]


def test_offsets_that_do_not_ascend_are_refused() -> None:
    with pytest.raises(ValueError, match="offset 3 after 4"):
        Runs([4, 3])


@pytest.mark.parametrize("text", ["x", "", "AAAA", "eJwDAA==x", "eJz7DwABAQEA"])
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(RecordError, match="no list of offsets"):
        decode(text)
