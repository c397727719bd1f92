"""The log of replays, folded: plans, wishes, checkpoints, and who holds a service."""

import pytest

from bridge.envelope import Record
from bridge.errors import RecordError, UnknownRequestError
from bridge.offsets import Runs
from bridge.plan import Mode, Part, Plan
from bridge.replays import (
    HELD_MS,
    SAME_HELD_MS,
    Claim,
    Reached,
    Replays,
    State,
    Want,
    Wish,
    format_claim,
    format_plan,
    format_reached,
    format_wish,
)


def make_plan(offsets: str = Runs([3, 4]).encode()) -> Plan:
    return Plan(
        id="r1",
        service="s",
        mode=Mode.REPROCESS,
        source="s.requests",
        source_id="t",
        target="s.replay",
        answers=False,
        asked={"from": "-2h"},
        by="ann",
        at_ms=1,
        parts={
            0: Part(start=3, end=5, selected=2, offsets=offsets),
            1: Part(start=0, end=0, selected=0, offsets=Runs().encode()),
        },
        left={},
        schemas={},
        effects="none",
        digest="d",
    )


def fold(*records: Record) -> Replays:
    found = Replays()
    for n, record in enumerate(records):
        found.take(at(record, n))
    return found


def at(record: Record, time_ms: int) -> Record:
    return Record(
        topic=record.topic, key=record.key, value=record.value, timestamp_ms=time_ms, offset=time_ms
    )


PLAN = format_plan(make_plan())


def test_a_plan_is_read_as_it_was_written_and_never_replaced() -> None:
    other = format_plan(make_plan(Runs([4]).encode()))

    found = fold(PLAN, other)

    assert found.find("r1") == make_plan()
    assert list(found.find("r1").parts[0].runs()) == [3, 4]


def test_what_is_not_there_is_said_so() -> None:
    with pytest.raises(UnknownRequestError, match="no replay r2: `kbridge replay list`"):
        fold(PLAN).find("r2")


RAN = Claim(replay="r1", runner="t")
HALF = format_reached("r1", 0, Reached(next=4, copied=1))
ALL = format_reached("r1", 0, Reached(next=5, copied=2, done=True))


@pytest.mark.parametrize(
    ("records", "state"),
    [
        ((), State.PLANNED),
        ((format_claim("s", RAN),), State.RUNNING),
        ((format_claim("s", RAN), HALF), State.RUNNING),
        ((HALF,), State.STOPPED),
        ((format_claim("s", RAN), HALF, format_wish("r1", Wish(want=Want.PAUSE))), State.PAUSED),
        ((HALF, format_wish("r1", Wish(want=Want.CANCEL))), State.CANCELLED),
        ((format_wish("r1", Wish(want=Want.CANCEL)), ALL), State.DONE),
        ((HALF, ALL), State.DONE),
        ((format_claim("s", Claim(replay="r2", runner="t")),), State.PLANNED),
    ],
)
def test_how_it_is_with_a_replay(records: tuple[Record, ...], state: State) -> None:
    assert fold(PLAN, *records).find_state(make_plan(), now_ms=100) is state


def test_nobody_runs_what_nobody_has_spoken_of_for_long() -> None:
    found = fold(PLAN, format_claim("s", RAN), HALF)

    assert found.find_state(make_plan(), now_ms=1 + HELD_MS) is State.STOPPED


def holder(*said: tuple[int, Claim]) -> str | None:
    found = Replays()
    for time_ms, claim in said:
        found.take(at(format_claim("s", claim), time_ms))
    held = found.holders.get("s")
    return None if held is None else held.claim.runner


A, B = Claim(replay="r1", runner="a"), Claim(replay="r2", runner="b")
A_AGAIN = Claim(replay="r1", runner="c")
A_GONE = Claim(replay="r1", runner="a", released=True)
B_GONE = Claim(replay="r2", runner="b", released=True)


def test_the_first_holds_until_it_lets_go_or_falls_silent() -> None:
    assert holder((0, A), (1, B)) == "a"
    assert holder((0, A), (1, A_GONE)) is None
    assert holder((0, A), (1, A_GONE), (2, B)) == "b"
    assert holder((0, A), (HELD_MS - 1, B)) == "a"
    assert holder((0, A), (HELD_MS, B)) == "b"
    assert holder((0, A), (9, A), (HELD_MS, B)) == "a"
    assert holder((0, A), (1, B_GONE)) == "a"


def test_another_runner_of_the_same_replay_takes_over_sooner() -> None:
    assert holder((0, A), (SAME_HELD_MS - 1, A_AGAIN)) == "a"
    assert holder((0, A), (SAME_HELD_MS, A_AGAIN)) == "c"
    assert holder((0, A), (SAME_HELD_MS, A_AGAIN), (SAME_HELD_MS + 1, A)) == "c"


def test_what_a_later_version_says_is_passed_over() -> None:
    odd = [
        Record(topic="t", key=key, value=value)
        for key, value in [
            (b"r1/why", b"{}"),
            (b"r1/want", b'{"want": "dance"}'),
            (b"r1/at/x", b'{"next": 1}'),
            (b"r9", b"?"),
            (None, b"x"),
            (b"r1/want", None),
        ]
    ]

    found = fold(PLAN, *odd)

    assert (list(found.plans), found.wishes, found.reached) == (["r1"], {}, {})


def test_a_plan_of_too_many_scattered_records_is_refused() -> None:
    with pytest.raises(RecordError, match="want at most 16777216; plan a shorter range"):
        format_plan(make_plan("x" * 17_000_000))
