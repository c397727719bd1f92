"""RELIABILITY 23, for a child: whatever a handler does to its process, the worker lives on."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.stack import Process, Stack, post, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

PROCESS = f"""
deadline_s = 60
wait_s = 30
key = "text"
[worker]
isolation = "process"
concurrency = 4
attempts = 1
timeout_s = 3
memory_bytes = {512 << 20}
[topics]
partitions = 1
lanes = 1
"""


def set_up(stack: Stack, settings: str, handler: str = "risky:handle") -> tuple[Process, str]:
    """Run a worker of `echo` with other settings, and an ingress."""
    stack.copy_services("echo")
    toml = stack.schemas / stack.name("echo") / "service.toml"
    toml.write_text(settings, encoding="utf-8")
    stack.apply_topics()
    worker = stack.start("worker", stack.name("echo"), "--handler", f"consumers.{handler}")
    until(lambda: bool(worker.events("working")), timeout_s=30, what="the worker works")
    _, url = stack.start_ingress()
    return worker, url


@pytest.mark.parametrize("colour", ["handle", "handle_async"])
def test_a_handler_that_ends_its_process_fails_its_request_and_other_keys_flow(
    stack: Stack, colour: str
) -> None:
    worker, url = set_up(stack, PROCESS, f"risky:{colour}")
    service = stack.name("echo")
    harms = {
        "segfault": ("process-died", "was killed by SIGSEGV"),
        "exit": ("process-died", "exited with 3"),
        "base-exception": ("process-died", "exited with 1"),
        "os-exit": ("process-died", "exited with 4"),
        "kill": ("process-died", "was killed by SIGKILL"),
        "memory": ("process-died", "ran out of memory"),
        "hang": ("handler-timeout", "longer than 3 s"),
    }

    with ThreadPoolExecutor(4) as clients:
        harmed = {
            do: clients.submit(
                post, url, service, {"text": do, "do": do, "sleep_s": 60.0 if do == "hang" else 0.0}
            )
            for do in harms
        }
        flowing = 0
        while not all(each.done() for each in harmed.values()):
            answer = post(url, service, {"text": f"well-{flowing}"})
            assert answer.status_code == 200, answer.text
            assert answer.elapsed.total_seconds() < 10
            assert answer.json()["pid"] != worker.pid
            flowing += 1

    for do, (code, how) in harms.items():
        problem = harmed[do].result().json()
        assert harmed[do].result().status_code == 502, problem
        assert (problem["code"], how in problem["detail"]) == (code, True), problem
        assert problem["retryable"] == (code == "process-died")
    assert flowing >= 3
    assert worker.child.poll() is None
    replaced = worker.events("child-replaced")
    assert len(replaced) == len(harms)
    assert all(not Path(f"/proc/{event['pid']}").exists() for event in replaced)
    print(f"{len(harms)} harms, {flowing} other requests answered meanwhile")


def test_children_end_with_their_worker_however_it_ends(stack: Stack) -> None:
    worker, url = set_up(stack, PROCESS)
    first = post(url, stack.name("echo"), {"text": "a"}).json()["pid"]

    assert worker.stop() == 0
    assert not Path(f"/proc/{first}").exists()

    worker = stack.start("worker", stack.name("echo"), "--handler", "consumers.risky:handle")
    second = post(url, stack.name("echo"), {"text": "a"}).json()["pid"]
    worker.kill()
    until(lambda: not Path(f"/proc/{second}").exists(), timeout_s=5, what="its child ends too")


def test_a_client_s_cancellation_reaches_the_child(stack: Stack) -> None:
    _, url = set_up(stack, PROCESS.replace("timeout_s = 3", "timeout_s = 60"))
    body = {"text": "x", "do": "watch", "sleep_s": 50.0}
    given = post(url, stack.name("echo"), body, prefer="respond-async")
    where = f"{url}{given.headers['location']}"
    until(
        lambda: httpx.get(where, timeout=10).headers["bridge-state"] == "running",
        timeout_s=20,
        what="the handler has told its progress",
    )

    assert httpx.delete(where, timeout=10).status_code == 200

    # Its key waits for it, so an answer shows that it has stopped long before its time.
    answer = post(url, stack.name("echo"), {"text": "x"})
    assert answer.status_code == 200
    assert answer.elapsed.total_seconds() < 20


def test_a_coroutine_that_blocks_in_a_thread_holds_up_nobody(stack: Stack) -> None:
    thread = PROCESS.replace('"process"', '"thread"').replace(f"memory_bytes = {512 << 20}\n", "")
    worker, url = set_up(stack, thread, "risky:handle_async")

    with ThreadPoolExecutor(1) as clients:
        blocking = clients.submit(post, url, stack.name("echo"), {"text": "b", "sleep_s": 2.0})
        for number in range(5):
            answer = post(url, stack.name("echo"), {"text": f"{number}"})
            assert (answer.status_code, answer.json()["pid"]) == (200, worker.pid)
        assert not blocking.done()
        assert blocking.result().status_code == 200
