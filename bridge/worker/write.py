"""Writing what must not be lost: patiently, for as long as it is wanted."""

import asyncio
from collections.abc import Callable

import structlog

from bridge.envelope import Record
from bridge.errors import BodyTooLargeError, BridgeError, TopicError
from bridge.kafka import Placed, Send

_log = structlog.get_logger("bridge.worker")

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0


def always() -> bool:
    """Want it for as long as it takes."""
    return True


async def write(
    send: Send,
    record: Record,
    *,
    event: str,
    request_id: str | None,
    is_wanted: Callable[[], bool] = always,
    is_patient: bool = False,
) -> Placed | None:
    """Write a record, again and again while Kafka does not take it.

    Args:
        send: A producer's route.
        record: What is written.
        event: What a log line says when it is not.
        request_id: For the log.
        is_wanted: Asked after every failure.
        is_patient: Wait even for a topic that is not there, or that must not be written to.

    Returns:
        Where it lies; None: it is not wanted any more, and may be written or not.

    Raises:
        BodyTooLargeError: It is larger than Kafka takes; not written.
        TopicError: Its topic or partition does not exist, and `is_patient` is not set; not written.
    """
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            return await send(record)
        except BodyTooLargeError:
            raise
        except BridgeError as trouble:
            if isinstance(trouble, TopicError) and not is_patient:
                raise
            log = _log.error if is_patient else _log.warning
            log(event, request_id=request_id, topic=record.topic, why=str(trouble))
        if not is_wanted():
            return None
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
