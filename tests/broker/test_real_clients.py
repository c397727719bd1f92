"""Clients that others wrote, through a restart of the ingress: curl, and a browser's EventSource."""

import http.client
import http.server
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.sse import follow, parse_events
from tests.stack import Process, Stack, post, until

pytestmark = pytest.mark.timeout(180)

HOWTO = Path(__file__).parents[2] / "docs" / "howto" / "follow-a-request.md"
EVENTS = ("accepted", "progress", *["part"] * 6, "completed")


def begin(stack: Stack, url: str) -> str:
    """Begin a stream of some seconds; returns where the request is."""
    body = {"to": 6, "sleep_s": 1}
    answer = post(url, stack.name("parts"), body, prefer="respond-async")
    return str(answer.headers["location"])


def restart(stack: Stack, process: Process, url: str, *, is_kill: bool) -> Process:
    if is_kill:
        process.kill()
    else:
        assert process.stop() == 0
    return stack.start_ingress(int(url.rpartition(":")[2]))[0]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_loop_of_the_howto_misses_nothing(stack: Stack, tmp_path: Path) -> None:
    stack.make_services("parts")
    stack.start_worker("parts")
    process, url = stack.start_ingress()
    location = begin(stack, url)
    (loop,) = re.findall(r"```sh\n(last=\n.*?)```", HOWTO.read_text(encoding="utf-8"), re.DOTALL)
    script = loop.replace("http://127.0.0.1:8080", url)

    with subprocess.Popen(  # noqa: S603 - the example of our own page
        ["/bin/sh", "-c", script],
        cwd=tmp_path,
        env={"location": location, "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        text=True,
    ) as curl:
        part = tmp_path / "events.part"
        until(lambda: part.exists() and "part" in part.read_text(), timeout_s=20, what="a part")
        restart(stack, process, url, is_kill=True)
        printed, _ = curl.communicate(timeout=60)

    told = list(parse_events(iter(printed.split("\n"))))
    print("curl:", *(f"{each.event}@{each.id}" for each in told))
    assert told == follow(f"{url}{location}/events")
    assert tuple(each.event for each in told) == EVENTS


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_loop_of_the_howto_ends_where_nothing_is(stack: Stack, tmp_path: Path) -> None:
    stack.make_services("parts")
    _, url = stack.start_ingress()
    location = f"/v1/services/{stack.name('parts')}/requests/nothing"
    (loop,) = re.findall(r"```sh\n(last=\n.*?)```", HOWTO.read_text(encoding="utf-8"), re.DOTALL)

    done = subprocess.run(  # noqa: S603 - the example of our own page
        ["/bin/sh", "-c", loop.replace("http://127.0.0.1:8080", url)],
        cwd=tmp_path,
        env={"location": location, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )

    assert '"code":"unknown-request"' in done.stdout


PAGE = """<!doctype html><title>events</title><script>
let count = 0
const tell = what => fetch('/told', {method: 'POST', body: JSON.stringify([...what, ++count])})
const source = new EventSource(PATH)
for (const name of ['accepted', 'progress', 'part', 'completed', 'failed', 'expired', 'cancelled'])
  source.addEventListener(name, e => tell([name, e.lastEventId, e.data]))
source.onerror = () => tell(['error', String(source.readyState), 'null'])
</script>"""
CLOSED = "2"


class Proxy(http.server.BaseHTTPRequestHandler):
    """Serves the page from the origin of the events, and hears what the page was told."""

    upstream: ClassVar[str] = ""
    path_of_events: ClassVar[str] = ""
    told: ClassVar[list[list[Any]]] = []
    """Each with its number: the browser may send several at once."""

    def do_GET(self) -> None:
        if self.path == "/page":
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(PAGE.replace("PATH", json.dumps(self.path_of_events)).encode())
        elif self.path == self.path_of_events:
            self.pass_on()
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.told.append(json.loads(self.rfile.read(length)))
        self.send_response(204)
        self.end_headers()

    def pass_on(self) -> None:
        """Pass a stream on; a broken one is broken for the browser too."""
        upstream = http.client.HTTPConnection(self.upstream, timeout=60)
        names = ("Accept", "Last-Event-ID")
        headers = {name: self.headers[name] for name in names if name in self.headers}
        try:
            upstream.request("GET", self.path, headers=headers)
            answer = upstream.getresponse()
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.headers.get("Content-Type", "text/plain"))
            self.end_headers()
            while chunk := answer.read1(65_536):
                self.wfile.write(chunk)
        except (OSError, http.client.HTTPException):
            self.close_connection = True
        finally:
            upstream.close()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serve(upstream: str, path: str) -> Iterator[str]:
    Proxy.upstream, Proxy.path_of_events, Proxy.told = upstream.removeprefix("http://"), path, []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/page"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def browse(page: str, folder: Path) -> Iterator[None]:
    command = [
        str(shutil.which("chromium")),
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
        *("--disable-component-update", "--disable-sync", "--no-first-run"),
        *(f"--user-data-dir={folder}", "--remote-debugging-port=0", page),
    ]
    with (folder.parent / "chromium.log").open("w") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603 - a browser on the path
        try:
            yield
        finally:
            child.terminate()
            child.wait(timeout=20)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium (apt-get install)")
@pytest.mark.parametrize("is_kill", [False, True], ids=["stopped", "killed"])
def test_an_event_source_misses_nothing_and_stops_at_the_end(
    stack: Stack, tmp_path: Path, is_kill: bool
) -> None:
    stack.make_services("parts")
    stack.start_worker("parts")
    process, url = stack.start_ingress()
    path = begin(stack, url) + "/events"

    with serve(url, path) as page, browse(page, tmp_path / "profile"):
        until(lambda: len(Proxy.told) >= 3, timeout_s=60, what="the page was told something")
        restart(stack, process, url, is_kill=is_kill)
        until(
            lambda: any(each[:2] == ["error", CLOSED] for each in Proxy.told),
            timeout_s=60,
            what="it has stopped",
        )

    in_order = sorted(Proxy.told, key=lambda each: int(each[-1]))  # as the browser was told them
    told = [each[:-1] for each in in_order if each[0] != "error"]
    breaks = sum(each[0] == "error" for each in Proxy.told) - 1
    print(f"EventSource, {breaks} breaks:", *(f"{name}@{id_}" for name, id_, _ in told))
    assert [(name, id_, json.loads(data)) for name, id_, data in told] == [
        (each.event, each.id, each.data) for each in follow(url + path)
    ]
    assert tuple(name for name, *_ in told) == EVENTS
    assert breaks >= 1
