"""The embedded Kafka as a program: prints `ready HOST:PORT`, runs until SIGTERM or Ctrl-C.

python -m bridge.embedded --data FOLDER [--port 0] [--nodes 3] [--jit] [--proxied-port N]

For tests, `--proxied-port N` adds a listener for a proxy that injects faults: the proxy listens at
127.0.0.1:N and forwards to 127.0.0.2:N, where Kafka listens. Whoever comes that way is told that
Kafka is at 127.0.0.1:N, so it never goes around the proxy; whoever comes by the printed address is
not touched by it.
"""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from bridge.embedded import Jars, Trial, open_kafka
from bridge.errors import EmbeddedKafkaError


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bridge.embedded", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder for records and logs")
    parser.add_argument("--port", type=int, default=9092, help="0: a free one")
    parser.add_argument("--nodes", type=int, default=1, choices=[1, 3])
    parser.add_argument("--jit", action="store_true", help="leave the JIT whole, for benchmarks")
    parser.add_argument("--proxied-port", type=int, default=0, help="port of a proxy, for tests")
    parser.add_argument("--cache", type=Path, default=Jars().cache, help="folder for Kafka's jars")
    parser.add_argument("--repository", help="base URL of the Maven repository to fetch them from")
    return parser.parse_args()


async def _run(arguments: argparse.Namespace) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):  # at any time, also while it starts
        asyncio.get_running_loop().add_signal_handler(number, _cancel)
    async with open_kafka(
        data=arguments.data,
        port=arguments.port,
        nodes=arguments.nodes,
        trial=Trial(jit=arguments.jit, proxied_port=arguments.proxied_port),
        jars=Jars(cache=arguments.cache, repository=arguments.repository),
        say=_say,
    ) as kafka:
        sys.stdout.write(f"ready {kafka.bootstrap}\n")
        sys.stdout.flush()
        raise await kafka.wait_end()


def _cancel() -> None:
    for task in asyncio.all_tasks():
        task.cancel()


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _main() -> int:
    try:
        asyncio.run(_run(_parse()))
    except asyncio.CancelledError:
        return 0  # told to end, and ended
    except EmbeddedKafkaError as error:
        _say(str(error))
    return 1


if __name__ == "__main__":
    sys.exit(_main())
