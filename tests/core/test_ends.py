"""How requests ended: the first last event of the highest generation, of whom it concerns."""

import pytest

from bridge import ids
from bridge.ends import Ends
from bridge.envelope import Event, Record, Request, make_reply

TOPIC = "s.replies"


def request(name: str = "a", principal: str | None = None, generation: int = 0) -> Request:
    return Request(request_id=name, reply_to=TOPIC, principal=principal, generation=generation)


def ends_of(*told: tuple[Request, Event], known: dict[int, int | None] | None = None) -> Ends:
    ends = Ends(TOPIC, known or {0: 0})
    for offset, (each, event) in enumerate(told):
        made = make_reply(each, event)
        ends.take(Record(topic=TOPIC, key=None, value=None, headers=made.headers, offset=offset))
    return ends


def test_the_first_last_event_of_the_highest_generation_counts() -> None:
    ends = ends_of(
        (request(), Event.PROGRESS),
        (request(), Event.FAILED),
        (request(), Event.COMPLETED),
        (request("b"), Event.FAILED),
        (request("b", generation=2), Event.COMPLETED),
        (request("b", generation=2), Event.FAILED),
        (request("c"), Event.ACCEPTED),
    )

    assert [ends.find_state(request(name), 5) for name in "abcd"] == [
        "failed",
        "completed",
        "none",
        "none",
    ]
    assert [ends.find_generation(request(name)) for name in "abc"] == [0, 2, 0]


def test_anothers_event_is_not_there() -> None:
    ends = ends_of((request(principal="eve"), Event.COMPLETED), (request("b"), Event.COMPLETED))

    assert ends.find_state(request(principal="ann"), 5) == "none"
    assert ends.find_state(request(principal="eve"), 5) == "completed"
    assert ends.find_state(request(), 5) == "completed"
    assert ends.find_state(request("b", principal="ann"), 5) == "completed"


@pytest.mark.parametrize(
    ("known", "time_ms", "state"),
    [
        ({0: 100, 1: 50}, 99, "unknown"),
        ({0: 100, 1: 50}, 100, "none"),
        ({0: None, 1: 0}, 10**15, "unknown"),
        ({0: 0, 1: 0}, 0, "none"),
    ],
)
def test_a_record_older_than_the_log_has_an_end_that_nobody_knows(
    known: dict[int, int | None], time_ms: int, state: str
) -> None:
    assert ends_of(known=known).find_state(request(), time_ms) == state


def test_of_an_id_of_ours_its_own_time_and_lane_count() -> None:
    name = ids.make(time_ms=80, lane=1, chance=1)
    ends = ends_of(known={0: 100, 1: 80})

    assert ends.find_state(request(name), 10) == "none"
    assert ends.find_state(request(ids.make(time_ms=79, lane=1, chance=1)), 10**6) == "unknown"


def test_who_was_answered_elsewhere_or_not_at_all_has_an_unknown_end() -> None:
    ends = ends_of((request(), Event.COMPLETED))

    for reply_to in ("other", None):
        assert ends.find_state(Request(request_id="a", reply_to=reply_to), 5) == "unknown"
