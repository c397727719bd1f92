"""The hot path: a POST on a service's requests, from ASGI messages to the answer.

One pass over the headers, no model, no router: what the frameworks' layers cost per request (10 to
30 µs measured for Starlette's) is spent once per service at start-up, or not at all.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from prometheus_client import Counter
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bridge import metrics, tracing
from bridge.errors import (
    BodyTooLargeError,
    BridgeError,
    UnauthenticatedError,
    UnknownServiceError,
)
from bridge.ingress import auth, problem
from bridge.ingress.ask import Ingress
from bridge.ingress.head import Headers, make_job, read_head, read_headers
from bridge.ingress.limits import Limits
from bridge.ingress.respond import respond
from bridge.ingress.stream import EventResponse
from bridge.service import Service

_BEFORE, _AFTER = "/v1/services/", "/requests"
_UNKNOWN = "unknown"
_LEFT = 400


def unknown_service(name: str, services: Mapping[str, Service]) -> UnknownServiceError:
    """Say which services there are."""
    known = ", ".join(services) or "none"
    return UnknownServiceError(f"no service {name[:100]!r}: there are {known}")


@cache
def count(service: str, status: int) -> Counter:
    """Return the counter of a service's answers with a status."""
    return metrics.ANSWERS.labels(service, status)


class Front:
    """What a request meets first: who asks, and the hot path."""

    def __init__(self, app: ASGIApp, services: Mapping[str, Service], limits: Limits) -> None:
        self._app = app
        self._services = services
        self._limits = limits
        self._tracer = tracing.find_tracer()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, answer, or pass on to the other routes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["state"]["ingress"].is_draining:
            send = _closing(send)
        try:
            self._check(scope)
        except BridgeError as refusal:
            await _refuse(refusal, scope)(scope, receive, send)
            return
        name = _asked(scope)
        if self._tracer is None or scope["method"] != "POST":
            await self._answer(name, scope, receive, send)
            return
        route = None if name is None else f"{_BEFORE}{{service}}{_AFTER}"
        with tracing.serve(self._tracer, scope, send, route=route) as noting:
            await self._answer(name, scope, receive, noting)

    async def _answer(self, name: str | None, scope: Scope, receive: Receive, send: Send) -> None:
        if name is None:
            await self._app(scope, receive, send)
            return
        response = await self._post(name, scope, receive)
        await response(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        """Look at the head alone: who asks; `protocol` has seen to its size.

        Raises:
            UnauthenticatedError: It goes no further.
        """
        keys = self._limits.keys
        if keys is not None and not auth.is_open(scope["path"]):
            scope["state"]["principal"] = auth.authenticate(keys, scope)

    async def _post(self, name: str, scope: Scope, receive: Receive) -> Response | EventResponse:
        """Take a request; answer with its reply, or with where the reply will be."""
        service = self._services.get(name)
        response: Response | EventResponse
        try:
            if service is None:
                raise unknown_service(name, self._services)
            headers = read_headers(scope["headers"])
            response = await self._take(service, headers, receive, scope["state"])
        except BridgeError as refused:
            ingress: Ingress = scope["state"]["ingress"]
            response = problem.render(refused, request_id=ingress.name_refused())
        except ClientDisconnect:  # nothing was written, and nobody is there to be told
            return Response(status_code=_LEFT)
        if isinstance(response, Response):  # a stream counts itself, when it is known how it begins
            count(_UNKNOWN if service is None else name, response.status_code).inc()
        return response

    async def _take(
        self, service: Service, headers: Headers, receive: Receive, state: Mapping[str, Any]
    ) -> Response | EventResponse:
        ingress: Ingress = state["ingress"]
        head = read_head(service, headers, self._limits, state.get("principal"))
        body = await _read_body(receive, headers, self._limits.max_body_bytes)
        job = make_job(ingress, service, head, body)
        response = await respond(ingress, job, head, receive)
        if head.preference.applied and isinstance(response, Response):  # events do not wait
            response.headers["Preference-Applied"] = head.preference.applied
        return response


def _closing(send: Send) -> Send:
    """Let an answer say that it is the last one on its connection."""

    async def send_last(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"connection", b"close")]
        await send(message)

    return send_last


def _refuse(refusal: BridgeError, scope: Scope) -> Response:
    """Answer what goes no further; a `POST` gets a name, for the client's log and ours."""
    name = None
    if isinstance(refusal, UnauthenticatedError):
        count(_UNKNOWN, refusal.status).inc()
        if scope["method"] == "POST":
            ingress: Ingress = scope["state"]["ingress"]
            name = ingress.name_refused()
    return problem.render(refusal, request_id=name)


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
