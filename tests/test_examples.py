"""What the documents show to be typed works, and says what they say."""

import asyncio
import http.server
import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from bridge.cli.dev import Dev, _say_ready
from bridge.embedded import guarded
from bridge.registry import load_services
from bridge.settings import Settings
from tests.stack import Stack
from tests.test_docs import PAGES, ROOT, name

BLOCK = re.compile(r"(?:^<!-- (runs[^>]*) -->\n)?^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS: dict[str, tuple[str, str]] = {
    f"{name(page)}-{number}": block
    for page in PAGES
    for number, block in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")))
}


@pytest.mark.parametrize(("mark", "code"), BLOCKS.values(), ids=BLOCKS)
def test_examples_compile_and_those_that_say_so_run(mark: str, code: str) -> None:
    compile(code, "example", "exec", dont_inherit=True)
    if mark == "runs":
        subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)  # noqa: S603 - our own


@pytest.mark.timeout(120)
def test_the_example_that_speaks_kafka_is_answered(stack: Stack, tmp_path: Path) -> None:
    (code,) = [code for mark, code in BLOCKS.values() if mark == "runs with Kafka"]
    service = stack.name("greeter")
    contract = stack.schemas / service
    contract.mkdir(parents=True)
    for file in (ROOT / "schemas" / "greeter").iterdir():
        (contract / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    environ = {**os.environ, "BRIDGE_KAFKA": stack.kafka, "BRIDGE_SCHEMAS": str(stack.schemas)}
    kbridge = [sys.executable, "-m", "bridge"]
    subprocess.run([*kbridge, "topics", "apply"], check=True, cwd=ROOT, env=environ)  # noqa: S603 - our own
    work = [*kbridge, "worker", service, "--handler", "consumers.greeter:handle"]

    with subprocess.Popen(  # noqa: S603 - our own
        guarded(work, on_parent_death=signal.SIGTERM), cwd=ROOT, env=environ
    ) as worker:
        try:
            done = subprocess.run(  # noqa: S603 - our own
                [sys.executable, "-c", code.replace('"greeter"', f'"{service}"')],
                capture_output=True,
                check=False,
                cwd=tmp_path,
                env=environ,
                text=True,
            )
        finally:
            worker.terminate()

    assert done.stdout == "{'greeting': 'Hello, Ann'}\n", done.stderr


class _Ready(http.server.BaseHTTPRequestHandler):
    """An ingress that is ready, and no more."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def ready() -> Iterator[socket.socket]:
    with http.server.HTTPServer(("127.0.0.1", 0), _Ready) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.socket
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_the_first_curl_is_the_line_that_dev_prints(page: str, ready: socket.socket) -> None:
    plan = Dev(
        settings=Settings(),
        services=load_services(ROOT / "schemas"),
        data=Path(),
        is_fresh=False,
        kafka_port=None,
    )
    console = Console(file=io.StringIO(), soft_wrap=True, highlight=False)

    asyncio.run(_say_ready(plan, plan.settings, ready, console))

    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue().splitlines()[-1].strip()
    line = printed.replace(str(ready.getsockname()[1]), str(Settings().port))
    text = (ROOT / page).read_text(encoding="utf-8")
    block = re.search(r"^```sh\n(curl.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert block is not None
    assert block[1].strip() == line


def test_dev_says_which_services_have_no_worker(ready: socket.socket, tmp_path: Path) -> None:
    services = load_services(ROOT / "schemas")
    services["shout"] = services["greeter"]
    plan = Dev(
        settings=Settings(), services=services, data=tmp_path, is_fresh=False, kafka_port=None
    )
    console = Console(file=io.StringIO(), soft_wrap=True, highlight=False)

    asyncio.run(_say_ready(plan, plan.settings, ready, console))

    assert isinstance(console.file, io.StringIO)
    said = [line for line in console.file.getvalue().splitlines() if "No worker" in line]
    assert len(said) == 1
    assert said[0].startswith("No worker for shout")
    assert "kbridge worker shout --handler" in said[0]
