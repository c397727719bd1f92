"""One bridge for the tests that only ask; those that kill make their own."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.broker.guarded import KEYS, Bridge
from tests.stack import Process, Stack, open_stack

ASKED = ("echo", "threaded", "count", "parts", "oneway", "everything")


@dataclass(frozen=True)
class Asked:
    """A running bridge: two replicas, a worker per service."""

    stack: Stack
    url: str
    other_url: str

    def name(self, service: str) -> str:
        return self.stack.name(service)


@pytest.fixture(scope="session")
def asked(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    folder = tmp_path_factory.mktemp("asked")
    with open_stack(kafka, folder, f"-{secrets.token_hex(4)}") as made:
        made.make_services(*ASKED)
        for service in ("echo", "threaded", "count", "parts", "oneway"):
            made.start_worker(service)
        _, url = made.start_ingress(BRIDGE_LANES="1")
        _, other_url = made.start_ingress(BRIDGE_LANES="0")
        yield Asked(made, url, other_url)


HEAD_S, BODY_S = 2.0, 3.0


@dataclass(frozen=True)
class Target:
    """An ingress with short patience, and no worker."""

    process: Process
    url: str
    path: str

    def head(self, *fields: str, method: str = "POST") -> bytes:
        lines = [
            f"{method} {self.path} HTTP/1.1",
            "Host: x",
            "Content-Type: application/json",
            *fields,
        ]
        return "\r\n".join([*lines, "", ""]).encode()


@pytest.fixture(scope="session")
def target(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with open_stack(kafka, tmp_path_factory.mktemp("wire"), "-wire") as stack:
        stack.make_services("oneway")
        process, url = stack.start_ingress(
            BRIDGE_HEAD_S=str(HEAD_S), BRIDGE_BODY_S=str(BODY_S), BRIDGE_CONNECTIONS="2000"
        )
        yield Target(process, url, f"/v1/services/{stack.name('oneway')}/requests")


@pytest.fixture(scope="session")
def guarded(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    folder = tmp_path_factory.mktemp("guarded")
    file = folder / "keys"
    file.write_text("\n".join(made.line for made in KEYS.values()), encoding="utf-8")
    with open_stack(kafka, folder, f"-{secrets.token_hex(4)}") as made:
        made.make_services("echo")
        made.start_worker("echo")
        urls = [
            made.start_ingress(BRIDGE_LANES=lane, BRIDGE_API_KEYS_FILE=str(file))[1]
            for lane in ("1", "0")
        ]
        yield Bridge(made, (urls[0], urls[1]), made.name("echo"))
