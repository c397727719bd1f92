"""Programs in Node and in sh as handlers: lines in, lines out, and what happens when one dies."""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bridge.errors import PermanentError, RetryableError, SettingsError
from bridge.registry import load_services
from bridge.service import Service
from bridge.worker import Handler, open_program
from tests.handlers import Asked, as_json, make_service, need

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

PROGRAMS = Path(__file__).parents[1] / "programs"
NODE = f"node {PROGRAMS / 'echo.js'}"
ECHO = make_service("echo")
COUNT = make_service("count", 'reply = "stream"')


def program(
    command: str = NODE,
    service: Service = ECHO,
    *,
    processes: int = 1,
    environ: Mapping[str, str] = os.environ,
) -> AbstractAsyncContextManager[Handler]:
    need(command)
    return open_program(
        command,
        service,
        processes=processes,
        environ=environ,
        own_ms=lambda: 1_000_000,
    )


async def ask(handler: Handler, do: str = "", asked: Asked | None = None, **more: Any) -> Any:
    assert handler.call is not None
    assert handler.is_json
    request = {"text": "hello", "sleep_s": 0, "do": do, **more}
    reply = await handler.call(as_json(request), (asked or Asked()).context)
    assert isinstance(reply, bytes)
    return json.loads(reply)


async def parts(handler: Handler, to: int) -> AsyncIterator[Any]:
    assert handler.stream is not None
    async for part in handler.stream(as_json({"to": to}), Asked().context):
        assert isinstance(part, bytes)
        yield json.loads(part)


async def test_requests_are_answered_in_any_order() -> None:
    async with program() as handler, asyncio.TaskGroup() as tasks:
        slow = tasks.create_task(ask(handler, asked=Asked("slow"), text="slow", sleep_s=0.4))
        quick = tasks.create_task(ask(handler, asked=Asked("quick"), text="quick"))
        await quick
        assert not slow.done()

    assert (quick.result()["text"], quick.result()["request_id"]) == ("quick", "quick")
    assert (slow.result()["text"], slow.result()["request_id"]) == ("slow", "slow")


async def test_a_line_says_which_try_it_is_and_until_when_it_is_wanted() -> None:
    asked = Asked("id-1", attempt=2, principal="ann", headers={"a": "b"}, left_s=5.0)
    need(NODE)
    async with open_program(
        NODE, ECHO, processes=1, environ=os.environ, own_ms=lambda: 2_000_000_000_000
    ) as handler:
        facts = json.loads((await ask(handler, "facts", asked))["text"])

    assert facts.pop("in_s") > 0
    assert facts == {
        "attempt": 2,
        "request_id": "id-1",
        "principal": "ann",
        "headers": {"a": "b"},
        "replay": None,
    }


async def test_the_same_id_twice_at_once_is_told_apart() -> None:
    async with program() as handler, asyncio.TaskGroup() as tasks:
        first = tasks.create_task(ask(handler, text="first", sleep_s=0.2))
        second = tasks.create_task(ask(handler, text="second"))

    assert (first.result()["text"], second.result()["text"]) == ("first", "second")


async def test_progress_and_refusals_are_told() -> None:
    asked = Asked()
    async with program() as handler:
        await ask(handler, "progress", asked)
        with pytest.raises(PermanentError, match="no") as never:
            await ask(handler, "refuse")
        with pytest.raises(RetryableError, match="not now") as later:
            await ask(handler, "later")

    assert asked.progress == [(0.5, "half way")]
    assert (never.value.failure_code, never.value.details) == ("bad-text", {"field": "text"})
    assert (later.value.failure_code, later.value.after_s) == ("handler-failed", 0.5)


async def test_lines_that_say_nothing_are_dropped_and_the_program_lives_on() -> None:
    with capture_logs() as logs:
        async with program() as handler:
            before = (await ask(handler))["pid"]
            assert (await ask(handler, "noise"))["pid"] == before

    dropped = [entry["why"] for entry in logs if entry["event"] == "program-line-dropped"]
    assert [why[:14] for why in dropped] == ["JSON is malfor", "no request of ", "longer than 41"]


@pytest.mark.parametrize(
    ("do", "how"), [("die", "exited with 3"), ("kill", "was killed by SIGKILL")]
)
async def test_a_program_that_dies_fails_what_it_had_in_hand_and_is_replaced(
    do: str, how: str
) -> None:
    with capture_logs() as logs:
        async with program() as handler:
            before = (await ask(handler))["pid"]
            ends = await asyncio.gather(  # noqa: TID251 - both are to fail
                ask(handler, sleep_s=30), ask(handler, do), return_exceptions=True
            )
            assert (await ask(handler))["pid"] != before

    assert [type(end) for end in ends] == [RetryableError, RetryableError]
    codes = {end.failure_code for end in ends if isinstance(end, RetryableError)}
    assert codes == {"program-died"}
    assert str(ends[0]) == f"the program {how}"
    assert [entry["how"] for entry in logs if entry["event"] == "program-ended"] == [how]


