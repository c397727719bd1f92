"""One bridge for the tests that only ask; those that kill make their own."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.stack import Stack, open_stack

ASKED = ("echo", "threaded", "count", "oneway", "everything")


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
        for service in ("echo", "threaded", "count", "oneway"):
            made.start_worker(service)
        _, url = made.start_ingress(BRIDGE_LANES="1")
        _, other_url = made.start_ingress(BRIDGE_LANES="0")
        yield Asked(made, url, other_url)
