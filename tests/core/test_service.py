"""Services out of the text of their three files."""

import json
from typing import Any

import pytest

from bridge import service
from bridge.errors import ContractError, InvalidPayloadError, RecordError
from bridge.service import FAILURE, PROGRESS, Service, TopicSettings, WorkerSettings

REQUEST = {
    "type": "record",
    "name": "Request",
    "namespace": "greeter",
    "fields": [
        {"name": "name", "type": "string"},
        {"name": "number", "type": "long", "default": 7},
        {
            "name": "suit",
            "type": {"type": "enum", "name": "Suit", "symbols": ["A"]},
            "default": "A",
        },
        {
            "name": "uuid",
            "type": {"type": "string", "logicalType": "uuid"},
            "default": "00000000-0000-0000-0000-000000000000",
        },
        {"name": "maybe", "type": ["null", "string"], "default": None},
        {"name": "ratio", "type": "double", "default": 0},
    ],
}
REPLY = {
    "type": "record",
    "name": "Reply",
    "namespace": "greeter",
    "fields": [{"name": "greeting", "type": "string"}],
}


def load(settings: str = "", *, request: Any = REQUEST, reply: Any = REPLY) -> Service:
    return service.load(
        "greeter",
        request=json.dumps(request),
        reply=None if reply is None else json.dumps(reply),
        settings=settings,
    )


def test_every_setting_has_a_default() -> None:
    greeter = load()

    assert greeter.worker == WorkerSettings(
        concurrency=16,
        attempts=3,
        backoff_s=1.0,
        max_backoff_s=60.0,
        timeout_s=60.0,
        dedupe_s=600.0,
        group=None,
        dialect="bridge",
        isolation="task",
        exactly_once=False,
    )
    assert greeter.topics == TopicSettings(
        partitions=12, lanes=16, replication=0, retention_s=604_800, result_retention_s=86_400
    )
    assert (greeter.kind, greeter.key, greeter.wait_s, greeter.deadline_s) == ("one", None, 30, 300)
    assert (greeter.effects, greeter.http_errors) == ("idempotent", {})
    assert (greeter.forward, greeter.returned) == ((), ())


def test_headers_that_may_not_go_through_are_named_by_their_place() -> None:
    with pytest.raises(ContractError) as refused:
        load('[http]\nforward = ["x-a", "cookie"]\nreturn = ["Location", "x-a", "x-a"]')

    assert "http.forward.1 = 'cookie': this header is never passed on" in str(refused.value)
    assert "http.return.0 = 'Location': want the name" in str(refused.value)


def test_headers_that_go_through_are_listed() -> None:
    greeter = load('[http]\nforward = ["x-a"]\nreturn = ["x-b", "x-c"]')

    assert (greeter.forward, greeter.returned) == (("x-a",), ("x-b", "x-c"))


def test_every_setting_can_be_set() -> None:
    greeter = load(
        """
        reply = "stream"
        key = "name"
        wait_s = 1
        deadline_s = 2.5
        effects = "external"
        [worker]
        concurrency = 1
        attempts = 1
        backoff_s = 0
        max_backoff_s = 0.5
        timeout_s = 3
        dedupe_s = 4
        group = "their-group"
        dialect = "spring"
        isolation = "process"
        [topics]
        partitions = 1
        lanes = 4096
        replication = 3
        retention_s = 60
        result_retention_s = 5
        [http.errors]
        not-found = 404
        """
    )

    assert (greeter.kind, greeter.wait_s, greeter.deadline_s) == ("stream", 1.0, 2.5)
    assert (greeter.group, greeter.worker.isolation) == ("their-group", "process")
    assert (greeter.topics.lanes, greeter.topics.result_retention_s) == (4096, 5)
    assert greeter.http_errors == {"not-found": 404}


def test_topics_and_group_follow_from_the_name() -> None:
    greeter = load()

    assert (greeter.requests_topic, greeter.replies_topic) == (
        "greeter.requests",
        "greeter.replies",
    )
    assert (greeter.dead_topic, greeter.group) == ("greeter.dead", "bridge.greeter")
    assert greeter.replay_topic == "greeter.replay"
    assert greeter.replay_replies_topic == "greeter.replay-replies"


