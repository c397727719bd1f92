"""Foreign lanes: whoever waits for one waits for no other, and for no longer than it wants to."""

import asyncio

import pytest

from bridge.errors import BrokerDownError
from bridge.ingress.lanes import Followers
from bridge.kafka import Config

NOWHERE: Config = {"bootstrap.servers": "127.0.0.1:1", "log_level": 0}


def ignore(*_: object) -> None:
    """Nothing comes."""


async def follow(followers: Followers, lane: int, limit_s: float) -> float:
    """Return after how many seconds it was given up."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    with pytest.raises(BrokerDownError):
        async with followers.follow("x.replies", lane, limit_s=limit_s):
            pass
    return loop.time() - began_s


async def test_lanes_are_opened_side_by_side() -> None:
    followers = Followers(NOWHERE, ignore, ignore)

    async with asyncio.TaskGroup() as tasks:
        each = [tasks.create_task(follow(followers, lane, 1)) for lane in range(6)]

    taken_s = max(task.result() for task in each)
    print(f"\n6 lanes that cannot be read, 1 s each: {taken_s:.1f} s")
    assert taken_s < 4  # one after the other it would be 6


async def test_who_waits_for_a_lane_that_another_opens_waits_no_longer_than_it_wants() -> None:
    followers = Followers(NOWHERE, ignore, ignore)

    async with asyncio.TaskGroup() as tasks:
        patient = tasks.create_task(follow(followers, 0, 4))
        await asyncio.sleep(0)
        hurried = tasks.create_task(follow(followers, 0, 0.5))

    print(f"\ngiven up after {hurried.result():.1f} s, the other after {patient.result():.1f} s")
    assert hurried.result() < 2
    assert patient.result() > 3
