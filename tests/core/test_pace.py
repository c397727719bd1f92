"""The pace of workers: what is measured, and who is refused because of it."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.pace import REFUTED_S, STALE_S, NoWorkers, Observation, Pace, TooMany


def seen(at_s: float, *, members: int = 1, done: int = 0, end: int = 0) -> Observation:
    return Observation(at_s=at_s, members=members, committed={0: done}, ends={0: end})


def make(*observations: Observation, concurrency: int = 2, no_worker_s: float = 15) -> Pace:
    pace = Pace(concurrency=concurrency, no_worker_s=no_worker_s)
    for each in observations:
        pace.observe(each, pace.taken)
    return pace


def overloaded(*, end: int) -> Pace:
    """Workers that do 20 a second, at second 2, with records up to `end` written."""
    pace = make(seen(0, done=0, end=end), seen(1, done=20, end=end), seen(2, done=40, end=end))
    decide(pace, 2, deadline_s=0)  # the first one would be taken on trial
    return pace


def decide(
    pace: Pace,
    at_s: float,
    *,
    wait_s: float = 10,
    deadline_s: float = 10,
    principal: str | None = None,
) -> NoWorkers | TooMany | None:
    return pace.decide(at_s, wait_s=wait_s, deadline_s=deadline_s, principal=principal)


def test_who_knows_nothing_refuses_nobody() -> None:
    assert decide(make(), 100) is None


def test_without_a_worker_for_long_enough_nobody_may_wait() -> None:
    alone = make(seen(0, members=0), seen(10, members=0))

    assert decide(alone, 10.1) is None
    alone.observe(seen(16, members=0), 0)
    assert decide(alone, 16.1) == NoWorkers(for_s=16, retry_after_s=5)


def test_a_worker_that_comes_ends_the_refusing_at_once() -> None:
    pace = make(seen(0, members=0), seen(10, members=0), seen(20, members=0), seen(22))

    assert decide(pace, 22.1) is None
    pace.observe(seen(24, members=0), 0)
    assert decide(pace, 24.1) is None


def test_nobody_is_refused_for_workers_where_that_is_switched_off() -> None:
    assert decide(make(seen(0, members=0), seen(10, members=0), no_worker_s=0), 10) is None


def test_what_was_not_seen_does_not_count_as_without_a_worker() -> None:
    pace = make(seen(0, members=0), seen(60, members=0))

    assert decide(pace, 61) is None


def test_old_news_refuses_nobody() -> None:
    pace = make(seen(0, members=0), seen(10, members=0), seen(20, members=0))

    assert decide(pace, 20 + STALE_S) is not None
    assert decide(pace, 20.1 + STALE_S) is None


def test_the_rate_is_measured_only_while_the_workers_have_enough_to_do() -> None:
    idle = make(seen(0, done=0, end=1), seen(1, done=20, end=21), seen(2, done=40, end=41))

    assert idle.rate is None
    assert overloaded(end=500).rate == 20


def test_a_rate_is_kept_for_the_next_time_and_goes_with_the_number_of_workers() -> None:
    pace = overloaded(end=500)

    pace.observe(seen(10, done=40, end=40), 0)
    pace.observe(seen(30, done=40, end=40), 0)
    pace.observe(seen(31, members=3, done=40, end=40), 0)

    assert pace.rate == 60


def test_a_rate_from_a_slow_time_is_raised_by_whatever_is_seen_to_be_done() -> None:
    pace = overloaded(end=500)

    for at_s in range(20, 24):
        pace.observe(seen(at_s, done=at_s * 100, end=at_s * 100 + 1), 0)
    raised = pace.rate
    pace.observe(seen(40, members=2, done=2300, end=2300), 0)

    assert (raised, pace.rate) == (100, 200)


def test_a_rate_is_forgotten_when_the_workers_were_not_busy_for_long() -> None:
    pace = overloaded(end=500)

    rates = []
    for at_s in range(10, 90, 10):
        pace.observe(seen(at_s, done=500, end=500), 0)
        rates.append(pace.rate)

    assert rates == [20] * 7 + [None]


def test_a_rate_from_next_to_nothing_is_none() -> None:
    assert make(seen(0, end=500), seen(2, done=7, end=500)).rate is None
    assert make(seen(0, end=500), seen(1, done=30, end=500)).rate is None


def test_until_a_rate_is_measured_the_quickest_answer_says_what_could_be() -> None:
    pace = make(seen(0))
    for took_s in (0.5, 0.1, 3):
        pace.note_answer(0, took_s, 0)
    assert pace.rate == 20

    pace.taken = 2 + 300
    assert decide(pace, 0) is None
    assert isinstance(decide(pace, 0), TooMany)
    pace.observe(seen(1, done=10, end=302), 302)
    pace.observe(seen(3, done=30, end=302), 302)
    assert pace.rate == 10


def test_what_was_taken_since_the_last_look_counts_and_what_was_done_since_does_not() -> None:
    pace = overloaded(end=100)  # 60 left, 3 s

    assert pace.expected_s(2) == 3
    pace.taken += 40
    assert pace.expected_s(2) == 5
    assert pace.expected_s(4) == 3


def test_a_request_is_refused_when_it_would_come_too_late() -> None:
    pace = overloaded(end=40 + 20 * 9)

    refusal = decide(pace, 2)

    assert refusal == TooMany(expected_s=9, limit_s=8, is_share=True, retry_after_s=1)
    assert decide(pace, 2, deadline_s=12) is None
    late = decide(overloaded(end=40 + 20 * 30), 2)
    assert late == TooMany(expected_s=30, limit_s=8, is_share=False, retry_after_s=22)


def test_in_the_time_that_it_is_expected_to_take_one_is_taken_on_trial() -> None:
    pace = overloaded(end=40 + 20 * 9)

    told = [decide(pace, at_s, deadline_s=0) for at_s in (2, 10.9, 11, 11.1)]

    assert [each is None for each in told] == [False, False, True, False]


def test_a_short_wait_is_no_reason_to_refuse_who_is_alone() -> None:
    assert decide(overloaded(end=40 + 20 * 9), 2, wait_s=1, deadline_s=60) is None


def test_free_places_take_a_request_whatever_the_rate() -> None:
    pace = overloaded(end=500)
    assert decide(pace, 2, deadline_s=0.001) is not None

    pace.observe(seen(3, done=498, end=500), 0)

    assert decide(pace, 3, deadline_s=0.001) is None


def test_one_record_that_holds_up_its_partition_holds_up_nobody_else() -> None:
    pace = Pace(concurrency=2, no_worker_s=15)
    for at_s in range(12):
        ends = {0: 100 * at_s + 100, 1: 100 * at_s + 100}
        pace.observe(
            Observation(at_s=at_s, members=1, committed={0: 0, 1: 100 * at_s}, ends=ends), 0
        )

    assert pace.rate == 100
    assert pace.expected_s(11) == 1


def test_an_answer_that_came_far_too_soon_ends_the_refusing_for_a_while() -> None:
    pace = overloaded(end=40 + 20 * 30)
    assert isinstance(decide(pace, 2), TooMany)

    pace.note_answer(2, 0.2, pace.expected_s(2))

    assert decide(pace, 2 + REFUTED_S - 0.1) is None
    assert isinstance(decide(pace, 2 + REFUTED_S), TooMany)


def test_an_answer_that_came_about_when_it_was_expected_refutes_nothing() -> None:
    pace = overloaded(end=40 + 20 * 30)

    for took_s, expected_s in ((7, 9), (2.6, 10), (0.1, 1), (1, 0)):
        pace.note_answer(2, took_s, expected_s)

    assert isinstance(decide(pace, 2), TooMany)


def test_offsets_that_went_back_begin_a_new_count() -> None:
    pace = overloaded(end=500)

    pace.observe(seen(3, done=0, end=500), 0)
    pace.observe(seen(5, done=20, end=500), 0)

    assert pace.rate == 10


def test_who_has_had_its_share_makes_room_for_the_others() -> None:
    pace = overloaded(end=100)
    taken = dict.fromkeys(("greedy", "modest"), 0)
    modest_asked = 0

    for tick in range(2000):  # 20 s: 100 a second of one, 5 a second of the other, 20 a second done
        at_s = 2 + tick / 100
        if tick % 50 == 49:
            done = 40 + tick // 5
            pace.observe(seen(at_s, done=done, end=100 + sum(taken.values())), pace.taken)
        askers = ["greedy", "modest"] if tick % 20 == 0 else ["greedy"]
        modest_asked += len(askers) - 1
        for principal in askers:
            if decide(pace, at_s, deadline_s=5, principal=principal) is None:
                pace.taken += 1
                taken[principal] += 1

    assert taken["modest"] == modest_asked == 100
    assert 400 + 0.7 * 100 < 60 + sum(taken.values()) <= 400 + 100


def test_the_greedy_leave_time_for_the_waits_of_others() -> None:
    pace = overloaded(end=40 + 20 * 9)
    decide(pace, 2, wait_s=5, deadline_s=60, principal="modest")

    refused = [decide(pace, 2, wait_s=5, deadline_s=60, principal="greedy") for _ in range(10)]

    assert isinstance(refused[-1], TooMany)
    assert refused[-1].is_share
    assert decide(pace, 2, wait_s=5, deadline_s=60, principal="third") is None


@given(
    st.lists(
        st.tuples(
            st.floats(0.01, 20),
            st.integers(0, 5),
            st.integers(0, 100),
            st.integers(0, 100),
            st.integers(0, 50),
            st.sampled_from(["a", "b", None]),
        )
    )
)
def test_whatever_is_seen_figures_stay_sound(
    steps: list[tuple[float, int, int, int, int, str | None]],
) -> None:
    pace = make()
    at_s, done, end = 0.0, 0, 0
    for passed_s, members, more, more_done, asked, principal in steps:
        at_s += passed_s
        end += more
        done = min(end, done + more_done)
        pace.observe(seen(at_s, members=members, done=done, end=end), pace.taken)
        for _ in range(asked):
            refusal = decide(pace, at_s, principal=principal)
            if refusal is None:
                pace.taken += 1
            else:
                assert 1 <= refusal.retry_after_s <= 60
            if isinstance(refusal, TooMany):
                assert refusal.expected_s >= refusal.limit_s > 0
        assert pace.rate is None or pace.rate > 0
        assert pace.expected_s(at_s) >= 0
