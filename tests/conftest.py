"""What every test may ask for: a real Kafka, one for the whole run.

`BRIDGE_TEST_KAFKA` says which: unset, the embedded one; `docker`, a container; else a running one's
`host:port`. Tests share it, so topics and groups have names of their own.
"""

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import pytest

from bridge.embedded import guarded
from bridge.embedded.jars import Jars, load_class_path
from bridge.embedded.node import Node, format_settings
from tests.faults import ProxiedKafka, open_proxy
from tests.stack import Stack, open_stack

_ROOT = Path(__file__).parents[1]
_WANTED = os.environ.get("BRIDGE_TEST_KAFKA", "")

# A property holds or not; how long an example takes depends on who else uses the machine.
hypothesis.settings.register_profile("any-machine", deadline=None)
hypothesis.settings.load_profile("any-machine")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fetch Kafka's jars before the first test's time starts to run."""
    names = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    is_used = "proxied_kafka" in names or ("kafka" in names and not _WANTED)
    if is_used and not session.config.option.collectonly:
        asyncio.run(load_class_path(Jars(), print))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out scenarios in their full size, unless marks are chosen (`make scenarios`)."""
    if config.option.markexpr:
        return
    full = [item for item in items if item.get_closest_marker("full")]
    items[:] = [item for item in items if item not in full]
    config.hook.pytest_deselected(items=full)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bootstrap servers of the run's Kafka."""
    if _WANTED == "docker":
        with _docker() as bootstrap:
            yield bootstrap
    elif _WANTED:
        yield _WANTED
    else:
        with _embedded(tmp_path_factory.mktemp("kafka")) as bootstrap:
            yield bootstrap


@pytest.fixture
def stack(kafka: str, tmp_path: Path) -> Iterator[Stack]:
    with open_stack(kafka, tmp_path, f"-{secrets.token_hex(4)}") as made:
        yield made


@pytest.fixture(scope="session")
def proxied_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxiedKafka]:
    """A Kafka of its own, embedded in any case, with a proxy that disturbs single requests."""
    data = tmp_path_factory.mktemp("proxied")
    with open_proxy() as proxy, _embedded(data, "--proxied-port", str(proxy.port)) as direct:
        yield ProxiedKafka(f"127.0.0.1:{proxy.port}", direct, proxy)


@contextmanager
def _embedded(data: Path, *options: str) -> Iterator[str]:
    """Run it as a child: it needs an event loop that lives longer than a test's."""
    command = [sys.executable, "-m", "bridge.embedded", "--port", "0", "--data", str(data)]
    command += options
    with (
        (data / "stderr").open("w+") as errors,
        subprocess.Popen(  # noqa: S603 - this project's own
            guarded(command, on_parent_death=signal.SIGTERM),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=_ROOT,
        ) as child,
    ):
        assert child.stdout is not None
        try:
            word, _, bootstrap = child.stdout.readline().strip().partition(" ")
            assert word == "ready", (data / "stderr").read_text()
            yield bootstrap
        finally:
            child.terminate()


@contextmanager
def _docker() -> Iterator[str]:
    """Run Apache's image with the embedded Kafka's settings; any one replaces all of its own."""
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - slow to import
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy  # noqa: PLC0415

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    node = Node(number=1, folder=Path("/tmp"), port=port, controller_port=9093)  # noqa: S108
    text = format_settings(node, [node], Path("/tmp/records"))  # noqa: S108 - in the container
    settings = dict(line.split("=", 1) for line in text.splitlines())
    settings["listeners"] = "PLAINTEXT://0.0.0.0:9092,CONTROLLER://127.0.0.1:9093"
    settings["advertised.listeners"] = f"PLAINTEXT://{node.address}"
    image = DockerContainer("apache/kafka:4.3.1")
    for name, value in settings.items():
        image.with_env("KAFKA_" + name.upper().replace(".", "_"), value)
    image.ports["9092/tcp"] = ("127.0.0.1", port)  # type: ignore[assignment]  # docker-py's form
    image.waiting_for(LogMessageWaitStrategy("Kafka Server started"))
    with image:
        yield node.address
