"""Other programs write requests by hand, with nothing of ours, and are answered."""

import hashlib
import io
import json
import secrets
import shutil
import struct
import subprocess
from pathlib import Path

import confluent_kafka as ck
import pytest
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from fastavro.schema import to_parsing_canonical_form

from tests.stack import SERVICES, Stack

pytestmark = pytest.mark.timeout(120)

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
Avro = dict[str, object]

REQUEST: Avro = json.loads((SERVICES / "schemas/echo/request.avsc").read_text())
REPLY: Avro = json.loads((SERVICES / "schemas/echo/reply.avsc").read_text())


def schema_id(schema: Avro) -> int:
    canonical = to_parsing_canonical_form(schema)
    return int.from_bytes(hashlib.sha256(canonical.encode()).digest()[:4], "big") >> 1


def framed(schema: Avro, value: object) -> bytes:
    out = io.BytesIO()
    schemaless_writer(out, parse_schema(schema), value)
    return b"\x00" + struct.pack(">I", schema_id(schema)) + out.getvalue()


def read_framed(schema: Avro, value: bytes) -> object:
    assert value[:5] == b"\x00" + struct.pack(">I", schema_id(schema))
    return schemaless_reader(io.BytesIO(value[5:]), parse_schema(schema), None)


@pytest.fixture
def served(stack: Stack) -> Stack:
    stack.make_services("echo")
    stack.start_worker("echo")
    return stack


def test_a_record_of_a_plain_client_is_answered_on_its_reply_topic(served: Stack) -> None:
    request_id = secrets.token_hex(16)
    topic = served.name("echo")
    reader = ck.Consumer({"bootstrap.servers": served.kafka, "group.id": request_id})
    reader.assign([ck.TopicPartition(f"{topic}.replies", 3, ck.OFFSET_BEGINNING)])
    writer = ck.Producer({"bootstrap.servers": served.kafka})
    writer.produce(
        f"{topic}.requests",
        framed(REQUEST, {"text": "by hand", "sleep_s": 0.0, "do": "reply"}),
        headers={
            "bridge-request-id": request_id,
            "bridge-reply-to": f"{topic}.replies",
            "bridge-reply-partition": "3",
            "traceparent": TRACE,
        },
    )
    writer.flush(10)

    reply = _await_reply(reader, request_id)

    headers = dict(reply.headers() or [])
    assert headers["bridge-event"] == b"completed"
    assert headers["traceparent"] == TRACE.encode()
    value = read_framed(REPLY, reply.value() or b"")
    assert isinstance(value, dict)
    assert (value["text"], value["request_id"]) == ("by hand", request_id)
    assert reply.key() == request_id.encode()


def test_without_a_partition_the_reply_goes_by_hash_of_the_request_id(served: Stack) -> None:
    request_id = "invoice-4711"
    topic = served.name("echo")
    writer = ck.Producer({"bootstrap.servers": served.kafka})
    writer.produce(
        f"{topic}.requests",
        framed(REQUEST, {"text": "x", "sleep_s": 0.0, "do": "reply"}),
        headers={"bridge-request-id": request_id, "bridge-reply-to": f"{topic}.replies"},
    )
    writer.flush(10)

    reader = ck.Consumer({"bootstrap.servers": served.kafka, "group.id": request_id})
    reader.assign([ck.TopicPartition(f"{topic}.replies", p, ck.OFFSET_BEGINNING) for p in range(8)])

    assert _await_reply(reader, request_id).partition() == murmur2(request_id.encode()) % 8


