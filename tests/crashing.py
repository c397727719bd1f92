"""`kbridge`, with a crash planted: it kills itself when it passes a labelled point for the N-th time.

    python -m tests.crashing POINT:N worker SERVICE …

The points are those between which an answer, an effect and a commit could come apart. They are put
around the worker's own methods, in this process only: the product has no flag for it.
"""

import functools
import itertools
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence

from bridge.cli import main
from bridge.cli.processes import now_ms
from bridge.worker.attempt import Attempts
from bridge.worker.partition import Partition
from bridge.worker.run import Worker


def _before(owner: type, name: str, passed: Callable[[], None]) -> None:
    """Pass a point before a coroutine function of a class begins."""
    inner: Callable[..., Awaitable[object]] = getattr(owner, name)

    @functools.wraps(inner)
    async def wrapped(*arguments: object) -> object:
        passed()
        return await inner(*arguments)

    setattr(owner, name, wrapped)


def _after(owner: type, name: str, passed: Callable[[], None]) -> None:
    """Pass a point after a coroutine function of a class has returned."""
    inner: Callable[..., Awaitable[object]] = getattr(owner, name)

    @functools.wraps(inner)
    async def wrapped(*arguments: object) -> object:
        result = await inner(*arguments)
        passed()
        return result

    setattr(owner, name, wrapped)


def _before_commit(passed: Callable[[], None]) -> None:
    """Pass a point before a commit that moves an offset on; one that only renews a note is none."""
    inner = Worker._commit  # noqa: SLF001 - to stand in front of it is the purpose

    def wrapped(self: Worker, partitions: Sequence[Partition]) -> None:
        if any(p.committed and p.ledger.committable > p.committed.offset for p in partitions):
            passed()
        inner(self, partitions)

    Worker._commit = wrapped  # type: ignore[method-assign]  # noqa: SLF001 - the same


POINTS: dict[str, Callable[[Callable[[], None]], None]] = {
    "before-handler": functools.partial(_before, Attempts, "_handle"),
    "after-effect": functools.partial(_after, Attempts, "_handle"),
    "before-reply": functools.partial(_before, Attempts, "deliver"),
    "after-reply-acknowledged": functools.partial(_after, Attempts, "deliver"),
    "before-commit": _before_commit,
    "in-revoke": functools.partial(_after, Worker, "revoked"),
}
"""Where a worker may die; in-revoke: what ran is finished, and nothing of it is committed."""


def plant(point: str, count: int) -> None:
    """Kill this process when the point is passed for the `count`-th time."""
    passing = itertools.count(1)

    def passed() -> None:
        if next(passing) == count:
            print(json.dumps({"event": "crash", "at_ms": now_ms()}), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

    POINTS[point](passed)


if __name__ == "__main__":
    _point, _, _count = sys.argv.pop(1).partition(":")
    plant(_point, int(_count))
    main()
