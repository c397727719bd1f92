"""Claims: the log decides, and whoever folds it comes to the same end."""

import hashlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bridge.claims import (
    TOPIC,
    Entry,
    Kind,
    Ruling,
    claim_key,
    fingerprint,
    fold,
    fold_all,
    format_entry,
    is_orphan,
    may_write,
    parse_entry,
)

KEY = "a" * 64
RULES_MS = 1000
HEAL_MS = 300


def claim(
    request_id: str, time_ms: int, *, key: str = KEY, rules_ms: int = RULES_MS, print_: str = "f"
) -> Entry:
    return Entry(
        kind=Kind.CLAIM,
        key=key,
        request_id=request_id,
        lane=3,
        fingerprint=print_ * 64,
        service="greeter",
        rules_ms=rules_ms,
        time_ms=time_ms,
    )


def heal(request_id: str, heal_id: str, time_ms: int) -> Entry:
    return Entry(
        kind=Kind.HEAL,
        key=KEY,
        request_id=request_id,
        lane=3,
        fingerprint="f" * 64,
        service="greeter",
        rules_ms=HEAL_MS,
        heal_id=heal_id,
        time_ms=time_ms,
    )


def ruling_of(*entries: Entry) -> Ruling:
    return fold_all(entries)[KEY]


def test_the_first_claim_in_the_log_wins() -> None:
    assert ruling_of(claim("r1", 0), claim("r2", 0), claim("r3", 999)).request_id == "r1"


def test_a_claim_ends_by_its_own_time_and_by_nothing_else() -> None:
    assert ruling_of(claim("r1", 0), claim("r2", 1000)).request_id == "r2"
    assert ruling_of(claim("r1", 0), claim("r2", 1000), claim("r3", 1999)).request_id == "r2"


def test_a_loser_does_not_prolong_the_winner() -> None:
    assert ruling_of(claim("r1", 0), claim("r2", 900), claim("r3", 1000)).request_id == "r3"


def test_the_winner_says_how_long_it_rules_not_who_comes_later() -> None:
    assert ruling_of(claim("r1", 0, rules_ms=5000), claim("r2", 4999)).request_id == "r1"


def test_a_broker_clock_that_steps_back_lets_no_second_claim_win() -> None:
    assert ruling_of(claim("r1", 5000), claim("r2", 10)).request_id == "r1"


def test_the_first_heal_after_the_claim_wins_and_the_next_one_only_later() -> None:
    begun = [claim("r1", 0), heal("r1", "h1", 400), heal("r1", "h2", 401)]

    assert ruling_of(*begun).heal_id == "h1"
    assert ruling_of(*begun, heal("r1", "h3", 699)).heal_id == "h1"
    assert ruling_of(*begun, heal("r1", "h3", 700)).heal_id == "h3"


def test_a_heal_of_another_request_or_of_no_claim_counts_for_nothing() -> None:
    assert ruling_of(claim("r1", 0), heal("r0", "h0", 400)).heal_id == ""
    assert fold(None, heal("r1", "h1", 0)) is None


def test_a_new_claim_begins_without_the_old_ones_heals() -> None:
    assert ruling_of(claim("r1", 0), heal("r1", "h1", 900), claim("r2", 1000)) == ruling_of(
        claim("r2", 1000)
    )


def test_a_one_way_request_is_known_to_be_written_by_its_own_word_only() -> None:
    written = Entry(
        kind=Kind.WRITTEN,
        key=KEY,
        request_id="r1",
        lane=0,
        fingerprint="f" * 64,
        service="greeter",
        rules_ms=RULES_MS,
        time_ms=5,
    )

    assert ruling_of(claim("r1", 0), written).is_written
    assert not ruling_of(claim("r2", 0), written).is_written


KEYS = st.sampled_from([KEY, "b" * 64])
STEPS = st.lists(
    st.tuples(KEYS, st.integers(0, 900), st.sampled_from(["claim", "heal", "written"])),
    max_size=40,
)


def log_of(steps: list[tuple[str, int, str]]) -> list[Entry]:
    """A log: times only grow, and heals are of the request that rules as they are written."""
    entries: list[Entry] = []
    now_ms = 0
    for number, (key, later_ms, kind) in enumerate(steps):
        now_ms += later_ms
        ruling = fold_all(entries).get(key)
        request_id = f"r{number}" if kind == "claim" or ruling is None else ruling.request_id
        entries.append(
            Entry(
                kind=Kind(kind),
                key=key,
                request_id=request_id,
                lane=0,
                fingerprint="f" * 64,
                service="s",
                rules_ms=HEAL_MS if kind == "heal" else RULES_MS,
                heal_id=f"h{number}" if kind == "heal" else "",
                time_ms=now_ms,
            )
        )
    return entries


