"""Clients of streams of events, as the HTML standard and the documents describe them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import httpx

SSE = "text/event-stream"
LINES = "application/x-ndjson"


@dataclass(frozen=True)
class Told:
    """One event as a client is given it."""

    id: str
    event: str
    data: dict[str, object]


def parse_events(lines: Iterator[str]) -> Iterator[Told]:
    """Read server-sent events (WHATWG HTML 9.2.6); one whose empty line is missing is none."""
    fields: dict[str, str] = {}
    last_id = ""
    for line in lines:
        name, _, value = line.partition(":")
        if line and name:
            fields[name] = value.removeprefix(" ")
        elif not line:
            last_id = fields.get("id", last_id)
            if "data" in fields:
                yield Told(last_id, fields.get("event", "message"), json.loads(fields["data"]))
            fields = {}


def parse_lines(lines: Iterator[str]) -> Iterator[Told]:
    """Read NDJSON; empty lines only say that the stream lives."""
    for line in lines:
        if line:
            members = json.loads(line)
            yield Told(members.pop("id"), members.pop("event"), members)


def follow(url: str, *, since: str | None = None, at_most: int | None = None) -> list[Told]:
    """Read a stream to its end, or so many events of it."""
    headers = {} if since is None else {"last-event-id": since}
    told: list[Told] = []
    with httpx.stream("GET", url, headers=headers, timeout=60) as answer:
        if answer.status_code == httpx.codes.NO_CONTENT:
            return told
        assert answer.status_code == httpx.codes.OK, answer.read()
        assert answer.headers["content-type"] == SSE
        for event in parse_events(answer.iter_lines()):
            told.append(event)
            if len(told) == at_most:
                break
    return told


def ask(
    url: str, service: str, body: object, accept: str, headers: dict[str, str] | None = None
) -> tuple[httpx.Response, list[Told]]:
    """Ask a service and read what its request does, to the end."""
    parse = parse_events if accept == SSE else parse_lines
    with httpx.stream(
        "POST",
        f"{url}/v1/services/{service}/requests",
        json=body,
        headers={"accept": accept, **(headers or {})},
        timeout=60,
    ) as answer:
        assert answer.headers["content-type"] == accept, answer.read()
        return answer, list(parse(answer.iter_lines()))
