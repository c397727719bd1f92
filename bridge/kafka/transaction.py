"""Transactions: records and committed offsets become visible together, or not at all.

For workers of services with `exactly_once = true`: replies, dead letters and the positions that they
stand for. Everything that blocks runs on one thread, one transaction after the other (`writer.py`),
so an awaiter that is cancelled leaves none open: it is brought to its end all the same.

Two producers take turns. Kafka answers a commit when it is decided and writes the markers after
that; until they are written, the same producer's next transaction is put off, for 20 ms by
librdkafka (measured: 26 of 32 ms for 100 records). The other one's is not. Of offsets for one
partition that both commit the later ones stay, in whatever order their markers are written: Kafka
goes by the order in which they came.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from itertools import cycle

from bridge.envelope import Record
from bridge.kafka.client import Config
from bridge.kafka.member import GroupMetadata, Place, Position
from bridge.kafka.writer import Committed, Lost, NotCommitted, Outcome, Writer

__all__ = ["Committed", "Lost", "NotCommitted", "Outcome", "Transactions", "open_transactions"]

_IDLE_S = 1.0
"""So often an idle producer's log lines are taken off it."""


class Transactions:
    """Writes transactions, one after the other; used from the event loop that opened it.

    Args:
        writers: Do what blocks, by turns.
        thread: The one on which they do it.
    """

    def __init__(self, writers: Sequence[Writer], thread: ThreadPoolExecutor) -> None:
        self._writers = cycle(writers)
        self._thread = thread

    async def commit(
        self,
        records: Sequence[Record],
        positions: Mapping[Place, Position],
        metadata: GroupMetadata,
    ) -> Outcome:
        """Write records and commit positions, all or nothing; patient while Kafka is away.

        An awaiter that is cancelled is not told, but the transaction ends: it is brought to its end
        if it has begun, and not begun otherwise.

        Args:
            records: What becomes visible.
            positions: What becomes committed: at least one, changed or not. By it Kafka sees
                whether this process is still a member, and it tells later what became of all.
            metadata: `Group.metadata`, at the moment.

        Raises:
            SettingsError: Another process uses the same `transactional.id`, or Kafka does not
                allow it. Nothing is, or becomes, visible, unless the log says otherwise; end.
            OutcomeUnknownError: The block is left meanwhile. Whoever owns the partitions next
                finds out.
        """
        if not positions:
            raise ValueError("a transaction without a position: nothing would fence it")
        write = partial(next(self._writers).write, list(records), dict(positions), metadata)
        return await asyncio.get_running_loop().run_in_executor(self._thread, write)


@asynccontextmanager
async def open_transactions(config: Config, transactional_id: str) -> AsyncIterator[Transactions]:
    """Keep transactional producers for as long as the block.

    Entered when Kafka has ended what earlier producers of this ID had left open; patient while
    Kafka is away. Leaving the block waits for the transaction that is under way.

    Args:
        config: librdkafka settings; those in `TRANSACTIONS` are not theirs to change.
        transactional_id: `bridge.<service>.<random>`: of this process and this run alone; `.0` and
            `.1` are added. What an earlier run left behind is kept out by the group's metadata, and
            ended by Kafka in time.

    Raises:
        SettingsError: Kafka does not allow it.
    """
    loop = asyncio.get_running_loop()
    writers = [Writer(config, f"{transactional_id}.{turn}", loop.time) for turn in range(2)]
    thread = ThreadPoolExecutor(1, "transactions")
    serving: asyncio.TimerHandle | None = None
    served: Future[None] | None = None

    def serve() -> None:
        nonlocal serving, served
        if served is None or served.done():
            served = thread.submit(_serve, writers)
        serving = loop.call_later(_IDLE_S, serve)

    try:
        for writer in writers:
            await loop.run_in_executor(thread, writer.open)
        serve()
        yield Transactions(writers, thread)
    finally:
        if serving is not None:
            serving.cancel()
        for writer in writers:
            writer.leave()
        await asyncio.shield(asyncio.to_thread(thread.shutdown, cancel_futures=True))


def _serve(writers: Sequence[Writer]) -> None:
    for writer in writers:
        writer.serve()
