"""Doing recorded work again: dead letters, and whatever else was recorded."""

from bridge.replay.board import read_replays, say
from bridge.replay.dead import Found, Outcome, find_letter, read_letters, redrive
from bridge.replay.planning import Asked, Bound, make_plan
from bridge.replay.writing import Order, Told

__all__ = [
    "Asked",
    "Bound",
    "Found",
    "Order",
    "Outcome",
    "Told",
    "find_letter",
    "make_plan",
    "read_letters",
    "read_replays",
    "redrive",
    "say",
]
