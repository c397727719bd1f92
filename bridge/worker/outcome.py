"""How an attempt ended: one value for every way, and what a failure says to whom."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import structlog

from bridge.envelope import Event, Request
from bridge.errors import (
    HandlingError,
    InvalidPayloadError,
    MalformedBodyError,
    PermanentError,
    RetryableError,
)
from bridge.service import FAILURE

_log = structlog.get_logger("bridge.worker")

MAX_TEXT = 2000
"""Characters of a failure's message or detail that are kept: it must fit a record."""
MAX_DETAILS = 50

REPLY_TOO_LARGE, REPLY_INVALID = "reply-too-large", "reply-invalid"
HANDLER_FAILED, HANDLER_TIMEOUT = "handler-failed", "handler-timeout"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """What went wrong with an attempt.

    Attributes:
        code: For programs: the handler's own name of it, or one of ours.
        message: For people; the client reads it.
        details: Further facts, as text.
        fate: `refused`: the handler's answer, and the end; `again`: another try may succeed; `dead`:
            none would, so it is a dead letter at once.
        is_retryable: Whether the client is told that asking again may help.
        after_s: Seconds before which another try makes no sense; None: not said.
    """

    code: str
    message: str
    details: dict[str, str] = field(default_factory=dict)
    fate: Literal["refused", "again", "dead"]
    is_retryable: bool = False
    after_s: float | None = None

    def encode(self, **more: str) -> bytes:
        """Return the value of a `failed` event; whatever a handler gave, it fits a record."""
        kept = dict(list(self.details.items())[: MAX_DETAILS - len(more)])
        return FAILURE.from_native(
            {
                "code": _plain(self.code),
                "message": _plain(self.message),
                "retryable": self.is_retryable,
                "details": {_plain(k): _plain(v) for k, v in {**kept, **more}.items()},
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an attempt ended.

    Attributes:
        event: The last event, if nothing follows.
        value: Its value in the wire format; a failure has it in `failed`.
        count: Parts written before it; None: not a stream.
        headers: What the handler lets its client see on the response.
        failed: What went wrong; None: nothing.
        leftover: A thread that still runs past its time; its slot is not free before it returns.
    """

    event: Event
    value: bytes | None = None
    count: int | None = None
    headers: Sequence[tuple[str, bytes]] = ()
    failed: Failed | None = None
    leftover: "asyncio.Future[object] | None" = None


def fail(failed: Failed, leftover: "asyncio.Future[object] | None" = None) -> Outcome:
    """Return the outcome of an attempt that went wrong."""
    return Outcome(event=Event.FAILED, failed=failed, leftover=leftover)


def overrun(limit_s: float) -> Failed:
    """Say that a handler took longer than it may."""
    message = f"the handler ran longer than {limit_s:g} s"
    return Failed(code=HANDLER_TIMEOUT, message=message, fate="again")


def explain(error: Exception, request: Request) -> Failed:
    """Say what a handler's exception means for its request."""
    if isinstance(error, HandlingError):
        return Failed(
            code=error.failure_code,
            message=str(error),
            details=error.details,
            fate="refused" if isinstance(error, PermanentError) else "again",
            is_retryable=error.retryable,
            after_s=error.after_s if isinstance(error, RetryableError) else None,
        )
    if isinstance(error, InvalidPayloadError | MalformedBodyError):
        _log.error(REPLY_INVALID, request_id=request.request_id, why=str(error))
        message = f"the reply does not fit its contract: {error}"
        return Failed(code=REPLY_INVALID, message=message, fate="dead")
    _log.error(
        HANDLER_FAILED, request_id=request.request_id, attempt=request.attempt, exc_info=error
    )
    return Failed(
        code=HANDLER_FAILED,
        message="the handler broke; the worker's log has the reason",
        fate="again",
    )


def _plain(text: object) -> str:
    """Return text that fits a record, whatever a handler gave: no failure may fail."""
    return str(text)[:MAX_TEXT].encode(errors="replace").decode()
