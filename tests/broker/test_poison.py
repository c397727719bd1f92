"""One bad record ends itself and nothing else: no neighbour, no key, no slot, no worker."""

import shutil
import subprocess

import confluent_kafka as ck
import pytest

from bridge.registry import load_services
from tests.broker.test_worker import committed
from tests.stack import Stack, post, until

pytestmark = pytest.mark.timeout(120)

SAYS = ["surrogate", "number-code", "number-details", "cancel", "stop-iteration"]


def test_records_that_are_wrong_in_every_way_lose_nothing_around_them(stack: Stack) -> None:
    stack.make_services("echo")
    service = load_services(stack.schemas)[stack.name("echo")]
    worker = stack.start_worker("echo")
    good = service.encode({"text": "x"})
    address = [
        ("bridge-reply-to", service.replies_topic.encode()),
        ("bridge-reply-partition", b"0"),
    ]
    poison: list[tuple[bytes | None, list[tuple[str, bytes]]]] = [
        (good, [("bridge-reply-to", b"a.b"), ("bridge-reply-partition", b"4294967296")]),
        (good, [("kafka_replyTopic", b"a.b"), ("kafka_replyPartition", b"\xff\xff\xff\xff")]),
        (good, [("bridge-reply-to", b"__consumer_offsets")]),
        (good, [*address, ("bridge-deadline-ms", b"soon")]),
        (good, [*address, ("bridge-request-id", b"\xff")]),
        (b"\x00", address),
        (None, address),
        *((service.encode({"text": "x", "do": do}), address) for do in SAYS),
    ]
    writer = ck.Producer({"bootstrap.servers": stack.kafka, "enable.idempotence": True})
    for number, (value, headers) in enumerate(poison):
        for name, (body, fields) in {
            f"bad-{number}": (value, headers),
            f"good-{number}": (good, address),
        }.items():
            own = (
                []
                if any(key == "bridge-request-id" for key, _ in fields)
                else [("bridge-request-id", name.encode())]
            )
            writer.produce(
                service.requests_topic, body, "one key", partition=1, headers=[*own, *fields]
            )
    writer.flush(20)

    count = 2 * len(poison)
    until(lambda: committed(stack, "echo") == count, timeout_s=60, what="all are committed")

    assert worker.child.poll() is None
    replies = {r.request_id: r for r in stack.read_replies("echo") if r.event and r.event.is_last}
    answered = [f"good-{number}" for number in range(len(poison))]
    assert [replies[name].event for name in answered] == ["completed"] * len(poison)
    said = [f"bad-{number}" for number in range(len(poison) - len(SAYS) - 2, len(poison))]
    assert [replies[name].event for name in said] == ["failed"] * (len(SAYS) + 2)
    letters = stack.read(service.dead_topic)
    places = {(bytes(dict(r.headers)["bridge-dead-offset"]), r.key, r.value) for r in letters}
    asked = [r for r in stack.read(service.requests_topic) if r.partition == 1]
    undecodable = [r for r in letters if ("bridge-dead-reason", b"undecodable") in r.headers]
    assert len(undecodable) == 7
    assert places <= {(b"%d" % r.offset, r.key, r.value) for r in asked}


def test_a_header_whose_name_is_not_text_takes_no_neighbour_with_it(stack: Stack) -> None:
    """The client library raises SystemError when it reads such headers."""
    stack.make_services("echo")
    worker = stack.start_worker("echo")
    ingress, url = stack.start_ingress()
    service = load_services(stack.schemas)[stack.name("echo")]
    for topic in (service.requests_topic, service.replies_topic):
        for partition in range(4):
            write_odd_header(stack.kafka, topic, partition)

    answers = [post(url, stack.name("echo"), {"text": f"{n}"}) for n in range(20)]

    logs = [process.log.read_text(encoding="utf-8")[-3000:] for process in (worker, ingress)]
    late = [answer.text for answer in answers if answer.status_code != 200]
    assert late == [], "\n".join([*logs, f"{stack.read_replies('echo')[-30:]}"])


def write_odd_header(kafka: str, topic: str, partition: int) -> None:
    """Write a record with the header name ff, by kcat: the binding takes only text."""
    if shutil.which("kcat") is None:
        pytest.skip(
            "kcat is not installed (Debian: kcat), and nothing else here writes such a name"
        )
    subprocess.run(  # noqa: S603 - fixed arguments
        ["kcat", "-P", "-b", kafka, "-t", topic, "-p", str(partition), "-H", b"\xff=1"],  # noqa: S607 - wherever it is installed
        input=b"x",
        check=True,
        timeout=20,
    )
