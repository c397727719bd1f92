"""A job becomes an answer: the reply in one body, or its events as they come.

With an `Idempotency-Key` the job is written only if the key stands for it; else its client gets the
answer of the request that the key stands for.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from functools import cache, partial

import msgspec
from prometheus_client import Histogram
from starlette.responses import Response
from starlette.types import Receive

from bridge import ids, metrics
from bridge.claims import Ruling
from bridge.errors import BridgeError, BrokerDownError, DrainingError, OutcomeUnknownError
from bridge.ingress import problem
from bridge.ingress.answer import location, render
from bridge.ingress.ask import Ingress
from bridge.ingress.events import Stream, Wanted
from bridge.ingress.head import Head
from bridge.ingress.job import Job
from bridge.ingress.join import where_of
from bridge.ingress.media import Media
from bridge.ingress.stream import EventResponse

REPLAYED = "Idempotency-Replayed"


@cache
def _seconds(service: str) -> Histogram:
    return metrics.ANSWER_SECONDS.labels(service)


async def respond(
    ingress: Ingress, job: Job, head: Head, receive: Receive
) -> Response | EventResponse:
    """Answer a `POST`; every way to fail is an answer too.

    Args:
        ingress: Who asks on the client's behalf.
        job: What the client asks for; not written yet.
        head: How it wants its answer.
        receive: Tells when it leaves.
    """
    ruling, request_id = None, job.request.request_id
    key = head.claim_key(job.service)
    try:
        if head.media.is_stream and ingress.is_draining:  # before the key stands for a request
            raise DrainingError("this replica is stopping: ask again, another one streams it")
        if key is not None:
            ruling = await ingress.claims.settle(job, key)
            request_id = ruling.request_id
        if head.media.is_stream:
            return _stream(ingress, job, ruling, head.media)
        with _seconds(job.service.name).time() if job.wait_s > 0 else nullcontext():
            log = await ingress.write(job, ruling, receive)
        response = render(job.service, request_id, log, head.media)
    except BridgeError as error:
        response = _fail(ingress, job, request_id, error)
    if request_id != job.request.request_id:
        response.headers[REPLAYED] = "true"
    return response


def _stream(ingress: Ingress, job: Job, ruling: Ruling | None, media: Media) -> EventResponse:
    """Answer with the events of a request, which is written, or joined, when the answer begins."""
    if ruling is None or ingress.claims.is_own(job, ruling):
        request_id, headers = job.request.request_id, {}
        opening = partial(_open_new, ingress, job, ruling)
    else:
        request_id, headers = ruling.request_id, {REPLAYED: "true"}
        opening = partial(_open_joined, ingress, job, ruling)
    return EventResponse(
        job.service,
        request_id,
        media,
        opening=opening,
        refuse=partial(_fail, ingress, job, request_id),
        headers={"Location": location(job.service, request_id), **headers},
    )


@asynccontextmanager
async def _open_new(
    ingress: Ingress, job: Job, ruling: Ruling | None, receive: Receive
) -> AsyncIterator[Stream]:
    async def write() -> None:
        await ingress.write(msgspec.structs.replace(job, wait_s=0.0), ruling)

    request_id = job.request.request_id
    sought = ingress.lookups.seek(job.service, request_id, ids.parse(request_id))
    wanted = Wanted(sought, principal=job.request.principal)
    async with ingress.streams.open_new(wanted, write, receive) as stream:
        yield stream


@asynccontextmanager
async def _open_joined(
    ingress: Ingress, job: Job, ruling: Ruling, receive: Receive
) -> AsyncIterator[Stream]:
    """Stream another one's request, once there is a sign of it; a lost one is written again."""
    await ingress.joins.join(msgspec.structs.replace(job, wait_s=0.0), ruling)
    sought = ingress.lookups.seek(job.service, ruling.request_id, where_of(ruling), is_claimed=True)
    wanted = Wanted(sought, principal=job.request.principal)
    async with ingress.streams.open(wanted, receive) as stream:
        yield stream


def _fail(ingress: Ingress, job: Job, request_id: str, error: BridgeError) -> Response:
    """Say why a request was not taken, or that nobody knows."""
    if isinstance(error, BrokerDownError | OutcomeUnknownError):
        ingress.lanes.doubt()
    response = problem.render(error, request_id=request_id)
    if error.outcome == "unknown":  # it may yet be found: say where
        response.headers["Location"] = location(job.service, request_id)
    return response
