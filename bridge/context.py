"""What a handler is told about the request that it works on, and how it answers before the end."""

from collections.abc import Callable, Mapping

import msgspec


def _ignore(fraction: float | None, message: str) -> None:
    """Progress that nobody asked for."""


def _never() -> bool:
    return False


def no_deadline() -> float:
    """Say that there is time without end."""
    return float("inf")


class Context(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One attempt at one request. Safe to use from the handler's own thread.

    The defaults make `Context(request_id="test")` enough to try a handler by hand.

    Attributes:
        request_id: The request's name, the same on every attempt: the idempotency key to pass on
            to whatever the handler calls.
        attempt: Which try this is, from 1.
        principal: Who asked, as the ingress authenticated it; None: not said.
        headers: The client's headers that `http.forward` of the service lets through, by their
            names in lower case.
        reply_headers: What the handler puts here goes onto the HTTP response, where `http.return`
            of the service names it: printable ASCII, at most 4,096 bytes each.
        trace: W3C trace context, `traceparent` and `tracestate`, to pass on to what the handler
            calls; empty: there is none.
        replay: The replay that this request is part of; None: live work.
        seconds_left: Seconds until nobody wants the answer, by broker time; see `deadline_s`.
        was_cancelled: Whether somebody has cancelled the request; see `is_cancelled`.
        report: Where `progress` goes.
    """

    request_id: str
    attempt: int = 1
    principal: str | None = None
    headers: Mapping[str, str] = {}
    reply_headers: dict[str, str] = {}
    trace: Mapping[str, str] = {}
    replay: str | None = None
    seconds_left: Callable[[], float] = no_deadline
    was_cancelled: Callable[[], bool] = _never
    report: Callable[[float | None, str], None] = _ignore

    @property
    def deadline_s(self) -> float:
        """Seconds left until nobody wants the answer any more; `inf` when there is no deadline."""
        return self.seconds_left()

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody wants the answer any more: it was cancelled, or the deadline is past.

        Costs next to nothing, in the event loop and in a thread: a long handler looks now and then,
        and stops early. Whatever it returns then is not written.
        """
        return self.was_cancelled() or self.seconds_left() <= 0

    def progress(self, fraction: float | None, message: str = "") -> None:
        """Tell whoever follows the request how far it is; never blocks, never fails.

        Args:
            fraction: 0 to 1; None: not known.
            message: For people.
        """
        self.report(fraction, message)
