"""Lanes that were placed anew: what was written meanwhile is found, and nothing else is believed."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from starlette.types import Message

from bridge import ids
from bridge.cli.topics import shapes_of
from bridge.envelope import Event, Record, Request, make_reply
from bridge.ingress.events import Stream, Streams, Wanted
from bridge.ingress.lanes import Followers, Lanes
from bridge.ingress.limits import Limits
from bridge.ingress.look import Lookups
from bridge.ingress.room import Room
from bridge.kafka import (
    Producer,
    Shape,
    apply_topics,
    describe_topics,
    open_lanes,
    open_producer,
    open_reader,
)
from bridge.registry import load_services
from bridge.service import Service
from tests.stack import open_stack, until

pytestmark = pytest.mark.timeout(120)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def wait(condition: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(until, condition, timeout_s=30, what=what)


@dataclass
class Front:
    """What an ingress finds and follows requests with."""

    service: Service
    room: Room
    lanes: Lanes
    producer: Producer
    lookups: Lookups
    streams: Streams

    @asynccontextmanager
    async def holding(self) -> AsyncIterator[None]:
        """Hold the own lane for as long as the block; then its reader is given up."""
        running = self.lanes.run(self.producer, self.room.take, self.room.miss, probe_s=60)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(running)
            topic = self.service.replies_topic
            await wait(
                lambda: self.lanes.trouble is None and self.lanes.is_own(topic, 0), "it is ready"
            )
            yield
            task.cancel()

    def request(self, deadline_s: float) -> Request:
        return Request(
            request_id=ids.make(time_ms=now_ms(), lane=0, chance=secrets.randbits(62)),
            reply_to=self.service.replies_topic,
            reply_partition=0,
            deadline_ms=now_ms() + int(deadline_s * 1000),
        )

    async def write(self, request: Request, event: Event) -> None:
        """Write an event as a worker or another ingress does."""
        await self.producer.route(0)(make_reply(request, event))

    def wanted(self, request: Request) -> Wanted:
        where = ids.parse(request.request_id)
        return Wanted(self.lookups.seek(self.service, request.request_id, where))


async def receive() -> Message:
    """Hear nothing: the client stays."""
    await asyncio.Event().wait()
    return {}


@pytest.fixture
async def front(kafka: str, tmp_path: Path) -> AsyncIterator[Front]:
    config = {"bootstrap.servers": kafka}
    with open_stack(kafka, tmp_path, f"-{secrets.token_hex(4)}") as stack:
        stack.copy_services("echo")
        services = load_services(stack.schemas)
        await apply_topics(config, shapes_of(services))
        service = services[stack.name("echo")]
        lanes, room = Lanes(config, services, (0,), secrets.token_hex(4), now_ms), Room(10)
        followers = Followers(config, room.take, room.miss)
        async with open_producer(config) as producer, open_reader(config) as reader:
            lookups = Lookups(
                reader=reader,
                producer=producer,
                lanes=lanes,
                followers=followers,
                room=room,
                limits=Limits(),
                healed_ms=lambda _: None,
            )
            streams = Streams(reader, followers, room, lookups, keep_alive_s=0.5)
            yield Front(service, room, lanes, producer, lookups, streams)


async def make_anew(kafka: str, shapes: list[Shape]) -> None:
    """Delete the first topic and make it again."""
    admin = AdminClient({"bootstrap.servers": kafka})
    for deleted in admin.delete_topics([shapes[0].name]).values():
        deleted.result(20)
    while shapes[0].name in await describe_topics({"bootstrap.servers": kafka}):
        pass  # the broker takes a moment
    await apply_topics({"bootstrap.servers": kafka}, shapes)


async def tell(stream: Stream) -> list[str]:
    """Return the names of what a stream still tells."""
    told: list[str] = []
    async with asyncio.timeout(20):
        while not stream.is_over:
            told += [str(each.reply.event) for each in await stream.more()]
    return told


@pytest.mark.parametrize("deadline_s", [100, -4.5], ids=["in time", "about to expire"])
async def test_a_stream_tells_the_end_that_came_while_its_lane_was_not_followed(
    front: Front, deadline_s: float
) -> None:
    request = front.request(deadline_s)
    async with front.holding():
        await front.write(request, Event.ACCEPTED)
        stack = front.streams.open(front.wanted(request), receive)
        stream = await stack.__aenter__()
        begun = [str(each.reply.event) for each in await stream.more()]
    await front.write(request, Event.COMPLETED)
    async with front.holding():
        told = await tell(stream)
    await stack.__aexit__(None, None, None)

    assert (begun, told) == (["accepted"], ["completed"])


async def test_who_waits_gets_the_reply_that_came_while_its_lane_was_not_followed(
    front: Front,
) -> None:
    request = front.request(100)
    async with asyncio.TaskGroup() as tasks:
        async with front.holding():
            await front.write(request, Event.ACCEPTED)
            where = ids.parse(request.request_id)
            finding = tasks.create_task(
                front.lookups.find(
                    front.service, request.request_id, where, principal=None, wait_s=6
                )
            )
            await wait(lambda: len(front.room) == 1, "it waits")
        await front.write(request, Event.COMPLETED)
        async with front.holding():
            log = await finding

    assert log.state == "completed"


async def test_a_lane_whose_topic_was_made_anew_goes_on_and_the_others_miss_nothing(
    kafka: str,
) -> None:
    config = {"bootstrap.servers": kafka}
    names = [f"t-{secrets.token_hex(6)}" for _ in range(2)]
    shapes = [Shape(name=name, partitions=1) for name in names]
    await apply_topics(config, shapes)
    taken: dict[str, list[bytes | None]] = {name: [] for name in names}
    gaps: list[int] = []

    def take(records: list[Record]) -> None:
        for record in records:
            taken[record.topic].append(record.value)

    async def write(producer: Producer, name: str, value: bytes) -> None:
        await producer.route(0)(Record(topic=name, key=b"k", value=value, partition=0))

    remade, quiet = names
    async with open_producer(config) as producer:
        for _ in range(5):
            await write(producer, remade, b"old")
        lanes = [(name, 0) for name in names]
        async with open_lanes(config, lanes, take, lambda: gaps.append(len(taken[quiet]))):
            await make_anew(kafka, shapes)
            written = 0
            async with asyncio.timeout(60):
                while b"new" not in taken[remade]:
                    await write(producer, quiet, b"%d" % written)
                    written += 1
                    if gaps:
                        await write(producer, remade, b"new")
            await wait(lambda: len(taken[quiet]) == written, "all are delivered")

    print(f"\n{written} records in the other lane, {len(gaps)} gaps")
    assert taken[quiet] == [b"%d" % number for number in range(written)]
    assert b"old" not in taken[remade]
