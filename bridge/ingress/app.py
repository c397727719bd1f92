"""The HTTP side: routes, what they read from a request, and how an answer is written.

The hot path, a POST on a service's requests, is answered in front of the routes (`post`). All of it
is pure ASGI, so that disconnects reach whoever reads the body.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import cast

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from bridge import ids, metrics
from bridge.errors import (
    BridgeError,
    MalformedHeaderError,
    MethodNotAllowedError,
    NotFoundError,
    UnknownServiceError,
)
from bridge.ingress import documents, problem
from bridge.ingress.answer import JSON, OK, render
from bridge.ingress.ask import Ingress, Limits, names
from bridge.ingress.headers import check_accept, parse_prefer
from bridge.ingress.lanes import Followers, Lanes
from bridge.ingress.post import Front, count
from bridge.kafka import Config, open_producer, open_reader
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
        async with (
            open_producer(config, grace_s=limits.grace_s, on_down=lanes.doubt) as producer,
            open_reader(config) as reader,
            asyncio.TaskGroup() as tasks,
        ):
            ingress = Ingress(
                producer=producer, reader=reader, lanes=lanes, limits=limits, chance=chance
            )
            ingress.followers = Followers(config, ingress.take)
            holding = tasks.create_task(lanes.run(producer, ingress.take, probe_s=probe_s))
            app.state.release = ingress.release
            yield {"ingress": ingress}
            ingress.release()
            holding.cancel()

    app = Starlette(
        lifespan=lifespan,
        routes=_routes(Routes(services)),
        exception_handlers={
            BridgeError: _on_problem,
            HTTPException: _on_http,
            ClientDisconnect: _on_disconnect,
            Exception: _on_bug,
        },
    )
    app.state.release = lambda: None  # called on SIGTERM, perhaps before the lifespan has begun
    app.add_middleware(Front, services=services, limits=limits)
    return app


def _routes(routes: "Routes") -> list[Route]:
    return [
        Route("/v1/services/{service}/requests", routes.post, methods=["POST"]),
        Route("/v1/services/{service}/requests/{request_id}", routes.get, methods=["GET"]),
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

    def __init__(self, services: Mapping[str, Service]) -> None:
        self._services = services
        self._openapi = msgspec.json.encode(documents.openapi(services))
        self._page = documents.page(services)
        self._schemas = documents.schemas(services)

    async def post(self, request: Request) -> Response:
        """Take a request: `Front` does, before it comes here; here is what other methods miss."""
        raise UnknownServiceError(f"no service in {request.scope['path'][:200]!r}")

    async def get(self, request: Request) -> Response:
        """Tell the state of a request, and its reply when it has one."""
        service = self._service(request)
        ingress = ingress_of(request)
        check_accept(request.headers.get("accept"))
        request_id = request.path_params["request_id"]
        preference = parse_prefer(
            request.headers.get("prefer"), max_wait_s=ingress.limits.max_wait_s
        )
        where = _where(request, request_id)
        try:
            log = await ingress.find(service, request_id, where, wait_s=preference.wait_s or 0.0)
            response = render(service, request_id, log)
        except BridgeError as error:
            response = problem.render(error, request_id=request_id)
        if preference.applied:
            response.headers["Preference-Applied"] = preference.applied
        count(service.name, response.status_code).inc()
        return response

    async def directory(self, _: Request) -> Response:
        """List the services."""
        found = [documents.describe(service) for service in self._services.values()]
        return _json({"services": found})

    async def service(self, request: Request) -> Response:
        """Describe one service with its schemas."""
        service = self._service(request)
        return _json({**documents.describe(service), **documents.contracts(service)})

    async def schema(self, request: Request) -> Response:
        """Give a schema by ID, in the form of the Confluent registry."""
        wanted = request.path_params["schema_id"]
        found = self._schemas.get(int(wanted)) if wanted.isdigit() and len(wanted) <= 10 else None  # noqa: PLR2004
        if found is None:
            return _json({"error_code": 40403, "message": "Schema not found"}, status=404)
        return _json({"schema": found})

    async def healthz(self, _: Request) -> Response:
        """Tell that the process lives; never depends on Kafka."""
        return _json({"status": "alive"})

    async def readyz(self, request: Request) -> Response:
        """Tell whether a request can be taken now."""
        ingress = ingress_of(request)
        reason = "it is stopping" if ingress.is_stopping else ingress.lanes.trouble
        if reason is None:
            return _json({"status": "ready"})
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
            raise UnknownServiceError(
                f"no service {name[:100]!r}: there are {names(list(self._services))}"
            )
        return service


def ingress_of(request: Request) -> Ingress:
    """Read the lifespan's state; ASGI leaves it untyped."""
    return cast(Ingress, request.scope["state"]["ingress"])


def _where(request: Request, request_id: str) -> ids.Address | None:
    """Say where the log of an ID starts: the ID tells, or the query does for a foreign one."""
    query = request.query_params
    if "partition" not in query and "since_ms" not in query:
        return ids.parse(request_id)
    partition, since_ms = query.get("partition", ""), query.get("since_ms", "")
    if not (partition.isdigit() and since_ms.isdigit() and len(partition + since_ms) <= 20):  # noqa: PLR2004
        raise MalformedHeaderError(
            "want ?partition=NUMBER&since_ms=UNIX_MILLISECONDS, both: an ID that the bridge did "
            "not make says neither its lane nor its time"
        )
    return ids.Address(time_ms=int(since_ms), lane=int(partition))


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
