"""What two readers of one connection could take differently, and what hides a path from a guard."""

from collections.abc import Iterator

import pytest

from tests.broker.conftest import Target
from tests.stack import open_stack
from tests.wires import say

pytestmark = pytest.mark.timeout(120)

SMUGGLED = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
TRICKS = {
    "CL.TE": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE.CL": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n",
    "two equal lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "a list of lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0, 0\r\n\r\n",
    "a signed length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +0\r\n\r\n",
    "a negative length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "a length beyond 64 bits": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
    "another coding": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a coding before chunked": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a coding after chunked": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked twice": CHUNKED.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n")
    + b"0\r\n\r\n",
    "chunked in 1.0": CHUNKED.replace(b"1.1", b"1.0") + b"0\r\n\r\n",
    "a space before the colon": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a folded coding": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "obs-fold": b"GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n",
    "a fold after the first line": b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
    "a line feed in a chunk extension": CHUNKED + b"0;a\nb\r\n\r\n",
    "a chunk size after line feed": CHUNKED + b"0\n\n",
    "a hexadecimal chunk size": CHUNKED + b"0x0\r\n\r\n",
    "a chunk size beyond 64 bits": CHUNKED + b"fffffffffffffffff\r\n",
    "a space after a chunk size": CHUNKED + b"0 \r\n\r\n",
    "a chunk that is too long": CHUNKED + b"1\r\nab0\r\n\r\n",
    "a length behind the body": CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n",
    "bare line feeds": b"GET / HTTP/1.1\nHost: x\n\n",
    "a bare carriage return": b"GET / HTTP/1.1\r\nHost: x\rX: b\r\n\r\n",
    "NUL in a field": b"GET / HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
    "a field without a name": b"GET / HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "a host with a path": b"GET / HTTP/1.1\r\nHost: a/b?c\r\n\r\n",
    "a host with a user": b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/2.0": b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "CONNECT": b"CONNECT a:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    "an upgrade with a body": b"POST / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc",
    "an unknown method": b"SMUGGLE / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a space in the target": b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
    "raw bytes in the target": b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "noise": bytes(range(256)) * 4,
}


@pytest.mark.parametrize("trick", TRICKS.values(), ids=TRICKS)
def test_what_two_readers_could_take_differently_is_refused_and_nothing_behind_it_is_read(
    target: Target, trick: bytes
) -> None:
    heard = say(target.url, trick + SMUGGLED)

    assert heard.statuses == [400]
    assert heard.is_closed
    assert '"code":"malformed-request"' in heard.text
    assert "application/problem+json" in heard.text
    assert "alive" not in heard.text


def test_an_upgrade_is_ignored_and_the_connection_ends(target: Target) -> None:
    upgrade = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"

    heard = say(target.url, upgrade + SMUGGLED)

    assert heard.statuses == [200]
    assert heard.is_closed


def test_requests_in_a_row_are_answered_in_order_and_a_bad_one_ends_the_row(target: Target) -> None:
    heard = say(
        target.url, SMUGGLED + b"GET /v1/services HTTP/1.1\r\nHost: x\r\n\r\n", patience_s=1
    )
    assert heard.statuses == [200, 200]
    assert heard.text.index("alive") < heard.text.index("services")

    heard = say(target.url, SMUGGLED + b"\x00" + SMUGGLED)
    assert heard.statuses == [200]
    assert heard.is_closed


def test_fields_behind_a_body_are_none(target: Target) -> None:
    body = b"2\r\n{}\r\n0\r\nAccept: text/html\r\nPrefer: wait=1\r\n\r\n"

    heard = say(target.url, target.head("Transfer-Encoding: chunked", "Connection: close") + body)

    assert heard.statuses == [422]
    assert "preference-applied" not in heard.text


HIDDEN = {
    "a host that ends in an open path": b"GET /v1/services HTTP/1.1\r\nHost: x/healthz?\r\n",
    "a target with another host": b"GET http://healthz/v1/services HTTP/1.1\r\nHost: healthz\r\n",
    "dots": b"GET /healthz/../v1/services HTTP/1.1\r\nHost: x\r\n",
    "encoded dots": b"GET /healthz/%2e%2e/v1/services HTTP/1.1\r\nHost: x\r\n",
    "encoded slashes": b"GET /healthz%2f..%2fv1%2fservices HTTP/1.1\r\nHost: x\r\n",
    "an encoded letter": b"GET /v1/service%73 HTTP/1.1\r\nHost: x\r\n",
    "two slashes": b"GET //v1/services HTTP/1.1\r\nHost: x\r\n",
    "a query": b"GET /v1/services?/healthz HTTP/1.1\r\nHost: x\r\n",
    "a semicolon": b"GET /v1/services;/healthz HTTP/1.1\r\nHost: x\r\n",
    "a rewritten path": b"GET /v1/services HTTP/1.1\r\nHost: x\r\nX-Original-URL: /healthz\r\n",
    "a forwarded prefix": b"GET /v1/services HTTP/1.1\r\nHost: x\r\nX-Forwarded-Prefix: /healthz\r\n",
}


@pytest.fixture(scope="module")
def guarded_url(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An ingress that asks for a key that nobody has."""
    with open_stack(kafka, tmp_path_factory.mktemp("keys"), "-keys") as stack:
        stack.make_services("oneway")
        yield stack.start_ingress(BRIDGE_API_KEYS=f"00000000 {'0' * 64} nobody")[1]


@pytest.mark.parametrize("head", HIDDEN.values(), ids=HIDDEN)
def test_what_needs_a_key_needs_it_however_it_is_asked_for(guarded_url: str, head: bytes) -> None:
    heard = say(guarded_url, head + b"Connection: close\r\n\r\n")

    assert heard.statuses in ([401], [400])
    assert "requests_topic" not in heard.text
    assert '"topics"' not in heard.text
