"""What a worker tells whoever runs it, and how it is paused; on a port that it has only if told to.

`/healthz` never asks Kafka, or an outage there becomes a storm of restarts here. Nobody is asked who
they are, so the port belongs where only operators reach it. A browser is refused: a page that its
user looks at could press the buttons of a worker on the same machine.
"""

from collections.abc import Mapping

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bridge import metrics
from bridge.kafka import Place, dead_threads
from bridge.worker.run import Worker

_OK, _FORBIDDEN, _NOT_FOUND, _UNAVAILABLE = 200, 403, 404, 503


def make_admin(workers: Mapping[str, Worker]) -> Starlette:
    """Make the ASGI application of one worker process.

    Args:
        workers: By service.
    """
    admin = _Admin(workers)
    return Starlette(
        routes=[
            Route("/healthz", admin.healthz, methods=["GET"]),
            Route("/readyz", admin.readyz, methods=["GET"]),
            Route("/metrics", admin.metrics, methods=["GET"]),
            Route("/services", admin.services, methods=["GET"]),
            Route("/services/{service}/pause", admin.pause, methods=["POST"]),
            Route("/services/{service}/resume", admin.resume, methods=["POST"]),
        ]
    )


class _Admin:
    """The endpoints."""

    def __init__(self, workers: Mapping[str, Worker]) -> None:
        self._workers = workers

    async def healthz(self, _: Request) -> Response:
        """Tell whether this process lives: its event loop answers, its threads run."""
        dead = dead_threads()
        return _json({"alive": not dead, "dead": dead}, _UNAVAILABLE if dead else _OK)

    async def readyz(self, _: Request) -> Response:
        """Tell whether every service has its part of the work, be it none."""
        missing = {name: why for name, each in self._workers.items() if (why := _why_not(each))}
        members = {"ready": not missing, "missing": missing}
        return _json(members, _UNAVAILABLE if missing else _OK)

    async def metrics(self, _: Request) -> Response:
        """Tell figures; those that only Kafka's client knows are asked for now."""
        lags = {name: await _find_lags(worker) or {} for name, worker in self._workers.items()}
        metrics.PARTITION_LAG.clear()  # partitions that are another's by now
        for name, worker in self._workers.items():
            metrics.PAUSED.labels(name).set(worker.is_held)
            metrics.PARTITIONS.labels(name).set(len(_partitions_of(worker)))
            for (topic, partition), lag in lags[name].items():
                metrics.PARTITION_LAG.labels(name, topic, str(partition)).set(lag)
        body, media = metrics.render_worker()
        return Response(body, media_type=media)

    async def services(self, _: Request) -> Response:
        """Tell the state of each service."""
        described = [await _describe(name, worker) for name, worker in self._workers.items()]
        return _json({"services": described})

    async def pause(self, request: Request) -> Response:
        """Fetch nothing more of a service; what is in hand is finished, and the group is kept."""
        return await self._hold(request, is_held=True)

    async def resume(self, request: Request) -> Response:
        """Go on."""
        return await self._hold(request, is_held=False)

    async def _hold(self, request: Request, *, is_held: bool) -> Response:
        if "origin" in request.headers:
            return _json({"detail": "not for browsers: want no Origin header"}, _FORBIDDEN)
        name = request.path_params["service"]
        worker = self._workers.get(name)
        if worker is None:
            known = ", ".join(self._workers)
            return _json({"detail": f"no service {name} here: there are {known}"}, _NOT_FOUND)
        worker.is_held = is_held
        return _json(await _describe(name, worker))


def _why_not(worker: Worker) -> str | None:
    """Say what a worker waits for; None: it is a member, and knows its partitions."""
    if worker.group is None:
        return "it has not begun: it waits for Kafka"
    return None if worker.group.is_decided else "its group has not given it partitions yet"


def _partitions_of(worker: Worker) -> list[int]:
    """Number them; a partition of replays goes with the one of requests that has its number."""
    return sorted({partition for _, partition in worker.group.places} if worker.group else [])


async def _describe(name: str, worker: Worker) -> dict[str, object]:
    lags = await _find_lags(worker)
    return {
        "name": name,
        "paused": worker.is_held,
        "ready": _why_not(worker) is None,
        "partitions": _partitions_of(worker),
        "lag": None if lags is None else sum(lags.values()),
    }


async def _find_lags(worker: Worker) -> Mapping[Place, int] | None:
    """Find how far behind a worker is; None: it cannot be told now."""
    try:
        return None if worker.group is None else await worker.group.find_lags()
    except TimeoutError:
        return None


def _json(members: Mapping[str, object], status: int = _OK) -> Response:
    return Response(msgspec.json.encode(members), status, media_type="application/json")
