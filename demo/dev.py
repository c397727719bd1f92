"""`kbridge dev` as a child process: started, waited for, and stopped the way an operator does it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from demo import DemoError

READY_S = 180.0  # the first start of all fetches Kafka (54 MB), later ones take some 5 s
STOP_S = 60.0  # twice dev's own patience with its children
POLL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Dev:
    """A running bridge.

    Attributes:
        port: Its HTTP port on 127.0.0.1.
        kafka: Its Kafka, as host:port.
    """

    port: int
    kafka: str


@contextmanager
def open_dev(data: Path, log: Path) -> Iterator[Dev]:
    """Run `kbridge dev` on free ports for as long as the block.

    Args:
        data: Where it keeps its data; emptied first.
        log: Where all that it says is written.

    Raises:
        DemoError: It is not installed, did not become ready, or did not end with exit 0. It no longer runs.
    """
    port, kafka_port = _free_ports()
    log.parent.mkdir(parents=True, exist_ok=True)
    arguments = ("--port", port, "--kafka-port", kafka_port, "--data", data, "--fresh")
    program = Path(sys.executable).with_name("kbridge")
    if not program.exists():
        raise DemoError(f"{program} is not there: run `make demo`, which installs it")
    command = [str(program), "dev", *map(str, arguments)]
    with log.open("wb") as output:
        child = subprocess.Popen(  # noqa: S603 - our own command
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in a terminal is for the demonstration, which stops it
        )
        try:
            _wait_until_ready(child, port)
            yield Dev(port=port, kafka=f"127.0.0.1:{kafka_port}")
        except BaseException:
            _end(child)
            raise
        code = _end(child)
    if code != 0:
        raise DemoError(f"kbridge dev ended with exit {code} on SIGTERM: want 0")


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


def _wait_until_ready(child: subprocess.Popen[bytes], port: int) -> None:
    end_s = time.perf_counter() + READY_S
    while time.perf_counter() < end_s:
        if child.poll() is not None:
            raise DemoError(f"kbridge dev ended with exit {child.returncode} before it was ready")
        if _is_ready(port):
            return
        time.sleep(POLL_S)
    raise DemoError(f"kbridge dev is not ready after {READY_S:.0f} s: want 200 from /readyz")


def _is_ready(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200  # noqa: PLR2004 - HTTP
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _end(child: subprocess.Popen[bytes]) -> int:
    """Stop it with SIGTERM; if that does not help, end it and all its children."""
    child.send_signal(signal.SIGTERM)
    try:
        return child.wait(STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        raise DemoError(f"kbridge dev still ran {STOP_S:.0f} s after SIGTERM: killed") from None
