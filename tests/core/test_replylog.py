"""A reply log, folded: the first last event of the highest generation counts."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.envelope import Event, Reply
from bridge.replylog import ReplyLog


def reply(
    event: Event | None, offset: int = 0, generation: int = 0, part: int | None = None
) -> Reply:
    return Reply(request_id="r", event=event, offset=offset, generation=generation, sequence=part)


def of(principal: str | None, event: Event, offset: int = 0) -> Reply:
    return Reply(request_id="r", event=event, offset=offset, principal=principal)


def test_another_principals_log_is_as_if_it_were_not_there() -> None:
    log = ReplyLog("ann")

    log.take(of("ben", Event.ACCEPTED))
    log.take(of("ben", Event.COMPLETED, offset=1))

    assert (log.is_seen, log.accepted, log.last) == (False, None, None)


def test_a_log_that_does_not_say_whose_it_is_is_nobodys() -> None:
    log = ReplyLog("ann")

    log.take(of(None, Event.COMPLETED))

    assert not log.is_seen


def test_one_event_tells_whose_the_whole_log_is() -> None:
    log = ReplyLog("ann")

    log.take(of(None, Event.COMPLETED, offset=1))
    log.take(of("ann", Event.ACCEPTED, offset=2))

    assert (log.is_seen, log.state) == (True, "completed")


def test_without_principals_every_log_is_seen() -> None:
    log = ReplyLog()

    log.take(of("ben", Event.COMPLETED))

    assert log.is_seen


def test_the_first_last_event_counts_in_whatever_order_it_is_told() -> None:
    log = ReplyLog()

    log.take(reply(Event.EXPIRED, offset=5))
    log.take(reply(Event.COMPLETED, offset=3))
    log.take(reply(Event.FAILED, offset=9))

    assert log.state == "completed"


def test_a_higher_generation_replaces_the_result() -> None:
    log = ReplyLog()

    log.take(reply(Event.COMPLETED, offset=9, generation=1))
    log.take(reply(Event.FAILED, offset=3))

    assert log.state == "completed"


def test_of_one_part_number_the_first_counts() -> None:
    log = ReplyLog()

    log.take(reply(Event.PART, offset=4, part=0))
    log.take(reply(Event.PART, offset=2, part=0))
    log.take(reply(Event.PART, offset=3, part=1))

    assert [part.offset for part in log.parts.values()] == [2, 3]
    assert log.state == "running"


def test_unknown_events_and_probes_say_nothing() -> None:
    log = ReplyLog()

    log.take(reply(None))
    log.take(reply(Event.PROBE))

    assert not log.is_seen


def test_accepted_is_a_trace() -> None:
    log = ReplyLog()

    log.take(reply(Event.ACCEPTED))

    assert log.is_seen
    assert log.state == "accepted"


@given(
    st.permutations(
        [
            reply(Event.ACCEPTED, 0),
            reply(Event.PROGRESS, 1),
            reply(Event.PART, 2, part=0),
            reply(Event.PART, 3, part=0),
            reply(Event.COMPLETED, 4),
            reply(Event.EXPIRED, 5),
        ]
    )
)
def test_the_order_of_telling_does_not_matter(events: list[Reply]) -> None:
    log = ReplyLog()

    for event in [*events, *events]:
        log.take(event)

    assert log.last is not None
    assert (log.last.offset, log.parts[0].offset, log.state) == (4, 2, "completed")


def test_the_highest_generation_that_was_told_of_is_known() -> None:
    log = ReplyLog()

    log.take(reply(Event.ACCEPTED, offset=0))
    log.take(reply(Event.PROGRESS, offset=1, generation=2))
    log.take(reply(Event.PROGRESS, offset=2, generation=1))

    assert log.generation == 2


def test_of_a_long_stream_no_more_is_held_than_is_collected() -> None:
    log, piece = ReplyLog(), bytes(1 << 20)

    for number in range(40):
        log.take(
            Reply(
                request_id="r", event=Event.PART, offset=number, sequence=number % 20, value=piece
            )
        )
    log.take(reply(Event.COMPLETED, offset=40, part=20))

    assert log.is_too_large
    assert log.parts == {}
    assert log.state == "completed"


def test_parts_that_come_again_are_counted_once() -> None:
    log, piece = ReplyLog(), bytes(1 << 20)

    for offset in range(40, 0, -1):
        log.take(
            Reply(
                request_id="r", event=Event.PART, offset=offset, sequence=offset % 10, value=piece
            )
        )

    assert not log.is_too_large
    assert len(log.parts) == 10
