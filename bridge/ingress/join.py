"""Joining: a `POST` whose `Idempotency-Key` stands for another one's request gets its answer."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.types import Receive

from bridge import ids
from bridge.claims import Ruling, is_orphan
from bridge.errors import GoneError, OutcomeUnknownError, UnknownRequestError
from bridge.ingress.claims import Claims
from bridge.ingress.job import Job, rename
from bridge.ingress.lanes import Lanes
from bridge.ingress.look import Lookups
from bridge.ingress.room import Answer, Room
from bridge.replylog import ReplyLog

UNSEEN_S = 2.0
"""Who does not wait for the reply waits so long for a sign that the request was written."""

_Shared = asyncio.Future[ReplyLog | None]


class Joins:
    """Duplicates, each with the request that its key stands for.

    Args:
        claims: What keys stand for.
        lookups: Finds requests by ID.
        lanes: Broker time, and how many partitions there are.
        room: Who waits.
        post: Writes a claimed request that nobody waits for, and notes that at its key.
    """

    def __init__(
        self,
        claims: Claims,
        lookups: Lookups,
        lanes: Lanes,
        room: Room,
        post: Callable[[Job, Ruling], Awaitable[None]],
    ) -> None:
        self._claims = claims
        self._lookups = lookups
        self._lanes = lanes
        self._room = room
        self._post = post
        self._shared: dict[str, _Shared] = {}

    async def join(self, job: Job, ruling: Ruling, receive: Receive | None = None) -> ReplyLog:
        """Return what is known of the request that a key stands for, as `Ingress.write` would.

        A request that shows no event long after its claim was lost in a crash; it is written again.

        Args:
            job: What this client asks for; it is not written under its own name.
            ruling: Of `Claims.settle`.
            receive: Tells when the client leaves; None: nobody can.

        Raises:
            OutcomeUnknownError: It is claimed, and nothing of it was seen while the client waited.
            GoneError: Its log was deleted before its key ended.
            UnavailableError, TopicError: It cannot be looked for now.
        """
        if job.service.kind == "none":
            await self._join_one_way(job, ruling)
            return ReplyLog()
        try:
            if self._is_old(ruling):
                seen = await self._lookups.look(job.service, ruling.request_id, where_of(ruling))
                if seen.last is not None:
                    return seen
                if not seen.is_seen:
                    await self._check_lost(job, ruling)
                    await self._heal(job, ruling)
            return await self._wait(job, ruling, receive)
        except UnknownRequestError:
            raise self._unseen(ruling) from None

    async def _join_one_way(self, job: Job, ruling: Ruling) -> None:
        """See that a request without a log is written: the claims say so, nothing else can."""
        if ruling.is_written or await self._claims.wait_written(ruling, UNSEEN_S):
            return
        if not (self._is_old(ruling) and await self._heal(job, ruling)):
            raise self._unseen(ruling)

    async def _check_lost(self, job: Job, ruling: Ruling) -> None:
        """See that a log which shows nothing was never written, and is not just deleted since.

        Raises:
            GoneError: It may be: then nobody can say whether the request was worked on.
        """
        if not await self._lookups.is_whole(job.service, ruling.lane, ruling.time_ms):
            raise GoneError(
                f"this Idempotency-Key stands for request {ruling.request_id}, and "
                f"{job.service.replies_topic} no longer goes back to it: whether it was worked on "
                "cannot be said any more; look for its effect, and use another key"
            )

    async def _heal(self, job: Job, ruling: Ruling) -> bool:
        """Write a lost request again, under its first name; of all who try the log lets one."""
        if not await self._claims.heal(job, ruling):
            return False
        partitions = self._lanes.partitions(job.service)
        await self._post(rename(job, ruling.request_id, ruling.lane, partitions), ruling)
        return True

    async def _wait(self, job: Job, ruling: Ruling, receive: Receive | None) -> ReplyLog:
        """Wait as long as the client does; those who wait for one request look for it together."""
        if job.wait_s <= 0:
            return await self._find(job, ruling, UNSEEN_S)
        loop = asyncio.get_running_loop()
        until_s = loop.time() + job.wait_s
        while (left_s := until_s - loop.time()) > 0:
            shared = self._shared.get(ruling.request_id)
            if shared is None:
                return await self._lead(job, ruling, left_s, receive)
            if not await self._follow(ruling, shared, left_s, receive):
                break
            log = shared.result() if shared.done() else None
            if log is not None and log.last is not None:
                return log
        log = await self._lookups.look(job.service, ruling.request_id, where_of(ruling))
        if not log.is_seen:
            raise self._unseen(ruling)
        return log

    async def _follow(
        self, ruling: Ruling, shared: _Shared, wait_s: float, receive: Receive | None
    ) -> bool:
        """Wait for another's look; False: the own client has left, or this process stops."""
        answer = Answer(asyncio.get_running_loop(), receive=receive)
        self._room.enter(ruling.request_id, answer)  # a place like any other, and given up as any
        try:
            ends: list[asyncio.Future[Any]] = [shared, answer.over]
            await asyncio.wait(ends, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._room.leave(ruling.request_id, answer)
        return answer.log.last is not None or not answer.over.done()

    async def _lead(
        self, job: Job, ruling: Ruling, wait_s: float, receive: Receive | None
    ) -> ReplyLog:
        """Look for a request on behalf of all who wait for it here."""
        shared = asyncio.get_running_loop().create_future()
        self._shared[ruling.request_id] = shared
        log = None
        try:
            log = await self._find(job, ruling, wait_s, receive)
            return log
        finally:
            del self._shared[ruling.request_id]
            shared.set_result(log)

    async def _find(
        self, job: Job, ruling: Ruling, wait_s: float, receive: Receive | None = None
    ) -> ReplyLog:
        return await self._lookups.find_claimed(
            job.service,
            ruling.request_id,
            where_of(ruling),
            wait_s=wait_s,
            is_any_enough=job.wait_s <= 0,
            receive=receive,
        )

    def _is_old(self, ruling: Ruling) -> bool:
        return is_orphan(ruling, self._lanes.now_ms(), self._claims.heal_after_ms)

    def _unseen(self, ruling: Ruling) -> OutcomeUnknownError:
        error = OutcomeUnknownError(
            f"this Idempotency-Key stands for request {ruling.request_id}, of which nothing is "
            "seen yet: ask again with the same key and body, and it is written if it was lost"
        )
        left_ms = ruling.begun_ms + self._claims.heal_after_ms - self._lanes.now_ms()
        error.retry_after_s = max(1, math.ceil(left_ms / 1000))
        return error


def where_of(ruling: Ruling) -> ids.Address:
    """Say where the log of a claimed request starts; its ID says the time more exactly."""
    address = ids.parse(ruling.request_id)
    return ids.Address(
        time_ms=ruling.time_ms if address is None else address.time_ms, lane=ruling.lane
    )
