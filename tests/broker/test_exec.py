"""A program in another language behind the whole bridge: HTTP in, its JSON lines out."""

from pathlib import Path

import pytest

from tests.handlers import need
from tests.stack import Process, Stack, post, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

PROGRAMS = Path(__file__).parents[1] / "programs"


def start(stack: Stack, service: str, command: str, *options: str) -> Process:
    need(command)
    worker = stack.start("worker", stack.name(service), "--exec", command, *options)
    until(
        lambda: bool(worker.events("working")) or worker.child.poll() is not None,
        timeout_s=30,
        what="the worker works",
    )
    return worker


def test_a_node_program_answers_refuses_dies_and_comes_back(stack: Stack) -> None:
    stack.make_services("echo")
    worker = start(stack, "echo", f"node {PROGRAMS / 'echo.js'}", "--exec-processes", "2")
    _, url = stack.start_ingress()
    service = stack.name("echo")

    answer = post(url, service, {"text": "ä"})
    refused = post(url, service, {"text": "x", "do": "refuse"})
    later = post(url, service, {"text": "x", "do": "later"})
    misfit = post(url, service, {"text": "x", "do": "misfit"})
    died = post(url, service, {"text": "x", "do": "die"}, bridge_deadline="20")

    assert answer.status_code == 200
    assert answer.json()["text"] == "ä"
    assert answer.json()["request_id"] == answer.headers["request-id"]
    assert (refused.status_code, refused.json()["code"]) == (422, "bad-text")
    assert refused.json()["details"] == {"field": "text"}
    assert later.json()["retryable"] is True
    assert misfit.json()["code"] == "reply-invalid"
    assert (died.status_code, died.json()["code"]) == (502, "program-died")
    assert worker.events("program-ended")[0]["how"] == "exited with 3"
    assert post(url, service, {"text": "again"}).status_code == 200
    assert worker.stop() == 0
    assert not Path(f"/proc/{answer.json()['pid']}").exists()


def test_progress_and_parts_of_a_program_are_events(stack: Stack) -> None:
    stack.make_services("count", "echo")
    start(stack, "count", f"{PROGRAMS / 'count.sh'}")
    start(stack, "echo", f"node {PROGRAMS / 'echo.js'}")
    _, url = stack.start_ingress()

    streamed = post(url, stack.name("count"), {"to": 3})
    told = post(
        url, stack.name("echo"), {"text": "x", "do": "progress"}, accept="application/x-ndjson"
    )

    assert [part["number"] for part in streamed.json()["parts"]] == [1, 2, 3]
    assert '"half way"' in told.text


def test_a_shell_script_is_run_for_each_request(stack: Stack) -> None:
    stack.make_services("echo")
    start(stack, "echo", f"{PROGRAMS / 'once.sh'}", "--exec-once")
    _, url = stack.start_ingress()
    service = stack.name("echo")

    answers = [post(url, service, {"text": f"{number}"}) for number in range(3)]
    refused = post(url, service, {"text": "x", "do": "refuse"})
    broke = post(url, service, {"text": "x", "do": "break"})

    assert [answer.json()["text"] for answer in answers] == ["0", "1", "2"]
    assert len({answer.json()["pid"] for answer in answers}) == 3
    assert (refused.status_code, refused.json()["detail"]) == (422, "never")
    assert (broke.status_code, broke.json()["code"]) == (502, "handler-failed")
    assert "secret" not in broke.text


def test_a_program_dies_with_a_worker_that_is_killed(stack: Stack) -> None:
    stack.make_services("echo")
    worker = start(stack, "echo", f"node {PROGRAMS / 'echo.js'}")
    _, url = stack.start_ingress()
    pid = post(url, stack.name("echo"), {"text": "x"}).json()["pid"]

    worker.kill()

    until(lambda: not Path(f"/proc/{pid}").exists(), timeout_s=5, what="the program ends too")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--exec", "no-such-program"], "no program no-such-program is on PATH"),
        (["--exec", "cat", "--handler", "a:b"], "--handler and --exec: want one of them"),
        (["--exec-once"], "want --exec"),
        (["--exec", "cat", "--exec-once", "--exec-processes", "2"], "no --exec-processes"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(
    stack: Stack, options: list[str], why: str
) -> None:
    stack.copy_services("echo")
    worker = stack.start("worker", stack.name("echo"), *options)

    assert worker.child.wait(timeout=30) in {1, 2}
    assert why in worker.log.read_text(encoding="utf-8").splitlines()[-1]
