"""The table, the ratios and what was expected of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.meter import REST, Cell

JVM = "kafka"
Cells = Mapping[tuple[str, int], Sequence[Cell]]
"""What was measured, by what and at how many at once; one cell a round."""

_HEAD = f"{'':8}{'at once':>8}{'req/s':>9}{'p50 ms':>9}{'p99 ms':>9}{'CPU ms':>9}{'JVM ms':>9}{'rest':>7}  CPU µs by process"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """A ratio of one thing to another, and its bound.

    Attributes:
        name, other: Of what to what.
        at_once: At how many requests at once.
        of: `p50` (at most) or `req/s` (at least).
        bound: The bound.
        trial: What the trial had that the bound comes from; None: there was none.
    """

    name: str = "bridge"
    other: str = "raw"
    at_once: int
    of: str
    bound: float
    trial: float | None = None


_REFERENCES = {"bridge": ("raw", "echo"), "keyed": ("bridge",)}
"""What each is compared with."""

EXPECTATIONS = (
    Expectation(at_once=1, of="p50", bound=1.5, trial=1.25),
    Expectation(at_once=32, of="req/s", bound=0.45, trial=0.55),
    Expectation(at_once=256, of="req/s", bound=0.17, trial=0.19),
    Expectation(name="keyed", other="bridge", at_once=32, of="req/s", bound=0.4),
)


def render(cells: Cells) -> str:
    """Write medians over the rounds, then the ratios."""
    lines = [_HEAD]
    lines += [_row(name, at_once, found) for (name, at_once), found in cells.items()]
    return "\n".join([*lines, "", *_ratios(cells)])


def _row(name: str, at_once: int, found: Sequence[Cell]) -> str:
    processes = [each for each in found[0].cpu_s if each not in {JVM, REST}]
    by_process = " ".join(f"{each} {1000 * _cpu_ms(found, each):.0f}" for each in processes)
    return (
        f"{name:8}{at_once:8}{_median(found, _rate):9.0f}{_median(found, _p50):9.2f}"
        f"{_median(found, lambda cell: cell.p99_ms):9.2f}"
        f"{_cpu_ms(found, *processes):9.3f}"
        f"{_cpu_ms(found, JVM):9.3f}"
        f"{_median(found, lambda cell: cell.cpu_s[REST] / cell.seconds):7.2f}  {by_process}"
    )


def _ratios(cells: Cells) -> list[str]:
    lines = []
    for (name, at_once), found in cells.items():
        for other in _REFERENCES.get(name, ()):
            if (other, at_once) in cells:
                lines += _compare((name, other, at_once), found, cells[other, at_once])
    return lines


def _compare(
    what: tuple[str, str, int], found: Sequence[Cell], reference: Sequence[Cell]
) -> list[str]:
    name, other, at_once = what
    ratios = {
        "p50": _median(found, _p50) / _median(reference, _p50),
        "req/s": _median(found, _rate) / _median(reference, _rate),
    }
    lines = []
    for of, ratio in ratios.items():
        line = f"{name}/{other} at {at_once:3}: {of:5} {ratio:5.2f}"
        for want in EXPECTATIONS:
            if (want.name, want.other, want.at_once, want.of) == (*what, of):
                line += f"  {_judge(want, ratio)}"
        lines.append(line)
    return lines


def _judge(want: Expectation, ratio: float) -> str:
    is_at_most = want.of == "p50"
    is_met = ratio <= want.bound if is_at_most else ratio >= want.bound
    bound = f"{'at most' if is_at_most else 'at least'} {want.bound}"
    trial = "" if want.trial is None else f" (trial {want.trial})"
    return f"{'as expected' if is_met else 'NOT AS EXPECTED'}: {bound}{trial}"


def _cpu_ms(found: Sequence[Cell], *names: str) -> float:
    return _median(found, lambda cell: cell.cpu_ms(*names))


def _rate(cell: Cell) -> float:
    return cell.rate


def _p50(cell: Cell) -> float:
    return cell.p50_ms


def _median(found: Sequence[Cell], of: Callable[[Cell], float]) -> float:
    return median(of(cell) for cell in found)
