"""An operator of one service: has dead letters made, and runs the commands for them."""

import asyncio
import json
import os
import subprocess
import sys
import time
from typing import Any

from bridge import ids
from bridge.envelope import Record, Request
from bridge.kafka import Config, describe_topics, open_producer
from bridge.registry import load_services
from bridge.service import Service
from tests.stack import Stack


class Operator:
    """Who has dead letters of one service, and the commands."""

    def __init__(self, stack: Stack, service: str = "echo", *, settings: str = "") -> None:
        if not stack.schemas.exists():
            stack.copy_services(service)
        self.stack = stack
        self.name = stack.name(service)
        if settings:
            file = stack.schemas / self.name / "service.toml"
            file.write_text(settings + file.read_text(encoding="utf-8"), encoding="utf-8")
        stack.apply_topics()
        self.dead, self.replay = f"{self.name}.dead", f"{self.name}.replay"

    @property
    def service(self) -> Service:
        return load_services(self.stack.schemas)[self.name]

    def request(self, number: int) -> Request:
        request_id = ids.make(time_ms=time.time_ns() // 1_000_000, lane=1, chance=number)
        return Request(
            request_id=request_id, reply_to=f"{self.name}.replies", reply_partition=1, principal="a"
        )

    def write(self, *records: Record) -> None:
        asyncio.run(self._write(records))

    async def _write(self, records: tuple[Record, ...]) -> None:
        config: Config = {
            "bootstrap.servers": self.stack.kafka,
            "message.max.bytes": 16_000_000,
        }
        async with open_producer(config) as producer:
            for record in records:  # one after the other: their times tell their order
                await producer.route(0)(record)

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(  # noqa: S603 - our own
            self.command(arguments),
            capture_output=True,
            text=True,
            check=False,
            env=self.environment(),
        )

    def command(self, arguments: tuple[str, ...]) -> list[str]:
        command, *rest = arguments
        return [sys.executable, "-m", "bridge", "dead", command, self.name, *rest]

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "BRIDGE_KAFKA": self.stack.kafka,
            "BRIDGE_SCHEMAS": str(self.stack.schemas),
        }

    def redrive(self, *arguments: str) -> dict[str, Any]:
        done = self.run("redrive", "--json", *arguments)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def written(self) -> list[Record]:
        return self.stack.read(self.replay)

    def everything(self) -> dict[str, int]:
        """How many records lie in each topic of the service."""
        topics = asyncio.run(describe_topics({"bootstrap.servers": self.stack.kafka}))
        return {
            topic: len(self.stack.read(topic)) for topic in topics if topic.startswith(self.name)
        }


def counts(report: dict[str, Any]) -> dict[str, int]:
    """The counts that are not 0."""
    names = ("redriven", "resolved", "parked", "redriven_earlier", "unknown", "unreadable")
    assert report["selected"] == sum(report[name] for name in names)
    return {name: report[name] for name in names if report[name]}
