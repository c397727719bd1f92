"""Who waits, and who has left: listening costs nothing before, and leaves nothing behind."""

import asyncio
from contextlib import suppress

from starlette.types import Message

from bridge.envelope import Event, Reply
from bridge.ingress import room
from bridge.ingress.events import MAX_BYTES, MAX_EVENTS, Feed
from bridge.ingress.room import Answer, Room


class Client:
    """A client that leaves when it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.has_left = asyncio.Event()

    async def receive(self) -> Message:
        self.asked += 1
        if self.asked == 1:  # what uvicorn says first of a request without a body
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.has_left.wait()
        return {"type": "http.disconnect"}


async def test_one_that_leaves_is_noticed_and_one_that_is_answered_soon_is_never_asked() -> None:
    waiting = Room(10)
    short, long = Client(), Client()
    answers = [Answer(asyncio.get_running_loop(), receive=each.receive) for each in (short, long)]
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(waiting.watch())
        for answer in answers:
            waiting.enter("r", answer)
        await asyncio.sleep(room.SWEEP_S / 2)
        waiting.leave("r", answers[0])
        await asyncio.sleep(room.SWEEP_S * 2)
        asked = short.asked, long.asked
        running = len(asyncio.all_tasks())
        long.has_left.set()
        async with asyncio.timeout(1):
            await answers[1].over
        rest = len(waiting), running - len(asyncio.all_tasks())
        watching.cancel()

    assert asked == (0, 2)
    assert rest == (0, 1)
    assert not answers[0].over.done()


async def test_who_watches_ends_with_its_clients_still_there() -> None:
    waiting = Room(10)
    client = Client()
    before = asyncio.all_tasks()
    waiting.enter("r", Answer(asyncio.get_running_loop(), receive=client.receive))
    with suppress(TimeoutError):
        async with asyncio.timeout(room.SWEEP_S * 3):
            await waiting.watch()

    assert client.asked == 2
    assert asyncio.all_tasks() == before


def reply(offset: int, value: bytes = b"") -> Reply:
    return Reply(request_id="r", event=Event.PROGRESS, value=value, offset=offset)


async def test_a_feed_that_runs_over_throws_all_away_until_the_log_was_read() -> None:
    for size, count in ((0, MAX_EVENTS), (MAX_BYTES // 4, 4)):
        feed = Feed(None)
        for offset in range(count):
            feed.take(reply(offset, b"x" * size))
        assert not feed.is_behind
        feed.take(reply(count, b"xx"))
        feed.take(reply(count + 1))

        assert (feed.is_behind, feed.drain()) == (True, [])
        feed.is_behind = False
        feed.take(reply(count + 2))
        assert [each.offset for each in feed.drain()] == [count + 2]
