"""One cell of the table: requests in a window of time, their latencies, and the CPU they took.

All load generators share this meter, so that their numbers compare: the same clock, the same
percentiles, the same window. The CPU of the processes that take part is read from /proc when the
window opens and when it closes (in ticks of 10 ms).
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_USER, _SYSTEM = 11, 12  # fields of /proc/PID/stat after the name (proc(5): 14 and 15)
_IDLE = (3, 4)  # idle and iowait of /proc/stat's first line

REST = "rest"
"""The whole machine, less the processes that are watched: other people's work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a load generator does.

    Attributes:
        at_once: Requests under way at any time, each followed by the next one at once.
        warm_up_s: Seconds before the window.
        seconds: Length of the window.
        watched: Process IDs by name; the load generator adds itself as `client`.
    """

    at_once: int
    warm_up_s: float
    seconds: float
    watched: Mapping[str, int]

    def text(self) -> str:
        """Write it as one argument for a load generator."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What was measured.

    Attributes:
        seconds: Length of the window.
        count: Requests answered in it.
        p50_ms: Median of their latencies.
        p99_ms: What 99 of 100 of them did not exceed.
        cpu_s: User and system time in the window, by process, and of the rest of the machine.
    """

    seconds: float
    count: int
    p50_ms: float
    p99_ms: float
    cpu_s: Mapping[str, float]

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.count / self.seconds

    def cpu_ms(self, *names: str) -> float:
        """Milliseconds of CPU per request, of these processes together."""
        return 1000 * sum(self.cpu_s.get(name, 0.0) for name in names) / self.count


class Meter:
    """Counts requests; told of each one that is answered, by the one thread that makes them."""

    def __init__(self, load: Load) -> None:
        self._watched = {"client": os.getpid(), **load.watched}
        self._seconds = load.seconds
        self._begin_s = time.perf_counter() + load.warm_up_s
        self._end_s = self._begin_s + load.seconds
        self._before: dict[str, float] = {}
        self._latencies: list[float] = []
        self.cell: Cell | None = None

    def note(self, asked_s: float) -> bool:
        """Note an answer to what was asked at `asked_s`; returns whether to go on asking."""
        now_s = time.perf_counter()
        if now_s >= self._end_s:
            if self.cell is None:
                self.cell = self._close(now_s)
            return False
        if self._before:
            self._latencies.append(now_s - asked_s)
        elif now_s >= self._begin_s:
            self._before = _read(self._watched)
            self._begin_s = now_s
            self._end_s = now_s + self._seconds
        return True

    def _close(self, now_s: float) -> Cell:
        after = _read(self._watched)
        ordered = sorted(self._latencies)
        if not ordered:
            sys.exit("no request was answered in the window: want at least one; see the logs")
        return Cell(
            seconds=now_s - self._begin_s,
            count=len(ordered),
            p50_ms=1000 * ordered[len(ordered) // 2],
            p99_ms=1000 * ordered[len(ordered) * 99 // 100],
            cpu_s={name: after[name] - before for name, before in self._before.items()},
        )

    def print(self) -> None:
        """Print the cell for `parse`."""
        if self.cell is None:
            sys.exit("the load generator ended before its window did")
        print(json.dumps(asdict(self.cell)))


def parse(text: str) -> Cell:
    """Read what a load generator printed."""
    return Cell(**json.loads(text))


def parse_load(text: str) -> Load:
    """Read a load generator's argument."""
    return Load(**json.loads(text))


def _read(watched: Mapping[str, int]) -> dict[str, float]:
    found = {name: _cpu_s(pid) for name, pid in watched.items()}
    found[REST] = _machine_s() - sum(found.values())
    return found


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[_USER]) + int(fields[_SYSTEM])) / _TICKS


def _machine_s() -> float:
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - sum(fields[place] for place in _IDLE)) / _TICKS
