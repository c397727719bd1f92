"""An ingress is told to stop while clients wait: nobody is left without an answer."""

import secrets
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from bridge import claims
from tests.sse import SSE
from tests.stack import Process, Stack, post, until
from tests.wires import address

pytestmark = pytest.mark.timeout(120)


def _is_begun(url: str) -> bool:
    """Tell whether some worker has said that it is half way."""
    text = httpx.get(f"{url}/metrics").text
    return 'bridge_ingress_events_total{event="progress"} 1.0' in text


def _have_joined(url: str, count: int) -> bool:
    text = httpx.get(f"{url}/metrics").text
    return f'bridge_ingress_claims_total{{result="joined"}} {count}.0' in text


def _stop_while_one_waits(
    stack: Stack, ingress: Process, url: str, *, sleep_s: float
) -> httpx.Response:
    with ThreadPoolExecutor(1) as threads:
        body = {"text": "w", "sleep_s": sleep_s, "do": "progress"}
        asked = threads.submit(post, url, stack.name("echo"), body, timeout_s=30)
        until(lambda: _is_begun(url), timeout_s=10, what="the handler has begun")
        assert ingress.stop() == 0
        return asked.result()


def test_a_reply_that_comes_within_the_grace_time_is_given(stack: Stack) -> None:
    stack.make_services("echo")
    stack.start_worker("echo")
    ingress, url = stack.start_ingress(BRIDGE_GRACE_S="12")

    answer = _stop_while_one_waits(stack, ingress, url, sleep_s=2)

    assert (answer.status_code, answer.json()["text"]) == (200, "w")


def test_who_still_waits_near_the_end_of_the_grace_time_is_told_where_the_reply_will_be(
    stack: Stack,
) -> None:
    stack.make_services("echo")
    stack.start_worker("echo")
    ingress, url = stack.start_ingress(BRIDGE_GRACE_S="4")

    answer = _stop_while_one_waits(stack, ingress, url, sleep_s=8)

    assert answer.status_code == 202
    assert answer.elapsed.total_seconds() < 7  # the handler takes 8 s
    _, url = stack.start_ingress()
    found = httpx.get(url + answer.headers["location"], headers={"prefer": "wait=20"}, timeout=30)
    assert found.status_code == 200


def test_all_who_joined_one_request_are_told_where_its_reply_will_be(stack: Stack) -> None:
    stack.make_services("echo")
    stack.start_worker("echo")
    ingress, url = stack.start_ingress(BRIDGE_GRACE_S="4")
    body = {"text": "w", "sleep_s": 15, "do": "progress"}

    def ask() -> httpx.Response:
        return post(url, stack.name("echo"), body, prefer="wait=60", idempotency_key="one")

    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(ask)
        until(lambda: _is_begun(url), timeout_s=10, what="the handler has begun")
        joined = [threads.submit(ask) for _ in range(3)]
        until(lambda: _have_joined(url, 3), timeout_s=10, what="all of them wait")
        assert ingress.stop() == 0
        answers = [asked.result() for asked in (first, *joined)]

    assert [answer.status_code for answer in answers] == [202] * 4
    assert len({answer.headers["location"] for answer in answers}) == 1


def test_a_replica_that_stops_under_load_fails_no_client_that_tries_again(stack: Stack) -> None:
    """RELIABILITY 32: each client goes round the replicas, and asks again, under the same key."""
    stack.make_services("echo")
    stack.start_worker("echo")
    first, url = stack.start_ingress()
    _, other_url = stack.start_ingress()
    urls, is_over = (url, other_url), threading.Event()
    again: list[str] = []

    def ask(number: int) -> int:
        answered = 0
        while not is_over.wait(0.01):
            text = f"{number}-{answered}"
            answer = _ask_until_answered(stack, urls, {"text": text, "sleep_s": 0.05}, again)
            assert answer["text"] == text
            answered += 1
        return answered

    with ThreadPoolExecutor(8) as threads:
        asking = [threads.submit(ask, number) for number in range(8)]
        until(lambda: not is_over.wait(1.5), timeout_s=5, what="load")
        code = first.stop()
        until(lambda: not is_over.wait(1.5), timeout_s=5, what="load")
        is_over.set()
        answered = sum(future.result() for future in asking)

    print(f"answered {answered}, asked again {len(again)}: {sorted(set(again))}")
    assert code == 0
    assert answered > 50
    # What was connected and not yet accepted is reset: only a key makes asking again safe.
    assert set(again) <= {"ConnectError", "ReadError", "RemoteProtocolError", "503"}
    assert len(stack.read(f"{stack.name('echo')}.requests")) == answered


