"""What tests of transactions share: topics, a group, and a member of it that works on nothing."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import confluent_kafka as ck

from bridge.envelope import Record
from bridge.kafka import (
    Assigned,
    Config,
    Group,
    GroupMetadata,
    Place,
    Position,
    Shape,
    apply_topics,
    open_group,
    open_reader,
)

PARTITIONS = 3
TOO_LARGE = b"x" * 1_100_000
"""More than the producer takes: what has it among its records is aborted."""


@dataclass
class Member:
    """Owns what it is given, and works on nothing."""

    group: Group
    owned: dict[Place, Position | None]
    told: asyncio.Event
    is_held: bool = False

    def assigned(self, partitions: Sequence[Assigned]) -> None:
        self.owned.update({one.place: one.position for one in partitions})
        self.told.set()

    async def revoked(self, places: Sequence[Place]) -> Mapping[Place, Position]:
        self.lost(places)
        return {}

    def lost(self, places: Sequence[Place]) -> None:
        for place in places:
            del self.owned[place]

    def committed(self, positions: Mapping[Place, Position], why: str | None) -> None:
        """Commits are transactions here."""

    def take(self, records: list[Record]) -> None:
        """There are none."""

    @property
    def metadata(self) -> GroupMetadata:
        assert self.group.metadata is not None
        return self.group.metadata


@dataclass(frozen=True)
class Bench:
    """Topics and a group of one test, and a member that owns the input."""

    config: Config
    name: str
    member: Member
    leave: Callable[[], Awaitable[None]]

    @property
    def place(self) -> Place:
        return (f"{self.name}.in", 0)

    def at(self, offset: int, note: str = "1 17") -> dict[Place, Position]:
        return {self.place: Position(offset, note)}

    def record(self, value: bytes, partition: int = 0) -> Record:
        headers = [("bridge-event", b"completed")]
        return Record(
            topic=f"{self.name}.out", key=b"k", value=value, headers=headers, partition=partition
        )

    async def read(self, count: int) -> list[Record]:
        """Read all that is committed, once there is so much of it, to the end of every partition.

        Kafka answers a commit when it is decided; readers see it when its markers are written.
        """
        async with asyncio.timeout(20):
            while len(found := await self._read()) < count:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.05)
        return found

    async def _read(self) -> list[Record]:
        found: list[Record] = []

        def take(record: Record) -> bool:
            found.append(record)
            return False

        async with open_reader(self.config) as reader:
            places = [(f"{self.name}.out", number) for number in range(PARTITIONS)]
            await reader.read(places, since_ms=0, is_enough=take)
        return found

    async def values(self, count: int) -> list[bytes | None]:
        return [record.value for record in await self.read(count)]

    async def committed(self) -> tuple[int, str]:
        """Ask Kafka itself: the offset, and the metadata as they are."""
        (found,) = await asyncio.to_thread(self._committed)
        return found.offset, found.metadata or ""

    def _committed(self) -> list[ck.TopicPartition]:
        consumer = ck.Consumer({**self.config, "group.id": self.name})
        try:
            return consumer.committed([ck.TopicPartition(*self.place)], timeout=10)
        finally:
            consumer.close()


@asynccontextmanager
async def open_member(config: Config, name: str) -> AsyncIterator[Member]:
    # The group comes after its member, of which it is told before anything is assigned.
    member = Member(None, {}, asyncio.Event())  # type: ignore[arg-type]
    async with open_group(config, name, f"{name}.in", member) as group:
        member.group = group
        yield member


@asynccontextmanager
async def open_bench(kafka: str) -> AsyncIterator[Bench]:
    config: Config = {"bootstrap.servers": kafka}
    name = f"txn-{secrets.token_hex(6)}"
    shapes = [
        Shape(name=f"{name}.in", partitions=1),
        Shape(name=f"{name}.out", partitions=PARTITIONS),
    ]
    await apply_topics(config, shapes)
    async with AsyncExitStack() as stack:
        member = await stack.enter_async_context(open_member(config, name))
        async with asyncio.timeout(20):
            await member.told.wait()
        yield Bench(config, name, member, stack.aclose)


def new_id() -> str:
    return f"bridge.test.{secrets.token_hex(6)}"


async def wait_until(condition: Callable[[], bool], *, timeout_s: float = 20) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - other threads make it so
            await asyncio.sleep(0.02)
