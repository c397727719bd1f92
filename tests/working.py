"""A worker in the test's own process: its metrics can be read, and its clock set."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from bridge.cli.processes import now_ms
from bridge.kafka import open_producer, open_reader
from bridge.registry import load_services
from bridge.worker import Clients, Worker, load_handler, open_cancelled
from tests.stack import Stack


async def work_during(
    stack: Stack,
    service: str,
    during: Callable[[], object],
    *,
    own_ms: Callable[[], int] = now_ms,
) -> None:
    """Run a worker of a test service while a function runs in a thread.

    Args:
        stack: Whose Kafka and contracts.
        service: Its name before the stack's suffix; its handler is `consumers.<service>:handle`.
        during: What the test does meanwhile.
        own_ms: The worker's clock, Unix milliseconds.
    """
    config = {"bootstrap.servers": stack.kafka}
    loaded = load_services(stack.schemas)[stack.name(service)]
    stop = asyncio.Event()
    with ThreadPoolExecutor(4) as threads:
        handler = load_handler(f"tests.services.consumers.{service}:handle", loaded, threads)
        async with (
            open_producer(config, grace_s=1.0) as producer,
            open_reader(config) as reader,
            open_cancelled(config, [loaded.name], own_ms=own_ms) as cancelled,
            asyncio.TaskGroup() as tasks,
        ):
            clients = Clients(
                config, producer, reader, cancelled, draw=lambda: 0.5, name="test", run_id="test"
            )
            worker = Worker(loaded, handler, clients=clients, own_ms=own_ms)
            tasks.create_task(worker.run(stop))
            try:
                await asyncio.to_thread(during)
            finally:
                stop.set()
