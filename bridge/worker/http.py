"""A container as a handler: each request is a POST to its HTTP server, and needs no code in it.

What the application answers says what becomes of the request: 2xx is the reply, 4xx an answer that
ends it, everything else (5xx, 408, 425, 429, no answer at all) a bad moment. Nothing is followed
and nothing kept: no redirects, no cookies, no proxies out of the environment.
"""

import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpcore
import structlog

from bridge.codec import parse_json
from bridge.context import Context
from bridge.errors import (
    HandlingError,
    MalformedBodyError,
    PermanentError,
    RetryableError,
    SettingsError,
)
from bridge.forward import find_fault
from bridge.lines import Line, Lines
from bridge.service import MAX_DEADLINE_S, Service
from bridge.worker.handler import Handler
from bridge.worker.sse import Messages

_log = structlog.get_logger("bridge.worker")

MAX_BYTES = 16 << 20
"""Largest reply, part or event, as JSON: as much as a contract takes as Avro."""
_OTHER_BYTES = 65_536
"""So much of a body that is no reply is read: then the connection can be used again."""
_CONNECT_S = 5.0
_IDLE_S = 1.0
"""Connections are kept so long: less than any server keeps them (Node.js: 5 s), for one that it
closes while a request is on its way costs an attempt."""
_AGAIN = frozenset({408, 425, 429})
_OK, _REDIRECT, _BROKE = 200, 300, 500
_HINT = "want http://HOST:PORT/PATH, for example http://127.0.0.1:9000/ask"
_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
_AWAY = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.RemoteProtocolError)


@asynccontextmanager
async def open_http(url: str, service: Service) -> AsyncIterator[Handler]:
    """Forward requests to an HTTP server for as long as the block; it may come and go meanwhile.

    Args:
        url: Where each request is sent.
        service: Whose requests they are; `worker.concurrency` bounds the connections.

    Raises:
        SettingsError: The URL cannot be used.
    """
    check_url(url)
    size = service.worker.concurrency
    async with httpcore.AsyncConnectionPool(
        ssl_context=ssl.create_default_context() if url.lower().startswith("https") else None,
        max_connections=size,
        max_keepalive_connections=size,
        keepalive_expiry=_IDLE_S,
    ) as pool:
        application = _Application(pool, url, service)
        if service.kind == "stream":
            yield Handler(stream=application.stream, is_json=True)
        else:
            yield Handler(call=application.call, is_json=True)


def check_url(url: str) -> None:
    """Refuse what is no URL of an HTTP server.

    Raises:
        SettingsError: The message does not repeat what may be a password.
    """
    if "@" in url.partition("?")[0]:
        raise SettingsError(
            "--http: the URL has credentials or an @ in it, and process lists show it: leave them "
            f"out; {_HINT}"
        )
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or "#" in url or " " in url or not (url.isascii() and url.isprintable()):
        raise SettingsError(f"--http {url!r}: not the URL of an HTTP server; {_HINT}")


class _Application:
    """The HTTP server beside the worker.

    Args:
        pool: Its connections.
        url: Where requests are sent.
        service: Whose they are.
    """

    def __init__(self, pool: httpcore.AsyncConnectionPool, url: str, service: Service) -> None:
        self._pool = pool
        self._url = url
        self._service = service
        self._accept = "application/json"
        if service.kind == "stream":
            self._accept = "application/x-ndjson, text/event-stream"

    async def call(self, request: object, context: Context) -> object:
        """Ask once; returns the reply as it came, None for a one-way service."""
        has_reply = self._service.kind != "none"
        async with self._ask(request, context) as (response, fields):
            if has_reply:
                _check_encoding(fields)
            body = await _read(response, MAX_BYTES if has_reply else _OTHER_BYTES)
        if not has_reply:
            return None
        if body is None:
            raise MalformedBodyError(f"it is larger than {MAX_BYTES} bytes")
        return body

    async def stream(self, request: object, context: Context) -> AsyncGenerator[object, None]:
        """Ask once; gives each line, or each event's data, as it comes."""
        async with self._ask(request, context) as (response, fields):
            _check_encoding(fields)
            media = fields.get("content-type", "").partition(";")[0].strip().lower()
            parts = _Events(context) if media == "text/event-stream" else _Parts()
            async for chunk in response.aiter_stream():
                for part in parts.feed(chunk):
                    yield part
            for part in parts.end():
                yield part

    @asynccontextmanager
    async def _ask(
        self, request: object, context: Context
    ) -> AsyncIterator[tuple[httpcore.Response, Mapping[str, str]]]:
        """Send a request; the answer is a good one for as long as the block.

        Raises:
            PermanentError, RetryableError: It is none, or it breaks off in the block.
        """
        try:
            async with self._pool.stream(
                "POST",
                self._url,
                headers=self._headers(context),
                content=request if isinstance(request, bytes) else b"",
                extensions={"timeout": {"connect": _CONNECT_S}},  # the attempt bounds the rest
            ) as response:
                fields = _fields(response)
                context.reply_headers.update(
                    {name: fields[name] for name in self._service.returned if name in fields}
                )
                if not _OK <= response.status < _REDIRECT:
                    raise await self._refusal(response, fields, context)
                yield response, fields
        except _AWAY as away:
            why = f"{type(away).__name__}: {away}"
            _log.warning("application-away", request_id=context.request_id, why=why)
            raise RetryableError("the application did not answer") from away

    def _headers(self, context: Context) -> list[tuple[str, str]]:
        """Say what the application may want to know; what no header can carry is left out."""
        left_s = min(context.deadline_s, self._service.worker.timeout_s)
        said = {
            "user-agent": "kafka-bridge",
            **context.headers,
            **context.trace,
            "bridge-request-id": context.request_id,
            "bridge-attempt": str(context.attempt),
            "bridge-deadline": f"{max(left_s, 0):.3f}",
            "bridge-principal": context.principal or "",
            "content-type": "application/json",
            "accept": self._accept,
            "accept-encoding": "identity",
        }
        return [
            (name, value)
            for name, value in said.items()
            if value and value.strip() == value and find_fault(value) is None
        ]

    async def _refusal(
        self, response: httpcore.Response, fields: Mapping[str, str], context: Context
    ) -> HandlingError:
        """Say what an answer other than 2xx means."""
        status = response.status
        body = await _read(response, _OTHER_BYTES) or b""
        code, message = _read_problem(fields, body)
        if status >= _BROKE or status in _AGAIN:
            _log.warning("application-failed", request_id=context.request_id, status=status)
            return RetryableError(
                message or f"the application answered {status}",
                code=code,
                after_s=_read_after(fields),
            )
        if status >= _REDIRECT and "location" in fields and message is None:
            message = f"the application answered {status}: redirects are not followed"
        return PermanentError(
            message or f"the application answered {status}", code=code or f"http-{status}"
        )


