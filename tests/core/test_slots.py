"""Slots are dealt in turn, and replayed work steps back."""

import asyncio

from bridge.kafka import Place
from bridge.worker.slots import Slots


def is_replay(place: Place) -> bool:
    return place[0] == "replay"


class Waiters:
    """Tasks that each want a slot, and the order in which they got one."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.served: list[Place] = []

    async def take(self, place: Place) -> None:
        await self.slots.acquire(place)
        self.served.append(place)

    async def start(self, *places: Place) -> list[asyncio.Task[None]]:
        tasks = [asyncio.ensure_future(self.take(place)) for place in places]  # noqa: TID251 - ended by the test
        await asyncio.sleep(0)
        return tasks


async def test_a_partition_that_brings_many_leaves_others_their_turn() -> None:
    waiters = Waiters(Slots(1, is_replay))
    tasks = await waiters.start(*[("live", 0)] * 50, ("live", 1), ("live", 2))

    for _ in range(3):
        waiters.slots.release(waiters.served[-1])
        await asyncio.sleep(0)

    assert waiters.served == [("live", 0), ("live", 0), ("live", 1), ("live", 2)]
    for task in tasks:
        task.cancel()


async def test_who_waits_longest_is_next_where_partitions_wait_with_about_as_many() -> None:
    waiters = Waiters(Slots(1, is_replay))
    order = [("live", 0), ("live", 0), ("live", 0), ("live", 1), ("live", 1), ("live", 0)]
    tasks = await waiters.start(*order)

    for _ in order[1:]:
        waiters.slots.release(waiters.served[-1])
        await asyncio.sleep(0)

    assert waiters.served == order
    for task in tasks:
        task.cancel()


async def test_while_live_work_waits_a_quarter_at_most_is_replayed() -> None:
    waiters = Waiters(Slots(8, is_replay))
    tasks = await waiters.start(*[("replay", 0)] * 20)
    tasks += await waiters.start(*[("live", 0)] * 20)

    for _ in range(8):
        waiters.slots.release(("replay", 0))
    await asyncio.sleep(0)

    # Six of the eight went to live work; the others were within the quarter, and waited longer.
    assert waiters.served.count(("replay", 0)) == 8 + 2
    assert waiters.served.count(("live", 0)) == 6
    for task in tasks:
        task.cancel()


async def test_replayed_work_has_all_of_it_while_no_live_work_waits() -> None:
    waiters = Waiters(Slots(8, is_replay))

    tasks = await waiters.start(*[("replay", 0)] * 20)

    assert len(waiters.served) == 8
    for task in tasks:
        task.cancel()


async def test_who_is_cancelled_while_waiting_or_just_served_costs_no_slot() -> None:
    waiters = Waiters(Slots(1, is_replay))
    first, second, third = await waiters.start(("live", 0), ("live", 1), ("live", 2))
    second.cancel()
    await asyncio.sleep(0)

    waiters.slots.release(("live", 0))
    third.cancel()  # its turn has come, and it does not know yet
    await asyncio.gather(first, second, third, return_exceptions=True)  # noqa: TID251 - all are done
    last = await waiters.start(("live", 3))

    assert waiters.served == [("live", 0), ("live", 3)]
    await last[0]


async def test_who_is_cancelled_together_with_the_one_before_costs_no_slot() -> None:
    waiters = Waiters(Slots(1, is_replay))
    tasks = await waiters.start(("live", 0), ("live", 1), ("live", 1), ("live", 2))

    waiters.slots.release(("live", 0))  # the second has its turn, and does not know yet
    tasks[1].cancel()
    tasks[2].cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)  # noqa: TID251 - all are done

    assert waiters.served == [("live", 0), ("live", 2)]
    assert [type(each) for each in ended[1:3]] == [asyncio.CancelledError] * 2


async def test_a_free_slot_is_taken_at_once_unless_somebody_waits() -> None:
    slots = Slots(2, is_replay)

    assert slots.take(("live", 0))
    assert slots.take(("replay", 0))
    assert not slots.take(("live", 0))
    waiting = await Waiters(slots).start(("live", 1))
    slots.release(("live", 0))

    assert not slots.take(("live", 0))  # the other came first
    await waiting[0]
