"""What runs beside the requests: an ingress does not outlive it."""

import asyncio
import signal

from bridge.ingress.life import keep


async def break_down() -> None:
    raise LookupError("a bug in what runs beside the requests")


async def test_a_bug_beside_the_requests_stops_the_process_as_sigterm_does() -> None:
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    try:
        await keep("load", break_down())
        async with asyncio.timeout(5):
            await told.wait()
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)


async def test_what_is_cancelled_at_the_end_stops_nothing() -> None:
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    try:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(keep("load", asyncio.sleep(60)))
            await asyncio.sleep(0)
            running.cancel()
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)

    assert running.cancelled()
    assert not told.is_set()
