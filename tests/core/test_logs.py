"""Log lines for a person who looks: what they must not show."""

import os
import pty
import subprocess
import sys

PROGRAM = """
import structlog
from bridge.cli.logs import set_up_logs

def handle(body):
    raise ValueError("broke")

set_up_logs("info")
try:
    handle("a-secret-body")
except ValueError:
    structlog.get_logger("bridge").exception("record-broke", request_id="r1")
"""


def test_a_trace_on_a_terminal_shows_no_local_variables() -> None:
    reading, writing = pty.openpty()
    with os.fdopen(reading, "rb") as terminal:
        subprocess.run([sys.executable, "-c", PROGRAM], stderr=writing, check=True, timeout=20)  # noqa: S603 - this project's own
        os.close(writing)
        shown = terminal.read1(1 << 16).decode()

    assert "record-broke" in shown
    assert "ValueError: broke" in shown
    assert "a-secret-body" not in shown
