"""How far the broker's clock is from the own one, as acknowledgements tell it."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.ingress.lanes import learn_skew

TIMES = st.integers(1_600_000_000_000, 1_900_000_000_000)


@given(
    TIMES,
    st.integers(-3_600_000, 3_600_000),
    st.integers(0, 5000),
    st.integers(0, 5000),
    st.integers(-3_600_000, 3_600_000),
)
def test_the_skew_is_off_by_no_more_than_the_acknowledgement_took(
    before_ms: int, skew_ms: int, there_ms: int, back_ms: int, known_ms: int
) -> None:
    after_ms = before_ms + there_ms + back_ms
    broker_ms = before_ms + there_ms + skew_ms

    learnt_ms = learn_skew(known_ms, broker_ms, before_ms, after_ms)

    assert abs(learnt_ms - skew_ms) <= there_ms + back_ms


def test_a_slow_acknowledgement_leaves_what_can_be_true() -> None:
    assert learn_skew(100, 5_000, 4_000, 6_000) == 100


def test_a_first_acknowledgement_that_is_slow_is_better_than_none() -> None:
    assert learn_skew(0, 305_000, 4_000, 6_000) == 299_000
