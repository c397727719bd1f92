"""Answers: what is known of a request, as HTTP. Besides errors.py the only place that knows statuses."""

from urllib.parse import quote

import msgspec
from starlette.responses import Response

from bridge.codec import render_json
from bridge.envelope import Event
from bridge.errors import RecordError
from bridge.ingress import problem
from bridge.replylog import ReplyLog
from bridge.service import Service

OK, ACCEPTED = 200, 202
JSON = "application/json"
PENDING_RETRY_S = "1"


def render(service: Service, request_id: str, log: ReplyLog) -> Response:
    """Write what is known of a request: its reply, its problem, or where to look."""
    last = log.last
    headers = {"Bridge-State": log.state, **problem.name_header(request_id)}
    if last is None:
        if service.kind != "none":  # a one-way request leaves no log to look at
            headers["Location"] = location(service, request_id)
            headers["Retry-After"] = PENDING_RETRY_S
        body = msgspec.json.encode({"request_id": request_id, "state": log.state})
        return Response(body, ACCEPTED, headers, JSON)
    try:
        if last.event is Event.COMPLETED:
            return Response(_reply(service, log), OK, headers, JSON)
        response = _ended(service, request_id, log)
    except RecordError as unreadable:
        response = problem.render(unreadable, request_id=request_id)
    response.headers["Bridge-State"] = log.state
    return response


def _ended(service: Service, request_id: str, log: ReplyLog) -> Response:
    if log.last is not None and log.last.event is Event.FAILED:
        return problem.failed(service, log.last, request_id=request_id)
    if log.last is not None and log.last.event is Event.CANCELLED:
        return problem.cancelled(request_id=request_id)
    return problem.expired(request_id=request_id)


def _reply(service: Service, log: ReplyLog) -> bytes:
    value = log.last.value if log.last is not None else None
    if service.kind != "stream":
        return render_json(service.decode_reply(value))
    parts = [service.decode_reply(log.parts[number].value) for number in sorted(log.parts)]
    reply = None if value is None else service.decode_reply(value)
    return render_json({"parts": parts, "reply": reply})


def location(service: Service, request_id: str) -> str:
    """Return where a request's state and reply are."""
    return f"/v1/services/{service.name}/requests/{quote(request_id, safe='')}"
