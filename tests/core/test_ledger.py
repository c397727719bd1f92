"""Which offset may be committed."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.ledger import Ledger


@given(st.lists(st.integers(0, 50), unique=True), st.data())
def test_never_commits_past_an_unfinished_record(offsets: list[int], data: st.DataObject) -> None:
    ledger = Ledger(next_offset=0)
    for offset in sorted(offsets):
        ledger.start(offset, at_ms=offset)
    done = data.draw(st.sets(st.sampled_from(offsets))) if offsets else set()

    for offset in done:
        ledger.finish(offset)

    assert all(offset in done for offset in offsets if offset < ledger.committable)
    assert ledger.unfinished == len(offsets) - len(done)


@given(st.lists(st.integers(0, 50), unique=True, min_size=1), st.randoms())
def test_when_all_is_finished_all_is_committable_whatever_the_order(
    offsets: list[int], chance: object
) -> None:
    ledger = Ledger(next_offset=0)
    for offset in sorted(offsets):
        ledger.start(offset, at_ms=0)
    chance.shuffle(offsets)  # type: ignore[attr-defined]  # hypothesis draws a random.Random, whose import is banned

    for offset in offsets:
        ledger.finish(offset)

    assert ledger.committable == max(offsets) + 1


def test_a_gap_in_the_offsets_is_no_unfinished_record() -> None:
    ledger = Ledger(next_offset=3)
    ledger.start(3, at_ms=0)
    ledger.start(7, at_ms=0)

    ledger.finish(3)

    assert ledger.committable == 7


def test_answers_may_be_uncommitted_since_the_oldest_unfinished_record_was_dispatched() -> None:
    ledger = Ledger(next_offset=0)
    assert ledger.since_ms(99) == 99
    ledger.start(0, at_ms=10)
    ledger.start(1, at_ms=20)

    ledger.finish(0)

    assert ledger.since_ms(99) == 20


@given(st.sets(st.integers(0, 30)), st.data())
def test_what_could_be_committed_is_what_can_be_when_it_is_finished(
    offsets: set[int], data: st.DataObject
) -> None:
    ledger = Ledger(next_offset=0)
    for offset in sorted(offsets):
        ledger.start(offset, at_ms=0)
    done = data.draw(st.sets(st.sampled_from(sorted(offsets)))) if offsets else set()

    foreseen = ledger.after(done)
    for offset in done:
        ledger.finish(offset)

    assert foreseen == ledger.committable


@given(st.sets(st.integers(0, 30), min_size=1), st.data())
def test_what_is_ahead_is_finished_and_has_something_unfinished_before_it(
    offsets: set[int], data: st.DataObject
) -> None:
    ledger = Ledger(next_offset=0)
    for offset in sorted(offsets):
        ledger.start(offset, at_ms=0)
    done = data.draw(st.sets(st.sampled_from(sorted(offsets))))
    for offset in done:
        ledger.finish(offset)

    left = offsets - done

    assert ledger.ahead == len({offset for offset in done if left and offset > min(left)})
