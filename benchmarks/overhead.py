"""What the worker costs beside a bare loop: records per second, in one interleaved run.

Both take the same backlog of the same contract off a topic, decode each request, make a reply, write
it and commit. The bare loop does nothing else: one thread, `consume` in batches, a flush and a commit
per batch, no order per key, no deadline, no retry, nothing read back. Run as
`python -m benchmarks.overhead` (`make bench-worker`).
"""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import confluent_kafka as ck

from benchmarks.running import open_process
from bridge.cli.topics import shapes_of
from bridge.embedded import Trial, open_kafka
from bridge.envelope import Event, Record, make_reply, parse_request
from bridge.kafka import Place, apply_topics, open_producer, open_reader
from bridge.kafka.client import BATCH, READING, SHARED, as_record
from bridge.kafka.group import GROUP
from bridge.kafka.producer import WRITING
from bridge.registry import load_services
from bridge.service import Service

SERVICE = "greeter"
EXPECTED = {"worker": 0.6, "exactly-once": 0.4}
"""Records per second, as a share of the bare loop's."""
PATIENCE_S = 120.0
_GREETING = {"greeting": "Hello, Ann"}
_POLL_S, _LOOK_S = 0.1, 0.02


def run_bare(kafka: str, schemas: str, name: str) -> None:
    """Answer until told to stop: nothing but the client library and the codec."""
    service = load_services(Path(schemas))[name]
    consumer = ck.Consumer(
        {"bootstrap.servers": kafka, **SHARED, **READING, **GROUP, "group.id": f"bare.{name}"}
    )
    producer = ck.Producer({"bootstrap.servers": kafka, **SHARED, **WRITING, "linger.ms": 1})
    consumer.subscribe([service.requests_topic])
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    while not stopping:
        first = consumer.poll(_POLL_S)
        if first is None:
            continue
        messages = [first, *consumer.consume(BATCH, 0)]
        for message in messages:
            if message.error() is None:
                _answer(service, producer, as_record(message))
        producer.flush()
        consumer.commit(asynchronous=True)
    consumer.close()


def _answer(service: Service, producer: ck.Producer, record: Record) -> None:
    service.decode(record.value)
    request = parse_request(record)
    reply = make_reply(request, Event.COMPLETED, service.encode_reply(_GREETING))
    producer.produce(
        reply.topic,
        reply.value,
        reply.key,
        reply.partition or 0,
        headers=reply.headers,  # type: ignore[arg-type]  # the stub's list is invariant
    )


async def fill(config: dict[str, str], service: Service, count: int) -> None:
    """Write a backlog: requests with keys of their own, answers spread over the lanes."""
    value = service.encode({"name": "Ann"})
    async with open_producer({**config, "queue.buffering.max.messages": count + 1}) as producer:
        send = producer.route(count)
        last = None
        for number in range(count):
            headers = [
                ("bridge-request-id", b"%d" % number),
                ("bridge-reply-to", service.replies_topic.encode()),
                ("bridge-reply-partition", b"%d" % (number % service.topics.lanes)),
            ]
            last = send(
                Record(
                    topic=service.requests_topic,
                    key=b"%d" % number,
                    value=value,
                    headers=headers,
                    partition=number % service.topics.partitions,
                )
            )
        if last is not None:
            await last


class Found(NamedTuple):
    """What one cell showed: records per second, and the process's own CPU time for each."""

    rate: float
    cpu_us: float


async def measure(config: dict[str, str], service: Service, count: int, pid: int) -> Found:
    """Wait until all is answered; the rate is by the broker's clock, from first to last answer."""
    lanes = [(service.replies_topic, n) for n in range(service.topics.lanes)]
    times: list[int] = []

    def note(record: Record) -> bool:
        if dict(record.headers).get("bridge-event") == b"completed":
            times.append(record.timestamp_ms)
        return False

    async with asyncio.timeout(PATIENCE_S), open_reader(config) as reader:
        early, begun_s = await asyncio.to_thread(_wait_answers, config, lanes, 1, pid)
        _, ended_s = await asyncio.to_thread(_wait_answers, config, lanes, count, pid)
        while len(times) < count:  # markers of transactions take offsets too: perhaps not yet all
            times.clear()
            await reader.read(lanes, since_ms=0, is_enough=note)
            ended_s = _cpu_s(pid)
    rate = (count - 1) / max(0.001, (max(times) - min(times)) / 1000)
    return Found(rate, (ended_s - begun_s) / max(1, count - early) * 1e6)


