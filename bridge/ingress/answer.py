"""Answers: what is known of a request, as HTTP. Besides errors.py the only place that knows statuses."""

from urllib.parse import quote

import msgspec
from starlette.responses import Response

from bridge.codec import render_json
from bridge.envelope import Event
from bridge.errors import PartsMissingError, PartsTooLargeError, RecordError
from bridge.forward import read_record
from bridge.ingress import problem
from bridge.ingress.media import Media
from bridge.replylog import MAX_BYTES, ReplyLog
from bridge.service import Service
from bridge.telling import find_missing

OK, ACCEPTED = 200, 202
JSON = "application/json"
PENDING_RETRY_S = "1"


def render(service: Service, request_id: str, log: ReplyLog, media: Media = Media.JSON) -> Response:
    """Write what is known of a request: its reply, its problem, or where to look.

    Only the reply itself is in Avro for those who want that.
    """
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
            if media is Media.AVRO:
                response = Response(service.give_binary(last.value), OK, headers, media)
            else:
                response = Response(_reply(service, log), OK, headers, JSON)
        else:
            response = problem.ended(service, last, request_id=request_id)
            response.headers["Bridge-State"] = log.state
    except RecordError as broken:
        response = problem.render(broken, request_id=request_id)
        response.headers["Bridge-State"] = log.state
    if service.returned:
        response.headers.update(read_record(service.returned, last.headers))
    return response


def _reply(service: Service, log: ReplyLog) -> bytes:
    value = log.last.value if log.last is not None else None
    if service.kind != "stream":
        return render_json(service.decode_reply(value))
    if log.is_too_large:
        raise PartsTooLargeError(
            f"its parts have more than {MAX_BYTES >> 20} MiB: read them as events, "
            "GET …/events or a POST with Accept: text/event-stream"
        )
    count = log.last.sequence if log.last is not None else None
    missing = find_missing(log.parts, count or 0)
    if missing:
        raise PartsMissingError(missing, count or 0)
    parts = [service.decode_reply(log.parts[number].value) for number in sorted(log.parts)]
    reply = None if value is None else service.decode_reply(value)
    return render_json({"parts": parts, "reply": reply})


def cancelled(request_id: str) -> Response:
    """Write the answer to whoever has cancelled a request."""
    headers = {"Bridge-State": Event.CANCELLED.value, **problem.name_header(request_id)}
    body = msgspec.json.encode({"request_id": request_id, "state": Event.CANCELLED.value})
    return Response(body, OK, headers, JSON)


def location(service: Service, request_id: str) -> str:
    """Return where a request's state and reply are."""
    return f"/v1/services/{service.name}/requests/{quote(request_id, safe='')}"