async def test_copies_share_the_work_and_one_that_dies_fails_its_own_only() -> None:
    async with program(processes=2) as handler, asyncio.TaskGroup() as tasks:
        pids: set[int] = set()
        while len(pids) < 2:  # both are there
            both = [tasks.create_task(ask(handler, sleep_s=0.05)) for _ in range(2)]
            pids = {(await each)["pid"] for each in both}
        other = tasks.create_task(ask(handler, sleep_s=0.5))
        await asyncio.sleep(0)

        with pytest.raises(RetryableError):
            await ask(handler, "die")

        assert (await other)["text"] == "hello"


async def test_a_request_whose_time_is_over_is_cancelled_and_the_program_lives_on() -> None:
    with capture_logs() as logs:
        async with program() as handler:
            before = (await ask(handler))["pid"]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await ask(handler, asked=Asked("late"), sleep_s=30)

            assert (await ask(handler))["pid"] == before

    assert "told to cancel late" in [entry.get("line") for entry in logs]
    assert "program-line-dropped" not in [entry["event"] for entry in logs]  # its late answer


async def test_one_that_is_cancelled_by_its_client_is_told_to_the_program() -> None:
    asked = Asked()
    asked.is_cancelled = True
    async with program() as handler:
        with pytest.raises(PermanentError, match="cancelled"):
            await ask(handler, asked=asked, sleep_s=30)


async def test_a_program_that_says_nothing_any_more_is_killed_and_replaced() -> None:
    service = make_service("echo", "[worker]\ntimeout_s = 1")
    with capture_logs() as logs:
        async with program(service=service) as handler:
            before = (await ask(handler))["pid"]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):  # as the worker does
                    await ask(handler, "hang")

            assert (await ask(handler))["pid"] != before

    assert "program-silent" in [entry["event"] for entry in logs]


async def test_a_program_gets_the_environment_without_the_bridge_s_secrets() -> None:
    secrets = {"BRIDGE_KAFKA__SASL_PASSWORD": "x", "BRIDGE_API_KEYS_FILE": "y"}
    async with program(environ={**os.environ, **secrets}) as handler:
        assert (await ask(handler, "environment"))["text"] == ""


async def test_a_shell_script_streams_parts() -> None:
    with capture_logs() as logs:
        async with program(f"{PROGRAMS / 'count.sh'}", COUNT) as handler:
            found = [part async for part in parts(handler, 3)]
            many = [part["number"] async for part in parts(handler, 2000)]

    assert found == [{"number": 1}, {"number": 2}, {"number": 3}]
    assert many == list(range(1, 2001))
    assert "counts to 3" in [entry.get("line") for entry in logs]


async def test_a_program_that_ends_at_once_is_started_more_and_more_slowly() -> None:
    with capture_logs() as logs:
        async with program("sh -c 'exit 7'") as handler:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(fail_again_and_again(handler), 2)

    ended = [entry["how"] for entry in logs if entry["event"] == "program-ended"]
    assert 2 <= len(ended) <= 6  # after 0, 0.1, 0.3, 0.7, 1.5 s
    assert set(ended) == {"exited with 7"}


async def fail_again_and_again(handler: Handler) -> None:
    while True:
        with pytest.raises(RetryableError):
            await ask(handler)


async def test_a_program_that_does_not_want_to_end_is_ended_with_what_it_has_started(
    tmp_path: Path,
) -> None:
    pids = tmp_path / "pids"
    script = f"trap '' TERM; sleep 60 & echo $$ $! > {pids}; while :; do wait; done"
    async with program(f'sh -c "{script}"'), asyncio.timeout(10):
        while not pids.exists() or not pids.read_text():  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.01)

    for pid in pids.read_text().split():
        await wait_gone(pid)


async def wait_gone(pid: str) -> None:
    """Wait until a process has ended; whoever killed it need not have waited for that."""
    async with asyncio.timeout(5):
        while is_alive(pid):  # noqa: ASYNC110 - the kernel tells nobody but its parent
            await asyncio.sleep(0.01)


def is_alive(pid: str) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
    return "zombie" not in status  # an orphan that nobody has collected yet


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("no-such-program --x", "no program no-such-program is on PATH"),
        ("", "it is empty"),
        ("sh -c 'x", "no closing quotation"),
    ],
)
async def test_a_command_that_cannot_be_run_is_known_at_once(command: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        async with program(command):
            pass


async def test_the_program_of_the_guide_answers(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    page = (root / "docs" / "howto" / "run-a-program.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```js\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "greeter.js").write_text(code, encoding="utf-8")
    greeter = load_services(root / "schemas")["greeter"]

    async with program(f"node {tmp_path / 'greeter.js'}", greeter) as handler:
        assert handler.call is not None
        reply = await handler.call(b'{"name":"Ann"}', Asked().context)
        with pytest.raises(PermanentError, match="nobody to greet"):
            await handler.call(b'{"name":""}', Asked().context)

    assert reply == b'{"greeting":"Hello, Ann"}'
