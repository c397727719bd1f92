"""HTTP/1.1 on one connection: uvicorn's protocol, with the limits and the strictness that it lacks.

uvicorn with httptools takes heads of any size, waits for a slow client for ever, and reads on when
an answer has been given. The parser (llhttp) refuses most of what two parsers could read
differently; what it lets through and a proxy might not is refused here. After a refusal nothing
more is read from the connection, so that no byte of one request can be taken for another.

Per request this costs a few comparisons in the parser's callbacks. There is one timer to a
connection, and none is set while requests come whole.
"""

import asyncio
import math
import re
from enum import Enum
from typing import Any, ClassVar, cast

import httptools
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from bridge.errors import (
    BridgeError,
    HeadersTooLargeError,
    MalformedRequestError,
    OverloadedError,
    RequestTimeoutError,
    UriTooLongError,
)
from bridge.ingress import problem
from bridge.ingress.limits import Limits
from bridge.ingress.transport import Refusals, Transport

READ_BYTES = 32_768
"""Most that is read from a socket at once (uvloop's own buffer has 256,000)."""
AHEAD_BYTES = 16_384
"""A body is read no further while so much of it waits for the application: so nobody can send 64 KiB
more than the application takes."""
HALF_CLOSED_S = 0.5
"""A client that has closed its half may be waiting for its answer, or may have left, which looks the
same: so long it is taken to wait. That who leaves is noticed within a second is promised."""

_HOST = re.compile(rb"[A-Za-z0-9._~%:\[\]-]{0,255}\Z")
_SPECIAL = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect"})
_LONG = "/requests/batch"
"""The path whose bodies may go on for as long as they move: a batch of any number of lines."""


class _Part(Enum):
    """What of a request is being received."""

    NOTHING = 0
    HEAD = 1
    BODY = 2


