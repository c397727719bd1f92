"""Bridges made of real processes, for tests that ask them over HTTP and kill them."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from bridge.cli.topics import shapes_of
from bridge.embedded import guarded
from bridge.envelope import Record, Reply, parse_reply
from bridge.kafka import apply_topics, describe_topics, open_reader
from bridge.registry import load_services
from tests import bad_input

SERVICES = Path(__file__).parent / "services"
READY_S = 30.0


def until(condition: Callable[[], bool], *, timeout_s: float, what: str) -> None:
    """Wait until something is so; fail when it is not in time."""
    pause = threading.Event()
    for _ in range(int(timeout_s / 0.05)):
        if condition():
            return
        pause.wait(0.05)
    raise AssertionError(f"not within {timeout_s} s: {what}")


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def listening(pid: int) -> set[str]:
    """Where a process listens, `address:port` as the kernel writes it, in hexadecimal."""
    own = {str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()}
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
    ]
    return {row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in own}


@dataclass(frozen=True)
class Process:
    """One `kbridge` process and what it logs."""

    child: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.child.pid

    def events(self, name: str) -> list[dict[str, object]]:
        lines = self.log.read_text(encoding="utf-8").splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [event for event in found if event["event"] == name]

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.child.wait()

    def stop(self) -> int:
        if self.child.poll() is None:
            self.child.terminate()
        return self.child.wait(timeout=30)


class Stack:
    """Processes of one test, on the run's Kafka, with services of their own names.

    Args:
        kafka: Bootstrap servers.
        folder: Where schemas and logs go.
        suffix: Makes the services' names unlike every other test's.
    """

    def __init__(self, kafka: str, folder: Path, suffix: str, stack: ExitStack) -> None:
        self.kafka = kafka
        self.schemas = folder / "schemas"
        self._folder = folder
        self._suffix = suffix
        self._stack = stack
        self._count = 0

    def name(self, service: str) -> str:
        return f"{service}{self._suffix}"

    def make_services(self, *names: str) -> None:
        """Copy contracts under names of this test, and create their topics."""
        self.copy_services(*names)
        self.apply_topics()

    def apply_topics(self) -> None:
        """Create the topics of this test's contracts."""
        services = load_services(self.schemas)
        asyncio.run(apply_topics({"bootstrap.servers": self.kafka}, shapes_of(services)))

    def copy_services(self, *names: str) -> None:
        """Copy contracts under names of this test."""
        for name in names:
            target = self.schemas / self.name(name)
            if name == "everything":
                target.mkdir(parents=True)
                text = json.dumps(bad_input.SCHEMA)
                (target / "request.avsc").write_text(text, encoding="utf-8")
                (target / "service.toml").write_text('reply = "none"', encoding="utf-8")
            else:
                shutil.copytree(SERVICES / "schemas" / name, target)

    def read_replies(self, service: str) -> list[Reply]:
        """Read a service's whole reply log, all lanes."""
        records = self.read(f"{self.name(service)}.replies")
        return [reply for record in records if (reply := parse_reply(record)) is not None]

    def read(self, topic: str) -> list[Record]:
        """Read a whole topic, each partition in order."""
        return asyncio.run(self._read(topic))

    async def _read(self, topic: str) -> list[Record]:
        config = {"bootstrap.servers": self.kafka}
        found: list[Record] = []

        def note(record: Record) -> bool:
            found.append(record)
            return False

        count = (await describe_topics(config))[topic]
        async with open_reader(config) as reader:
            places = [(topic, partition) for partition in range(count)]
            await reader.read(places, since_ms=0, is_enough=note)
        return found

    def start(self, *arguments: str, module: str = "bridge", **environment: str) -> Process:
        self._count += 1
        log = self._folder / f"{self._count}-{arguments[0]}.log"
        command = [sys.executable, "-m", module, *arguments]
        with log.open("wb") as output:
            child = subprocess.Popen(  # noqa: S603 - this project's own
                guarded(command, on_parent_death=signal.SIGKILL),
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=SERVICES,
                env={
                    **os.environ,
                    "BRIDGE_KAFKA": self.kafka,
                    "BRIDGE_SCHEMAS": str(self.schemas),
                    "BRIDGE_GRACE_S": "4",  # Kafka may be gone when a test ends its processes
                    **environment,
                },
            )
        process = Process(child, log)
        self._stack.callback(process.stop)
        return process

    def start_worker(self, service: str) -> Process:
        process = self.start(
            "worker", self.name(service), "--handler", f"consumers.{service}:handle"
        )
        until(
            lambda: bool(process.events("working")) or process.child.poll() is not None,
            timeout_s=READY_S,
            what=f"worker of {service} works",
        )
        return process

    def start_ingress(self, port: int = 0, /, **environment: str) -> tuple[Process, str]:
        """Run an ingress; returns it with its URL when it is ready."""
        process = self.start("ingress", "--port", str(port), **environment)
        until(
            lambda: (
                bool(process.events("ready") and process.events("claims-read"))
                or process.child.poll() is not None
            ),
            timeout_s=READY_S,
            what="ingress is ready",
        )
        assert process.child.poll() is None, process.log.read_text(encoding="utf-8")
        return process, f"http://127.0.0.1:{process.events('listening')[0]['port']}"


@contextmanager
def open_stack(kafka: str, folder: Path, suffix: str) -> Iterator[Stack]:
    """Make a stack whose processes end with the block."""
    with ExitStack() as stack:
        yield Stack(kafka, folder, suffix, stack)


def post(
    url: str, service: str, body: object, *, timeout_s: float = 30, **headers: str
) -> httpx.Response:
    """Ask a service."""
    return httpx.post(
        f"{url}/v1/services/{service}/requests",
        content=body if isinstance(body, bytes) else json.dumps(body),
        headers={
            "content-type": "application/json",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        },
        timeout=timeout_s,
    )
