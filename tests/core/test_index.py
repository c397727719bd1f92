"""The index says what the fold says, in memory and in a file, and forgets what has ended."""

from contextlib import closing
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.claims import Entry, fold_all
from bridge.ingress.index import Index
from tests.core.test_claims import KEY, STEPS, claim, heal, log_of


@given(STEPS, st.lists(st.integers(1, 5), max_size=40))
@settings(deadline=None)
def test_the_index_says_what_the_fold_says_however_it_is_batched(
    steps: list[tuple[str, int, str]], sizes: list[int]
) -> None:
    entries = log_of(steps)

    with closing(Index()) as index:
        for batch in batches(entries, sizes):
            index.take(batch)

        expected = fold_all(entries)
        assert {key: index.find(key) for key in expected} == expected
        assert len(index) == len(expected)


def batches(entries: list[Entry], sizes: list[int]) -> list[list[Entry]]:
    made, start = [], 0
    for size in [*sizes, len(entries)]:
        made.append(entries[start : start + size])
        start += size
    return made


Turns = list[tuple[int, bool, bool]]
TURNS = st.lists(st.tuples(st.integers(1, 7), st.booleans(), st.booleans()), max_size=30)
"""How a replica reads: so many entries at once, whether it prunes, whether it restarts before."""


@given(STEPS, TURNS, TURNS)
@settings(deadline=None)
def test_replicas_that_read_prune_and_restart_as_they_like_see_the_same_winners(
    steps: list[tuple[str, int, str]], one: Turns, other: Turns
) -> None:
    entries = log_of(steps)

    assert winners(entries, one) == winners(entries, other)


def winners(entries: list[Entry], turns: Turns) -> dict[int, tuple[str, str] | None]:
    """Read a log; returns which request and heal rule right after each entry, None: no more.

    What has ended by then rules no more, whether it was forgotten or not.
    """
    found: dict[int, tuple[str, str] | None] = {}
    read, last_ms = 0, 0
    with closing(Index()) as index:
        for count, is_pruned, is_restarted in [*turns, (len(entries), False, False)]:
            if is_restarted:
                index.reset()
                read = last_ms = 0
            for number, entry in enumerate(entries[read : read + count], read):
                last_ms = entry.time_ms
                index.take([entry], read_to_ms=last_ms if is_pruned else 0)
                ruling = index.find(entry.key)
                rules = ruling is not None and ruling.until_ms > entry.time_ms
                told = (ruling.request_id, ruling.heal_id) if ruling and rules else None
                assert found.setdefault(number, told) == told
            read += count
    return found


def test_an_index_that_is_reset_knows_nothing_and_takes_all_again(tmp_path: Path) -> None:
    with closing(Index(tmp_path)) as index:
        index.take([claim("r1", 0)])

        index.reset()

        assert (len(index), index.find(KEY)) == (0, None)
        index.take([claim("r2", 0)])
        assert len(index) == 1


def test_what_has_ended_is_forgotten_once_all_partitions_are_read_so_far() -> None:
    with closing(Index()) as index:
        index.take([claim("r1", 0)], read_to_ms=999)
        assert len(index) == 1

        index.take([], read_to_ms=1000)

        assert (len(index), index.find(KEY)) == (0, None)


def test_a_heal_is_found_by_the_request() -> None:
    with closing(Index()) as index:
        index.take([claim("r1", 0), heal("r1", "h1", 400)])

        assert (index.healed_ms("r1"), index.healed_ms("r2")) == (400, None)


def test_an_index_in_a_folder_leaves_nothing_there(tmp_path: Path) -> None:
    with closing(Index(tmp_path)) as index:
        index.take([claim("r1", 0)])

        assert index.find(KEY) is not None
        assert list(tmp_path.iterdir()) == []