def _ask_until_answered(
    stack: Stack, urls: tuple[str, ...], body: object, again: list[str]
) -> dict[str, str]:
    key = secrets.token_hex(8)
    for turn in range(40):
        url = urls[turn % len(urls)]
        try:
            answer = post(url, stack.name("echo"), body, idempotency_key=key)
        except httpx.TransportError as refused:
            again.append(type(refused).__name__)
            continue
        if answer.status_code == 202:  # handed over: any replica has it
            location = urls[-1] + answer.headers["location"]
            answer = httpx.get(location, headers={"prefer": "wait=20"}, timeout=30)
        if answer.status_code == 200:
            found: dict[str, str] = answer.json()
            return found
        again.append(str(answer.status_code))
    raise AssertionError(f"no answer: {again[-20:]}")


def test_processes_of_one_ingress_take_lanes_of_their_own_and_share_the_port(stack: Stack) -> None:
    stack.make_services("echo")
    stack.start_worker("echo")
    ingress = stack.start("ingress", "--port", "0", "--processes", "2")
    until(lambda: len(ingress.events("ready")) == 2, timeout_s=30, what="both are ready")
    url = f"http://127.0.0.1:{ingress.events('listening')[0]['port']}"
    lanes = [tuple(map(str, event["lanes"])) for event in ingress.events("ready")]  # type: ignore[call-overload]  # JSON

    with ThreadPoolExecutor(16) as threads:
        bodies = [{"text": str(number), "sleep_s": 0.2} for number in range(64)]
        answers = list(threads.map(lambda body: post(url, stack.name("echo"), body), bodies))

    assert len(set(lanes)) == 2
    assert [a.json()["text"] for a in answers] == [str(number) for number in range(64)]
    used = {answer.headers["request-id"][15:18] for answer in answers}
    print(f"lanes {lanes}; lanes used {sorted(used)}")
    assert len(used) == 2  # both processes took requests
    assert ingress.stop() == 0


def test_a_key_is_not_taken_for_a_stream_that_a_stopping_replica_refuses(stack: Stack) -> None:
    stack.make_services("echo")
    stack.start_worker("echo")
    ingress, url = stack.start_ingress(BRIDGE_GRACE_S="8")
    name = stack.name("echo")
    content = b'{"text": "x"}'
    ask = (
        f"POST /v1/services/{name}/requests HTTP/1.1\r\nHost: x\r\nAccept: {SSE}\r\n"
        f"Content-Type: application/json\r\nIdempotency-Key: k\r\nContent-Length: {len(content)}\r\n\r\n"
    ).encode() + content
    body = {"text": "w", "sleep_s": 5, "do": "progress"}

    with ThreadPoolExecutor(1) as threads, socket.create_connection(address(url), 10) as wire:
        waits = threads.submit(post, url, name, body, timeout_s=30)  # so that the replica lives on
        until(lambda: _is_begun(url), timeout_s=10, what="the handler has begun")
        ingress.child.terminate()
        until(lambda: _is_closed(url), timeout_s=5, what="it takes no more connections")
        wire.sendall(ask)
        heard = b""
        while piece := wire.recv(65_536):
            heard += piece
        waits.result()
        ingress.stop()

    entries = [claims.parse_entry(record) for record in stack.read(claims.TOPIC)]
    assert heard.startswith(b"HTTP/1.1 503")
    assert b'"code":"draining"' in heard
    assert [entry for entry in entries if entry is not None and entry.service == name] == []


def _is_closed(url: str) -> bool:
    try:
        socket.create_connection(address(url), 1).close()
    except ConnectionRefusedError:
        return True
    return False
