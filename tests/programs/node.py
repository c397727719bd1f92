"""An HTTP application that is not Python: `app.mjs`, run by Node.js."""

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge.embedded import guarded

APP = Path(__file__).with_name("app.mjs")


@dataclass(frozen=True)
class App:
    """The running application."""

    port: int
    pid: int = 0

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def facts(self) -> dict[str, Any]:
        """What it has seen: connections, clients that left, requests."""
        return dict(json.loads(httpx.get(self.url("/facts"), headers={"connection": "close"}).text))


@contextmanager
def run_app(port: int = 0) -> Iterator[App]:
    """Run it for as long as the block; skip the test where there is no Node.js."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no program `node` on this machine")
    with subprocess.Popen(  # noqa: S603 - our own
        guarded([node, str(APP), str(port)], on_parent_death=signal.SIGKILL),
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        try:
            yield App(int(child.stdout.readline()), child.pid)
        finally:
            child.kill()
