"""Sockets that say what no HTTP client would."""

import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx


@dataclass(frozen=True, slots=True)
class Heard:
    """What came back, until the other side closed or the time was up.

    Attributes:
        statuses: Of each answer, in order.
        text: All of it.
        is_closed: The other side closed the connection.
        sent: Bytes that could be sent.
        after_s: When it was over, in seconds from the first byte.
    """

    statuses: list[int]
    text: str
    is_closed: bool
    sent: int
    after_s: float


def address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return str(parts.hostname), int(parts.port or 80)


def say(
    url: str, *pieces: bytes, patience_s: float = 5, repeat: int = 1, end: bool = False
) -> Heard:
    """Send bytes as they are, the last piece `repeat` times; listen until the end."""
    started = time.perf_counter()
    sent = 0
    with socket.create_connection(address(url), timeout=patience_s) as wire:
        with suppress(ConnectionError, TimeoutError):
            for piece in (*pieces[:-1], *[pieces[-1]] * repeat):
                wire.sendall(piece)
                sent += len(piece)
        if end:
            wire.shutdown(socket.SHUT_WR)
        heard, is_closed = bytearray(), True
        try:
            while piece := wire.recv(65_536):
                heard += piece
        except TimeoutError:
            is_closed = False
        except ConnectionError:
            pass
    text = heard.decode("latin-1")
    statuses = [int(part[:3]) for part in text.split("HTTP/1.1 ")[1:]]
    return Heard(statuses, text, is_closed, sent, time.perf_counter() - started)


def counted(url: str, metric: str) -> float:
    """Read a metric that has one value."""
    text = httpx.get(f"{url}/metrics").text
    return float(
        next(line.split()[-1] for line in text.splitlines() if line.startswith(metric + " "))
    )


def resident_mib(pid: int) -> float:
    """Return how much memory a process has."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:  # noqa: PTH123 - no file of ours
        return int(file.read().split()[1]) * 4096 / 2**20


def say_slowly(url: str, first: bytes, pieces: Iterable[bytes], pause_s: float) -> float:
    """Send piece by piece until the other side hangs up; return after how many seconds it did."""
    started = time.perf_counter()
    with socket.create_connection(address(url), timeout=pause_s) as wire, suppress(ConnectionError):
        wire.sendall(first)
        for piece in pieces:
            with suppress(TimeoutError):
                while wire.recv(65_536):
                    pass
                return time.perf_counter() - started
            wire.sendall(piece)
    return time.perf_counter() - started


def say_after(url: str, first: bytes, then: bytes) -> tuple[bytes, bytes]:
    """Send, wait for an answer, and only then send more; return what came before and after that."""
    with socket.create_connection(address(url), timeout=2) as wire:
        wire.sendall(first)
        before, after = wire.recv(65_536), bytearray()
        with suppress(ConnectionError, TimeoutError):
            wire.sendall(then)
            while piece := wire.recv(65_536):
                after += piece
    return before, bytes(after)
