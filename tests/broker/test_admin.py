"""A worker's own port: there only if wanted, and what it tells and does."""

import os
import re
import signal

import httpx
import pytest

from tests.stack import Process, Stack, free_port, listening, post, until

pytestmark = pytest.mark.timeout(120)


def start(stack: Stack, service: str, **environment: str) -> tuple[Process, str]:
    """Run a worker with a port; returns it with its URL when it answers."""
    port = free_port()
    worker = stack.start(
        *("worker", stack.name(service), "--handler", f"consumers.{service}:handle"),
        *("--admin-port", str(port)),
        **environment,
    )
    url = f"http://127.0.0.1:{port}"
    until(lambda: ask(url, "/healthz") == 200, timeout_s=30, what="it answers")
    return worker, url


def ask(url: str, path: str) -> int:
    try:
        return httpx.get(url + path).status_code
    except httpx.TransportError:
        return 0


def is_ready(url: str) -> bool:
    return ask(url, "/readyz") == 200


def describe(url: str) -> dict[str, object]:
    (service,) = httpx.get(f"{url}/services").json()["services"]
    return dict(service)


def metric(url: str, name: str) -> float:
    """Sum a metric over the labels that are not said."""
    text = httpx.get(f"{url}/metrics").text
    return sum(
        float(found) for found in re.findall(rf"^{re.escape(name)}.* (\S+)$", text, re.MULTILINE)
    )


def test_a_worker_opens_no_port_unless_told_to(stack: Stack) -> None:
    stack.make_services("echo", "count")

    closed = stack.start_worker("count")
    opened, url = start(stack, "echo")

    port = int(url.rpartition(":")[2])
    assert listening(closed.pid) == set()
    assert listening(opened.pid) == {f"0100007F:{port:04X}"}
    assert opened.stop() == 0


def test_a_port_that_is_taken_is_told_in_one_line(stack: Stack) -> None:
    stack.make_services("echo")
    _, url = start(stack, "echo")

    second = stack.start("worker", stack.name("echo"), BRIDGE_ADMIN_PORT=url.rpartition(":")[2])

    assert second.child.wait(timeout=20) == 1
    (line,) = second.log.read_text(encoding="utf-8").splitlines()
    assert "choose another with --admin-port" in line


def test_it_is_alive_without_kafka_and_not_ready(stack: Stack) -> None:
    stack.copy_services("echo")

    _, url = start(stack, "echo", BRIDGE_KAFKA=f"127.0.0.1:{free_port()}")

    answer = httpx.get(f"{url}/readyz")
    assert answer.status_code == 503
    assert answer.json() == {
        "ready": False,
        "missing": {stack.name("echo"): "it has not begun: it waits for Kafka"},
    }
    assert ask(url, "/healthz") == 200
    assert ask(url, "/metrics") == 200
    assert describe(url)["lag"] is None


def test_a_worker_without_partitions_is_ready_too(stack: Stack) -> None:
    """More workers than partitions: the last ones stand by."""
    stack.make_services("headed")  # one partition
    workers = [start(stack, "headed") for _ in range(2)]

    until(lambda: all(is_ready(url) for _, url in workers), timeout_s=30, what="both are ready")

    owned = [describe(url)["partitions"] for _, url in workers]
    assert sorted(map(str, owned)) == ["[0]", "[]"]


def test_a_stuck_event_loop_answers_no_probe(stack: Stack) -> None:
    stack.make_services("echo")
    worker, url = start(stack, "echo")

    os.kill(worker.pid, signal.SIGSTOP)
    try:
        with pytest.raises(httpx.TimeoutException):
            httpx.get(f"{url}/healthz", timeout=1)
    finally:
        os.kill(worker.pid, signal.SIGCONT)


