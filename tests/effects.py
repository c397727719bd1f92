"""Work whose every execution can be counted: it leaves a line in a file, before and after.

Requests are written straight to Kafka, so a test has them where it wants them, when it wants them.
"""

import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import confluent_kafka as ck

from bridge.envelope import Reply
from bridge.registry import load_services
from bridge.service import Service
from tests.stack import READY_S, SERVICES, Process, Stack, until

LARGEST_BYTES = 6 * 1024 * 1024
"""What may be written; a topic takes it when it is told to."""
QUICK = {"BRIDGE_KAFKA__SESSION_TIMEOUT_MS": "2000", "BRIDGE_KAFKA__HEARTBEAT_INTERVAL_MS": "500"}
"""A session of 2 s: what a dead worker costs, at the size of a test. The product's is 6 s."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the file.

    Attributes:
        word: `begin` or `end`.
        pid: The worker's.
        text: The request's.
    """

    word: str
    pid: int
    text: str


@dataclass(frozen=True, slots=True)
class Effects:
    """Services made of the contract `effect`, in one stack, and what their handlers have done.

    Attributes:
        stack: Theirs.
    """

    stack: Stack

    @property
    def file(self) -> Path:
        return self.stack.schemas.parent / "effects"

    def make(self, *names: str, partitions: int = 4, concurrency: int = 64) -> None:
        """Make services of these names; `stack.name` says what they are called."""
        for name in names:
            folder = self.stack.schemas / self.stack.name(name)
            shutil.copytree(SERVICES / "schemas" / "effect", folder)
            settings = folder / "service.toml"
            text = settings.read_text(encoding="utf-8").replace("= 64", f"= {concurrency}")
            text += f"\n[topics]\npartitions = {partitions}\nlanes = 4\n"
            settings.write_text(text, encoding="utf-8")
        self.stack.apply_topics()

    def service(self, name: str) -> Service:
        return load_services(self.stack.schemas)[self.stack.name(name)]

    def start_worker(
        self, *names: str, handler: str = "handle", crash: str = "", **environment: str
    ) -> Process:
        """Start one worker of some services; a crash is `POINT:N` of `tests.crashing`."""
        only = ["--handler", f"consumers.effect:{handler}"] if len(names) == 1 else []
        return self.stack.start(
            *([crash] if crash else []),
            "worker",
            *(self.stack.name(name) for name in names),
            *only,
            module="tests.crashing" if crash else "bridge" if only else "tests.under_any_name",
            TEST_EFFECTS=str(self.file),
            **environment,
        )

    def lines(self) -> list[Line]:
        """What has been written so far, in order."""
        if not self.file.exists():
            return []
        rows = self.file.read_text(encoding="utf-8").splitlines()
        return [
            Line(word, int(pid), text) for word, pid, text in (row.split(" ", 2) for row in rows)
        ]

    def begun(self) -> Counter[str]:
        """How often each request was begun, by its text."""
        return Counter(line.text for line in self.lines() if line.word == "begin")

    def ends(self, name: str) -> dict[str, list[Reply]]:
        """The last events of each request, in the log's order: the first one is what clients see."""
        found: dict[str, list[Reply]] = defaultdict(list)
        for reply in self.stack.read_replies(name):
            if reply.event is not None and reply.event.is_last:
                found[reply.request_id].append(reply)
        return found


def pid_of(service: Service, reply: Reply) -> int:
    """Return which worker gave an answer."""
    value = service.decode_reply(reply.value)
    assert isinstance(value, dict)
    return int(value["pid"])


def wait_works(*workers: Process) -> None:
    """Wait until each worker says that it works."""
    for worker in workers:
        until(
            lambda worker=worker: bool(worker.events("working")),  # type: ignore[misc]  # bound to this turn's
            timeout_s=READY_S,
            what=f"a worker works: {worker.log}",
        )


class Writer:
    """Writes requests of one service; the text is the request's ID."""

    def __init__(self, stack: Stack, service: Service) -> None:
        self._service = service
        self._client = ck.Producer(
            {
                "bootstrap.servers": stack.kafka,
                # Without it a retry, as on a topic this young, may change the order in the log.
                "enable.idempotence": True,
                "message.max.bytes": LARGEST_BYTES,
            }
        )

    def write(
        self, text: str, *, sleep_s: float = 0, key: str | None = None, partition: int = -1
    ) -> None:
        """Queue a request; `flush` sees it in Kafka."""
        service = self._service
        value = service.encode({"text": text, "sleep_s": sleep_s})
        self.write_raw(text, value, key=key, partition=partition)

    def write_raw(
        self, name: str, value: bytes | None, *, key: str | None = None, partition: int = -1
    ) -> None:
        """Queue a request whose value is whatever it is."""
        headers: list[tuple[str, str | bytes | None]] = [
            ("bridge-request-id", name.encode()),
            ("bridge-reply-to", self._service.replies_topic.encode()),
        ]
        topic = self._service.requests_topic
        while True:
            try:
                self._client.produce(topic, value, key or name, partition, headers=headers)
            except BufferError:
                self._client.poll(0.1)
            else:
                return

    def flush(self) -> None:
        """Wait until all are in Kafka."""
        assert self._client.flush(30) == 0


def texts(prefix: str, numbers: Iterable[int]) -> list[str]:
    return [f"{prefix}-{number}" for number in numbers]
