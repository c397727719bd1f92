"""Writing dead letters again: read once more, a few at a time, and copied.

What is held does not grow with the letters. Nothing is kept of a redrive but what it has written:
one that dies has written some copies whole and others not at all, and the next one finds which.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

from bridge import dead
from bridge.envelope import Event, Record, Request, make_reply
from bridge.errors import BridgeError, OutcomeUnknownError
from bridge.kafka import Config, Reader, Send, open_producer
from bridge.redrive import Letter, make_copy
from bridge.service import Service

PROBE_ID = "probe-redrive"
_CHUNK, _CHUNK_BYTES = 100, 8 * 1024 * 1024
"""Letters in hand at once; of large ones fewer."""

Told = Callable[[str, int, int | None], None]
"""Told how far it is: what is being done, how many are done, of how many; None: not known yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What an operator asks to be redriven.

    Attributes:
        request_id: This one only; None: any.
        reason: Those with this reason only; None: any.
        replay_id: Names the redrive.
        is_dry: Whether nothing is written.
        is_unknown_taken: Whether also those go of which it is not on record whether they went
            before.
        rate: Records a second at the most; None: as fast as Kafka takes them.
    """

    request_id: str | None = None
    reason: str | None = None
    replay_id: str
    is_dry: bool = False
    is_unknown_taken: bool = False
    rate: float | None = None


class Writing:
    """Writes copies of letters: in the order of their partition, a few in hand at a time."""

    def __init__(
        self, reader: Reader, service: Service, order: Order, told: Told, total: int
    ) -> None:
        self._reader = reader
        self._service = service
        self._order = order
        self._told = told
        self._total = total
        self._sent = self._written = 0
        self._began_s = 0.0

    async def run(
        self, config: Config, going: Sequence[Letter], own_ms: Callable[[], int]
    ) -> list[Letter]:
        """Write all; returns those that were gone when they were to be read again.

        Raises:
            OutcomeUnknownError: Some are written, and some not.
        """
        lost: list[Letter] = []
        by_place = sorted(going, key=lambda each: (each.partition, each.offset))
        try:
            async with open_producer(config, largest_bytes=dead.MAX_RECORD_BYTES) as producer:
                skew_ms = await self._learn_skew(producer.route(0), own_ms)
                send = producer.route(self._total)
                self._began_s = asyncio.get_running_loop().time()
                for partition, letters in groupby(by_place, key=attrgetter("partition")):
                    left = {each.offset: each for each in letters}
                    while left:
                        records, end = await self._read(partition, list(left))
                        await self._write(send, records, left, own_ms() + skew_ms)
                        found = {record.offset for record in records}
                        taken = [offset for offset in left if offset <= end]
                        lost += [left[offset] for offset in taken if offset not in found]
                        left = {offset: each for offset, each in left.items() if offset > end}
        except BridgeError as trouble:
            raise OutcomeUnknownError(
                f"stopped after {self._written} of {self._total}: {trouble}; run it again: what is "
                "written already is found and passed over"
            ) from trouble
        return lost

    async def _learn_skew(self, send: Send, own_ms: Callable[[], int]) -> int:
        """Ask for the broker's time by a probe where the answers of replays go."""
        topic = self._service.replay_replies_topic
        probe = Request(request_id=PROBE_ID, reply_to=topic, reply_partition=0)
        placed = await send(make_reply(probe, Event.PROBE))
        return placed.timestamp_ms - own_ms() if placed.is_broker_time else 0

    async def _read(self, partition: int, offsets: list[int]) -> tuple[list[Record], int]:
        """Read the next letters; with a rate, no more than go in a second."""
        rate = self._order.rate
        size = _CHUNK if rate is None else max(1, min(_CHUNK, int(rate)))
        return await read_chunk(self._reader, (self._service.dead_topic, partition), offsets[:size])

    async def _write(
        self, send: Send, records: list[Record], letters: dict[int, Letter], now_ms: int
    ) -> None:
        """Write copies, none before its turn, and await that all are acknowledged."""
        loop = asyncio.get_running_loop()
        sent = []
        for record in records:
            if self._order.rate is not None:
                due_s = self._began_s + self._sent / self._order.rate
                await asyncio.sleep(max(0.0, due_s - loop.time()))
            copy = make_copy(
                record,
                letters[record.offset],
                topic=self._service.replay_topic,
                replay_id=self._order.replay_id,
                deadline_ms=now_ms + int(self._service.deadline_s * 1000),
            )
            sent.append(send(copy))
            self._sent += 1
        if sent:
            await asyncio.wait(sent)
        troubles = [trouble for each in sent if (trouble := each.exception()) is not None]
        self._written += len(sent) - len(troubles)
        self._told("redriving", self._written, self._total)
        if troubles:
            raise troubles[0]


async def read_chunk(
    reader: Reader, lane: tuple[str, int], offsets: list[int]
) -> tuple[list[Record], int]:
    """Read records of a partition, until they are as many bytes as may be in hand.

    Args:
        reader: Reads them.
        lane: Topic and partition.
        offsets: Which, ascending.

    Returns:
        Those that are there, and how far has been read: a wanted one up to there that is not among
        them is gone.
    """
    wanted, records, held = set(offsets), [], 0

    def take(record: Record) -> bool:
        nonlocal held
        if record.offset in wanted:
            records.append(record)
            held += len(record.value or b"") + len(record.key or b"")
        return record.offset >= offsets[-1] or held >= _CHUNK_BYTES

    await reader.read_on(lane, offsets[0], is_enough=take)
    is_cut = held >= _CHUNK_BYTES
    return records, records[-1].offset if is_cut else offsets[-1]