def test_metrics_tell_attempts_handlers_and_lag(stack: Stack) -> None:
    stack.make_services("echo")
    _, url = start(stack, "echo")
    _, ingress = stack.start_ingress()
    name = stack.name("echo")

    for do in ("reply", "reply", "refuse"):
        post(ingress, name, {"text": "x", "do": do})

    labels = f'service="{name}"'
    assert metric(url, f'bridge_worker_attempts_total{{outcome="completed",{labels}}}') == 2
    assert metric(url, f'bridge_worker_attempts_total{{outcome="refused",{labels}}}') == 1
    assert metric(url, f"bridge_worker_handlers{{{labels}}}") == 0
    assert metric(url, f"bridge_worker_partitions{{{labels}}}") == 4
    until(lambda: metric(url, "bridge_worker_lag{") == 0, timeout_s=10, what="all is committed")

    asked = post(ingress, name, {"text": "x", "sleep_s": 10}, prefer="respond-async")

    assert asked.status_code == 202
    until(lambda: metric(url, "bridge_worker_handlers{") == 1, timeout_s=10, what="it runs")
    until(lambda: metric(url, "bridge_worker_lag{") == 1, timeout_s=10, what="it is seen")
    text = httpx.get(f"{url}/metrics").text
    assert "bridge_ingress_" not in text
    assert "process_resident_memory_bytes" in text


def test_a_paused_service_is_kept_and_goes_on_where_it_was(stack: Stack) -> None:
    stack.make_services("echo")
    worker, url = start(stack, "echo")
    _, ingress = stack.start_ingress()
    name = stack.name("echo")
    running = post(ingress, name, {"text": "begun", "sleep_s": 2}, prefer="respond-async")
    until(lambda: metric(url, "bridge_worker_handlers{") == 1, timeout_s=20, what="it runs")

    paused = httpx.post(f"{url}/services/{name}/pause")
    waiting = post(ingress, name, {"text": "later"}, prefer="wait=4")

    assert (paused.status_code, paused.json()["paused"]) == (200, True)
    assert waiting.status_code == 202
    assert httpx.get(ingress + running.headers["location"]).status_code == 200
    assert is_ready(url)
    told = describe(url)
    assert (told["paused"], told["lag"], told["partitions"]) == (True, 1, [0, 1, 2, 3])
    assert metric(url, "bridge_worker_paused{") == 1

    resumed = httpx.post(f"{url}/services/{name}/resume")

    assert resumed.json()["paused"] is False
    answer = httpx.get(
        ingress + waiting.headers["location"], headers={"prefer": "wait=20"}, timeout=30
    )
    assert (answer.status_code, answer.json()["text"]) == (200, "later")
    assert worker.stop() == 0


def test_what_a_rebalance_brings_to_a_paused_service_waits_too(stack: Stack) -> None:
    stack.make_services("count")
    first = stack.start_worker("count")
    _, url = start(stack, "count")
    _, ingress = stack.start_ingress()
    name = stack.name("count")
    until(lambda: describe(url)["partitions"] not in ([], None), timeout_s=30, what="it shares")
    httpx.post(f"{url}/services/{name}/pause")
    before = metric(url, "bridge_worker_records_total{")

    assert first.stop() == 0
    asked = [post(ingress, name, {"to": n}, prefer="respond-async") for n in range(20)]

    until(lambda: describe(url)["lag"] == 20, timeout_s=30, what="all of it waits")
    assert metric(url, "bridge_worker_records_total{") == before
    httpx.post(f"{url}/services/{name}/resume")
    until(
        lambda: metric(url, "bridge_worker_records_total{") == before + 20,
        timeout_s=30,
        what="all of it is done",
    )
    for each in asked:
        assert httpx.get(ingress + each.headers["location"]).status_code == 200


def test_a_browser_and_a_wrong_name_press_no_button(stack: Stack) -> None:
    stack.make_services("echo")
    _, url = start(stack, "echo")
    pause = f"{url}/services/{stack.name('echo')}/pause"

    browser = httpx.post(pause, headers={"origin": "http://evil.example"})
    nobody = httpx.post(f"{url}/services/nobody/pause")

    assert (browser.status_code, nobody.status_code) == (403, 404)
    assert stack.name("echo") in nobody.json()["detail"]
    assert httpx.get(pause).status_code == 405
    assert describe(url)["paused"] is False


def test_a_worker_that_cannot_begin_ends_with_its_port(stack: Stack) -> None:
    stack.copy_services("echo")  # and no topics

    worker = stack.start(
        *("worker", stack.name("echo"), "--handler", "consumers.echo:handle"),
        BRIDGE_ADMIN_PORT=str(free_port()),
    )

    assert worker.child.wait(timeout=30) == 1
    *_, last = worker.log.read_text(encoding="utf-8").splitlines()
    assert last.startswith("kbridge: ")
    assert "kbridge topics apply" in last
