"""The container files, read as text: what must hold even where no engine can show it."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVICES = sorted(folder.name for folder in (ROOT / "schemas").iterdir())
DOCKERFILES = ["Dockerfile", *(f"consumers/{service}/Dockerfile" for service in SERVICES)]

Instruction = tuple[str, str]


@pytest.mark.parametrize("path", DOCKERFILES)
def test_an_image_does_not_run_as_root(path: str) -> None:
    *_, last_stage = stages(path)
    users = [words for name, words in last_stage if name == "USER"]

    starts_from_the_bridge = last_stage[0] == ("FROM", "${BRIDGE}")
    assert users == ([] if starts_from_the_bridge else ["10001:10001"])


@pytest.mark.parametrize("path", DOCKERFILES)
def test_what_an_image_runs_is_no_shell(path: str) -> None:
    for name, words in instructions(path):
        if name in {"ENTRYPOINT", "CMD"}:
            assert json.loads(words)
        if name == "HEALTHCHECK" and words != "NONE":
            assert json.loads(words.split("CMD ", 1)[1])[0] == "python"


@pytest.mark.parametrize("path", DOCKERFILES)
def test_an_image_needs_no_frontend_of_its_own_and_exposes_nothing(path: str) -> None:
    assert "syntax=" not in (ROOT / path).read_text().splitlines()[0]
    assert {name for name, _ in instructions(path)} & {"ADD", "EXPOSE", "VOLUME"} == set()


@pytest.mark.parametrize("path", DOCKERFILES)
def test_whatever_an_image_installs_is_pinned_by_hash(path: str) -> None:
    installs = [
        command
        for name, words in instructions(path)
        if name == "RUN"
        for command in words.split(" && ")
        if re.search(r"\bpip\b.* install ", command)
    ]

    assert all("--require-hashes" in each or "--no-index" in each for each in installs)


def test_every_service_has_a_container_and_only_the_ingress_publishes_a_port() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    section = re.search(r"^services:\n(.*?)^\S", text, re.MULTILINE | re.DOTALL)
    assert section is not None
    blocks = re.split(r"^  (\w+):", section[1], flags=re.MULTILINE)[1:]
    containers = dict(zip(blocks[::2], blocks[1::2], strict=True))

    assert sorted(containers) == sorted(["kafka", "topics", "ingress", *SERVICES])
    assert [name for name, block in containers.items() if "ports:" in block] == ["ingress"]


def test_the_example_of_a_sidecar_publishes_no_port_and_runs_what_there_is() -> None:
    page = (ROOT / "docs/howto/put-a-container-behind-it.md").read_text()
    example = re.search(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert example is not None

    keys = set(re.findall(r"^ +([a-z_]+):", example[1], re.MULTILINE))
    command = re.search(r"command: (.*)", example[1])

    assert not keys & {"ports", "expose"}
    assert "network_mode: service:shout-app" in example[1]
    assert command is not None
    assert json.loads(command[1])[:3] == ["worker", "shout", "--http"]


def instructions(path: str) -> list[Instruction]:
    text = re.sub(r"^#.*\n", "", (ROOT / path).read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(name, words) for name, _, words in (line.partition(" ") for line in lines if line)]


def stages(path: str) -> list[list[Instruction]]:
    found: list[list[Instruction]] = []
    for name, words in instructions(path):
        if name == "FROM":
            found.append([])
        if found:
            found[-1].append((name, words))
    return found
