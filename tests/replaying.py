"""An operator of replays: has requests recorded, and runs the commands for them."""

import asyncio
import io
import json
import os
import sys
import time
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

import confluent_kafka as ck

from bridge.cli import main
from bridge.envelope import Headers, Record
from bridge.kafka import describe_topics
from bridge.registry import load_services
from bridge.service import Service
from tests.stack import Stack

MAX_BYTES = 16_000_000


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    returncode: int
    stdout: str
    stderr: str


class Replaying:
    """Who has requests of one service recorded, and the commands."""

    def __init__(self, stack: Stack, service: str = "echo", *, settings: str = "") -> None:
        if not stack.schemas.exists():
            stack.copy_services(service)
        self.stack = stack
        self.name = stack.name(service)
        file = stack.schemas / self.name / "service.toml"
        if settings:
            file.write_text(settings + file.read_text(encoding="utf-8"), encoding="utf-8")
        stack.apply_topics()
        self.requests, self.target = f"{self.name}.requests", f"{self.name}.replay"

    @property
    def service(self) -> Service:
        return load_services(self.stack.schemas)[self.name]

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "BRIDGE_KAFKA": self.stack.kafka,
            "BRIDGE_SCHEMAS": str(self.stack.schemas),
        }

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "bridge", "replay", *arguments]

    def run(self, *arguments: str) -> Done:
        """Run a command in this very process: starting another takes longer than most of them."""
        out, errors = io.StringIO(), io.StringIO()
        before = sys.argv, dict(os.environ)
        sys.argv = ["kbridge", "replay", *arguments]
        os.environ.update(self.environment)
        try:
            with redirect_stdout(out), redirect_stderr(errors):
                main()
        except SystemExit as ended:
            return Done(int(ended.code or 0), out.getvalue(), errors.getvalue())
        finally:
            sys.argv, environment = before
            os.environ.clear()
            os.environ.update(environment)
        raise AssertionError("kbridge has not ended by exit")

    def json(self, *arguments: str) -> dict[str, Any]:
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def plan(self, *arguments: str) -> dict[str, Any]:
        return self.json("plan", self.name, *arguments)

    def record(
        self, text: str, headers: Headers | None = None, *, partition: int = 0, key: bytes = b"k"
    ) -> Record:
        """A request, as another program would write it."""
        own: Headers = [
            ("bridge-request-id", text.encode()),
            ("bridge-reply-to", f"{self.name}.replies".encode()),
            ("bridge-deadline-ms", b"%d" % (time.time_ns() // 1_000_000 + 600_000)),
            ("tenant", b"t"),
        ]
        return Record(
            topic=self.requests,
            key=key,
            value=self.service.encode({"text": text}),
            headers=own if headers is None else headers,
            partition=partition,
        )

    def write(
        self, records: Iterable[Record], *, transaction: str = "", is_aborted: bool = False
    ) -> None:
        """Write records in their order, in a transaction or in none."""
        settings: dict[str, Any] = {
            "bootstrap.servers": self.stack.kafka,
            "enable.idempotence": True,
            "message.max.bytes": MAX_BYTES,
        }
        if transaction:
            settings["transactional.id"] = transaction
        client = ck.Producer(settings)
        if transaction:
            client.init_transactions()
            client.begin_transaction()
        for record in records:
            client.produce(
                record.topic,
                record.value,
                record.key,
                record.partition or 0,
                headers=record.headers,  # type: ignore[arg-type]  # the stub's list is invariant
                timestamp=max(0, record.timestamp_ms),
            )
        assert client.flush(30) == 0
        if transaction:
            (client.abort_transaction if is_aborted else client.commit_transaction)()

    def read(self, topic: str) -> list[Record]:
        return self.stack.read(topic)

    def everything(self) -> dict[str, list[int]]:
        """Where each topic of the service ends, by partition, and the shared ones but the plans'."""
        return asyncio.run(self._everything())

    async def _everything(self) -> dict[str, list[int]]:
        config = {"bootstrap.servers": self.stack.kafka}
        topics = await describe_topics(config)
        asking = ck.Consumer({**config, "group.id": "ends"})
        found = {
            topic: [
                asking.get_watermark_offsets(ck.TopicPartition(topic, partition))[1]
                for partition in range(count)
            ]
            for topic, count in topics.items()
            if topic.startswith(self.name)
        }
        asking.close()
        return found


def place(record: Record) -> str:
    return f"{record.topic}/{record.partition}/{record.offset}"
