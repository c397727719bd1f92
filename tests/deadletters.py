"""Dead letters made as a worker makes them, for the tests of the commands."""

from bridge.dead import Verdict, make_dead
from bridge.envelope import Headers, Record, Request, format_request

REASON = "attempts-exhausted"


def make(  # noqa: PLR0913 - each has a default
    service: str,
    request: Request | Headers,
    value: bytes | None = b"v",
    *,
    offset: int = 0,
    key: bytes | None = b"k",
    reason: str = REASON,
    error: str = "boom",
    partition: int = 0,
) -> Record:
    """Make the dead letter of a record that was on a service's requests."""
    headers = format_request(request) if isinstance(request, Request) else request
    record = Record(
        topic=f"{service}.requests",
        key=key,
        value=value,
        headers=headers,
        partition=partition,
        offset=offset,
        timestamp_ms=1_000_000 + offset,
    )
    return die(service, record, reason=reason, error=error)


def die(service: str, record: Record, *, reason: str = REASON, error: str = "boom") -> Record:
    """Make a record a dead letter."""
    return make_dead(
        record,
        Verdict(reason=reason, error=error, attempts=3),
        topic=f"{service}.dead",
        group=f"bridge.{service}",
        worker="w-1",
    )
