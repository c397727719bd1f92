"""The waiting room: who waits for which request.

Pure bookkeeping: no clock, no event loop, no Kafka. A waiter is any object; the ingress uses an
answer with an asyncio future, a test uses a string. Several waiters may share one request (a second
client may look it up while the first still waits), and a reply that nobody waits for is not an
error: its request was answered with a Location, and the log keeps the reply.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

from bridge.errors import OverloadedError

W = TypeVar("W")


class WaitingRoom(Generic[W]):
    """Waiters by request ID, at most `limit` of them.

    Args:
        limit: Waiters at once; one more is refused.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiters: dict[str, list[W]] = {}
        self._count = 0
        self._promised = 0

    def __len__(self) -> int:
        return self._count

    def enter(self, request_id: str, waiter: W) -> None:
        """Wait for a request. Enter before the request is written: the reply may be faster.

        Raises:
            OverloadedError: The room is full; the waiter is not in it.
        """
        self._check()
        self._waiters.setdefault(request_id, []).append(waiter)
        self._count += 1

    @contextmanager
    def promise(self) -> Iterator[None]:
        """Keep a place free for as long as the block, for one who enters right after it.

        Raises:
            OverloadedError: The room is full.
        """
        self._check()
        self._promised += 1
        try:
            yield
        finally:
            self._promised -= 1

    def _check(self) -> None:
        if self._count + self._promised >= self._limit:
            raise OverloadedError(f"{self._limit} clients wait already: try again in a moment")

    def leave(self, request_id: str, waiter: W) -> bool:
        """Stop waiting; harmless when the waiter is not there. Tells whether it was."""
        waiters = self._waiters.get(request_id, [])
        if waiter not in waiters:
            return False
        waiters.remove(waiter)
        self._count -= 1
        if not waiters:
            del self._waiters[request_id]
        return True

    def find(self, request_id: str) -> Sequence[W]:
        """Return who waits for a request; empty when nobody does."""
        return self._waiters.get(request_id, ())

    def everyone(self) -> list[tuple[str, W]]:
        """Return who waits, each with the request."""
        return [(name, waiter) for name, waiters in self._waiters.items() for waiter in waiters]

    def clear(self) -> list[W]:
        """Empty the room and return who was in it, so that each can be answered."""
        everyone = [waiter for _, waiter in self.everyone()]
        self._waiters.clear()
        self._count = 0
        return everyone
