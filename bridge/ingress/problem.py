"""Every error as `application/problem+json` (RFC 9457): the only place that writes one."""

import math

import msgspec
from starlette.responses import Response

from bridge.dead import DETAIL
from bridge.envelope import Event, Reply
from bridge.errors import AlreadyEndedError, BridgeError, RecordError, UnauthenticatedError
from bridge.service import FAILURE, Service

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:kafka-bridge:problem:"

BROKEN = frozenset(
    {
        *("handler-failed", "handler-timeout", "process-died", "program-died", "worker-died"),
        *("reply-invalid", "reply-too-large", "undecodable"),
    }
)
"""Codes of failures that are the worker's, not the handler's own words: 502; others are 422, unless
there is a dead letter: then its attempts are used up."""

HANDLER_REFUSED, HANDLER_BROKE, EXPIRED, CANCELLED = 422, 502, 504, 409


def render(error: BridgeError, *, request_id: str | None = None) -> Response:
    """Make the answer that says what went wrong, who must act, and what is known."""
    members: dict[str, object] = {
        "type": TYPE_PREFIX + error.code,
        "title": error.title,
        "status": error.status,
        "detail": str(error),
        "code": error.code,
        "outcome": error.outcome,
        "retryable": error.retryable,
    }
    violations = getattr(error, "violations", ())
    if violations:
        members["errors"] = [{"pointer": v.pointer, "reason": v.reason} for v in violations]
    headers = {}
    if isinstance(error, AlreadyEndedError):
        members["state"] = headers["Bridge-State"] = error.state
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    if isinstance(error, UnauthenticatedError):
        headers["WWW-Authenticate"] = "Bearer"
    return respond(members, headers=headers, request_id=request_id)


def ended(service: Service, last: Reply, *, request_id: str) -> Response:
    """Render a last event that is no reply."""
    if last.event is Event.FAILED:
        return failed(service, last, request_id=request_id)
    if last.event is Event.CANCELLED:
        return cancelled(request_id=request_id)
    return expired(request_id=request_id)


def failed(service: Service, last: Reply, *, request_id: str) -> Response:
    """Render a `failed` event: the handler's own code, mapped by the service's `[http.errors]`."""
    try:
        failure = FAILURE.decode(last.value or b"")
    except RecordError as unreadable:
        return render(unreadable, request_id=request_id)
    assert isinstance(failure, dict)  # noqa: S101 - the schema is a record
    code = str(failure["code"])
    is_broken = code in BROKEN or DETAIL in failure["details"]
    status = service.http_errors.get(code, HANDLER_BROKE if is_broken else HANDLER_REFUSED)
    members: dict[str, object] = {
        "type": TYPE_PREFIX + code,
        "title": "The request failed",
        "status": status,
        "detail": failure["message"],
        "code": code,
        "outcome": "failed",
        "retryable": failure["retryable"],
    }
    if failure["details"]:
        members["details"] = failure["details"]
    return respond(members, request_id=request_id)


def expired(*, request_id: str) -> Response:
    """Render an `expired` event."""
    members = {
        "type": TYPE_PREFIX + "expired",
        "title": "The deadline passed before there was an answer",
        "status": EXPIRED,
        "detail": "no worker finished the request before its deadline; it will not be worked on",
        "code": "expired",
        "outcome": "expired",
        "retryable": True,
    }
    return respond(members, request_id=request_id)


def cancelled(*, request_id: str) -> Response:
    """Render a `cancelled` event."""
    members = {
        "type": TYPE_PREFIX + "cancelled",
        "title": "The request was cancelled",
        "status": CANCELLED,
        "detail": "it was cancelled before there was an answer",
        "code": "cancelled",
        "outcome": "cancelled",
        "retryable": False,
    }
    return respond(members, request_id=request_id)


def name_header(request_id: str) -> dict[str, str]:
    """Return `Request-Id`; nothing for a foreign ID that no header can carry."""
    if request_id.isascii() and request_id.isprintable():
        return {"Request-Id": request_id}
    return {}


def respond(
    members: dict[str, object],
    *,
    headers: dict[str, str] | None = None,
    request_id: str | None = None,
) -> Response:
    """Write a problem's members as they are; its `status` is the answer's."""
    headers = dict(headers or {})
    if request_id is not None:
        members["request_id"] = request_id
        headers |= name_header(request_id)
    status = members["status"]
    assert isinstance(status, int)  # noqa: S101 - each caller above gives one
    return Response(msgspec.json.encode(members), status, headers, MEDIA_TYPE)
