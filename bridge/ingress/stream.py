"""Streams of events over HTTP: as server-sent events (WHATWG HTML 9.2), or as JSON lines.

A stream begins with `retry:`, ends after the request's last event, and tells that it lives in
between: a comment, or an empty line as CouchDB's change feeds send it. Whoever comes back with the
`id` of the last event gets nothing (`204`), which tells an EventSource to stop asking. When this
process stops, or cannot read on, the stream just ends, and its client goes on at another replica.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack

import msgspec
import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from bridge import metrics
from bridge.codec import render_json
from bridge.envelope import Event, Reply
from bridge.errors import BridgeError, RecordError
from bridge.ingress import problem
from bridge.ingress.events import Stream
from bridge.ingress.media import Media
from bridge.service import PROGRESS, Service
from bridge.telling import Told

_log = structlog.get_logger("bridge.ingress")

RETRY = b"retry: 1000\n\n"
"""An EventSource whose stream ended comes back after a second; browsers' own defaults are 1 to 5 s."""
STALLED_S = 60.0
"""A client that takes nothing for so long has its place given to others."""
AT_ONCE = 50
"""Events that are formatted in one go, about a millisecond."""

OK, NO_CONTENT = 200, 204
_ALIVE = {Media.EVENTS: b": keep-alive\n\n", Media.LINES: b"\n"}

Opening = Callable[[Receive], AbstractAsyncContextManager[Stream]]
"""Opens a stream; told how to hear that its client leaves."""


def come_back() -> Response:
    """Tell an EventSource that was here before to come again: at any other status it gives up."""
    return Response(RETRY, OK, {"Cache-Control": "no-store"}, Media.EVENTS)


class EventResponse:
    """An answer that is written as events come; an ASGI application for one request.

    Args:
        service: Whose request.
        request_id: Its name.
        media: Server-sent events, or lines.
        opening: Opens the stream.
        refuse: Renders why it could not be opened.
        headers: Further headers of the answer.
    """

    def __init__(
        self,
        service: Service,
        request_id: str,
        media: Media,
        *,
        opening: Opening,
        refuse: Callable[[BridgeError], Response],
        headers: dict[str, str],
    ) -> None:
        self._service = service
        self._request_id = request_id
        self._media = media
        self._opening = opening
        self._refuse = refuse
        self._headers = {
            **problem.name_header(request_id),
            "Content-Type": media,
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",  # nginx would hold events back
            **headers,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer: with a problem, with nothing more, or with events."""
        response: Response | None
        async with AsyncExitStack() as stack:
            try:
                stream = await stack.enter_async_context(self._opening(receive))
            except BridgeError as error:
                response = self._refuse(error)
            else:
                response = self._short_answer(scope, stream)
                if response is None:
                    self._count(OK)
                    await self._write(stream, send)
                    return
        self._count(response.status_code)
        await response(scope, receive, send)

    def _count(self, status: int) -> None:
        metrics.ANSWERS.labels(self._service.name, status).inc()

    def _short_answer(self, scope: Scope, stream: Stream) -> Response | None:
        if stream.is_told:  # it was told all of it already
            return Response(status_code=NO_CONTENT, headers={"Cache-Control": "no-store"})
        return Response(headers=self._headers) if scope["method"] == "HEAD" else None

    async def _write(self, stream: Stream, send: Send) -> None:
        headers = [(name.encode(), value.encode()) for name, value in self._headers.items()]
        await send({"type": "http.response.start", "status": OK, "headers": headers})
        retry = RETRY if self._media is Media.EVENTS else b""
        try:
            await self._tell(stream, send, retry)
            await _send(send, b"" if stream.is_told else retry, is_last=True)
        except TimeoutError:
            _log.info("stream-stalled", request_id=self._request_id)

    async def _tell(self, stream: Stream, send: Send, retry: bytes) -> None:
        """Write events until the last one, or until the stream is stopped.

        Raises:
            TimeoutError: The client takes nothing.
        """
        await _send(send, retry)
        try:
            while not stream.is_over:
                told = await stream.more()
                for start in range(0, len(told), AT_ONCE):
                    await _send(send, self._format(told[start : start + AT_ONCE]))
                    await asyncio.sleep(0)  # a long log must not keep others from their turn
                if not told and not stream.is_over:
                    await _send(send, _ALIVE[self._media])
        except BridgeError as trouble:  # its client comes back, here or elsewhere
            _log.warning("stream-broke", request_id=self._request_id, why=str(trouble))

    def _format(self, told: list[Told]) -> bytes:
        encode = _as_event if self._media is Media.EVENTS else _as_line
        return b"".join(encode(each, self._describe(each)) for each in told)

    def _describe(self, told: Told) -> dict[str, object]:
        """Return an event's members, as ARCHITECTURE names them."""
        reply = told.reply
        members: dict[str, object] = {
            "request_id": self._request_id,
            "sequence": reply.sequence,
            "time_ms": reply.time_ms,
        }
        try:
            members.update(_content(self._service, reply))
        except RecordError as unreadable:
            members["problem"] = _embed(problem.render(unreadable, request_id=self._request_id))
        if told.missing:
            members["missing"] = told.missing
        return members


def _content(service: Service, reply: Reply) -> dict[str, object]:
    """Return what an event carries: progress, a part, a reply, a problem, or nothing.

    Raises:
        RecordError: Its value cannot be read.
    """
    match reply.event:
        case Event.PROGRESS:
            return {"progress": _plain(PROGRESS.decode(reply.value or b""))}
        case Event.PART:
            return {"part": _plain(service.decode_reply(reply.value))}
        case Event.COMPLETED:
            is_empty = reply.value is None and service.kind == "stream"
            return {"reply": _plain(None if is_empty else service.decode_reply(reply.value))}
        case Event.ACCEPTED:
            return {}
        case _:
            ended = problem.ended(service, reply, request_id=reply.request_id)
            return {"problem": _embed(ended)}


def _plain(value: object) -> msgspec.Raw:
    return msgspec.Raw(render_json(value))


def _embed(response: Response) -> msgspec.Raw:
    return msgspec.Raw(bytes(response.body))


def _as_event(told: Told, members: dict[str, object]) -> bytes:
    data = msgspec.json.encode(members)  # one line: JSON escapes line ends
    # The id comes last: whoever has it, of a stream that was cut, has the event.
    return b"event: %s\ndata: %s\nid: %d\n\n" % (_name(told.reply), data, told.next)


def _as_line(told: Told, members: dict[str, object]) -> bytes:
    named = {"event": told.reply.event, "id": str(told.next), **members}
    return msgspec.json.encode(named) + b"\n"


def _name(reply: Reply) -> bytes:
    return b"" if reply.event is None else reply.event.value.encode()


async def _send(send: Send, body: bytes, *, is_last: bool = False) -> None:
    """Write, and wait until the client has taken most of what was written before.

    Raises:
        TimeoutError: It takes nothing.
    """
    async with asyncio.timeout(STALLED_S):
        await send({"type": "http.response.body", "body": body, "more_body": not is_last})