@given(STEPS)
def test_no_two_winners_of_a_key_lie_closer_than_the_first_one_rules(
    steps: list[tuple[str, int, str]],
) -> None:
    winners: dict[str, list[int]] = {}
    rulings: dict[str, Ruling] = {}
    for entry in log_of(steps):
        ruling = fold(rulings.get(entry.key), entry)
        if ruling is not None and ruling.time_ms == entry.time_ms and entry.kind is Kind.CLAIM:
            before = rulings.get(entry.key)
            if before is None or before.request_id != ruling.request_id:
                winners.setdefault(entry.key, []).append(entry.time_ms)
        if ruling is not None:
            rulings[entry.key] = ruling

    for times in winners.values():
        assert all(later - earlier >= RULES_MS for earlier, later in pairwise(times))


@given(STEPS, st.integers(0, 40))
def test_a_part_of_the_log_that_is_told_twice_changes_nothing(
    steps: list[tuple[str, int, str]], since: int
) -> None:
    entries = log_of(steps)

    assert fold_all([*entries, *entries[since:]]) == fold_all(entries)


@given(st.integers(0, 10_000), st.integers(1, 100_000))
def test_whoever_may_still_write_has_no_healer_beside_it(age_ms: int, heal_after_ms: int) -> None:
    ruling = ruling_of(claim("r1", 0))

    assert not (
        may_write(ruling, age_ms, heal_after_ms) and is_orphan(ruling, age_ms, heal_after_ms)
    )
    # Half of the time is the producer's: what was begun in time is written or failed before.
    if may_write(ruling, age_ms, heal_after_ms):
        assert not is_orphan(ruling, age_ms + heal_after_ms // 2, heal_after_ms)


def test_an_orphan_counts_from_its_latest_heal() -> None:
    ruling = ruling_of(claim("r1", 0), heal("r1", "h1", 500))

    assert not is_orphan(ruling, 799, HEAL_MS)
    assert is_orphan(ruling, 800, HEAL_MS)


def test_a_claim_key_is_made_as_documented() -> None:
    parts = (b"greeter", b"ann", b"k1", b"7")
    framed = b"".join(len(part).to_bytes(4, "big") + part for part in parts)

    assert claim_key("greeter", "ann", "k1", 7) == hashlib.sha256(framed).hexdigest()


def test_nothing_can_be_moved_from_one_part_of_a_claim_key_to_another() -> None:
    made = {
        claim_key("a", None, "bc"),
        claim_key("ab", None, "c"),
        claim_key("a", "b", "c"),
        claim_key("a", None, "bc", 1),
        claim_key("a", None, "bc1"),
        claim_key("a", "bc", ""),
    }

    assert len(made) == 6
    assert claim_key("a", None, "k") == claim_key("a", "", "k")


def test_the_fingerprint_is_of_the_avro_bytes_behind_the_schema_id() -> None:
    assert fingerprint(b"\0\0\0\0\1abc") == hashlib.sha256(b"abc").hexdigest()
    assert fingerprint(b"\0\0\0\0\2abc") == fingerprint(b"\0\0\0\0\1abc")


@pytest.mark.parametrize("entry", [claim("r1", 7), heal("r1", "h1", 7)])
def test_an_entry_is_read_as_it_was_written(entry: Entry) -> None:
    record = format_entry(entry)

    read = parse_entry(replace(record, timestamp_ms=7, partition=0))

    assert read == entry
    assert (record.topic, record.key, record.value) == (TOPIC, KEY.encode(), None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bridge-claim", b"other"),
        ("bridge-claim", None),
        ("bridge-claim", b"heal"),
        ("bridge-lane", b"x"),
        ("bridge-rules-ms", b"-1"),
        ("bridge-rules-ms", b"9" * 16),
        ("bridge-request-id", b""),
        ("bridge-request-id", b"\xff"),
        ("bridge-fingerprint", b"short"),
    ],
)
def test_what_is_no_entry_is_passed_over(name: str, value: bytes | None) -> None:
    record = format_entry(claim("r1", 7))
    headers = [(each, found) for each, found in record.headers if each != name]
    if value is not None:
        headers.append((name, value))

    assert parse_entry(replace(record, headers=headers)) is None


def test_a_record_without_a_claim_key_is_passed_over() -> None:
    record = format_entry(claim("r1", 7))

    assert parse_entry(replace(record, key=b"x")) is None
    assert parse_entry(replace(record, key=None)) is None