def test_spring_headers_are_answered_in_kind(served: Stack) -> None:
    correlation = secrets.token_bytes(16)
    topic = served.name("echo")
    writer = ck.Producer({"bootstrap.servers": served.kafka})
    writer.produce(
        f"{topic}.requests",
        framed(REQUEST, {"text": "spring", "sleep_s": 0.0, "do": "progress"}),
        headers=[
            ("kafka_correlationId", correlation),
            ("kafka_replyTopic", f"{topic}.replies".encode()),
            ("kafka_replyPartition", b"\x00\x00\x00\x02"),
        ],
    )
    writer.flush(10)

    reader = ck.Consumer({"bootstrap.servers": served.kafka, "group.id": topic})
    reader.assign([ck.TopicPartition(f"{topic}.replies", 2, ck.OFFSET_BEGINNING)])
    while True:
        message = reader.poll(10)
        assert message is not None
        headers = dict(message.headers() or [])
        if "kafka_correlationId" in headers:
            break

    reader.close()
    assert headers["kafka_correlationId"] == correlation
    assert (
        headers["bridge-event"] == b"completed"
    )  # no progress: Spring would take it for the reply


def test_an_unreadable_value_is_answered_as_failed_and_the_next_record_goes_on(
    served: Stack,
) -> None:
    topic = served.name("echo")
    writer = ck.Producer({"bootstrap.servers": served.kafka})
    reader = ck.Consumer({"bootstrap.servers": served.kafka, "group.id": topic})
    reader.assign([ck.TopicPartition(f"{topic}.replies", 1, ck.OFFSET_BEGINNING)])
    good = framed(REQUEST, {"text": "good", "sleep_s": 0.0, "do": "reply"})
    bad = [None, b"", b"\x01", b"\x00\x00\x00\x00\x01x", good[:-1], good + b"x", b"\xff" * 1000]
    for number, value in enumerate([*bad, good]):
        writer.produce(
            f"{topic}.requests",
            value,
            "one-key",
            headers={
                "bridge-request-id": f"r{number}",
                "bridge-reply-to": f"{topic}.replies",
                "bridge-reply-partition": "1",
            },
        )
    writer.flush(10)

    events = [
        dict(_await_reply(reader, f"r{number}").headers() or [])["bridge-event"]
        for number in range(len(bad) + 1)
    ]

    assert events == [b"failed"] * len(bad) + [b"completed"]


@pytest.mark.skipif(shutil.which("kcat") is None, reason="kcat is not installed (Debian: kcat)")
def test_kcat_writes_a_request_and_is_answered(served: Stack, tmp_path: Path) -> None:
    topic = served.name("echo")
    value = tmp_path / "value"
    value.write_bytes(framed(REQUEST, {"text": "kcat", "sleep_s": 0.0, "do": "reply"}))
    subprocess.run(  # noqa: S603 - fixed arguments
        [
            *("kcat", "-P", "-b", served.kafka, "-t", f"{topic}.requests"),
            *("-H", "bridge-request-id=from-kcat", "-H", f"bridge-reply-to={topic}.replies"),
            *("-H", "bridge-reply-partition=4", str(value)),
        ],
        check=True,
        timeout=30,
    )

    reader = ck.Consumer({"bootstrap.servers": served.kafka, "group.id": topic})
    reader.assign([ck.TopicPartition(f"{topic}.replies", 4, ck.OFFSET_BEGINNING)])

    found = read_framed(REPLY, _await_reply(reader, "from-kcat").value() or b"")
    assert isinstance(found, dict)
    assert found["text"] == "kcat"


def _await_reply(reader: ck.Consumer, request_id: str) -> ck.Message:
    while True:
        message = reader.poll(20)
        assert message is not None, f"no reply for {request_id}"
        assert message.error() is None
        if dict(message.headers() or []).get("bridge-request-id") == request_id.encode():
            return message


def murmur2(data: bytes) -> int:
    """Kafka's own (org.apache.kafka.common.utils.Utils.murmur2), & 0x7fffffff."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = 0x9747B28C ^ len(data)
    whole = len(data) // 4 * 4
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & mask
        h = h * m & mask ^ ((k ^ k >> 24) * m & mask)
    if data[whole:]:
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return (h ^ h >> 15) & 0x7FFFFFFF
