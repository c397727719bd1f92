"""A partition's note: from when on answers may be uncommitted, and who has begun here."""

from bridge.kafka import Assigned, Position
from bridge.worker.partition import Partition, find_positions

PLACE = ("t", 0)


def take_over(note: str, *, start: int = 10, end: int = 13) -> Partition:
    """Make a partition of an owner that finds a note, and records up to `end`."""
    position = Position(start, note)
    partition = Partition(Assigned(place=PLACE, position=position, start=start, end=end))
    partition.read_note(otherwise_ms=0)
    partition.is_warm = True
    return partition


def handle(partition: Partition, offset: int, at_ms: int) -> None:
    partition.ledger.start(offset, at_ms=at_ms)
    partition.ledger.finish(offset)


def committed(partition: Partition, now_ms: int) -> Position:
    return find_positions([partition], now_ms)[PLACE]


def test_the_window_of_an_earlier_owner_is_kept_until_its_records_are_committed() -> None:
    """The second owner dies too: what the first one answered must still be found."""
    partition = take_over("1 5000")

    handle(partition, 10, 90_000)
    behind = committed(partition, 100_000)
    handle(partition, 11, 100_000)
    handle(partition, 12, 100_000)
    beyond = committed(partition, 110_000)

    assert behind == Position(11, "1 5000")
    assert beyond == Position(13, "1 110000")


def test_what_is_under_way_is_in_the_window() -> None:
    partition = take_over("1 -")

    partition.ledger.start(10, at_ms=7_000)
    handle(partition, 11, 8_000)

    assert committed(partition, 100_000) == Position(10, "1 7000")


def test_who_gives_up_with_nothing_under_way_says_so() -> None:
    partition = take_over("1 -")
    handle(partition, 10, 7_000)

    partition.leave()

    assert committed(partition, 100_000) == Position(11, "1 -")


def test_who_gives_up_in_the_middle_keeps_the_window_and_is_not_counted() -> None:
    partition = take_over("1 5000 1")
    partition.begin_at(10)
    partition.ledger.start(10, at_ms=7_000)

    partition.leave()

    assert committed(partition, 100_000) == Position(10, "1 5000")


def test_owners_that_begin_at_one_offset_are_counted_until_one_comes_on() -> None:
    partition = take_over("1 5000 2")

    partition.begin_at(10)
    at_once = committed(partition, 100_000)
    handle(partition, 10, 100_000)
    after = committed(partition, 100_000)

    assert partition.careful_until == 13
    assert at_once == Position(10, "1 5000 3")
    assert after == Position(11, "1 5000")


def test_what_has_not_been_read_back_commits_nothing() -> None:
    partition = take_over("1 5000")
    handle(partition, 10, 7_000)
    partition.is_warm = False

    assert find_positions([partition], 100_000) == {}
