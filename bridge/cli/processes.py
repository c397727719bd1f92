"""Running ingresses and workers as processes: sockets, signals, garbage collection."""

import asyncio
import gc
import os
import resource
import secrets
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import cast

import structlog
import uvicorn
import uvloop

from bridge import apikey, dead
from bridge.cli.admin import open_admin
from bridge.cli.handlers import Chosen, open_handler
from bridge.embedded import guarded
from bridge.errors import SettingsError
from bridge.ids import LANES
from bridge.ingress import Limits, make_app
from bridge.ingress.intake import make_protocol
from bridge.ingress.lanes import Lanes
from bridge.kafka import open_producer, open_reader
from bridge.service import Service
from bridge.settings import Settings
from bridge.worker import Clients, Worker, make_admin, open_cancelled

_log = structlog.get_logger("bridge.cli")

_BACKLOG = 2048
_KEEP_ALIVE_S = 75  # nginx's default, so that a proxy in front closes first
_FORCE_S = 5.0
"""So long after the grace time a process that has not ended is ended."""
_FORCED = 1
_LEAVE_S = 0.5
_HAND_OFF_S = 3.0
"""So long before the grace time ends, whoever still waits is given a `202`: writing it takes 2 s at most."""
_LAST_REQUESTS, _TICK_S = 10, 0.1
"""A stopping ingress serves what comes on open connections for one second, then closes the idle ones."""
_RESTART_S = 1.0
_OTHER_FILES = 512
"""Files that are not clients: Kafka's connections, logs, the library's own."""
WORKER_FEW = 4
"""A worker with so many records in hand, or fewer, answers without linger (measured: ARCHITECTURE)."""
INGRESS_FEW = 8


_STARTED_NS = time.time_ns() - time.monotonic_ns()


def now_ms() -> int:
    """Read this machine's clock as it was at start, moved on steadily: Unix milliseconds.

    A step of the clock (NTP) changes nothing: broker time is reckoned from it by a measured skew.
    """
    return (_STARTED_NS + time.monotonic_ns()) // 1_000_000


class Chance:
    """Draws random bits, 512 draws to a system call: one of its own takes each 10 µs."""

    def __init__(self) -> None:
        self._drawn: list[int] = []

    def draw_62_bits(self) -> int:
        """Draw the chance of a request ID."""
        if not self._drawn:
            self._drawn = list(struct.unpack("512Q", secrets.token_bytes(4096)))
        return self._drawn.pop() >> 2


def freeze() -> None:
    """Keep what start-up made out of every later collection (measured: p99 18 to 6 ms)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(5000, 20, 50)


class _Server(uvicorn.Server):
    """uvicorn, which would raise a caught signal again after its stop and so never exit with 0."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more, serve what connected before that and has not spoken yet, then stop.

        uvicorn alone closes such a connection without an answer, and its client cannot know whether
        its request was taken.
        """
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for _ in range(_LAST_REQUESTS):
            if not self.server_state.connections:
                break
            await asyncio.sleep(_TICK_S)
        await super().shutdown()


def run_ingresses(settings: Settings, services: dict[str, Service], socket_fd: int | None) -> None:
    """Run one ingress in this process, or several in children that share its socket."""
    if socket_fd is not None:
        listener = socket.socket(fileno=socket_fd)
        uvloop.run(run_ingress(settings, services, listener))
        return
    listener = listen(settings.host, settings.port)
    if settings.processes == 1:
        uvloop.run(run_ingress(settings, services, listener))
    else:
        _run_children(settings, listener)


def listen(host: str, port: int, option: str = "--port") -> socket.socket:
    """Bind an address; `option` is what chooses another port.

    Raises:
        SettingsError: The address is taken or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another with {option}"
        ) from None
    listener.set_inheritable(True)
    return listener


async def run_ingress(
    settings: Settings, services: dict[str, Service], listener: socket.socket
) -> None:
    """Run one ingress until SIGTERM or SIGINT."""
    limits = _limits(settings)
    _raise_files(limits.connections)
    app = make_app(
        services,
        settings.client_config(),
        _lanes(settings, services),
        limits,
        chance=Chance().draw_62_bits,
        probe_s=settings.probe_s,
    )
    server = _Server(
        uvicorn.Config(
            app,
            loop="none",
            http=cast(type[asyncio.Protocol], make_protocol(limits)),  # any protocol will do
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # nothing reads a client's address
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=max(1, int(settings.grace_s)),
        )
    )

    def stop() -> None:
        server.should_exit = True
        app.state.drain()
        loop = asyncio.get_running_loop()
        loop.call_later(max(0.0, settings.grace_s - _HAND_OFF_S), lambda: app.state.release())  # noqa: PLW0108 - the lifespan may set it later

    _on_signals(stop, settings.grace_s)
    freeze()
    host, port = listener.getsockname()[:2]
    _log.info("listening", host=host, port=port)
    await server.serve(sockets=[listener])
    if not server.started:
        raise SettingsError("the ingress did not start: its log says why")
    _leave()


