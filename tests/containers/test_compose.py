"""docker-compose.yml as a user starts it: real images, real containers, a request to each service."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
WORKERS = ("greeter", "work", "airports")
OURS = ("ingress", *WORKERS)
READY_S = 120.0  # from the start of the containers; Kafka takes some 5 s of it

pytestmark = [pytest.mark.containers, pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """The running containers."""

    compose: tuple[str, ...]
    environment: dict[str, str]
    port: int

    def run(self, *arguments: str) -> str:
        """Run a Compose command; fail with what it said when it does not exit 0."""
        return run(*self.compose, *arguments, environment=self.environment)

    def inspect(self, service: str) -> dict[str, Any]:
        """Tell all that the engine knows about a service's container."""
        container = self.run("ps", "--all", "--quiet", service).strip()
        return dict(json.loads(run("docker", "inspect", container))[0])

    def post(self, service: str, request: object) -> tuple[int, object]:
        """Send one request over the published port."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            body = json.dumps(request)
            headers = {"Content-Type": "application/json"}
            connection.request("POST", f"/v1/services/{service}/requests", body, headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """Build the images, start the containers, and remove them with their data at the end."""
    command = (*compose_command(), "--project-name", f"bridge-test-{secrets.token_hex(4)}")
    port = free_port()
    environment = {**os.environ, "BRIDGE_PUBLISH": f"127.0.0.1:{port}"}
    stack = Stack(compose=command, environment=environment, port=port)
    try:
        stack.run("build", "topics")  # the others start from its image
        stack.run("up", "--detach", "--build")
        wait_until_ready(stack)
        yield stack
    finally:
        stack.run("down", "--volumes", "--remove-orphans", "--timeout", "20")


@pytest.mark.parametrize(
    ("service", "request_", "reply"),
    [
        ("greeter", {"name": "Ada"}, {"greeting": "Hello, Ada"}),
        ("work", {"task": "quick."}, {"task": "quick.", "seconds": 1}),
    ],
)
def test_a_request_over_the_published_port_is_answered(
    stack: Stack, service: str, request_: object, reply: object
) -> None:
    assert stack.post(service, request_) == (200, reply)


def test_a_worker_with_requirements_of_its_own_has_them(stack: Stack) -> None:
    status, reply = stack.post("airports", {"latitude": -41.29, "longitude": 174.78})

    assert status == 200
    assert isinstance(reply, dict)
    assert [airport["iata"] for airport in reply["airports"]] == ["WLG"]


@pytest.mark.parametrize("worker", WORKERS)
def test_a_worker_publishes_no_port(stack: Stack, worker: str) -> None:
    facts = stack.inspect(worker)

    assert not facts["HostConfig"]["PortBindings"]
    assert not facts["Config"].get("ExposedPorts")
    assert not any((facts["NetworkSettings"]["Ports"] or {}).values())


@pytest.mark.parametrize("worker", WORKERS)
def test_a_worker_listens_nowhere(stack: Stack, worker: str) -> None:
    tables = stack.run("exec", "-T", worker, "cat", "/proc/net/tcp", "/proc/net/tcp6")

    rows = [line.split() for line in tables.splitlines() if ":" in line.split()[0]]
    listening = [local for _, local, _, state, *_ in rows if state == "0A"]
    engines_own = "0B00007F:"  # 127.0.0.11, the engine's name server in every container
    assert [local for local in listening if not local.startswith(engines_own)] == []


def test_the_ingress_is_found_healthy(stack: Stack) -> None:
    assert stack.inspect("ingress")["State"]["Health"]["Status"] == "healthy"


def test_the_topics_were_made_by_a_container_that_ended_well(stack: Stack) -> None:
    state = stack.inspect("topics")["State"]

    assert (state["Status"], state["ExitCode"]) == ("exited", 0)


@pytest.mark.parametrize("service", OURS)
def test_a_container_may_do_no_more_than_it_must(stack: Stack, service: str) -> None:
    facts = stack.inspect(service)
    host = facts["HostConfig"]

    assert facts["Config"]["User"] == "10001:10001"
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["Memory"] > 0
    assert host["PidsLimit"] > 0


def test_sigterm_ends_each_of_ours_with_exit_0(stack: Stack) -> None:
    stack.run("stop", *OURS)  # the last test: nothing of ours runs after it

    assert {each: stack.inspect(each)["State"]["ExitCode"] for each in OURS} == dict.fromkeys(
        OURS, 0
    )


def compose_command() -> tuple[str, ...]:
    """Find Compose, in either shape; skip where there is none, or no engine to drive."""
    if shutil.which("docker") is None or not works("docker", "info"):
        pytest.skip("no Docker engine answers `docker info`")
    for command in (("docker", "compose"), ("docker-compose",)):
        if shutil.which(command[0]) and works(*command, "version"):
            return (*command, "--file", str(ROOT / "docker-compose.yml"))
    pytest.skip("neither `docker compose` nor `docker-compose` works")


def works(*command: str) -> bool:
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - our own words
    return done.returncode == 0


def run(*command: str, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(  # noqa: S603 - our own words
        command, capture_output=True, check=False, text=True, cwd=ROOT, env=environment
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(stack: Stack) -> None:
    """Ask until the ingress is ready and found healthy; a container cannot tell by itself."""
    end_s = time.perf_counter() + READY_S
    while time.perf_counter() < end_s:
        if is_ready(stack.port) and is_healthy(stack):
            return
        time.sleep(0.5)
    pytest.fail(f"not ready after {READY_S:.0f} s\n{stack.run('logs', '--tail', '40')}")


def is_healthy(stack: Stack) -> bool:
    return bool(stack.inspect("ingress")["State"]["Health"]["Status"] == "healthy")


def is_ready(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
