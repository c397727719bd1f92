"""Following what is cancelled spares work, so nothing that goes wrong with it may end a worker."""

import asyncio

from bridge.worker.cancelled import open_cancelled


async def test_whatever_breaks_the_following_ends_no_worker() -> None:
    """Errors of ours were waited out; any other one ended all that the worker had in hand."""
    async with open_cancelled({"no.such.setting": 1}, ["echo"], own_ms=lambda: 0) as cancelled:
        for _ in range(5):
            await asyncio.sleep(0)

        assert len(cancelled.of("echo")) == 0
