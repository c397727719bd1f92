"""What a replay writes for a record: every header's fate, as one rule each."""

from hypothesis import given
from hypothesis import strategies as st

from bridge import dead, envelope
from bridge.copies import Copier, count_replays
from bridge.envelope import Record, parse_request

REPLAY = Copier(replay_id="r1", topic="s.requests", reply_to="s.replay-replies")
ANSWER = Copier(replay_id="r1", topic="s.requests", reply_to=None)
COPY = Copier(replay_id="r1", topic="s.requests", reply_to=None, is_verbatim=True)

GONE = {
    "bridge-deadline-ms",
    "bridge-reply-to",
    "bridge-reply-partition",
    "bridge-attempt",
    "kafka_replyTopic",
    "kafka_replyPartition",
}
OURS = {"bridge-replay-id", "bridge-replay-of", "bridge-replay-count"}
NAMES = sorted(
    {
        text
        for name, value in vars(envelope).items()
        if name.isupper() and isinstance(value, str) and name != "UNREADABLE"
        for text in [value]
    }
    | {f"{dead.PREFIX}{each}" for each in ("reason", "offset", "later")}
    | {"traceparent", "x-tenant", "kafka_correlationId", ""}
)
HEADERS = st.lists(
    st.tuples(st.sampled_from(NAMES), st.binary(max_size=5) | st.none()), max_size=12
)


def make(
    copier: Copier, headers: list[tuple[str, bytes | None]], generation: int = 0
) -> list[tuple[str, bytes | None]]:
    return copier.make(headers, 3, 17, deadline=b"99", generation=generation)


@given(HEADERS)
def test_headers_of_the_last_try_go_and_all_others_stay_in_order(
    headers: list[tuple[str, bytes | None]],
) -> None:
    made = make(REPLAY, headers)

    kept = [
        header
        for header in headers
        if header[0] not in GONE | OURS and not header[0].startswith("bridge-dead-")
    ]
    assert made[: len(kept)] == kept
    assert [name for name, _ in made[len(kept) :] if name != "bridge-request-id"] == [
        "bridge-deadline-ms",
        "bridge-reply-to",
        "bridge-replay-id",
        "bridge-replay-of",
        "bridge-replay-count",
    ]
    assert dict(made)["bridge-reply-to"] == b"s.replay-replies"
    assert dict(made)["bridge-deadline-ms"] == b"99"
    assert "bridge-request-id" in dict(made)


@given(HEADERS, st.integers(0, 5))
def test_what_answers_keeps_the_address_and_has_a_further_generation(
    headers: list[tuple[str, bytes | None]], generation: int
) -> None:
    made = make(ANSWER, headers, generation)

    for name in ("bridge-reply-to", "bridge-reply-partition"):
        assert [h for h in made if h[0] == name] == [h for h in headers if h[0] == name]
    assert [value for name, value in made if name == "bridge-generation"] == [
        b"%d" % (generation + 1)
    ]
    assert not {"kafka_replyTopic", "kafka_replyPartition"} & dict(made).keys()


@given(HEADERS)
def test_a_copy_has_all_headers_and_says_what_it_is(
    headers: list[tuple[str, bytes | None]],
) -> None:
    made = make(COPY, headers)

    assert made[: len(headers)] == headers
    assert [name for name, _ in made[len(headers) :]] == [
        "bridge-replay-id",
        "bridge-replay-of",
        "bridge-replay-count",
    ]


def test_a_copy_says_where_the_first_record_lies_and_how_often_it_was_replayed() -> None:
    first = dict(make(REPLAY, []))
    again = dict(make(REPLAY, list(first.items())))

    assert (first["bridge-replay-of"], first["bridge-replay-count"]) == (b"s.requests/3/17", b"1")
    assert (again["bridge-replay-of"], again["bridge-replay-count"]) == (b"s.requests/3/17", b"2")


def test_a_dead_letters_copy_says_where_the_record_was() -> None:
    letter: list[tuple[str, bytes | None]] = [
        ("bridge-dead-topic", b"s.requests"),
        ("bridge-dead-partition", b"1"),
        ("bridge-dead-offset", b"5"),
    ]

    made = dict(make(ANSWER, letter))

    assert made["bridge-replay-of"] == made["bridge-request-id"] == b"s.requests/1/5"


def test_a_request_without_a_name_keeps_the_one_that_its_worker_gave_it() -> None:
    spring: list[tuple[str, bytes | None]] = [
        ("kafka_replyTopic", b"out"),
        ("kafka_correlationId", b"\x01\x02"),
    ]
    for headers in (spring, []):
        record = Record(
            topic="s.requests",
            key=None,
            value=None,
            headers=headers,  # type: ignore[arg-type]  # none is missing here
            partition=3,
            offset=17,
        )
        name = parse_request(record).request_id
        assert dict(make(REPLAY, headers))["bridge-request-id"] == name.encode()


def test_a_count_that_is_no_number_is_more_than_any() -> None:
    assert count_replays({}) == 0
    assert count_replays({"bridge-replay-count": b"2"}) == 2
    assert count_replays({"bridge-replay-count": b"many"}) > 1000
    assert count_replays({"bridge-replay-count": b"9" * 10}) > 1000