BAD_SETTINGS = [
    ("= 1", ["not TOML"]),
    ("x = 1", ["x = 1"]),
    ("[worker]\nattempt = 1", ["worker.attempt = 1"]),
    ("[http]\nerror = 1", ["http.error = 1"]),
    ('reply = "two"', ["reply = 'two'", "'one', 'stream' or 'none'"]),
    ('wait_s = "1"\nkey = 5\n[topics]\nlanes = 5000', ["wait_s = '1'", "key = 5", "topics.lanes"]),
    ("wait_s = inf", ["wait_s = inf"]),
    ("wait_s = nan", ["wait_s = nan"]),
    ("wait_s = true", ["wait_s = True"]),
    ("wait_s = -1", ["wait_s = -1"]),
    ("deadline_s = 0", ["deadline_s = 0"]),
    ("worker = 1", ["worker = 1"]),
    ("[worker]\nattempts = 0", ["worker.attempts = 0"]),
    ("[worker]\nattempts = 1.0", ["worker.attempts = 1.0"]),
    ("[worker]\nexactly_once = 1", ["worker.exactly_once = 1"]),
    ('[worker]\ngroup = ""', ["worker.group = ''"]),
    ("[worker]\nbackoff_s = 9\nmax_backoff_s = 8", ["worker", "max_backoff_s = 8"]),
    ("[topics]\npartitions = 0\nlanes = 0", ["topics.partitions = 0", "topics.lanes = 0"]),
    ("[http.errors]\na = 200\nb = 600", ["http.errors.a = 200", "http.errors.b = 600"]),
    ('reply = "stream"\n[worker]\nexactly_once = true', ["worker.exactly_once = true"]),
]


@pytest.mark.parametrize(("text", "said"), BAD_SETTINGS)
def test_every_problem_of_the_settings_is_told(text: str, said: list[str]) -> None:
    with pytest.raises(ContractError) as refused:
        load(text)

    assert str(refused.value).startswith("greeter/service.toml: ")
    assert [part for part in said if part not in str(refused.value)] == []


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "__a", "A", "a b", "a/b", "a..b", "a.", "a-", "-a", "a" * 101, "bridge", "a\n"],
)
def test_a_name_that_topics_or_urls_could_not_carry_is_refused(name: str) -> None:
    with pytest.raises(ContractError, match="service name"):
        service.load(name, request='"string"', reply='"string"', settings="")


def test_a_missing_reply_schema_is_named() -> None:
    with pytest.raises(ContractError, match=r"greeter/reply\.avsc is missing"):
        load(reply=None)


def test_a_one_way_service_needs_no_reply_schema() -> None:
    greeter = load('reply = "none"', reply=None)

    assert greeter.reply is None
    with pytest.raises(ContractError, match="nothing to encode"):
        greeter.encode_reply({})
    with pytest.raises(RecordError, match="want no value"):
        greeter.decode_reply(b"")


def test_a_bad_schema_is_named_by_its_file() -> None:
    with pytest.raises(ContractError, match=r"^greeter/request\.avsc: "):
        load(request={"type": "record"})
    with pytest.raises(ContractError, match=r"^greeter/reply\.avsc: "):
        load(reply={"type": "record"})


@pytest.mark.parametrize(
    ("key", "body", "want"),
    [
        ("name", {"name": "é"}, "é".encode()),
        ("name", {"name": ""}, b""),
        ("number", {"name": "a", "number": -5}, b"-5"),
        ("number", {"name": "a"}, b"7"),
        ("suit", {"name": "a", "suit": "A"}, b"A"),
        (
            "uuid",
            {"name": "a", "uuid": "ABCDEF00-0000-0000-0000-000000000000"},
            b"abcdef00-0000-0000-0000-000000000000",
        ),
    ],
)
def test_a_key_is_text_in_utf8_or_a_decimal_number(key: str, body: Any, want: bytes) -> None:
    assert load(f'key = "{key}"').key_of(body) == want


