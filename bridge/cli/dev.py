"""`kbridge dev`: everything on one machine, ended together."""

import asyncio
import http.client
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from bridge.cli.processes import listen, spread_lanes
from bridge.cli.topics import shapes_of
from bridge.embedded import empty_folder, guarded, open_kafka
from bridge.errors import BridgeError
from bridge.kafka import apply_topics
from bridge.service import Service
from bridge.settings import Settings

_POLL_S = 0.1
_RESTART_S = 1.0
_STOP_S = 30.0

Ended = Callable[[], Awaitable[BridgeError]]
"""Waits for the end of Kafka and tells why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dev:
    """What `kbridge dev` runs.

    Attributes:
        settings: As for each process alone.
        services: By name; a worker for each that has a folder in `consumers/`.
        data: Folder of the embedded Kafka's data.
        is_fresh: Empty it first.
        kafka_port: Port of the embedded Kafka; None: a running one is used.
    """

    settings: Settings
    services: dict[str, Service]
    data: Path
    is_fresh: bool
    kafka_port: int | None


@dataclass(frozen=True, slots=True)
class Child:
    """A `kbridge` command to be run, and what its environment has beside ours."""

    command: list[str]
    environ: Mapping[str, str] = field(default_factory=dict)


async def run_kafka(port: int, nodes: int, data: Path, console: Console) -> None:
    """Run the embedded Kafka until it is told to stop."""
    stop = _stop_signal()
    async with open_kafka(data=data / "kafka", port=port, nodes=nodes, say=console.print) as kafka:
        console.print(f"Kafka is ready at {kafka.bootstrap}, data in {data}. Ctrl-C stops it.")
        await _until(stop, kafka.wait_end)


async def run_dev(plan: Dev, console: Console) -> None:
    """Run Kafka, topics, ingress and workers until told to stop.

    Raises:
        BridgeError: A part could not start, or Kafka ended; the others are stopped again.
    """
    stop = _stop_signal()
    with closing(listen(plan.settings.host, plan.settings.port)) as listener:
        if plan.is_fresh and plan.kafka_port is not None:
            await empty_folder(plan.data / "kafka")
        async with _kafka(plan, console) as (kafka, ended):
            settings = plan.settings.model_copy(update={"kafka": kafka})
            await apply_topics(settings.client_config(), shapes_of(plan.services))
            async with asyncio.TaskGroup() as tasks:
                listener.listen()
                running = [
                    tasks.create_task(_keep(name, child, listener.fileno(), console))
                    for name, child in _commands(plan, settings, listener.fileno()).items()
                ]
                running.append(tasks.create_task(_say_ready(plan, settings, listener, console)))
                try:
                    await _until(stop, ended)
                finally:
                    for task in running:
                        task.cancel()


@asynccontextmanager
async def _kafka(plan: Dev, console: Console) -> AsyncIterator[tuple[str, Ended]]:
    """Run the embedded Kafka, or use the one that runs already."""
    if plan.kafka_port is None:
        yield plan.settings.kafka, _never
        return
    async with open_kafka(
        data=plan.data / "kafka", port=plan.kafka_port, say=console.print
    ) as kafka:
        yield kafka.bootstrap, kafka.wait_end


async def _never() -> BridgeError:
    """Wait for ever: a Kafka that is not ours ends without us."""
    await asyncio.Event().wait()
    raise AssertionError


async def _say_ready(
    plan: Dev, settings: Settings, listener: socket.socket, console: Console
) -> None:
    host, port = listener.getsockname()[:2]
    while not await asyncio.to_thread(_is_ready, host, port):  # noqa: ASYNC110 - another process is asked, over HTTP
        await asyncio.sleep(_POLL_S)
    for name in plan.services:
        if not _has_handler(name):
            console.print(
                f"No worker for {name}: there is no folder consumers/{name} here. Start one: "
                f"kbridge worker {name} --handler MODULE:FUNCTION --kafka {settings.kafka}"
            )
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    console.print(f"The bridge is ready: {url}  (Kafka {settings.kafka}, page {url}/docs)")
    name = "greeter" if "greeter" in plan.services else next(iter(plan.services))
    body = '{"name":"Ann"}' if name == "greeter" else "{}"
    console.print(
        f"  curl -s {url}/v1/services/{name}/requests "
        f"-d '{body}' -H 'content-type: application/json'"
    )


def _is_ready(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


def _commands(plan: Dev, settings: Settings, fd: int) -> dict[str, Child]:
    """Name each child and say what it runs."""
    common = ["--kafka", settings.kafka, "--schemas", settings.schemas]
    ingress = ["ingress", "--socket-fd", str(fd), *common]
    lanes = spread_lanes(settings.lanes, settings.processes)
    ingresses = {
        f"ingress {number}": Child(ingress, {"BRIDGE_LANES": own})
        for number, own in enumerate(lanes, 1)
    }
    workers = {
        f"worker {name}": Child(["worker", name, "--admin-port", "0", *common])
        for name in plan.services
        if _has_handler(name)
    }
    return ingresses | workers


def _has_handler(name: str) -> bool:
    return (Path("consumers") / name).is_dir()


async def _keep(name: str, what: Child, fd: int, console: Console) -> None:
    """Run a child again and again until cancelled; then end it gently, and wait."""
    argv = guarded([sys.executable, "-m", "bridge", *what.command], on_parent_death=signal.SIGTERM)
    environ = {**os.environ, **what.environ}
    while True:
        child = await asyncio.create_subprocess_exec(*argv, pass_fds=[fd], env=environ)
        try:
            code = await child.wait()
        except asyncio.CancelledError:
            await _end(child)
            raise
        console.print(f"{name} ended with {code}: it is started again")
        await asyncio.sleep(_RESTART_S)


async def _end(child: asyncio.subprocess.Process) -> None:
    if child.returncode is None:
        child.terminate()
    try:
        async with asyncio.timeout(_STOP_S):
            await child.wait()
    except TimeoutError:
        child.kill()
        await child.wait()


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def _until(stop: asyncio.Event, ended: Ended) -> None:
    """Wait to be told to stop, or raise what ended Kafka before that."""

    async def watch() -> None:
        raise await ended()

    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(watch())
        await stop.wait()
        watching.cancel()
