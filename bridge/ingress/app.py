"""The HTTP side: routes, what they read from a request, and how an answer is written.

The hot path, a POST on a service's requests, is answered in front of the routes (`post`). All of it
is pure ASGI, so that disconnects reach whoever reads the body.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import cast

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Match, Route
from starlette.types import Scope

from bridge import ids, metrics
from bridge.errors import (
    BridgeError,
    MalformedHeaderError,
    MethodNotAllowedError,
    NotFoundError,
    UnavailableError,
    UnknownServiceError,
)
from bridge.ingress import documents, page, problem
from bridge.ingress.answer import JSON, OK, cancelled, render
from bridge.ingress.ask import Ingress
from bridge.ingress.auth import principal_of
from bridge.ingress.batch import Batches
from bridge.ingress.cancel import cancel
from bridge.ingress.events import Wanted
from bridge.ingress.head import REPLIES, read_headers
from bridge.ingress.headers import parse_event_id, parse_number, parse_prefer
from bridge.ingress.lanes import Lanes
from bridge.ingress.life import open_ingress
from bridge.ingress.limits import Limits
from bridge.ingress.media import Media, choose_media
from bridge.ingress.post import Front, count, unknown_service
from bridge.ingress.stream import EventResponse, come_back
from bridge.kafka import Config
from bridge.service import Service

UNAVAILABLE = 503


def make_app(
    services: Mapping[str, Service],
    config: Config,
    lanes: Lanes,
    limits: Limits,
    *,
    chance: Callable[[], int],
    probe_s: float = 60.0,
) -> Starlette:
    """Make the ASGI application of one ingress process; its lifespan owns the Kafka clients."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[Mapping[str, object]]:
        async with open_ingress(config, lanes, limits, chance=chance, probe_s=probe_s) as ingress:
            app.state.drain, app.state.release = ingress.drain, ingress.release
            yield {"ingress": ingress}

    app = Starlette(
        lifespan=lifespan,
        routes=_routes(
            Routes(services, has_keys=limits.keys is not None), Batches(services, limits)
        ),
        exception_handlers={
            BridgeError: _on_problem,
            HTTPException: _on_http,
            ClientDisconnect: _on_disconnect,
            Exception: _on_bug,
        },
    )
    # It would name the scheme of this side of the load balancer, and whatever host the client says.
    app.router.redirect_slashes = False
    # Called on SIGTERM, perhaps before the lifespan has begun.
    app.state.drain = app.state.release = lambda: None
    app.add_middleware(Front, services=services, limits=limits)
    return app


class _Whole(Route):
    """A route that has its path alone: other methods are not for a later, wider one."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match the path, whatever the method."""
        match, child = super().matches(scope)
        return (match if match is Match.NONE else Match.FULL), child


def _routes(routes: "Routes", batches: Batches) -> list[Route]:
    return [
        _Whole("/v1/services/{service}/requests/batch", batches, methods=["POST"]),
        Route("/v1/services/{service}/requests", routes.post, methods=["POST"]),
        Route(
            "/v1/services/{service}/requests/{request_id}", routes.one, methods=["GET", "DELETE"]
        ),
        Route(
            "/v1/services/{service}/requests/{request_id}/events", routes.events, methods=["GET"]
        ),
        Route("/v1/services", routes.directory, methods=["GET"]),
        Route("/v1/services/{service}", routes.service, methods=["GET"]),
        Route("/schemas/ids/{schema_id}", routes.schema, methods=["GET"]),
        Route("/healthz", routes.healthz, methods=["GET"]),
        Route("/readyz", routes.readyz, methods=["GET"]),
        Route("/metrics", routes.metrics, methods=["GET"]),
        Route("/openapi.json", routes.openapi, methods=["GET"]),
        Route("/docs", routes.docs, methods=["GET"]),
    ]