@pytest.mark.parametrize("key", ["name", "number", "suit", "uuid"])
def test_avro_has_the_key_that_json_of_the_same_content_has(key: str) -> None:
    service = load(f'key = "{key}"')
    body = {"name": "é", "number": -5, "uuid": "ABCDEF00-0000-0000-0000-000000000000"}
    framed = service.encode(body)

    assert service.take_binary(framed, is_framed=True) == (framed, service.key_of(body))
    assert service.take_binary(framed[5:], is_framed=False) == (framed, service.key_of(body))


def test_an_array_in_blocks_is_stored_as_it_would_be_written_here() -> None:
    service = load(request={"type": "array", "items": "int"})
    in_blocks = bytes([2, 10, 1, 2, 12, 0])  # one item; then one with its size in bytes

    assert service.take_binary(in_blocks, is_framed=False) == (service.encode([5, 6]), None)


@pytest.mark.parametrize(
    ("is_framed", "data", "reason"),
    [
        (False, b"", "as Avro: the value of 5 bytes ends too early"),
        (False, b"\x02a\x00", "as Avro: 1 bytes follow the value: want none"),
        (True, b"\x02a", "as Avro: the value starts with 0261: want 00 and a schema ID"),
        (True, b"\0\0\0\0\x01\x02a", "as Avro: schema ID 1: want "),
    ],
)
def test_bytes_that_are_not_exactly_one_value_are_refused(
    is_framed: bool, data: bytes, reason: str
) -> None:
    with pytest.raises(InvalidPayloadError) as refused:
        load(request={"type": "string"}).take_binary(data, is_framed=is_framed)

    assert refused.value.violations[0].reason.startswith(reason)


def test_without_a_key_there_is_none() -> None:
    assert load().key_of({"name": "a"}) is None


@pytest.mark.parametrize("body", [{}, [], None, {"name": None}, {"name": True}, {"name": 1.5}])
def test_a_key_that_does_not_fit_is_refused_there(body: Any) -> None:
    with pytest.raises(InvalidPayloadError) as refused:
        load('key = "name"').key_of(body)

    assert [found.pointer for found in refused.value.violations] == ["/name"]


@pytest.mark.parametrize("key", ["nobody", "maybe", "ratio"])
def test_a_key_must_be_a_field_that_makes_the_same_bytes_everywhere(key: str) -> None:
    with pytest.raises(ContractError, match=rf'greeter/request\.avsc: key = "{key}"'):
        load(f'key = "{key}"')


def test_a_key_needs_a_record() -> None:
    with pytest.raises(ContractError, match="the request is no record"):
        load('key = "name"', request={"type": "string"})


def test_requests_and_replies_go_in_and_out() -> None:
    greeter = load()

    request = greeter.decode(greeter.encode({"name": "Ada"}))
    reply = greeter.decode_reply(greeter.encode_reply({"greeting": "Hello, Ada"}))

    assert isinstance(request, dict)
    assert request["name"] == "Ada"
    assert reply == {"greeting": "Hello, Ada"}
    with pytest.raises(RecordError):
        greeter.decode(greeter.encode_reply({"greeting": "Hello"}))
    with pytest.raises(RecordError):
        greeter.decode(None)


def test_the_wire_constants_are_those_of_the_contract() -> None:
    failure = {"code": "refused", "message": "no", "retryable": False, "details": {"a": "b"}}

    assert FAILURE.decode(FAILURE.from_native(failure)) == failure
    assert PROGRESS.decode(PROGRESS.from_native({"fraction": 0.5, "message": ""})) == {
        "fraction": 0.5,
        "message": "",
    }
    assert FAILURE.canonical == (
        '{"name":"bridge.Failure","type":"record","fields":[{"name":"code","type":"string"},'
        '{"name":"message","type":"string"},{"name":"retryable","type":"boolean"},'
        '{"name":"details","type":{"type":"map","values":"string"}}]}'
    )
    assert PROGRESS.canonical == (
        '{"name":"bridge.Progress","type":"record","fields":['
        '{"name":"fraction","type":["null","double"]},{"name":"message","type":"string"}]}'
    )


def test_a_reply_without_its_frame_is_read_first() -> None:
    framed = load().encode_reply({"greeting": "hi"})

    assert load().give_binary(framed) == b"\x04hi"
    for unreadable in (None, framed + b"\0", b"\0\0\0\0\1\x04hi"):
        with pytest.raises(RecordError):
            load().give_binary(unreadable)