def _raise_files(connections: int) -> None:
    """Let this process open as many files as it may: each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if hard != resource.RLIM_INFINITY and hard < wanted:
        _log.warning("few-files", most=hard, wanted=wanted, set="ulimit -Hn, or BRIDGE_CONNECTIONS")
        wanted = hard
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _limits(settings: Settings) -> Limits:
    return Limits(
        waiters=settings.waiters,
        batch_lines=settings.batch_lines,
        max_wait_s=settings.max_wait_s,
        max_body_bytes=settings.max_body_bytes,
        max_depth=settings.max_depth,
        max_header_bytes=settings.max_header_bytes,
        max_headers=settings.max_headers,
        max_uri_bytes=settings.max_uri_bytes,
        head_s=settings.head_s,
        body_s=settings.body_s,
        connections=settings.connections,
        keys=None if settings.api_keys is None else apikey.parse(settings.api_keys),
        no_worker_s=settings.no_worker_s,
        keep_alive_s=settings.keep_alive_s,
        claims_dir=_claims_dir(settings),
        grace_s=settings.grace_s,
    )


def _claims_dir(settings: Settings) -> Path | None:
    if not settings.claims_dir:
        return None
    folder = Path(settings.claims_dir)
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise SettingsError(
            f"BRIDGE_CLAIMS_DIR={folder}: want a folder that is there and can be written to"
        )
    return folder


def _lanes(settings: Settings, services: dict[str, Service]) -> Lanes:
    picks = tuple(int(lane) for lane in spread_lanes(settings.lanes, 1)[0].split(","))
    return Lanes(settings.client_config(), services, picks, secrets.token_hex(8), now_ms)


def spread_lanes(lanes: str, processes: int) -> list[str]:
    """Deal lanes to processes: each its own, as far as they go; without any set, drawn in a row.

    Args:
        lanes: As set, comma-separated; empty: not set.
        processes: How many there are.
    """
    known = lanes.split(",") if lanes else []
    if not known:
        first = secrets.randbelow(LANES)
        known = [str((first + number) % LANES) for number in range(processes)]
    dealt = [known[number::processes] for number in range(processes)]
    return [",".join(own or [known[n % len(known)]]) for n, own in enumerate(dealt)]


def _on_signals(stop: Callable[[], None], grace_s: float) -> None:
    """Stop on SIGTERM and SIGINT; by force when that takes longer than the grace time allows."""

    def begin() -> None:
        forced = threading.Timer(grace_s + _FORCE_S, _force)
        forced.daemon = True
        forced.start()
        stop()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, begin)


def _force() -> None:
    """End a process whose client library waits for a Kafka that is gone, or a thread for ever."""
    _log.error("stopped-by-force")
    os._exit(_FORCED)


def _leave() -> None:
    """End within a moment, now that everything is closed.

    A call of the client library may still wait on some thread for a Kafka that is gone; nobody wants
    its answer, and the interpreter would wait for it.
    """
    leaving = threading.Timer(_LEAVE_S, os._exit, (0,))
    leaving.daemon = True
    leaving.start()


def _run_children(settings: Settings, listener: socket.socket) -> None:
    """Run several ingresses on one socket; one that dies is started again."""
    listener.listen(_BACKLOG)
    command = guarded(
        [
            *(sys.executable, "-m", "bridge", "ingress"),
            *("--socket-fd", str(listener.fileno())),
            *("--processes", "1", "--kafka", settings.kafka, "--schemas", settings.schemas),
        ],
        on_parent_death=signal.SIGTERM,
    )

    lanes = spread_lanes(settings.lanes, settings.processes)

    def start(place: int) -> subprocess.Popen[bytes]:
        environ = {**os.environ, "BRIDGE_LANES": lanes[place]}
        return subprocess.Popen(command, pass_fds=[listener.fileno()], env=environ)

    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: stopping.append(received))
    children = [start(place) for place in range(settings.processes)]
    while not stopping:
        for place, child in enumerate(children):
            if child.poll() is not None and not stopping:
                _log.error("ingress-died", code=child.returncode)
                time.sleep(_RESTART_S)
                children[place] = start(place)
        time.sleep(0.2)
    listener.close()  # or connections would still queue at a socket that nobody accepts from
    for child in children:
        child.terminate()
    for child in children:
        child.wait()


async def run_workers(settings: Settings, services: list[Service], chosen: Chosen) -> None:
    """Run workers for services until SIGTERM or SIGINT."""
    sys.path.insert(0, "")  # handlers are found from where the worker is started
    stop = asyncio.Event()
    _on_signals(stop.set, settings.grace_s)
    threads = ThreadPoolExecutor(
        sum(service.worker.concurrency for service in services), thread_name_prefix="handler"
    )
    config = settings.client_config()
    port = settings.admin_port
    listener = listen(settings.host, port, "--admin-port") if port else None
    workers: dict[str, Worker] = {}
    async with (
        # What a worker wants written it waits for itself.
        open_producer(
            config, few=WORKER_FEW, grace_s=1.0, largest_bytes=dead.MAX_RECORD_BYTES
        ) as producer,
        open_reader(config) as reader,
        open_cancelled(config, [each.name for each in services], own_ms=now_ms) as cancelled,
        AsyncExitStack() as opened,
        asyncio.TaskGroup() as tasks,
    ):
        clients = Clients(
            config,
            producer,
            reader,
            cancelled,
            draw=secrets.SystemRandom().random,
            name=f"{socket.gethostname()}/{os.getpid()}",
            run_id=secrets.token_hex(8),
        )
        for service in services:
            opening = open_handler(service, chosen, threads=threads, own_ms=now_ms)
            worker = workers[service.name] = Worker(
                service,
                await opened.enter_async_context(opening),
                clients=clients,
                own_ms=now_ms,
                grace_s=settings.grace_s,
            )
            tasks.create_task(worker.run(stop, ready=_announce(service.name)))
        if listener is not None:
            await opened.enter_async_context(open_admin(make_admin(workers), listener))
        freeze()
    threads.shutdown(wait=False, cancel_futures=True)


def _announce(name: str) -> Callable[[], None]:
    return lambda: _log.info("working", service=name)