def _wait_answers(
    config: dict[str, str], lanes: Sequence[Place], count: int, pid: int
) -> tuple[int, float]:
    """Wait until the lanes hold so many; return how many, and the process's CPU time then."""
    asking = ck.Consumer({**config, **SHARED, "group.id": "bench"})
    limit = time.monotonic() + PATIENCE_S
    while True:
        ends = [asking.get_watermark_offsets(ck.TopicPartition(*lane))[1] for lane in lanes]
        found, used_s = sum(ends), _cpu_s(pid)
        if found >= count or time.monotonic() > limit:
            asking.close()
            return found, used_s
        time.sleep(_LOOK_S)


def _cpu_s(pid: int) -> float:
    """Return the user and system time of a process so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def run(kinds: Sequence[str], rounds: int, count: int, folder: Path) -> None:
    """Measure, and print the table."""
    found: dict[str, list[Found]] = {kind: [] for kind in kinds}
    log = folder / "processes.log"
    async with open_kafka(data=folder / "kafka", port=0, trial=Trial(jit=True), say=print) as kafka:
        config = {"bootstrap.servers": kafka.bootstrap}
        for number in range(rounds + 1):  # in the first one Java's compiler learns
            for kind in kinds:
                name = f"{SERVICE}-{kind}-{number}"
                schemas = _make_contract(folder, name, is_exactly_once=kind == "exactly-once")
                service = load_services(schemas)[name]
                await apply_topics(config, shapes_of({name: service}))
                await fill(config, service, count)
                command = _command(kind, kafka.bootstrap, schemas, name)
                async with open_process(command, log) as pid:
                    cell = await measure(config, service, count, pid)
                print(f"round {number}: {kind}: {_show(cell)}", flush=True)
                if number:
                    found[kind].append(cell)
    bare = median(cell.rate for cell in found["bare"])
    for kind, cells in found.items():
        middle = Found(median(c.rate for c in cells), median(c.cpu_us for c in cells))
        share = middle.rate / bare
        bound = EXPECTED.get(kind)
        told = (
            ""
            if bound is None
            else f" ({'as' if share >= bound else 'NOT AS'} expected: at least {bound})"
        )
        print(f"{kind:13} {_show(middle)}  {share:5.2f} of bare{told}")


def _show(cell: Found) -> str:
    return f"{cell.rate:8.0f} records/s  {cell.cpu_us:6.1f} CPU µs a record"


def _make_contract(folder: Path, name: str, *, is_exactly_once: bool) -> Path:
    schemas = folder / "schemas" / name
    target = schemas / name
    target.mkdir(parents=True)
    for file in ("request.avsc", "reply.avsc"):
        text = (Path("schemas") / SERVICE / file).read_text(encoding="utf-8")
        (target / file).write_text(text, encoding="utf-8")
    settings = ["[worker]", "concurrency = 100", "[topics]", "partitions = 4", "lanes = 4"]
    if is_exactly_once:
        settings.insert(1, "exactly_once = true")
    (target / "service.toml").write_text("\n".join(settings), encoding="utf-8")
    return schemas


def _command(kind: str, kafka: str, schemas: Path, name: str) -> list[str]:
    if kind == "bare":
        return ["-m", "benchmarks.overhead", "--bare", kafka, str(schemas), name]
    handler = "benchmarks.overhead:handle"
    return [
        *("-m", "bridge", "worker", name, "--handler", handler),
        *("--kafka", kafka, "--schemas", str(schemas)),
    ]


async def handle(_: dict[str, str]) -> dict[str, str]:
    """Do nothing: what is measured is everything else."""
    return _GREETING


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.add_argument("--records", type=int, default=30_000, help="backlog of each cell")
    parser.add_argument("--rounds", type=int, default=3, help="how often each cell is measured")
    parser.add_argument("--kinds", default="bare,worker", help="bare, worker, exactly-once")
    parser.add_argument("--bare", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        run_bare(*arguments.bare)
        return
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        kinds = arguments.kinds.split(",")
        asyncio.run(run(kinds, arguments.rounds, arguments.records, Path(scratch)))


if __name__ == "__main__":
    sys.exit(_main())
