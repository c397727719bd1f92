"""The embedded Kafka: what it keeps, what it says when it cannot start, what it leaves behind."""

import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from bridge.embedded import Jars, guarded, open_kafka
from bridge.embedded.jars import load_class_path
from bridge.errors import EmbeddedKafkaError

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
async def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of one node, stopped, with one record in it."""
    data = tmp_path_factory.mktemp("used")
    async with open_kafka(data=data, port=0) as kafka:
        write(kafka.bootstrap, "kept", b"record", replicas=1)
    return data


@pytest.fixture
def data(used: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(used, tmp_path / "data")


def test_the_run_has_a_kafka(kafka: str) -> None:
    assert AdminClient({"bootstrap.servers": kafka}).list_topics(timeout=10).brokers


async def test_a_restart_keeps_topics_and_records_on_whatever_port(data: Path) -> None:
    async with open_kafka(data=data, port=0) as kafka:
        assert read(kafka.bootstrap, "kept") == b"record"
    first = kafka.bootstrap

    async with open_kafka(data=data, port=0) as kafka:
        assert read(kafka.bootstrap, "kept") == b"record"
        assert kafka.bootstrap != first


async def test_a_data_folder_keeps_its_number_of_nodes(data: Path) -> None:
    with pytest.raises(EmbeddedKafkaError, match="was made with 1 nodes, 3 are wanted: start it"):
        await start(data, nodes=3)


async def test_two_nodes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedKafkaError, match="2 nodes: want 1 or 3"):
        await start(tmp_path, nodes=2)


async def test_a_damaged_cluster_file_is_named(data: Path) -> None:
    (data / "cluster.json").write_text("{}")

    with pytest.raises(EmbeddedKafkaError, match=r"cluster\.json is damaged"):
        await start(data)


async def test_a_data_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(EmbeddedKafkaError, match="cannot be the data folder"):
        await start(tmp_path / "file")


async def test_a_taken_port_is_named(data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(EmbeddedKafkaError, match=rf"port {port} of .*Address already in use"):
            await start(data, port=port)


async def test_a_port_that_cannot_be_is_refused(data: Path) -> None:
    with pytest.raises(EmbeddedKafkaError, match="port 65536 of"):
        await start(data, port=65536)


async def test_a_folder_in_use_names_its_holder_and_a_kill_frees_it(data: Path) -> None:
    with run(data) as owner:
        with pytest.raises(EmbeddedKafkaError, match=f"the Kafka of process {owner.pid}: end"):
            await start(data)
        (jvm,) = children(owner.pid)
        jvm_end = os.pidfd_open(jvm)

        owner.kill()

        assert select.select([jvm_end], [], [], 5.0)[0]
        os.close(jvm_end)
    async with open_kafka(data=data, port=0) as kafka:
        assert read(kafka.bootstrap, "kept") == b"record"


async def test_corrupt_data_ends_the_start_with_kafkas_own_reason(data: Path) -> None:
    meta = data / "node-1" / "log" / "meta.properties"
    meta.write_text(meta.read_text().replace("node.id=1", "node.id=7"))

    with pytest.raises(EmbeddedKafkaError, match=r"exit code 1: .*Stored node id 7 .*kafka\.log"):
        await start(data)


async def test_a_jvm_that_ends_by_itself_is_told(data: Path) -> None:
    async with open_kafka(data=data, port=0) as kafka:
        os.kill(kafka.pids[0], signal.SIGKILL)

        assert "was killed by signal 9" in str(await kafka.wait_end())


def test_the_program_ends_by_sigterm_and_leaves_no_jvm(data: Path) -> None:
    with run(data) as program:
        (jvm,) = children(program.pid)

        program.terminate()

        assert program.wait(20) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(jvm, 0)


async def test_three_nodes_keep_a_topic_three_times(tmp_path: Path) -> None:
    async with open_kafka(data=tmp_path, port=0, nodes=3) as kafka:
        write(kafka.bootstrap, "kept", b"record", replicas=3)

        assert len(kafka.pids) == len(kafka.bootstrap.split(",")) == 3
        assert read(kafka.bootstrap, "kept") == b"record"


async def test_what_is_not_in_the_cache_and_cannot_be_fetched_is_named(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        jars = Jars(cache=tmp_path / "cache", repository=address)

        with pytest.raises(EmbeddedKafkaError, match=r"cannot fetch org\.apache.*start once"):
            await start(tmp_path / "data", jars=jars)

    assert not (tmp_path / "data").exists()


async def test_a_file_that_is_not_the_pinned_one_is_refused(tmp_path: Path) -> None:
    with repository({}) as address:
        jars = Jars(cache=tmp_path, repository=address)

        with pytest.raises(EmbeddedKafkaError, match="is not the file that was pinned"):
            await load_class_path(jars, print)

    assert not list((tmp_path / "jars").iterdir())


async def test_a_damaged_jar_is_fetched_again_and_the_others_are_not(tmp_path: Path) -> None:
    told: list[str] = []
    whole = (await load_class_path(Jars(), told.append)).split(os.pathsep)
    with repository({Path(jar).name: Path(jar) for jar in whole}) as address:
        jars = Jars(cache=tmp_path, repository=address)
        first = await load_class_path(jars, told.append)
        damage(first.split(os.pathsep)[3])

        second = await load_class_path(jars, told.append)

    assert second == first
    assert [re.sub(" to .*", "", line) for line in told] == [
        f"fetching {len(whole)} of {len(whole)} jars of Kafka, once,",
        f"fetching 1 of {len(whole)} jars of Kafka, once,",
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_guarded_child_gets_its_signal_when_its_parent_is_killed(number: int) -> None:
    script = (
        "import subprocess\n"
        "from bridge.embedded import guarded\n"
        f"with subprocess.Popen(guarded(['cat'], on_parent_death={int(number)})) as child:\n"
        "    print(child.pid, flush=True)\n"
    )
    with child(["-c", script]) as (parent, first_line):
        child_end = os.pidfd_open(int(first_line))

        parent.kill()

        assert select.select([child_end], [], [], 5.0)[0]
        os.close(child_end)


def test_a_command_that_cannot_be_run_ends_as_in_a_shell() -> None:
    ended = subprocess.run(  # noqa: S603 - our own
        guarded(["/no/such"]), capture_output=True, text=True, check=False
    )

    assert (ended.returncode, ended.stderr) == (
        127,
        "cannot run /no/such: No such file or directory\n",
    )


async def start(data: Path, *, port: int = 0, nodes: int = 1, jars: Jars = Jars()) -> None:  # noqa: B008
    async with open_kafka(data=data, port=port, nodes=nodes, jars=jars):
        pass


def write(bootstrap: str, topic: str, value: bytes, *, replicas: int) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    made = admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=replicas)])
    made[topic].result(10)
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all"})
    producer.produce(topic, value)
    assert producer.flush(10) == 0


def read(bootstrap: str, topic: str) -> bytes | None:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "reader"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    try:
        message = consumer.poll(10)
        return None if message is None else message.value()
    finally:
        consumer.close()


def damage(file: str) -> None:
    Path(file).write_bytes(b"cut off")


@contextmanager
def run(data: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the embedded Kafka as a program until it is ready."""
    arguments = ["-m", "bridge.embedded", "--port", "0", "--data", str(data)]
    with child(arguments) as (program, first_line):
        assert first_line.startswith("ready 127.0.0.1:")
        yield program


@contextmanager
def child(arguments: list[str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run Python until it has printed a line."""
    command = guarded([sys.executable, *arguments], on_parent_death=signal.SIGTERM)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as process:  # noqa: S603 - our own
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline()
        finally:
            process.terminate()


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def repository(files: dict[str, Path]) -> Iterator[str]:
    """Serve files by their names, and something for all others."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Repository, files)) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class Repository(BaseHTTPRequestHandler):
    def __init__(self, files: dict[str, Path], *rest: object) -> None:
        self.files = files
        super().__init__(*rest)  # type: ignore[arg-type]  # as socketserver passes them

    def do_GET(self) -> None:
        file = self.files.get(self.path.rpartition("/")[2])
        body = file.read_bytes() if file else b"not a jar"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""
