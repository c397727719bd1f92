"""Bodies and replies in Avro, beside those in JSON."""

import json
from io import BytesIO

import fastavro
import httpx
import pytest

from tests.broker.conftest import Asked
from tests.stack import SERVICES, post

pytestmark = pytest.mark.timeout(120)

ECHO = json.loads((SERVICES / "schemas" / "echo" / "request.avsc").read_text(encoding="utf-8"))
BODY = {"text": "in avro", "sleep_s": 0.0, "do": "reply"}


def avro(value: object = None) -> bytes:
    """Write a request as any client would, with a library of its own."""
    out = BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(ECHO), value or BODY)
    return out.getvalue()


def frame(asked: Asked) -> bytes:
    one = httpx.get(f"{asked.url}/v1/services/{asked.name('echo')}").json()
    return b"\0" + int(one["request_schema_id"]).to_bytes(4, "big")


def send(asked: Asked, body: bytes, content_type: str, accept: str = "*/*") -> httpx.Response:
    return post(asked.url, asked.name("echo"), body, content_type=content_type, accept=accept)


def test_the_same_content_in_json_and_avro_is_stored_as_the_same_record(asked: Asked) -> None:
    head = frame(asked)
    answers = [
        send(asked, json.dumps(BODY).encode(), "application/json"),
        send(asked, avro(), "avro/binary"),
        send(asked, head + avro(), "avro/binary; frame=confluent"),
    ]

    assert [answer.status_code for answer in answers] == [200] * 3
    assert {answer.json()["text"] for answer in answers} == {"in avro"}
    names = {answer.headers["request-id"].encode() for answer in answers}
    stored = [
        record
        for record in asked.stack.read(f"{asked.name('echo')}.requests")
        if dict(record.headers)["bridge-request-id"] in names
    ]
    assert [(record.key, record.value) for record in stored] == [(b"in avro", head + avro())] * 3


@pytest.mark.parametrize(
    ("body", "content_type", "reason"),
    [
        (b"", "avro/binary", "ends too early"),
        (avro() + b"\0", "avro/binary", "1 bytes follow the value"),
        (b"\x06\xff\xff\xff" + avro()[8:], "avro/binary", "unreadable"),
        (avro(), "avro/binary; frame=confluent", "wire format"),
        (b"\0\0\0\0\1" + avro(), "avro/binary; frame=confluent", "schema ID 1: want"),
        (b"{}", "avro/binary", "as Avro"),
    ],
)
def test_avro_that_is_not_exactly_one_request_is_refused_before_anything_is_written(
    asked: Asked, body: bytes, content_type: str, reason: str
) -> None:
    answer = send(asked, body, content_type)

    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "invalid-payload")
    assert problem["outcome"] == "not_accepted"
    assert problem["errors"][0]["pointer"] == ""
    assert reason in problem["errors"][0]["reason"]


def test_avro_in_another_encoding_or_frame_is_another_media_type(asked: Asked) -> None:
    for content_type in ("avro/json", "avro/binary; frame=other"):
        assert send(asked, avro(), content_type).status_code == 415


def read(content: bytes) -> object:
    """Read a reply as any client would; nothing follows it."""
    schema = json.loads((SERVICES / "schemas" / "echo" / "reply.avsc").read_text(encoding="utf-8"))
    source = BytesIO(content)
    found = fastavro.schemaless_reader(source, fastavro.parse_schema(schema))
    assert source.read() == b""
    return found


@pytest.mark.parametrize("accept", ["avro/binary", "application/json;q=0.5, avro/*"])
def test_a_reply_comes_in_avro_to_those_who_ask_for_it(asked: Asked, accept: str) -> None:
    answer = send(asked, avro(), "avro/binary", accept)
    url = f"{asked.other_url}/v1/services/{asked.name('echo')}/requests"
    found = httpx.get(f"{url}/{answer.headers['request-id']}", headers={"accept": accept})

    assert answer.headers["content-type"] == "avro/binary"
    assert found.headers["content-type"] == "avro/binary"
    assert read(answer.content) == read(found.content)
    assert read(answer.content)["request_id"] == answer.headers["request-id"]  # type: ignore[index]


def test_what_is_no_reply_stays_json(asked: Asked) -> None:
    refused = send(asked, avro({**BODY, "do": "refuse"}), "avro/binary", "avro/binary")
    pending = post(
        asked.url, asked.name("echo"), BODY, accept="avro/binary", prefer="respond-async"
    )

    assert (refused.status_code, refused.json()["code"]) == (422, "refused")
    assert refused.headers["content-type"] == "application/problem+json"
    assert (pending.status_code, pending.headers["content-type"]) == (202, "application/json")


def test_a_stream_and_a_one_way_request_have_no_reply_in_avro(asked: Asked) -> None:
    for service in ("count", "oneway"):
        answer = post(asked.url, asked.name(service), {"to": 1}, accept="avro/binary")
        assert (answer.status_code, answer.json()["code"]) == (406, "not-acceptable")
