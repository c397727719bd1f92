"""Exactly once: answers, dead letters and the offsets that they stand for, one transaction a batch.

While one transaction is under way the next batch gathers: at one record at a time each has its own,
under load hundreds share one, and a transaction costs about 5 ms whatever its size.

Every transaction carries the position of each partition that it answers for, moved or not. So Kafka
refuses the answers of a worker that is no member any more, and a new owner, which asks for committed
offsets and waits until none is pending, finds every answer of its predecessor when it reads the
lanes back. Records that finish out of order are therefore answered once, too.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from bridge.envelope import Record
from bridge.errors import BridgeError, OperatorError, SettingsError
from bridge.kafka import Committed, Group, NotCommitted, Place, Position, Transactions
from bridge.worker.partition import Partition

_log = structlog.get_logger("bridge.worker")

MOST = 500
"""Records answered in one transaction."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0


@dataclass(frozen=True, slots=True, eq=False)
class _Item:
    """One finished record, and who waits for its transaction."""

    partition: Partition
    offset: int
    records: Sequence[Record]
    done: "asyncio.Future[bool]"


class Together:
    """Writes what belongs together; owned by a worker, used in its event loop.

    Args:
        transactions: Writes one after the other.
        group: The membership; None: it has not begun.
        now_ms: Broker time, Unix milliseconds.
    """

    def __init__(
        self,
        transactions: Transactions,
        group: Callable[[], Group | None],
        now_ms: Callable[[], int],
    ) -> None:
        self._transactions = transactions
        self._group = group
        self._now_ms = now_ms
        self._waiting: deque[_Item] = deque()
        self._something = asyncio.Event()
        self._pause_s = 0.0
        self.is_idle = True

    async def finish(self, partition: Partition, offset: int, records: Sequence[Record]) -> bool:
        """Write the records of one finished request, and commit its offset, all or nothing.

        Returns:
            Whether it is done. False: the partition is another's, and nothing is visible.

        Raises:
            BodyTooLargeError, TopicError: Kafka does not take one of the records; nothing of it is
                visible.
        """
        done = asyncio.get_running_loop().create_future()
        self._waiting.append(_Item(partition, offset, records, done))
        self._something.set()
        return await asyncio.shield(done)

    async def run(self) -> None:
        """Write batch after batch until cancelled.

        Raises:
            OperatorError: Kafka does not let this process write transactions.
        """
        while True:
            await self._something.wait()
            self.is_idle = False
            batch = self._take()
            if batch:
                await self._write(batch)
            if not self._waiting:
                self._something.clear()
                self.is_idle = True

    def _take(self) -> list[_Item]:
        """Take what is still ours; the rest is told that it is not."""
        batch: list[_Item] = []
        while self._waiting and len(batch) < MOST:
            item = self._waiting.popleft()
            if item.done.cancelled():
                continue
            if item.partition.is_gone:
                item.done.set_result(False)
            else:
                batch.append(item)
        return batch

    async def _write(self, batch: list[_Item]) -> None:
        group = self._group()
        metadata = None if group is None else group.metadata
        if (
            group is None or metadata is None
        ):  # between two memberships: the partitions come back, or are lost
            await self._again(batch, "no member of the group")
            return
        positions = self._foresee(batch)
        records = [record for item in batch for record in item.records]
        try:
            outcome = await self._transactions.commit(records, positions, metadata)
        except SettingsError as refused:
            raise OperatorError(str(refused)) from None
        if isinstance(outcome, Committed):
            group.committed(positions)
            self._settle(batch, positions)
        elif isinstance(outcome, NotCommitted):
            await self._again(self._without(batch, outcome.refused), outcome.why)
        else:  # what is another's is told so by the group, in a moment; the rest waits for that
            await self._again(batch, outcome.why)

    def _foresee(self, batch: Sequence[_Item]) -> dict[Place, Position]:
        finished: dict[Partition, set[int]] = {}
        for item in batch:
            finished.setdefault(item.partition, set()).add(item.offset)
        now_ms = self._now_ms()
        return {
            partition.place: partition.foresee(offsets, now_ms)
            for partition, offsets in finished.items()
        }

    def _settle(self, batch: Sequence[_Item], positions: dict[Place, Position]) -> None:
        self._pause_s = 0.0
        for item in batch:
            position = positions[item.partition.place]
            item.partition.asked = item.partition.committed = position
            if not item.done.done():
                item.done.set_result(True)

    def _without(
        self, batch: Sequence[_Item], refused: Sequence[tuple[Record, BridgeError]]
    ) -> list[_Item]:
        """Tell those whose records Kafka does not take; return the others."""
        why = {id(record): error for record, error in refused}
        left = []
        for item in batch:
            error = next((why[id(record)] for record in item.records if id(record) in why), None)
            if error is None:
                left.append(item)
            elif not item.done.done():
                item.done.set_exception(error)
        if refused:  # nothing is wrong with Kafka
            self._waiting.extendleft(reversed(left))
            return []
        return left

    async def _again(self, batch: Sequence[_Item], why: str) -> None:
        """Put a batch back in front, and wait a moment."""
        if not batch:
            return
        self._waiting.extendleft(reversed(batch))
        self._pause_s = min(_LONGEST_PAUSE_S, max(_FIRST_PAUSE_S, 2 * self._pause_s))
        _log.warning("not-committed", why=why, records=len(batch), pause_s=self._pause_s)
        await asyncio.sleep(self._pause_s)
