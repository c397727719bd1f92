"""What follows a failed attempt: another one, and when; or none, and why.

Pure: time and chance are passed in, the decision is a value. Waits are held in the worker, for that
key only: a retry topic would lose the key's order.
"""

from dataclasses import dataclass
from typing import Protocol


class Policy(Protocol):
    """A service's patience: `bridge.service.WorkerSettings` has it.

    Attributes:
        attempts: Tries before a request is given up.
        backoff_s: Longest wait before the second try, in seconds; doubles from try to try.
        max_backoff_s: Where the doubling ends, in seconds.
    """

    @property
    def attempts(self) -> int: ...  # noqa: D102 - said above
    @property
    def backoff_s(self) -> float: ...  # noqa: D102
    @property
    def max_backoff_s(self) -> float: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Again:
    """Try again, not before `at_ms`, Unix milliseconds of broker time."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Try no more; `reason` is what a dead letter says."""

    reason: str


ATTEMPTS, DEADLINE = "attempts-exhausted", "deadline"


def decide(
    policy: Policy,
    *,
    attempt: int,
    now_ms: int,
    deadline_ms: int | None,
    chance: float,
    after_s: float | None = None,
) -> Again | GiveUp:
    """Decide what follows a failed attempt that may succeed later.

    Full jitter: the wait is a random share of an exponentially growing ceiling, so workers that
    failed together do not return together.

    Args:
        policy: The service's patience.
        attempt: The attempt that just failed, counting from 1.
        now_ms: Unix time in milliseconds, broker time.
        deadline_ms: Unix time in milliseconds after which no answer is of use; None: none.
        chance: A random number in [0, 1).
        after_s: The handler's own word on when to try again, in seconds (HTTP's `Retry-After`):
            then not earlier, and up to one first back-off later; None: it did not say.

    Returns:
        `Again` with a time before the deadline, or `GiveUp` with the reason.

    Source:
        M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    if attempt >= policy.attempts:
        return GiveUp(ATTEMPTS)
    if after_s is None:
        # Doubled no further than needed: 2 ** 99 seconds would be a number for nobody.
        ceiling_s = min(policy.max_backoff_s, policy.backoff_s * 2.0 ** min(attempt - 1, 40))
        wait_s = ceiling_s * chance
    else:
        wait_s = max(0.0, after_s) + policy.backoff_s * chance
    at_ms = now_ms + int(wait_s * 1000)
    if deadline_ms is not None and at_ms >= deadline_ms:
        return GiveUp(DEADLINE)
    return Again(at_ms)