class Routes:
    """The endpoints; each reads the request, asks the ingress, writes the answer."""

    def __init__(self, services: Mapping[str, Service], *, has_keys: bool) -> None:
        self._services = services
        self._openapi = msgspec.json.encode(documents.openapi(services, has_keys=has_keys))
        self._page = page.render(services, has_keys=has_keys)
        self._schemas = documents.schemas(services)

    async def post(self, request: Request) -> Response:
        """Take a request: `Front` does, before it comes here; here is what other methods miss."""
        raise UnknownServiceError(f"no service in {request.scope['path'][:200]!r}")

    async def one(self, request: Request) -> Response:
        """Tell of a request, or cancel it; one route, so that `Allow` names both methods."""
        act = self.delete if request.method == "DELETE" else self.get
        return await act(request)

    async def get(self, request: Request) -> Response:
        """Tell the state of a request, and its reply when it has one."""
        service = self._service(request)
        ingress = ingress_of(request)
        headers = read_headers(request.scope["headers"])
        media = choose_media(headers.get("accept"), REPLIES[service.kind])
        request_id = _name(request)
        preference = parse_prefer(headers.get("prefer"), max_wait_s=ingress.limits.max_wait_s)
        where = _where(request, request_id)
        try:
            log = await ingress.lookups.find(
                service,
                request_id,
                where,
                principal=principal_of(request.scope),
                wait_s=preference.wait_s or 0.0,
                receive=request.receive,
            )
            response = render(service, request_id, log, media)
        except BridgeError as error:
            response = problem.render(error, request_id=request_id)
        if preference.applied:
            response.headers["Preference-Applied"] = preference.applied
        count(service.name, response.status_code).inc()
        return response

    async def delete(self, request: Request) -> Response:
        """Cancel a request, unless it has ended otherwise."""
        service = self._service(request)
        choose_media(read_headers(request.scope["headers"]).get("accept"), (Media.JSON,))
        request_id = _name(request)
        try:
            await cancel(
                ingress_of(request),
                service,
                request_id,
                _where(request, request_id),
                principal=principal_of(request.scope),
            )
            response = cancelled(request_id)
        except BridgeError as error:
            response = problem.render(error, request_id=request_id)
        count(service.name, response.status_code).inc()
        return response

    async def events(self, request: Request) -> Response | EventResponse:
        """Tell the events of a request as they come, from the beginning or from where it was."""
        service = self._service(request)
        ingress = ingress_of(request)
        request_id = _name(request)
        headers = read_headers(request.scope["headers"])
        media = choose_media(headers.get("accept"), (Media.EVENTS, Media.LINES))
        since = parse_event_id(headers.get("last-event-id"))
        where = _where(request, request_id)

        def refuse(error: BridgeError) -> Response:
            if since is not None and media is Media.EVENTS and isinstance(error, UnavailableError):
                return come_back()
            return problem.render(error, request_id=request_id)

        try:
            sought = ingress.lookups.seek(service, request_id, where)
        except BridgeError as error:
            response = refuse(error)
            count(service.name, response.status_code).inc()
            return response
        wanted = Wanted(sought, since, principal_of(request.scope))
        return EventResponse(
            service,
            request_id,
            media,
            opening=lambda receive: ingress.streams.open(wanted, receive),
            refuse=refuse,
            headers={},
        )

    async def directory(self, request: Request) -> Response:
        """List the services."""
        load = ingress_of(request).load
        found = [
            {**documents.describe(service), **load.describe(service)}
            for service in self._services.values()
        ]
        return _json({"services": found})

    async def service(self, request: Request) -> Response:
        """Describe one service with its schemas."""
        service = self._service(request)
        live = ingress_of(request).load.describe(service)
        return _json({**documents.describe(service), **live, **documents.contracts(service)})

    async def schema(self, request: Request) -> Response:
        """Give a schema by ID, in the form of the Confluent registry."""
        wanted = parse_number(request.path_params["schema_id"])
        found = None if wanted is None else self._schemas.get(wanted)
        if found is None:
            return _json({"error_code": 40403, "message": "Schema not found"}, status=404)
        return _json({"schema": found})

    async def healthz(self, _: Request) -> Response:
        """Tell that the process lives; never depends on Kafka."""
        return _json({"status": "alive"})

    async def readyz(self, request: Request) -> Response:
        """Tell whether a request can be taken now."""
        ingress = ingress_of(request)
        reason = "it is stopping" if ingress.is_draining else ingress.trouble
        missing = ingress.lanes.without_topics
        if reason is None:
            return _json({"status": "ready"} | ({"without_topics": missing} if missing else {}))
        return _json({"status": "not ready", "reason": str(reason)}, status=UNAVAILABLE)

    async def metrics(self, _: Request) -> Response:
        """Give all metrics in the Prometheus text format."""
        content, media_type = metrics.render()
        return Response(content, media_type=media_type)

    async def openapi(self, _: Request) -> Response:
        """Give the OpenAPI document."""
        return Response(self._openapi, media_type=JSON)

    async def docs(self, _: Request) -> Response:
        """Show the services to people."""
        return HTMLResponse(self._page)

    def _service(self, request: Request) -> Service:
        name = request.path_params["service"]
        service = self._services.get(name)
        if service is None:
            raise unknown_service(name, self._services)
        return service


def ingress_of(request: Request) -> Ingress:
    """Read the lifespan's state; ASGI leaves it untyped."""
    return cast(Ingress, request.scope["state"]["ingress"])


def _name(request: Request) -> str:
    """Return the ID that is asked for; one of another program stands as it is."""
    text: str = request.path_params["request_id"]
    return text if "partition" in request.query_params else ids.normalize(text)


def _where(request: Request, request_id: str) -> ids.Address | None:
    """Say where the log of an ID starts: the ID tells, or the query does for a foreign one."""
    query = request.query_params
    if "partition" not in query and "since_ms" not in query:
        return ids.parse(request_id)
    lane, since_ms = (parse_number(query.get(name, "")) for name in ("partition", "since_ms"))
    if lane is None or since_ms is None:
        raise MalformedHeaderError(
            "want ?partition=NUMBER&since_ms=UNIX_MILLISECONDS, both: an ID that the bridge did "
            "not make says neither its lane nor its time"
        )
    return ids.Address(time_ms=since_ms, lane=lane)


async def _on_problem(request: Request, error: Exception) -> Response:
    if not isinstance(error, BridgeError):
        raise error
    if "service" in request.path_params:
        is_known = not isinstance(error, UnknownServiceError)
        name = request.path_params["service"] if is_known else "unknown"
        count(name, error.status).inc()
    return problem.render(error)


async def _on_http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code == MethodNotAllowedError.status:
        response = problem.render(
            MethodNotAllowedError(f"{request.method} is not for {request.url.path[:200]}")
        )
        response.headers.update(error.headers or {})
        return response
    return problem.render(NotFoundError(f"nothing at {request.scope['path'][:200]}: see /docs"))


async def _on_disconnect(_: Request, __: Exception) -> Response:
    """Answer nobody: the client left before its body was here, and nothing was written."""
    return Response(status_code=MalformedHeaderError.status)


async def _on_bug(_: Request, __: Exception) -> Response:
    """Answer for an error of our own; it is logged by the server, never shown."""
    return problem.render(BridgeError("an error of the bridge itself: see its log"))


def _json(value: object, *, status: int = OK) -> Response:
    return Response(msgspec.json.encode(value), status, media_type=JSON)
