"""Cancelling: the last event `cancelled` is written, and the lane says whether it came first."""

import asyncio
from functools import partial

import structlog

from bridge import ids
from bridge.cancels import make_cancel
from bridge.envelope import Event, Request, make_reply
from bridge.errors import AlreadyEndedError, BridgeError, OutcomeUnknownError
from bridge.ingress.ask import ACKNOWLEDGE_S, HAND_OFF_S, Ingress, await_written
from bridge.kafka import Producer
from bridge.service import Service

_log = structlog.get_logger("bridge.ingress")


async def cancel(
    ingress: Ingress,
    service: Service,
    request_id: str,
    where: ids.Address | None,
    *,
    principal: str | None,
) -> None:
    """End a request as cancelled, unless it has ended otherwise.

    Afterwards `cancelled` is the request's end for every reader, and workers are told. Doing it
    again changes nothing: the workers are told again, in case that failed the first time.

    Args:
        ingress: Where it is asked for; any replica will do.
        service: Whose request.
        request_id: Its name.
        where: Where its log starts; None: nobody knows, the ID is not ours.
        principal: Who asks; another's request is unknown. None: nobody is told apart.

    Raises:
        AlreadyEndedError: Another last event came first.
        OutcomeUnknownError: It may be cancelled, now or later: ask again.
        UnknownRequestError, GoneError, UnavailableError, TopicError: As a look-up.
    """
    find = partial(ingress.lookups.find, service, request_id, where, principal=principal, wait_s=0)
    log = await find()
    if log.last is None and where is not None:
        request = Request(
            request_id=request_id,
            reply_to=service.replies_topic,
            reply_partition=where.lane,
            generation=log.generation,
            principal=principal or (log.accepted.principal if log.accepted else None),
        )
        written = ingress.producer.route(0)(make_reply(request, Event.CANCELLED))
        await await_written(written, ACKNOWLEDGE_S)
        log = await find()
    if log.last is None:  # a new leader of the lane may not show its latest records for a moment
        raise OutcomeUnknownError("the reply log does not show it yet: ask again")
    if log.last.event is not Event.CANCELLED:
        raise AlreadyEndedError(log.state)
    await _tell_workers(ingress.producer, service, request_id, log.last.generation)


async def _tell_workers(
    producer: Producer, service: Service, request_id: str, generation: int
) -> None:
    """Spare the workers the work; the request is cancelled whether they hear of it or not."""
    try:
        async with asyncio.timeout(HAND_OFF_S):
            await producer.route(0)(make_cancel(service.name, request_id, generation))
    except (TimeoutError, BridgeError) as trouble:
        _log.warning("workers-not-told", request_id=request_id, why=str(trouble))
