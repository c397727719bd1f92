"""Shows the bridge at work: `python -m demo`, or `make demo`.

Everything is real: an embedded Kafka, an ingress and a worker per service, in processes of their
own; this process is only a client. Ends with exit 0 when every answer was right, with exit 1 and
one line that says why, and the end of the bridge's log, when not.
"""

import csv
import json
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from bridge.errors import BridgeError
from demo import DemoError
from demo.client import CLIENTS, Client, Measured, ask_all, expect
from demo.dev import open_dev
from demo.topic import describe, read_trail

DATA = Path(".bridge/demo")
LOG = Path(".bridge/demo.log")
LOG_LINES = 20
SCHEMAS = Path("schemas")

GREETINGS = 400
TASKS = [".", "..", "."] * 3  # nine tasks in three workers' time, if they run side by side
LONG_TASK = "...."
SHOWN = 12


def main() -> int:
    """Run the demonstration; return the exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the bridge too, as Ctrl-C does
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=100)
    try:
        show(console)
    except KeyboardInterrupt:
        return 130
    except (DemoError, BridgeError, OSError, HTTPException) as error:
        sys.stderr.write(f"demo failed: {error}\n")
        print_log()
        return 1
    return 0


def show(console: Console) -> None:
    """Start the bridge, ask it, print what came, stop it."""
    start_s = time.perf_counter()
    LOG.unlink(missing_ok=True)
    console.print("Starting Kafka, the ingress and three workers (the first time takes longer) …")
    with open_dev(DATA, LOG) as dev:
        console.print(f"Ready after {time.perf_counter() - start_s:.1f} s: 127.0.0.1:{dev.port}\n")
        client = Client(dev.port)
        try:
            request_id = show_one(console, client)
            measured = ask_many(console, dev.port)
            show_airports(console, measured["airports"])
            show_latencies(console, measured)
            late_id = show_late(console, client)
            show_topics(console, dev.kafka, {"airports": request_id, "work": late_id})
        finally:
            client.close()
        console.print("\nStopping with SIGTERM …")
    console.print(f"Stopped cleanly. All of it took {time.perf_counter() - start_s:.1f} s.")


def show_one(console: Console, client: Client) -> str:
    """Send one request to each service, so that all are warm; return the last one's ID."""
    request_id = ""
    for service, request in (
        ("work", {"task": "nothing to do"}),
        ("greeter", {"name": "Ada"}),
        ("airports", {"latitude": -41.29, "longitude": 174.78}),
    ):
        answer = expect(client.ask(service, request), 200)
        console.print(f"POST /v1/services/{service}/requests {json.dumps(request)}", style="bold")
        console.print(f"{answer.status} {json.dumps(answer.body, ensure_ascii=False)}\n")
        request_id = answer.headers["request-id"]
    return request_id


def ask_many(console: Console, port: int) -> dict[str, Measured]:
    """Ask each service many times, from several clients at once."""
    capitals = [
        {"latitude": float(row["latitude"]), "longitude": float(row["longitude"])}
        for row in load_capitals()
    ]
    everything: dict[str, list[object]] = {
        "airports": [*capitals],
        "greeter": [{"name": f"client {number}"} for number in range(GREETINGS)],
        "work": [{"task": task} for task in TASKS],
    }
    measured = {}
    with open_progress(console) as progress:
        for service, requests in everything.items():
            task = progress.add_task(service, total=len(requests))
            advance = advancing(progress, task)
            measured[service] = ask_all(port, service, requests, advance)
    return measured


@contextmanager
def open_progress(console: Console) -> Iterator[Progress]:
    """Show a live bar on a terminal, and nothing elsewhere."""
    columns = (TextColumn("{task.description:10}"), BarColumn(), MofNCompleteColumn())
    live = console.is_terminal
    with Progress(*columns, TimeElapsedColumn(), console=console, disable=not live) as progress:
        yield progress


def advancing(progress: Progress, task: TaskID) -> Callable[[], None]:
    """Make a function that moves one bar by one."""
    return lambda: progress.advance(task)


def show_airports(console: Console, measured: Measured) -> None:
    """Print some capitals with their nearest airport."""
    capitals = load_capitals()
    table = Table(title="Capitals, some of them")
    for name, width in (("capital", 16), ("country", 14), ("nearest airport", 24)):
        table.add_column(name, no_wrap=True, max_width=width)  # a terminal may have 80 columns
    table.add_column("IATA")
    table.add_column("km", justify="right")
    for number in range(0, len(capitals), -(-len(capitals) // SHOWN)):
        row, airport = capitals[number], measured.replies[number]["airports"][0]
        place = (row["capital"], row["country"])
        table.add_row(*place, airport["name"], airport["iata"], f"{airport['distance_km']:.1f}")
    console.print(table)


def show_latencies(console: Console, measured: dict[str, Measured]) -> None:
    """Print what was measured."""
    table = Table("service", title=f"{CLIENTS} clients, each waiting for its answer")
    for name in ("requests", "requests/s", "p50 ms", "p95 ms", "p99 ms"):
        table.add_column(name, justify="right")
    for service, each in measured.items():
        percentiles = (f"{each.percentile_ms(percent):.1f}" for percent in (50, 95, 99))
        table.add_row(service, f"{len(each.took_s)}", f"{each.per_s:.0f}", *percentiles)
    console.print(table)


def show_late(console: Console, client: Client) -> str:
    """Ask for more work than the client waits for, and fetch the reply later; return its ID."""
    answer = expect(client.ask("work", {"task": LONG_TASK}, prefer="wait=1"), 202)
    location = answer.headers["location"]
    console.print(f"\nA task of {len(LONG_TASK)} s, waited for 1 s:", style="bold")
    console.print(f"202 after {answer.took_s:.1f} s, Location: {location}", soft_wrap=True)
    answer = expect(client.get(location, prefer="wait=10"), 200)
    console.print(f"GET it with Prefer: wait=10: 200 after {answer.took_s:.1f} s {answer.body}")
    return answer.headers["request-id"]


def show_topics(console: Console, kafka: str, request_ids: dict[str, str]) -> None:
    """Print what lies on Kafka for some requests: each is a record, and a short log of replies."""
    for service, request_id in request_ids.items():
        table = Table(title=f"\nOn Kafka, with the key {request_id}")
        table.add_column("topic/partition/offset", overflow="fold")
        table.add_column("headers, some", overflow="fold")
        table.add_column("value, Avro decoded", overflow="fold")
        trail = read_trail(kafka, service, request_id)
        if not any(record.topic.endswith(".replies") for record in trail):
            raise DemoError(f"found {len(trail)} records of {request_id}: want a request and a log")
        for record in trail:
            table.add_row(*describe(record, SCHEMAS))
        console.print(table)


def load_capitals() -> list[dict[str, str]]:
    """Load the rows of capitals.csv."""
    text = Path(__file__).with_name("capitals.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def print_log() -> None:
    """Print the end of the bridge's log to standard error."""
    if LOG.exists():
        with LOG.open(encoding="utf-8", errors="replace") as lines:
            sys.stderr.writelines([f"The end of {LOG}:\n", *deque(lines, LOG_LINES)])


if __name__ == "__main__":
    sys.exit(main())