class Connection(HttpToolsProtocol):
    """One connection; `limits` and `refusals` are its process's."""

    limits: ClassVar[Limits]
    refusals: ClassVar[Refusals]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._part = _Part.NOTHING
        self._answering: RequestResponseCycle | None = None
        self._due_s: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0
        self._is_deaf = False
        self._is_long = False
        self._hosts = 0
        self._is_chunked = False
        self._header_bytes = 0
        self._head_bytes = 0
        self._body_bytes = self._length = self._bare_bytes = 0

    @property
    def is_receiving(self) -> bool:
        """Whether a request has begun to come and is not here yet."""
        return self._part is not _Part.NOTHING

    @property
    def is_idle(self) -> bool:
        """Whether nothing would be lost if the connection were closed now."""
        cycle: RequestResponseCycle | None = self.cycle
        return not self.is_receiving and (cycle is None or cycle.response_complete)

    @property
    def is_given_up(self) -> bool:
        """Whether an answer was given up half-way because its client takes nothing."""
        cycle = self._answering
        is_half = cycle is not None and cycle.response_started and not cycle.response_complete
        return is_half and self.flow.write_paused

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Begin: a head is due. Where too many are connected, one that is idle goes."""
        super().connection_made(transport)
        self._wire = Transport(transport, self, self.limits.stalled_s)
        self.transport = self._wire  # type: ignore[assignment]  # what uvicorn uses of one
        if len(self.connections) > self.limits.connections:
            self._make_room()
        self._due_s = self.loop.time() + self.limits.head_s
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """End; the timer with it. Whoever answers is told, also with other requests behind its own."""
        if self._timer is not None:
            self._timer.cancel()
        self._wire.lose()
        answering = self._answering
        if answering is not None and not answering.response_complete:
            answering.disconnected = True  # uvicorn tells the latest request only
            answering.message_event.set()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Hold answers back: the client does not read as fast. Watch whether it does at all."""
        super().pause_writing()
        self._wire.watch()

    def resume_writing(self) -> None:
        """Go on: it has read most of what was written."""
        super().resume_writing()
        if not self._wire.is_closing():  # else it is to take the rest, too
            self._wire.forget()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        if cycle.waiting_for_100_continue:
            app = _last_unless_read(cycle, app)
        super()._start_asgi_task(cycle, app)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; refuse what it or the limits do not take."""
        if self._is_deaf:
            return
        self._unset_keepalive_if_required()
        refusal: BridgeError | None = None
        body_bytes = self._body_bytes
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:  # not offered, so it is ignored (RFC 9110, 7.8)
            self._is_deaf = True
            self.cycle.keep_alive = False
        except httptools.HttpParserError as error:
            cause = error.__context__
            refusal = cause if isinstance(cause, BridgeError) else _malformed(str(error))
        if refusal is None:
            refusal = self._after(len(data), has_grown=self._body_bytes != body_bytes)
        if refusal is not None:
            self._refuse(refusal)

    def eof_received(self) -> bool:  # type: ignore[override]  # as asyncio's: whether it stays open
        """Answer a client that says less than it announced, or nothing more; it may be listening."""
        if self.is_receiving and not self._is_deaf:
            self._refuse(_malformed("the request ends before its announced end"))
        if self.transport.is_closing() or self.is_idle:
            return False
        self._is_deaf = True
        self.cycle.keep_alive = False
        self.loop.call_later(HALF_CLOSED_S, self._wire.abort)
        return True

    def _after(self, size: int, *, has_grown: bool) -> BridgeError | None:
        """See what is still to come, and that what is no body does not go on without end.

        Args:
            size: Bytes that have come.
            has_grown: Some of them are of a body.
        """
        refusal: BridgeError | None = None
        if self._part is _Part.HEAD:
            self._head_bytes += size
            if self._head_bytes > self.limits.max_head_bytes + READ_BYTES:
                refusal = HeadersTooLargeError(
                    f"the head of the request goes on after {self._head_bytes} bytes"
                )
        elif self._part is _Part.BODY:
            refusal = self._after_body(size, has_grown=has_grown)
        elif self._due_s is None and self.is_idle and self.timeout_keep_alive_task is None:
            self._due_s = self.loop.time() + self.limits.head_s  # blank lines are no request
        if self._due_s is not None and (self._timer is None or self._due_s < self._timer_s):
            self._watch()
        return refusal

    def _after_body(self, size: int, *, has_grown: bool) -> BridgeError | None:
        """Give a body that moves its time; of what stands between its bytes, and behind, take little.

        The parser gathers a field behind the body in full before it tells of it.
        """
        if has_grown:
            self._bare_bytes = 0
            if self._is_long:
                self._due_s = self.loop.time() + self.limits.body_s
        else:
            self._bare_bytes += size
            if self._bare_bytes > self.limits.max_head_bytes + READ_BYTES:
                return HeadersTooLargeError(
                    f"{self._bare_bytes} bytes came within or behind the body that are none of it"
                )
        return None

    # The parser's callbacks: what they raise ends the feeding.

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._part = _Part.HEAD
        self._hosts = self._header_bytes = self._head_bytes = 0
        self._body_bytes = self._length = self._bare_bytes = 0
        self._is_chunked = False
        if self._due_s is None:
            self._due_s = self.loop.time() + self.limits.head_s

    def on_url(self, url: bytes) -> None:
        """Take a piece of the target."""
        self.url += url
        if len(self.url) > self.limits.max_uri_bytes:
            raise UriTooLongError(
                f"the request target has {len(self.url)} bytes or more: "
                f"want at most {self.limits.max_uri_bytes}"
            )

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header field; what comes behind the body is none (RFC 9110, 6.5.1)."""
        if self._part is not _Part.HEAD:
            return
        name = name.lower()
        if name in _SPECIAL:
            self._note(name, value)
        self.headers.append((name, value))
        self._header_bytes += len(name) + len(value)
        limits = self.limits
        if self._header_bytes > limits.max_header_bytes or len(self.headers) > limits.max_headers:
            raise HeadersTooLargeError(
                f"{len(self.headers)} header fields of {self._header_bytes} bytes, and perhaps "
                f"more: want at most {limits.max_headers} of {limits.max_header_bytes} bytes"
            )

    def on_headers_complete(self) -> None:
        """Check what makes two readers disagree; then let the application begin."""
        version = self.parser.get_http_version()
        if version not in {"1.1", "1.0"}:
            raise _malformed(f"HTTP version {version}: want 1.1")
        if self._hosts != 1 and (self._hosts or version == "1.1"):
            raise _malformed(f"{self._hosts} Host fields: want one")
        if self._is_chunked and version == "1.0":
            raise _malformed("Transfer-Encoding in HTTP/1.0: want Content-Length")
        if self.parser.should_upgrade() and self._left():
            raise _malformed("Upgrade on a request with a body: want it without")
        super().on_headers_complete()
        self._part = _Part.BODY
        self._is_long = self.scope["path"].endswith(_LONG)
        self._due_s = self.loop.time() + self.limits.body_s

    def on_message_complete(self) -> None:
        """End a request: nothing is due until the next begins."""
        super().on_message_complete()
        self._part = _Part.NOTHING
        self._due_s = None

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._body_bytes += len(body)
        super().on_body(body)
        if len(self.cycle.body) > AHEAD_BYTES:
            self.flow.pause_reading()

    def on_response_complete(self) -> None:
        """Go on to the next request, unless much of this one's body is still to come."""
        is_latest = self._answering is self.cycle  # else the body that comes is another request's
        if is_latest and self._part is _Part.BODY and self._left() > READ_BYTES:
            self._is_deaf = True
            self.transport.close()
        super().on_response_complete()

    def _note(self, name: bytes, value: bytes) -> None:
        if name == b"host":
            self._hosts += 1
            if not _HOST.match(value):
                raise _malformed("Host is no host: want a name or an address, perhaps with a port")
        elif name == b"expect":
            self.expect_100_continue = value.lower() == b"100-continue"
        elif name == b"content-length":
            self._length = int(value)  # the parser has checked it
        elif value.lower() != b"chunked":
            raise _malformed("Transfer-Encoding: want chunked alone")
        else:
            self._is_chunked = True

    def _left(self) -> float:
        """Return how much of the body is still to come, at most."""
        return math.inf if self._is_chunked else self._length - self._body_bytes

    # What is due.

    def _watch(self) -> None:
        if self._timer is not None:  # it was set for what was due later
            self._timer.cancel()
        if self._due_s is not None:
            self._timer, self._timer_s = self.loop.call_at(self._due_s, self._on_time), self._due_s

    def _on_time(self) -> None:
        """Close when what was due is not here; the time may have been moved meanwhile."""
        self._timer = None
        if self._due_s is None or self.transport.is_closing():
            return
        now_s = self.loop.time()
        if self.flow.read_paused:  # the application has not taken what is here: no fault of theirs
            self._due_s = now_s + self.limits.body_s
        if now_s < self._due_s:
            self._watch()
            return
        part = "the body" if self._part is _Part.BODY else "the head"
        limit_s = self.limits.body_s if self._part is _Part.BODY else self.limits.head_s
        late = RequestTimeoutError(f"{part} of the request was not here within {limit_s:g} s")
        if self.is_receiving:
            self._refuse(late)
        else:  # nothing was asked, so nothing is answered
            self.refusals.note(late, self.loop)
            self.transport.close()

    def _make_room(self) -> None:
        """Give this one the place of another that is unused; else refuse it."""
        others = [each for each in self.connections if isinstance(each, Connection)]
        unread = (each for each in others if each.transport.is_closing() and each._wire.unsent)  # noqa: SLF001 - its own kind
        idle = (each for each in others if each.is_idle and not each.transport.is_closing())
        if (other := next(unread, None)) is not None:
            other._wire.abort()  # noqa: SLF001 - the same
        elif (other := next((each for each in idle if each is not self), None)) is not None:
            other.transport.close()
        else:
            count = self.limits.connections
            self._refuse(OverloadedError(f"{count} clients are connected already"))

    def _refuse(self, error: BridgeError) -> None:
        """Say what is wrong, if that can be said here, and hear no more."""
        self.refusals.note(error, self.loop)
        self._is_deaf = True
        is_own = self._part is _Part.BODY
        if is_own and self.pipeline:  # it has not begun: as if it had not come
            self.pipeline.popleft()
            behind = self.pipeline[0][0] if self.pipeline else self._answering
            self.cycle = cast(RequestResponseCycle, behind)
            is_own = False
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not is_own and not cycle.response_complete:
            cycle.keep_alive = False  # those before get their answers; this is the last of them
            return
        if cycle is not None and is_own and not cycle.response_started:
            cycle.disconnected = True  # it waits for the rest of this very body: there is none
            cycle.message_event.set()
            is_own = False
        if not is_own:  # else: half of an answer is written already
            self._write(error)
        self.transport.close()

    def _write(self, error: BridgeError) -> None:
        response = problem.render(error)
        fields = [*response.raw_headers, (b"connection", b"close")]
        head = b"".join(name + b": " + value + b"\r\n" for name, value in fields)
        self.transport.write(
            STATUS_LINE[response.status_code] + head + b"\r\n" + bytes(response.body)
        )


def _last_unless_read(cycle: RequestResponseCycle, app: ASGIApp) -> ASGIApp:
    """Let an answer be the last one on its connection when the body was not asked for.

    A client that waits for `100 Continue` and is refused may send the body or not (RFC 9110, 10.1.1):
    what it sends next could be taken for the body, or the body for a request.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_last(message: Message) -> None:
            if cycle.waiting_for_100_continue:
                cycle.keep_alive = False
            await send(message)

        await app(scope, receive, send_last)

    return answer


def _malformed(detail: str) -> MalformedRequestError:
    return MalformedRequestError(f"{detail[:200]}; the connection is closed")
