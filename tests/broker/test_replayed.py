"""What a key stands for, and what leaves it free."""

import secrets

import httpx
import pytest

from tests.broker.conftest import Asked
from tests.stack import post

pytestmark = pytest.mark.timeout(120)


def send(asked: Asked, url: str, key: str, body: object, service: str = "echo") -> httpx.Response:
    return post(url, asked.name(service), body, idempotency_key=key)


def new_key() -> str:
    return secrets.token_hex(8)


def is_replayed(answer: httpx.Response) -> bool:
    return bool(answer.headers.get("idempotency-replayed") == "true")


def test_one_key_is_two_requests_to_two_services(asked: Asked) -> None:
    key = new_key()

    answers = [
        send(asked, asked.url, key, {"text": "t"}, service=name) for name in ("echo", "threaded")
    ]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert not any(is_replayed(answer) for answer in answers)


def test_parts_are_collected_for_a_joined_post_as_for_the_first(asked: Asked) -> None:
    key = new_key()

    first, again = (
        send(asked, url, key, {"to": 3}, service="count") for url in (asked.url, asked.other_url)
    )

    assert first.json()["parts"]
    assert (again.content, is_replayed(again)) == (first.content, True)


def test_what_is_too_large_for_kafka_leaves_its_key_free(asked: Asked) -> None:
    """The key of the record is the text, so a body that may come is a record that may not."""
    key = new_key()

    refused = send(asked, asked.url, key, {"text": "x" * 600_000})
    mended = [send(asked, url, key, {"text": "x"}) for url in (asked.url, asked.other_url)]

    assert (refused.status_code, refused.json()["code"]) == (413, "body-too-large")
    assert [answer.status_code for answer in mended] == [200, 200], mended[0].text
    assert [is_replayed(answer) for answer in mended] == [False, True]
