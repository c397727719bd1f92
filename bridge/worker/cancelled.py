"""What has been cancelled: `bridge.cancels`, followed by every worker process.

Sparing work is all that it is for. A worker that has not heard of a cancellation works in vain: its
last event comes after `cancelled`, and means nothing. So whatever goes wrong here is said and tried
again, and holds up nobody.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import structlog

from bridge.cancels import KEEP_S, PARTITION, TOPIC, parse_cancel
from bridge.envelope import Record
from bridge.errors import BridgeError, TopicError
from bridge.kafka import Config, open_tail
from bridge.worker.answered import Answered

_log = structlog.get_logger("bridge.worker")

BEGIN_S = 2.0
"""A worker that starts waits at most so long for what was cancelled before."""
_RETRY_S = 5.0


class Cancelled:
    """Pieces of work that were cancelled, by service; used in the event loop that follows them.

    Looking whether a piece is in `of(service)` may be done in any thread.

    Args:
        services: Whose cancellations are kept.
    """

    def __init__(self, services: Iterable[str]) -> None:
        self._known = {name: Answered(KEEP_S) for name in services}
        self._is_read = asyncio.Event()

    def of(self, service: str) -> Answered:
        """Return what was cancelled of one service; it grows while the topic is followed."""
        return self._known[service]

    async def wait_read(self) -> None:
        """Wait until what was cancelled before the start is known, for 2 s at most."""
        try:
            async with asyncio.timeout(BEGIN_S):
                await self._is_read.wait()
        except TimeoutError:
            _log.warning("cancels-not-read-yet", waited_s=BEGIN_S)

    async def follow(self, config: Config, own_ms: Callable[[], int]) -> None:
        """Follow the topic until cancelled; whatever breaks is said, waited out and tried again."""
        while True:
            since_ms = own_ms() - int(KEEP_S * 1000)
            try:
                async with open_tail(
                    config,
                    [(TOPIC, PARTITION)],
                    self._take,
                    since_ms=since_ms,
                    at_end=self._is_read.set,
                ) as lost:
                    await lost
            except BridgeError as trouble:
                _log.warning("cancels-not-followed", why=str(trouble))
                if isinstance(trouble, TopicError):  # then there is nothing to wait for
                    self._is_read.set()
            except Exception as error:  # noqa: BLE001 - it spares work; no worker shall end of it
                _log.error("cancels-broke", exc_info=error)
            await asyncio.sleep(_RETRY_S)

    def _take(self, records: list[Record]) -> None:
        for record in records:
            found = parse_cancel(record)
            if found is not None and found[0] in self._known:
                self._known[found[0]].add([found[1]], now_ms=record.timestamp_ms)


@asynccontextmanager
async def open_cancelled(
    config: Config, services: Iterable[str], *, own_ms: Callable[[], int]
) -> AsyncIterator[Cancelled]:
    """Follow what is cancelled of some services for as long as the block.

    Args:
        config: librdkafka settings.
        services: Names of services.
        own_ms: Own clock, Unix milliseconds.
    """
    cancelled = Cancelled(services)
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(cancelled.follow(config, own_ms))
        yield cancelled
        following.cancel()
