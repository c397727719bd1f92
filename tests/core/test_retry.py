"""Retry decisions are values: no clock, no sleeping, no patching."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from bridge.retry import Again, GiveUp, decide


@dataclass(frozen=True)
class Patience:
    attempts: int = 3
    backoff_s: float = 0.1
    max_backoff_s: float = 0.15


def test_the_wait_is_a_share_of_a_ceiling_that_doubles_up_to_its_end() -> None:
    patience = Patience(attempts=9)

    waits = [
        decide(patience, attempt=n, now_ms=1000, deadline_ms=None, chance=0.5) for n in (1, 2, 3)
    ]

    assert waits == [Again(1050), Again(1075), Again(1075)]


def test_the_last_attempt_is_the_last() -> None:
    assert decide(Patience(), attempt=3, now_ms=0, deadline_ms=None, chance=0.0) == GiveUp(
        "attempts-exhausted"
    )


def test_no_attempt_is_planned_for_after_the_deadline() -> None:
    late = decide(Patience(), attempt=1, now_ms=1_000, deadline_ms=1_001, chance=0.9)

    assert late == GiveUp("deadline")


def test_a_handler_that_says_when_is_not_asked_earlier() -> None:
    asked = decide(Patience(), attempt=1, now_ms=0, deadline_ms=None, chance=0.5, after_s=7.0)

    assert asked == Again(7_050)


@given(
    attempt=st.integers(1, 200),
    backoff_s=st.floats(0, 3600),
    chance=st.floats(0, 1, exclude_max=True),
    after_s=st.none() | st.floats(-1, 1e6),
    deadline_ms=st.none() | st.integers(0, 10**9),
)
def test_whatever_is_decided_lies_between_now_and_the_deadline(
    attempt: int, backoff_s: float, chance: float, after_s: float | None, deadline_ms: int | None
) -> None:
    patience = Patience(attempts=100, backoff_s=backoff_s, max_backoff_s=86_400)

    found = decide(
        patience, attempt=attempt, now_ms=5, deadline_ms=deadline_ms, chance=chance, after_s=after_s
    )

    if isinstance(found, Again):
        assert attempt < 100
        assert found.at_ms >= 5 + 1000 * max(0, after_s or 0) - 1
        assert deadline_ms is None or found.at_ms < deadline_ms
    else:
        assert (found.reason == "attempts-exhausted") == (attempt >= 100)
