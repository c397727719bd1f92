"""RELIABILITY 42: what OpenAPI says is asked in every wrong way; no answer is a 500 or undocumented."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stack import Stack

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(600)

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_headers_conformance,response_schema_conformance,negative_data_rejection,"
    "unsupported_method,allow_header_conformance"
)
# 502, 503 and 504 are answers: the handler broke, try again, the deadline passed. 500 is a bug.
CONFIG = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "502", "503", "504"]
"""


@pytest.mark.parametrize("examples", [15, pytest.param(300, marks=pytest.mark.full)])
def test_no_answer_is_a_bug_or_undocumented(stack: Stack, tmp_path: Path, examples: int) -> None:
    stack.make_services("mirror", "everything")
    stack.start_worker("mirror")
    _, url = stack.start_ingress(BRIDGE_MAX_WAIT_S="1")
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG, encoding="utf-8")

    run = subprocess.run(  # noqa: S603 - pinned in requirements
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config)),
            *("run", f"{url}/openapi.json", "--checks", CHECKS, "--no-color"),
            *("--phases", "examples,coverage,fuzzing", "--continue-on-failure"),
            *("--max-examples", str(examples), "--request-timeout", "30"),
            *("--generation-database", "none", "--seed", "1"),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": "tests.fuzz_hooks"},
        capture_output=True,
        text=True,
        check=False,
    )

    print(run.stdout[-3000:])
    assert run.returncode == 0, run.stdout + run.stderr
