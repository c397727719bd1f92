"""`make bench`: the raw round trip, an empty echo and the bridge, interleaved in one run.

Everything runs on this machine over the loopback address, on an embedded Kafka with Java's compiler
whole. Two cores are few: numbers compare within one run only, so read the ratios.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.meter import Cell, Load
from benchmarks.running import find_port, open_process, run_load, wait_answer
from benchmarks.table import JVM, render
from bridge.cli.topics import shapes_of
from bridge.embedded import Trial, open_kafka
from bridge.kafka import Shape, apply_topics
from bridge.registry import load_services

SERVICE = "greeter"
PATH = f"/v1/services/{SERVICE}/requests"
RAW_LINGER_MS = {1: 0}
"""What is best for the raw round trip, measured; 1 ms where not said otherwise."""
PATIENCE_S = 60.0
KINDS = ("raw", "echo", "bridge", "keyed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What is measured.

    Attributes:
        kinds: Which of `raw`, `echo`, `bridge` and `keyed`.
        at_once: Numbers of requests at once.
        rounds: How often each cell is measured.
        seconds: Window of a cell.
        warm_up_s: Before each window.
        profile: Process of the bridge to be profiled; None: none.
        folder: For data, logs and profiles.
    """

    kinds: Sequence[str]
    at_once: Sequence[int]
    rounds: int
    seconds: float
    warm_up_s: float
    profile: str | None
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What runs throughout.

    Attributes:
        kafka: Its address.
        jvm: Its process ID.
        echo_port, echo: The empty echo: port and process ID.
        bridge_port: Of the ingress.
        bridge: Process IDs by name.
    """

    kafka: str
    jvm: int
    echo_port: int
    echo: int
    bridge_port: int
    bridge: Mapping[str, int]


async def run(bench: Bench) -> None:
    """Measure, and print the table; SIGINT or SIGTERM ends it early, and all that it started."""
    task = asyncio.current_task()
    if task is not None:
        for told in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(told, task.cancel)
    cells: dict[tuple[str, int], list[Cell]] = {
        (kind, at_once): [] for kind in bench.kinds for at_once in bench.at_once
    }
    async with _stage(bench) as stage:
        measures = _measures(bench, stage)
        for kind in bench.kinds:  # Java's compiler learns here
            await measures[kind](max(bench.at_once))
        for number in range(bench.rounds):
            for (kind, at_once), found in cells.items():
                cell = await measures[kind](at_once)
                found.append(cell)
                print(f"round {number + 1}: {kind} at {at_once}: {cell.rate:.0f} req/s", flush=True)
    print(f"\n{render(cells)}")


@asynccontextmanager
async def _stage(bench: Bench) -> AsyncIterator[Stage]:
    """Run what runs throughout: Kafka, the empty echo, one ingress, one worker."""
    log = bench.folder / "processes.log"
    echo_port, port = find_port(), find_port()
    async with AsyncExitStack() as stack:
        kafka = await stack.enter_async_context(
            open_kafka(data=bench.folder / "kafka", port=0, trial=Trial(jit=True), say=print)
        )
        shapes = shapes_of(load_services(Path("schemas")))
        twins = [_twin(shape) for shape in shapes if shape.name.startswith(f"{SERVICE}.")]
        await apply_topics({"bootstrap.servers": kafka.bootstrap}, [*shapes, *twins])
        echo = ["-m", "benchmarks.echo", str(echo_port)]
        ingress = ["bridge", "ingress", "--port", str(port), "--kafka", kafka.bootstrap]
        worker = ["bridge", "worker", SERVICE, "--kafka", kafka.bootstrap]
        stage = Stage(
            kafka=kafka.bootstrap,
            jvm=kafka.pids[0],
            echo_port=echo_port,
            echo=await stack.enter_async_context(open_process(echo, log)),
            bridge_port=port,
            bridge={
                name: await stack.enter_async_context(
                    open_process(_profiled(bench, name, command), log)
                )
                for name, command in (("ingress", ingress), ("worker", worker))
            },
        )
        await wait_answer(echo_port, "POST", "/", "{}")
        await wait_answer(port, "GET", "/readyz")
        await wait_answer(port, "POST", PATH, '{"name":"Ann"}')
        yield stage


def _twin(shape: Shape) -> Shape:
    """Make the same topic for the raw round trip."""
    name = shape.name.replace(f"{SERVICE}.", "raw.")
    return Shape(name=name, partitions=shape.partitions, settings=shape.settings)


def _profiled(bench: Bench, name: str, command: Sequence[str]) -> list[str]:
    if bench.profile != name:
        return ["-m", *command]
    file = str(bench.folder / f"{name}.txt")
    options = ["-r", "text", "--show", "*", "-p", "processor_options.filter_threshold=0.005"]
    return ["-m", "pyinstrument", "-o", file, *options, "-m", *command]


Measure = Callable[[int], Awaitable[Cell]]


def _measures(bench: Bench, stage: Stage) -> dict[str, Measure]:
    log = bench.folder / "processes.log"
    limit_s = bench.warm_up_s + bench.seconds + PATIENCE_S

    def load(at_once: int, watched: Mapping[str, int]) -> str:
        return Load(
            at_once=at_once,
            warm_up_s=bench.warm_up_s,
            seconds=bench.seconds,
            watched={**watched, JVM: stage.jvm},
        ).text()

    async def measure_raw(at_once: int) -> Cell:
        linger_ms = str(RAW_LINGER_MS.get(at_once, 1))
        arguments = [stage.kafka, linger_ms]
        echo = ["-m", "benchmarks.raw", "echo", *arguments]
        async with open_process(echo, log, line=b"assigned\n") as pid:
            client = ["-m", "benchmarks.raw", "client", *arguments, load(at_once, {"echo": pid})]
            return await run_load(client, log, limit_s)

    async def measure_http(
        port: int, path: str, at_once: int, watched: Mapping[str, int], *more: str
    ) -> Cell:
        client = ["-m", "benchmarks.load", str(port), path, load(at_once, watched), *more]
        return await run_load(client, log, limit_s)

    return {
        "raw": measure_raw,
        "echo": lambda at_once: measure_http(stage.echo_port, "/", at_once, {"server": stage.echo}),
        "bridge": lambda at_once: measure_http(stage.bridge_port, PATH, at_once, stage.bridge),
        "keyed": lambda at_once: measure_http(
            stage.bridge_port, PATH, at_once, stage.bridge, "keyed"
        ),
    }


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(each) for each in text.split(","))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="window of each cell")
    parser.add_argument("--warm-up", type=float, default=1.0, help="seconds before each window")
    parser.add_argument("--rounds", type=int, default=3, help="how often each cell is measured")
    parser.add_argument(
        "--at-once", type=_numbers, help="requests at once; default 1,32,256, with --profile 32"
    )
    parser.add_argument(
        "--kinds",
        type=lambda text: tuple(text.split(",")),
        help=f"what to measure; default {','.join(KINDS)}, with --profile bridge",
    )
    parser.add_argument(
        "--profile",
        choices=["ingress", "worker"],
        help="run the bridge alone, this process under pyinstrument, and print its calls",
    )
    parser.add_argument("--keep", type=Path, help="keep logs, data and profiles in this folder")
    return parser.parse_args()


def _main() -> None:
    arguments = _parse()
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        folder = arguments.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        bench = Bench(
            kinds=arguments.kinds or (("bridge",) if arguments.profile else KINDS),
            at_once=arguments.at_once or ((32,) if arguments.profile else (1, 32, 256)),
            rounds=1 if arguments.profile else arguments.rounds,
            seconds=arguments.seconds,
            warm_up_s=arguments.warm_up,
            profile=arguments.profile,
            folder=folder,
        )
        try:
            asyncio.run(run(bench))
        except asyncio.CancelledError:
            sys.exit("stopped before the end: nothing of it still runs")
        if arguments.profile:
            print((folder / f"{arguments.profile}.txt").read_text())


_main()
