"""Who waits for which request."""

import pytest

from bridge.errors import OverloadedError
from bridge.waiting import WaitingRoom


def test_several_may_wait_for_one_request() -> None:
    room = WaitingRoom[str](limit=3)
    room.enter("a", "Ann")
    room.enter("a", "Bob")
    room.enter("b", "Cid")

    assert list(room.find("a")) == ["Ann", "Bob"]
    assert len(room) == 3


def test_a_full_room_refuses_and_keeps_who_is_in_it() -> None:
    room = WaitingRoom[str](limit=1)
    room.enter("a", "Ann")

    with pytest.raises(OverloadedError):
        room.enter("b", "Bob")

    assert list(room.find("b")) == []
    assert len(room) == 1


def test_a_promised_place_is_kept_until_it_is_taken_or_given_up() -> None:
    """Who was let in to claim a key found the room full behind the claim."""
    room = WaitingRoom[str](limit=2)
    room.enter("a", "Ann")
    with room.promise(), pytest.raises(OverloadedError):
        room.enter("c", "Cid")
    room.enter("b", "Bob")

    with pytest.raises(OverloadedError), room.promise():
        pass
    assert len(room) == 2


def test_leaving_makes_place_and_leaving_twice_is_harmless() -> None:
    room = WaitingRoom[str](limit=1)
    room.enter("a", "Ann")

    room.leave("a", "Ann")
    room.leave("a", "Ann")

    assert len(room) == 0
    room.enter("b", "Bob")


def test_clearing_returns_everybody() -> None:
    room = WaitingRoom[str](limit=9)
    room.enter("a", "Ann")
    room.enter("b", "Bob")

    assert room.clear() == ["Ann", "Bob"]
    assert len(room) == 0
    assert list(room.find("a")) == []
