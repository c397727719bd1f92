"""What one ingress process is made of, opened and closed together."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass

import structlog

from bridge.ingress.ask import Ingress
from bridge.ingress.claims import Claims
from bridge.ingress.events import Streams
from bridge.ingress.index import Index
from bridge.ingress.lanes import Followers, Lanes
from bridge.ingress.limits import Limits
from bridge.ingress.load import Load
from bridge.ingress.look import Lookups
from bridge.ingress.room import Room
from bridge.kafka import (
    Config,
    Producer,
    Reader,
    delivery_timeout_ms,
    open_groups,
    open_producer,
    open_reader,
)

_log = structlog.get_logger("bridge.ingress")

FLUSH_S = 1.0
"""Kafka has at least so long to acknowledge what was sent, also when the grace time is over."""


@dataclass(frozen=True, slots=True)
class _Clients:
    config: Config
    producer: Producer
    reader: Reader
    index: Index


@asynccontextmanager
async def open_ingress(
    config: Config,
    lanes: Lanes,
    limits: Limits,
    *,
    chance: Callable[[], int],
    probe_s: float,
) -> AsyncIterator[Ingress]:
    """Open Kafka clients and hold the lanes for as long as the block.

    Args:
        config: librdkafka settings.
        lanes: Own lanes and broker time.
        limits: What is granted.
        chance: Draws 62 random bits.
        probe_s: Seconds between probes of the own lanes.
    """
    with closing(Index(limits.claims_dir)) as index:
        async with (
            open_producer(config, grace_s=limits.grace_s, on_down=lanes.doubt) as producer,
            open_reader(config) as reader,
            open_groups(config) as groups,
            asyncio.TaskGroup() as tasks,
        ):
            clients = _Clients(config, producer, reader, index)
            room = Room(limits.waiters)
            ingress = _assemble(clients, lanes, room, limits, chance)
            beside = {
                "lanes": lanes.run(producer, room.take, room.miss, probe_s=probe_s),
                "load": ingress.load.run(groups),
                "claims": ingress.claims.run(config),
                "room": room.watch(),
            }
            running = [tasks.create_task(keep(name, each)) for name, each in beside.items()]
            yield ingress
            ingress.release()
            producer.grace_s = max(FLUSH_S, ingress.left_s)
            for task in running:
                task.cancel()


async def keep(name: str, running: Awaitable[None]) -> None:
    """Wait for what runs beside the requests; when it breaks, stop the process.

    Without it no request could be served, and the process would look alive all the same. It stops as
    on SIGTERM: who waits is answered, or told where the reply will be, and whoever started it, starts
    another one.
    """
    try:
        await running
    except Exception as bug:  # noqa: BLE001 - of whatever kind
        _log.critical("ingress-broke", task=name, exc_info=bug)
        os.kill(os.getpid(), signal.SIGTERM)


def _assemble(
    clients: _Clients, lanes: Lanes, room: Room, limits: Limits, chance: Callable[[], int]
) -> Ingress:
    load = Load(lanes.services, lanes, chance=chance, no_worker_s=limits.no_worker_s)
    claims = Claims(
        producer=clients.producer,
        load=load,
        room=room,
        index=clients.index,
        heal_after_ms=2 * delivery_timeout_ms(clients.config),
    )
    followers = Followers(clients.config, room.take, room.miss)
    lookups = Lookups(
        reader=clients.reader,
        producer=clients.producer,
        lanes=lanes,
        followers=followers,
        room=room,
        limits=limits,
        healed_ms=clients.index.healed_ms,
    )
    return Ingress(
        producer=clients.producer,
        load=load,
        claims=claims,
        room=room,
        streams=Streams(clients.reader, followers, room, lookups, keep_alive_s=limits.keep_alive_s),
        limits=limits,
        chance=chance,
    )
