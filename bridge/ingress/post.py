"""The hot path: a POST on a service's requests, from ASGI messages to the answer.

One pass over the headers, no model, no router: what the frameworks' layers cost per request (10 to
30 µs measured for Starlette's) is spent once per service at start-up, or not at all.
"""

from collections.abc import Mapping
from functools import cache

from prometheus_client import Counter, Histogram
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from bridge import ids, metrics
from bridge.codec import parse_json
from bridge.envelope import TRACE, Record, Request, format_request
from bridge.errors import (
    BodyTooLargeError,
    BridgeError,
    BrokerDownError,
    HeadersTooLargeError,
    OutcomeUnknownError,
    UnknownServiceError,
    UriTooLongError,
)
from bridge.ingress import problem
from bridge.ingress.answer import location, render
from bridge.ingress.ask import Ingress, Limits, names
from bridge.ingress.headers import check_accept, check_content, parse_deadline, parse_prefer
from bridge.replylog import ReplyLog
from bridge.service import Service

Headers = dict[str, str]

_BEFORE, _AFTER = "/v1/services/", "/requests"
_UNKNOWN = "unknown"
_LEFT = 400
STICKY_MS = 5
"""Requests without a key of so many milliseconds share a partition (5 and 10 measured alike)."""


@cache
def count(service: str, status: int) -> Counter:
    """Return the counter of a service's answers with a status."""
    return metrics.ANSWERS.labels(service, status)


@cache
def _seconds(service: str) -> Histogram:
    return metrics.ANSWER_SECONDS.labels(service)


class Front:
    """What a request meets first: the limits, which httptools itself has not, and the hot path."""

    def __init__(self, app: ASGIApp, services: Mapping[str, Service], limits: Limits) -> None:
        self._app = app
        self._services = services
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, answer, or pass on to the other routes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await problem.render(refusal)(scope, receive, send)
            return
        name = _asked(scope)
        if name is None:
            await self._app(scope, receive, send)
            return
        response = await self._post(name, scope, receive)
        await response(scope, receive, send)

    def _refusal(self, scope: Scope) -> BridgeError | None:
        size = len(scope["raw_path"]) + len(scope["query_string"])
        if size > self._limits.max_uri_bytes:
            return UriTooLongError(
                f"the request target has {size} bytes: want at most {self._limits.max_uri_bytes}"
            )
        size = sum(len(name) + len(value) for name, value in scope["headers"])
        if size > self._limits.max_header_bytes:
            return HeadersTooLargeError(
                f"the headers have {size} bytes: want at most {self._limits.max_header_bytes}"
            )
        return None

    async def _post(self, name: str, scope: Scope, receive: Receive) -> Response:
        """Take a request; answer with its reply, or with where the reply will be."""
        service = self._services.get(name)
        try:
            if service is None:
                known = names(list(self._services))
                raise UnknownServiceError(f"no service {name[:100]!r}: there are {known}")
            headers = {
                key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]
            }
            response = await self._take(service, headers, receive, scope["state"]["ingress"])
        except BridgeError as refused:
            ingress: Ingress = scope["state"]["ingress"]
            response = problem.render(refused, request_id=ingress.name_refused())
        except ClientDisconnect:  # nothing was written, and nobody is there to be told
            return Response(status_code=_LEFT)
        count(_UNKNOWN if service is None else name, response.status_code).inc()
        return response

    async def _take(
        self, service: Service, headers: Headers, receive: Receive, ingress: Ingress
    ) -> Response:
        check_content(headers.get("content-type"), headers.get("content-encoding"))
        check_accept(headers.get("accept"))
        preference = parse_prefer(headers.get("prefer"), max_wait_s=self._limits.max_wait_s)
        deadline_s = parse_deadline(headers.get("bridge-deadline"), default_s=service.deadline_s)
        body = await _read_body(receive, headers, self._limits.max_body_bytes)
        value = parse_json(body, max_depth=self._limits.max_depth)
        encoded = service.encode(value)
        request = ingress.new_request(service, deadline_s=deadline_s, trace=_trace(headers))
        partitions = ingress.lanes.partitions(service)
        record = _record(service, request, service.key_of(value), encoded, partitions)
        wait_s = service.wait_s if preference.wait_s is None else preference.wait_s
        try:
            if wait_s <= 0 or service.kind == "none":
                await ingress.post(record, request)
                log = ReplyLog()
            else:
                with _seconds(service.name).time():
                    log = await ingress.ask(record, request, wait_s=wait_s)
            response = render(service, request.request_id, log)
        except BridgeError as error:
            if isinstance(error, BrokerDownError | OutcomeUnknownError):
                ingress.lanes.doubt()
            response = problem.render(error, request_id=request.request_id)
            if error.outcome == "unknown":  # it may yet be found: say where
                response.headers["Location"] = location(service, request.request_id)
        if preference.applied:
            response.headers["Preference-Applied"] = preference.applied
        return response


def _record(
    service: Service, request: Request, key: bytes | None, value: bytes, partitions: int
) -> Record:
    """Make the record of a request.

    Without a key field the request ID is the key, and its time says the partition: all requests of
    5 ms go to one, for a broker pays per batch and a producer has one batch under way at a time.
    Measured at 32 / 256 clients, against a partition by hash for each: 3,409 to 5,563 and 4,908 to
    7,414 requests/s. The ID alone decides, so whoever writes the request again finds its partition.
    (KIP-480 does the same for records without a key.)
    """
    partition = None
    address = ids.parse(request.request_id)
    if key is None and address is not None and partitions:
        partition = (address.time_ms // STICKY_MS + address.lane) % partitions
    return Record(
        topic=service.requests_topic,
        key=key if key is not None else request.request_id.encode(),
        value=value,
        headers=format_request(request),
        partition=partition,
    )


def _asked(scope: Scope) -> str | None:
    """Return the service whose requests are posted to; None when it is another route."""
    path: str = scope["path"]
    if scope["method"] != "POST" or not (path.startswith(_BEFORE) and path.endswith(_AFTER)):
        return None
    name = path[len(_BEFORE) : -len(_AFTER)]
    return None if "/" in name or not name else name


async def _read_body(receive: Receive, headers: Headers, limit: int) -> bytes:
    """Read the body, counting what comes rather than believing Content-Length.

    Raises:
        BodyTooLargeError: More than `limit` bytes, announced or come.
        ClientDisconnect: The client left before it was here.
    """
    length = headers.get("content-length", "")
    size = int(length) if length.isdigit() else 0
    chunks: list[bytes] = []
    is_more = size <= limit
    size = size if size > limit else 0
    while is_more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        size += len(chunk)
        chunks.append(chunk)
        is_more = message.get("more_body", False) and size <= limit
    if size > limit:
        raise BodyTooLargeError(f"the body has {size} bytes or more: want at most {limit}")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _trace(headers: Headers) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, headers[name].encode()) for name in TRACE if name in headers)
