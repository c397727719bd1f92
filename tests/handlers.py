"""Services and contexts for tests of handlers that run elsewhere: no Kafka, no worker around them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bridge import service
from bridge.context import Context
from bridge.service import Service

_SCHEMAS = Path(__file__).parent / "services" / "schemas"


def make_service(name: str, settings: str = "") -> Service:
    """Load a test service's contract with other settings."""
    texts = {
        kind: (_SCHEMAS / name / f"{kind}.avsc").read_text(encoding="utf-8")
        for kind in ("request", "reply")
    }
    return service.load(name, request=texts["request"], reply=texts["reply"], settings=settings)


class Asked:
    """A request's context, with what is said about it."""

    def __init__(self, request_id: str = "r", *, left_s: float = 60.0, **facts: Any) -> None:
        self.progress: list[tuple[float | None, str]] = []
        self.is_cancelled = False
        self.context = Context(
            request_id=request_id,
            seconds_left=lambda: left_s,
            was_cancelled=lambda: self.is_cancelled,
            report=lambda fraction, message: self.progress.append((fraction, message)),
            **facts,
        )


def need(command: str) -> None:
    """Leave a test out where the program that it asks is not there."""
    if command.startswith("node ") and shutil.which("node") is None:
        pytest.skip("node is not installed: apt-get install nodejs")


def as_json(value: object) -> bytes:
    """Write JSON as a worker does, without blanks."""
    return json.dumps(value, separators=(",", ":")).encode()
