"""Doing recorded work again. So far: dead letters."""

from bridge.replay.dead import Found, Outcome, find_letter, read_letters, redrive
from bridge.replay.writing import Order, Told

__all__ = [
    "Found",
    "Order",
    "Outcome",
    "Told",
    "find_letter",
    "read_letters",
    "redrive",
]
