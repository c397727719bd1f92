"""Programs that are started for each request: what their exit means."""

import asyncio
import json
import os
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bridge.errors import BridgeError, PermanentError, RetryableError
from bridge.service import Service
from bridge.worker import Handler, open_once
from tests.core.test_program import COUNT, ECHO, PROGRAMS, wait_gone
from tests.handlers import Asked, as_json

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]


def once(
    command: str = f"{PROGRAMS / 'once.sh'}", service: Service = ECHO
) -> AbstractAsyncContextManager[Handler]:
    environ = {**os.environ, "BRIDGE_SCHEMAS": "not for the program"}
    return open_once(command, service, environ=environ, own_ms=lambda: 0)


async def run(do: str = "", text: str = "hello", asked: Asked | None = None) -> bytes:
    async with once() as handler:
        assert handler.call is not None
        assert handler.is_json
        request = as_json({"text": text, "do": do})
        reply = await handler.call(request, (asked or Asked()).context)
        assert isinstance(reply, bytes)
        return reply


async def test_each_request_has_a_process_of_its_own() -> None:
    replies = [json.loads(await run()) for _ in range(2)]

    assert [reply["text"] for reply in replies] == ["hello", "hello"]
    assert len({reply["pid"] for reply in replies}) == 2


async def test_what_is_known_beside_the_request_is_in_the_environment() -> None:
    reply = json.loads(await run("id", asked=Asked("id-1", attempt=2, principal="ann")))

    assert reply["text"] == "id-1 2 ann"


@pytest.mark.parametrize(
    ("do", "wanted", "code", "message"),
    [
        ("refuse", PermanentError, "refused", "never"),
        ("later", RetryableError, "handler-failed", "not yet"),
        ("kill", RetryableError, "program-died", "the program was killed by SIGKILL"),
    ],
)
async def test_an_exit_on_purpose_and_a_signal_are_told_as_they_are(
    do: str, wanted: type[BridgeError], code: str, message: str
) -> None:
    with pytest.raises(wanted) as caught:
        await run(do)

    assert str(caught.value) == message
    assert getattr(caught.value, "failure_code") == code  # noqa: B009 - of both


async def test_any_other_exit_is_a_program_that_broke() -> None:
    with pytest.raises(RuntimeError, match="the program exited with 1: a secret"):
        await run("break")


async def test_one_that_writes_without_end_is_stopped() -> None:
    with pytest.raises(RuntimeError, match="more than 4194304 bytes"):
        await run("yes")


async def test_a_pipe_that_is_closed_ends_its_writer_as_in_a_shell() -> None:
    with capture_logs() as logs:
        assert json.loads(await run("pipe"))["text"] == "hello"

    assert [entry["line"] for entry in logs if entry["event"] == "child-says"] == ["y"]


async def test_past_its_time_it_is_killed_with_what_it_has_started(tmp_path: Path) -> None:
    child = tmp_path / "child"
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(run("hang", f"{child}"))
        await text_of(child)

        running.cancel()  # as the worker does

    await wait_gone(child.read_text().strip())


async def test_what_it_leaves_behind_ends_with_it_and_holds_up_no_reply(tmp_path: Path) -> None:
    child = tmp_path / "child"

    async with asyncio.timeout(10):
        assert json.loads(await run("leave", f"{child}"))["text"] == f"{child}"

    await wait_gone(child.read_text().strip())


async def text_of(file: Path) -> None:
    async with asyncio.timeout(10):
        while not file.exists() or not file.read_text():  # noqa: ASYNC110, ASYNC240 - another process
            await asyncio.sleep(0.01)


async def test_a_cancellation_is_told_by_sigterm(tmp_path: Path) -> None:
    diary, asked = tmp_path / "diary", Asked()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(ended(run("stop", f"{diary}", asked)))
        await text_of(diary)
        asked.is_cancelled = True

    assert isinstance(running.result(), RetryableError)
    assert diary.read_text() == "stopped\n"


async def ended(running: Any) -> BaseException | None:
    try:
        await running
    except RetryableError as error:
        return error
    return None


async def test_each_line_is_a_part_of_a_stream() -> None:
    script = 'awk \'BEGIN { for (n = 1; n <= 20000; n++) print "{\\"number\\":" n "}" }\''
    async with once(script, COUNT) as handler:
        assert handler.stream is not None
        found = [part async for part in handler.stream(b"{}", Asked().context)]

    assert found[:2] == [b'{"number":1}', b'{"number":2}']
    assert len(found) == 20_000
