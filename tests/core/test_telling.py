"""What a client is told of a log, and that it can go on anywhere."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.envelope import Event, Reply
from bridge.replylog import ReplyLog
from bridge.telling import MAX_HELD, MAX_MISSING, OVER, PartNumbers, Telling, Told, find_missing


def reply(event: Event | None, offset: int, part: int | None = None, generation: int = 0) -> Reply:
    return Reply(request_id="r", event=event, offset=offset, sequence=part, generation=generation)


def tell(log: list[Reply], since: int | None = None) -> list[Told]:
    telling = Telling("r", began_ms=7, since=since)
    return [told for each in log for told in telling.take(each)]


def names(told: list[Told]) -> list[str]:
    return [
        f"{each.reply.event}{'' if each.reply.sequence is None else each.reply.sequence}"
        for each in told
    ]


def test_a_stream_is_told_in_the_order_of_its_log() -> None:
    log = [
        reply(Event.ACCEPTED, 3),
        reply(Event.PART, 5, part=0),
        reply(Event.PROGRESS, 6),
        reply(Event.PART, 9, part=1),
        reply(Event.COMPLETED, 10, part=2),
    ]

    told = tell(log)

    assert names(told) == ["accepted", "part0", "progress", "part1", "completed2"]
    assert [each.next for each in told] == [4, 6, 7, 10, 11]
    assert told[-1].missing == ()


def test_a_further_attempt_repeats_no_part() -> None:
    log = [
        reply(Event.PART, 1, part=0),
        reply(Event.PART, 2, part=1),
        reply(Event.PART, 3, part=0),
        reply(Event.PART, 4, part=1),
        reply(Event.PART, 5, part=2),
    ]

    assert names(tell(log)) == ["accepted", "part0", "part1", "part2"]


def test_a_log_without_accepted_in_front_is_told_with_one() -> None:
    told = tell([reply(Event.PROGRESS, 4), reply(Event.ACCEPTED, 5), reply(Event.FAILED, 6)])

    assert names(told) == ["accepted", "progress", "failed"]
    assert (told[0].next, told[0].reply.time_ms) == (4, 7)


def test_nothing_is_told_after_the_first_last_event() -> None:
    log = [
        reply(Event.EXPIRED, 1),
        reply(Event.COMPLETED, 2),
        reply(Event.PROGRESS, 3),
        reply(Event.COMPLETED, 4, generation=1),
    ]

    assert names(tell(log)) == ["accepted", "expired"]


def test_work_of_a_lower_generation_is_not_told_after_that_of_a_higher_one() -> None:
    log = [
        reply(Event.PROGRESS, 1, generation=1),
        reply(Event.PROGRESS, 2),
        reply(Event.PART, 3, part=0),
        reply(Event.FAILED, 4),
    ]

    assert names(tell(log)) == ["accepted", "progress", "failed"]


def test_unknown_events_and_probes_are_not_told() -> None:
    assert tell([reply(None, 1), reply(Event.PROBE, 2)]) == []


def test_missing_parts_are_named() -> None:
    log = [
        reply(Event.PART, 1, part=0),
        reply(Event.PART, 2, part=3),
        reply(Event.COMPLETED, 3, part=5),
    ]

    assert tell(log)[-1].missing == (1, 2, 4)


def test_an_absurd_count_of_parts_names_a_bounded_number_of_missing_ones() -> None:
    told = tell([reply(Event.COMPLETED, 1, part=1 << 62)])

    assert told[-1].missing == tuple(range(MAX_MISSING))


def test_of_another_principals_log_nothing_is_told_or_known() -> None:
    log = [
        Reply(request_id="r", event=event, offset=offset, principal=principal)
        for offset, (event, principal) in enumerate(
            [
                (Event.PROGRESS, None),  # of the log, as soon as it is somebody's
                (Event.ACCEPTED, "ann"),
                (Event.CANCELLED, "bob"),
                (Event.PROGRESS, None),
                (Event.COMPLETED, "ann"),
            ]
        )
    ]
    bob, eve, ann = (Telling("r", began_ms=7, principal=name) for name in ("bob", "eve", "ann"))

    told = {telling: [t for each in log for t in telling.take(each)] for telling in (bob, eve, ann)}

    assert names(told[ann]) == ["accepted", "progress", "progress", "completed"]
    assert names(told[bob]) == ["accepted", "progress", "cancelled"]
    assert (told[eve], eve.is_seen, eve.accepted, eve.is_over) == ([], False, None, False)


def test_after_an_end_that_is_in_no_log_nothing_is_told_any_more() -> None:
    telling = Telling("r", began_ms=7)
    telling.take(reply(Event.ACCEPTED, 1))

    assert [each.next for each in telling.expire(9)] == [OVER]
    assert telling.expire(9) == []
    again = Telling("r", began_ms=7, since=OVER)
    assert [*again.take(reply(Event.ACCEPTED, 1)), *again.expire(9)] == []
    assert again.is_over


EVENTS = st.lists(
    st.tuples(
        st.sampled_from([*Event, None]),
        st.integers(1, 3),  # the offsets between belong to others
        st.none() | st.integers(0, 4),
        st.integers(0, 2),
    ),
    max_size=20,
)


def make_log(rows: list[tuple[Event | None, int, int | None, int]], start: int) -> list[Reply]:
    offset, log = start - 1, []
    for event, gap, part, generation in rows:
        offset += gap
        log.append(reply(event, offset, part, generation))
    return log


@given(EVENTS, st.integers(0, 3))
def test_head_and_resumed_tail_are_the_whole_wherever_it_is_cut(
    rows: list[tuple[Event | None, int, int | None, int]], start: int
) -> None:
    log = make_log(rows, start)
    whole = tell(log)

    assert [each.next for each in whole] == sorted({each.next for each in whole})
    for cut in range(1, len(whole) + 1):
        assert whole[:cut] + tell(log, since=whole[cut - 1].next) == whole


@given(EVENTS, st.lists(st.integers(0, 19)))
def test_what_is_told_twice_or_read_again_changes_nothing(
    rows: list[tuple[Event | None, int, int | None, int]], again: list[int]
) -> None:
    log = make_log(rows, 0)
    telling = Telling("r", began_ms=7)
    told = []

    for place, each in enumerate(log):
        told += telling.take(each)
        for earlier in (number for number in again if number <= place):
            told += telling.take(log[earlier])

    assert told == tell(log)


@given(st.lists(st.integers(0, 30)), st.integers(0, 40))
def test_part_numbers_are_a_set(numbers: list[int], count: int) -> None:
    seen = PartNumbers()

    new = [number for number in numbers if seen.add(number)]

    assert new == list(dict.fromkeys(numbers))
    wanted = tuple(sorted(set(range(count)) - set(numbers)))
    assert find_missing(seen, count, first=seen.next) == wanted
    assert find_missing(set(numbers), count) == wanted


def of(principal: str | None, event: Event, offset: int) -> Reply:
    return Reply(request_id="r", event=event, offset=offset, principal=principal)


def tell_ann(log: list[Reply]) -> list[Told]:
    telling = Telling("r", began_ms=7, principal="ann")
    return [told for each in log for told in telling.take(each)]


def test_what_a_worker_wrote_without_the_principal_is_told_once_the_log_is_known() -> None:
    log = [
        of(None, Event.PROGRESS, 4),
        of(None, Event.COMPLETED, 5),
        of("ann", Event.ACCEPTED, 6),
        of("ann", Event.EXPIRED, 9),
    ]

    told = tell_ann(log)

    assert names(told) == ["accepted", "progress", "completed"]
    assert [each.next for each in told] == [4, 5, 6]


def test_a_log_that_never_says_whose_it_is_is_not_told_and_holds_little() -> None:
    telling = Telling("r", began_ms=7, principal="ann")

    told = [telling.take(of(None, Event.PROGRESS, offset)) for offset in range(MAX_HELD * 2)]
    telling.take(of(None, Event.COMPLETED, MAX_HELD * 2))

    assert not any(told)
    assert not telling.is_seen
    late = telling.take(of("ann", Event.ACCEPTED, MAX_HELD * 3))
    assert len(late) == 1 + MAX_HELD + 1
    assert names(late)[-1] == "completed"


WHOSE = st.lists(
    st.tuples(
        st.sampled_from(
            [Event.ACCEPTED, Event.PROGRESS, Event.COMPLETED, Event.EXPIRED, Event.CANCELLED]
        ),
        st.sampled_from([None, "ann", "ben"]),
    ),
    max_size=12,
)


@given(WHOSE, st.sampled_from([None, "ann"]))
def test_streams_and_look_ups_agree_on_who_may_know_and_how_it_ended(
    events: list[tuple[Event, str | None]], principal: str | None
) -> None:
    log = [of(whose, event, offset) for offset, (event, whose) in enumerate(events)]
    folded, telling = ReplyLog(principal), Telling("r", began_ms=7, principal=principal)

    told = [told.reply for each in log for told in telling.take(each)]
    for each in log:
        folded.take(each)

    assert telling.is_seen == folded.is_seen
    last = folded.last if folded.is_seen else None
    assert telling.is_over == (last is not None)
    assert last is None or told[-1] == last
    assert telling.accepted is None or folded.accepted is not None
