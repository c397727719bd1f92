"""`kbridge dead list` and `show` on a real Kafka, and what each command refuses."""

import json
from pathlib import Path

import pytest

from bridge.envelope import Record, Request
from tests.deadletters import make
from tests.operating import Operator
from tests.stack import Stack

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def operator(stack: Stack) -> Operator:
    return Operator(stack)


def test_each_request_is_listed_once_the_newest_last(operator: Operator) -> None:
    first, second = operator.request(1), operator.request(2)
    twice = make(operator.name, first, offset=1)
    undecodable = make(operator.name, second, offset=2, reason="undecodable", error="bad\nmagic")
    other = Record(topic=operator.dead, key=None, value=b"?", partition=0)
    operator.write(twice, other, undecodable, twice)

    listed = operator.run("list")
    lines = operator.run("list", "--json").stdout.splitlines()
    chosen = operator.run("list", "--json", "--reason", "undecodable").stdout
    newest = operator.run("list", "--json", "--limit", "1").stdout
    none = operator.run("list", "--json", "--until", "-1h").stdout
    recent = operator.run("list", "--json", "--since", "-1h").stdout

    one, two = listed.stdout.splitlines()
    assert first.request_id in one
    assert "(written 2 times) boom" in one
    assert "waiting  undecodable" in two
    assert "bad\\nmagic" in two
    assert f"2 dead letters of {operator.name}; 1 other records" in listed.stderr
    assert [json.loads(line)["request_id"] for line in lines] == [
        first.request_id,
        second.request_id,
    ]
    assert json.loads(lines[0])["original"]["offset"] == 1
    assert chosen == newest == f"{lines[1]}\n"
    assert none == ""
    assert recent.splitlines() == lines


def test_one_letter_is_shown_by_its_request_or_its_place(
    operator: Operator, tmp_path: Path
) -> None:
    request = operator.request(1)
    value = operator.service.encode({"text": "hi"})
    operator.write(
        make(operator.name, request, value, offset=4),
        make(operator.name, Request(request_id="b"), b"\x00\x01", offset=5, reason="undecodable"),
    )
    file = tmp_path / "value"

    shown = json.loads(operator.run("show", request.request_id, "--json").stdout)
    dumped = operator.run("show", "0/1").stdout
    operator.run("show", "0/1", "--raw", str(file))
    missing = operator.run("show", "nobody")
    beyond = operator.run("show", "0/99")

    assert shown["value"] == {"text": "hi", "sleep_s": 0.0, "do": "reply"}
    assert (shown["key"], shown["state"], shown["attempts"]) == ("k", "waiting", 3)
    assert ["bridge-principal", "a"] in shown["headers"]
    assert "00000000  00 01" in dumped
    assert f"no request of {operator.name}" in dumped
    assert file.read_bytes() == b"\x00\x01"
    assert (missing.returncode, missing.stderr) == (
        1,
        f"kbridge: no dead letter of request nobody in {operator.dead}\n",
    )
    assert (beyond.returncode, beyond.stderr.count("\n")) == (1, 1)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("redrive",), "one of --id, --reason and --all"),
        (("redrive", "--all", "--id", "a"), "one of --id, --reason and --all"),
        (("list", "--since", "soon"), "want ISO 8601"),
    ],
)
def test_wrong_use_is_told_before_kafka_is_asked(
    operator: Operator, wrong: tuple[str, ...], said: str
) -> None:
    done = operator.run(*wrong)

    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_topics_that_are_not_there_are_named(stack: Stack) -> None:
    stack.copy_services("echo")
    listing = stack.start("dead", "list", stack.name("echo"))

    assert listing.child.wait(timeout=60) == 1
    said = listing.log.read_text(encoding="utf-8")
    assert f"{stack.name('echo')}.dead" in said
    assert "kbridge topics apply" in said