class _Parts:
    """Parts out of NDJSON: one a line."""

    def __init__(self) -> None:
        self._lines = Lines(MAX_BYTES)

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Give the parts that end in a chunk."""
        return map(_text_of, self._lines.feed(chunk))

    def end(self) -> Iterator[bytes]:
        """Give the last part, which needs no line feed."""
        return map(_text_of, self._lines.end())


def _text_of(line: Line) -> bytes:
    if line.text is None:
        raise MalformedBodyError(f"line {line.number} is longer than {MAX_BYTES} bytes")
    return line.text


class _Events(_Parts):
    """Parts out of server-sent events: one an event, and progress beside them."""

    def __init__(self, context: Context) -> None:
        self._messages = Messages(MAX_BYTES)
        self._context = context

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Give the parts that end in a chunk."""
        for message in self._messages.feed(chunk):
            if message.event != b"progress" or not _report(message.data, self._context):
                yield message.data

    def end(self) -> Iterator[bytes]:
        """Give nothing: an event ends with its blank line."""
        if self._messages.is_open:
            raise RetryableError("the application's answer ended within an event")
        return iter(())


def _report(data: bytes, context: Context) -> bool:
    """Tell progress, if that is what it is."""
    try:
        told = parse_json(data)
    except MalformedBodyError:
        return False
    if not isinstance(told, dict) or not told or told.keys() - {"fraction", "message"}:
        return False
    fraction, message = told.get("fraction"), told.get("message", "")
    if isinstance(fraction, int | float) and 0 <= fraction <= 1:
        fraction = float(fraction)
    elif fraction is not None:
        return False
    if isinstance(message, str):
        context.progress(fraction, message)
    return isinstance(message, str)


def _fields(response: httpcore.Response) -> dict[str, str]:
    """Read an answer's headers; of a repeated one the values are a list."""
    found: dict[str, str] = {}
    for raw_name, raw in response.headers:
        name, value = raw_name.decode("latin-1").lower(), raw.decode("latin-1")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _check_encoding(fields: Mapping[str, str]) -> None:
    encoding = fields.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise MalformedBodyError(f"it has Content-Encoding: {encoding[:100]}; want none")


async def _read(response: httpcore.Response, limit: int) -> bytes | None:
    """Read a body; None: it is longer than the limit, and was not read to its end."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.aiter_stream():
        size += len(chunk)
        if size > limit:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


def _read_problem(fields: Mapping[str, str], body: bytes) -> tuple[str | None, str | None]:
    """Read code and message out of an RFC 9457 problem; None for what it does not say."""
    if not fields.get("content-type", "").lower().startswith("application/problem+json"):
        return None, None
    try:
        problem = parse_json(body)
    except MalformedBodyError:
        return None, None
    if not isinstance(problem, dict):
        return None, None
    kind = str(problem.get("type", "about:blank"))
    last = "" if kind == "about:blank" else re.split(r"[/:#]", kind.rstrip("/"))[-1]
    codes = [str(code) for code in (problem.get("code"), last) if _is_code(code)]
    texts = [problem.get(name) for name in ("detail", "title")]
    messages = [text for text in texts if isinstance(text, str) and text]
    return next(iter(codes), None), next(iter(messages), None)


def _is_code(code: object) -> bool:
    return isinstance(code, str) and _CODE.match(code) is not None


def _read_after(fields: Mapping[str, str]) -> float | None:
    """Read `Retry-After`, in seconds: a date counts from the answer's own `Date`, by one clock."""
    text = fields.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), MAX_DEADLINE_S)
    try:
        at, now = parsedate_to_datetime(text), parsedate_to_datetime(fields.get("date", ""))
        return min(max((at - now).total_seconds(), 0.0), MAX_DEADLINE_S)
    except (TypeError, ValueError):  # no date, or one without a zone
        return None
