"""Which dead letters are done again, and what is written for them: no Kafka needed to say."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import ids
from bridge.copies import MAX_REPLAYS
from bridge.dead import PREFIX
from bridge.envelope import Event, Headers, Record, Request, make_reply, parse_request
from bridge.errors import RecordError
from bridge.redrive import (
    FOREIGN_MARGIN_MS,
    MARGIN_MS,
    Completed,
    Letter,
    Letters,
    State,
    find_lanes,
    make_copy,
    read_letter,
    select,
)
from tests.deadletters import die, make

ID = ids.make(time_ms=5_000_000, lane=3, chance=1)
OURS = Request(
    request_id=ID, reply_to="s.replies", reply_partition=3, deadline_ms=1, principal="ada"
)
CLEARED = {
    "bridge-deadline-ms",
    "bridge-attempt",
    "bridge-generation",
    "bridge-replay-id",
    "bridge-replay-of",
    "bridge-replay-count",
    "kafka_replyTopic",
    "kafka_replyPartition",
}


def read(record: Record, *, offset: int = 0, time_ms: int = 9_000_000) -> Record:
    """As it comes back from Kafka."""
    return msgspec.structs.replace(record, offset=offset, timestamp_ms=time_ms)


def copy(record: Record) -> Record:
    return make_copy(
        record, read_letter(record), topic="s.replay", replay_id="r", deadline_ms=12_345
    )


@given(
    key=st.none() | st.binary(max_size=8),
    value=st.none() | st.binary(max_size=64),
    headers=st.lists(
        st.tuples(
            st.text(max_size=4) | st.sampled_from(sorted(CLEARED - {"bridge-generation"})),
            st.just(b"7"),
        ),
        max_size=6,
    ),
)
def test_a_copy_is_its_record_but_for_what_belongs_to_one_try(
    key: bytes | None, value: bytes | None, headers: Headers
) -> None:
    dead = read(make("s", headers, value, key=key, partition=5))

    made = copy(dead)

    assert (made.topic, made.partition, made.key, made.value) == ("s.replay", 5, key, value)
    kept = [header for header in headers if header[0] not in CLEARED]
    assert made.headers[: len(kept)] == kept
    assert not any(name.startswith(PREFIX) for name, _ in made.headers)
    assert not {name for name, _ in made.headers[len(kept) :]} - CLEARED - {"bridge-request-id"}


def test_a_copy_is_a_request_of_the_next_generation_answered_where_the_first_one_was() -> None:
    dead = read(make("s", OURS, offset=7))

    assert parse_request(copy(dead)) == Request(
        request_id=ID,
        reply_to="s.replies",
        reply_partition=3,
        deadline_ms=12_345,
        generation=1,
        principal="ada",
        replay_id="r",
    )
    headers = dict(copy(dead).headers)
    assert headers["bridge-replay-of"] == b"s.requests/0/7"
    assert headers["bridge-replay-count"] == b"1"


def test_what_had_no_name_keeps_the_one_that_its_place_gave_it() -> None:
    made = copy(read(make("s", [], offset=7), offset=99))

    assert parse_request(made).request_id == "s.requests/0/7"


def test_a_redrive_does_not_answer_a_spring_client_but_keeps_its_requests_name() -> None:
    spring: Headers = [
        ("kafka_correlationId", b"\x01\x02"),
        ("kafka_replyTopic", b"client"),
        ("kafka_replyPartition", b"\0\0\0\1"),
    ]

    made = parse_request(copy(read(make("s", spring))))

    assert (made.request_id, made.reply_to, made.correlation) == ("0102", None, None)


def test_headers_that_were_wrong_for_one_try_only_do_not_matter() -> None:
    letter = read_letter(read(make("s", [("bridge-request-id", b"a"), ("bridge-attempt", b"x")])))

    assert letter.request == Request(request_id="a")


@pytest.mark.parametrize(
    "wrong", [("bridge-reply-partition", b"x"), ("bridge-replay-count", b"-1")], ids=str
)
def test_what_no_worker_could_answer_is_listed_and_left(wrong: tuple[str, bytes]) -> None:
    letters = Letters()
    letters.take(read(make("s", [wrong], offset=7)))

    (letter,) = letters.in_order()

    assert letter.request_id == "s.requests/0/7"
    assert wrong[0] in letter.trouble
    assert letters.decide(letter) is State.UNREADABLE


def test_a_record_that_fails_again_is_redriven_three_times_and_never_grows() -> None:
    letters = Letters()
    dead, sizes, states = read(make("s", OURS, offset=7)), [], []
    for turn in range(1, 6):
        letters.take(dead)
        newest = letters.in_order()[-1]
        states.append(letters.decide(newest))
        made = copy(dead)
        sizes.append((len(made.headers), sum(len(n) + len(v) for n, v in made.headers)))
        dead = read(die("s", read(made, offset=turn), error="e" * 5000), time_ms=9_000_000 + turn)

    assert states == [*[State.WAITING] * MAX_REPLAYS, *[State.PARKED] * 2]
    assert len(set(sizes)) == 1
    assert dict(dead.headers)["bridge-replay-of"] == b"s.requests/0/7"
    assert letters.decide(letters.in_order()[0]) is State.REDRIVEN
    assert sum(len(name) + len(value) for name, value in dead.headers) < 8192


@given(st.permutations(range(6)))
def test_one_line_for_each_request_and_generation_in_whatever_order_they_are_read(
    order: list[int],
) -> None:
    again = die("s", read(copy(read(make("s", OURS)))))
    records = [
        read(make("s", OURS), offset=1, time_ms=10),
        read(make("s", OURS), offset=2, time_ms=20),
        read(again, offset=5, time_ms=50),
        read(make("s", Request(request_id="b")), offset=3, time_ms=30),
        read(make("s", Request(request_id="b")), offset=4, time_ms=40),
        read(Record(topic="s.dead", key=None, value=None, partition=0), offset=9),
    ]
    letters = Letters()

    for number in order:
        letters.take(records[number])

    assert letters.others == 1
    assert [
        (letter.request_id, letter.generation, letter.offset, letter.copies)
        for letter in letters.in_order()
    ] == [(ID, 0, 1, 2), ("b", 0, 3, 2), (ID, 1, 5, 1)]


def test_letters_are_chosen_by_request_by_reason_or_all() -> None:
    one = read_letter(read(make("s", OURS)))
    other = read_letter(read(make("s", Request(request_id="b"), reason="undecodable")))

    assert select([one, other]) == [one, other]
    assert select([one, other], request_id="b") == [other]
    assert select([one, other], reason="attempts-exhausted") == [one]
    assert select([one, other], request_id="b", reason="attempts-exhausted") == []


def one_letter() -> tuple[Letters, Letter]:
    letters = Letters()
    letters.take(read(make("s", OURS), time_ms=9_000_000))
    return letters, letters.in_order()[0]


def test_what_was_completed_is_resolved_whatever_else_was_done() -> None:
    letters, letter = one_letter()
    letters.take_replayed(copy(read(make("s", OURS))))

    assert letters.decide(letter, {ID}) is State.RESOLVED
    assert letters.decide(letter, {"b"}) is State.REDRIVEN


def test_a_copy_of_the_same_generation_is_no_redrive() -> None:
    letters, letter = one_letter()
    letters.take_replayed(Record(topic="s.replay", key=None, value=None, headers=[]))
    letters.take_replayed(make("s", OURS))
    letters.take_replayed(make("s", [("bridge-reply-partition", b"x")]))

    assert letters.decide(letter) is State.WAITING


def test_of_what_is_older_than_the_record_of_redrives_nothing_is_known() -> None:
    letters, letter = one_letter()

    assert letters.decide(letter, known_since_ms=9_000_001) is State.UNKNOWN
    assert letters.decide(letter, known_since_ms=9_000_000) is State.WAITING


def test_an_answer_is_looked_for_in_the_lane_of_the_request_from_its_beginning() -> None:
    own = read_letter(read(make("s", OURS)))
    foreign = read_letter(read(make("s", Request(request_id="b", reply_to="s.replies"), offset=5)))
    placed = read_letter(
        read(make("s", Request(request_id="c", reply_to="s.replies", reply_partition=1)))
    )
    elsewhere = read_letter(read(make("s", Request(request_id="d", reply_to="mine"))))
    one_way = read_letter(read(make("s", Request(request_id="e"))))
    began = 1_000_000 - FOREIGN_MARGIN_MS

    assert find_lanes([own], {"s.replies": 4}) == {("s.replies", 3): 5_000_000 - MARGIN_MS}
    assert find_lanes([placed], {"s.replies": 4}) == {("s.replies", 1): began}
    assert find_lanes([foreign], {"s.replies": 2}) == {
        ("s.replies", 0): began + 5,
        ("s.replies", 1): began + 5,
    }
    assert find_lanes([elsewhere, one_way], {"s.replies": 4}) == {}
    assert find_lanes([own, placed, foreign], {"s.replies": 4})["s.replies", 3] == began + 5


def test_the_lane_of_an_id_counts_where_no_partition_is_said() -> None:
    unplaced = msgspec.structs.replace(OURS, reply_partition=None)

    assert list(find_lanes([read_letter(read(make("s", unplaced)))], {"s.replies": 4})) == [
        ("s.replies", 3)
    ]


def test_only_a_completed_of_the_same_principal_resolves() -> None:
    letter = read_letter(read(make("s", OURS)))

    def found(request: Request, event: Event) -> set[str]:
        completed = Completed([letter])
        completed.take(make_reply(request, event))
        return completed.found

    assert found(OURS, Event.COMPLETED) == {ID}
    assert found(msgspec.structs.replace(OURS, principal=None), Event.COMPLETED) == {ID}
    assert found(OURS, Event.FAILED) == set()
    assert found(msgspec.structs.replace(OURS, principal="eve"), Event.COMPLETED) == set()
    assert found(msgspec.structs.replace(OURS, request_id="b"), Event.COMPLETED) == set()


def test_another_record_is_no_letter() -> None:
    with pytest.raises(RecordError, match="no dead letter"):
        read_letter(Record(topic="s.dead", key=None, value=None))
