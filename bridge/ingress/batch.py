"""Batches: NDJSON in, NDJSON out, one request a line, in memory only what is in flight.

Back-pressure goes both ways. Lines are split from the chunks as they come; when as many are worked
on as may be, nothing more is read. A line's place is free again when its result has been handed to
the connection, so a client that does not read is not read from either.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping

import msgspec
import structlog
from starlette.types import Message, Receive, Scope, Send

from bridge.envelope import Reply
from bridge.ingress.answer import OK
from bridge.ingress.ask import Ingress
from bridge.ingress.auth import principal_of
from bridge.ingress.head import read_batch_head, read_headers
from bridge.ingress.limits import Limits
from bridge.ingress.media import NDJSON
from bridge.ingress.post import count, unknown_service
from bridge.ingress.result import KINDS, Asker
from bridge.lines import Line, Lines
from bridge.service import Service

_log = structlog.get_logger("bridge.ingress")

_MAX_BYTES = 16 << 20
"""Lines and unsent results of one batch take so much together, one line in any case."""
_STALL_S = 60.0
"""A client that takes no result for so long is given up, and its places with it."""


class Batches:
    """The route of all batches.

    Args:
        services: By name.
        limits: What is granted.
    """

    def __init__(self, services: Mapping[str, Service], limits: Limits) -> None:
        self._services = services
        self._limits = limits
        # The other half of the waiters is for those who ask one by one, and are not patient.
        self._places = asyncio.Semaphore(max(1, limits.waiters // 2))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one batch; what is wrong with all of it is an ordinary problem.

        Raises:
            CallerError, UnavailableError, TopicError: Nothing was read nor written.
        """
        name = scope["path_params"]["service"]
        service = self._services.get(name)
        if service is None:
            raise unknown_service(name, self._services)
        headers = read_headers(scope["headers"])
        ingress: Ingress = scope["state"]["ingress"]
        head = read_batch_head(service, headers, self._limits, principal_of(scope))
        ingress.lanes.pick(service)  # raises while nothing can be taken
        batch = Batch(Asker(ingress, service, head), self._limits, self._places, send)
        ingress.watch(batch.name, batch)
        try:
            await batch.run(receive)
        finally:
            ingress.unwatch(batch.name, batch)
        count(service.name, OK).inc()


class Batch:
    """One batch: two tasks that read, one for each line in flight, and the caller's, which writes.

    Args:
        asker: Asks for its lines.
        limits: What is granted.
        places: Shared by all batches of the process.
        send: Where results go.
    """

    def __init__(self, asker: Asker, limits: Limits, places: asyncio.Semaphore, send: Send) -> None:
        self.name = asker.ingress.name_refused()
        self._asker = asker
        self._limits = limits
        self._places = places
        self._send = send
        self._reading: list[asyncio.Task[None]] = []
        self._chunks: asyncio.Queue[Message] = asyncio.Queue(1)
        self._woken = asyncio.Event()
        self._freed = asyncio.Event()
        self._results: list[bytes] = []
        self._in_flight = 0
        self._bytes = 0
        self._is_read = self._is_cut = self._is_gone = False
        self._counts = Counter(dict.fromkeys(KINDS, 0))
        self._preference = asker.head.preference.applied
        self.receive: Receive | None = None  # whoever reads the body hears that the client leaves
        self.is_old = False

    def close(self) -> None:
        """Read on: whoever sends may finish within the grace time."""

    def take(self, reply: Reply) -> None:
        """Receive nothing: it waits for the stop of the process only."""

    def miss(self) -> None:
        """Receive nothing: the same."""

    def stop(self) -> None:
        """Read no more: the process stops. What is in flight is answered, without a summary."""
        if not self._is_read:
            self._cut()

    async def run(self, receive: Receive) -> None:
        """Read, work and write until every line is answered, or the client has left."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._reading = [
                    tasks.create_task(self._receive(receive)),
                    tasks.create_task(self._read(tasks)),
                ]
                await self._write()
                if not self._is_gone:
                    self._stop_reading()
        finally:
            for _ in range(self._in_flight):
                self._places.release()

    async def _receive(self, receive: Receive) -> None:
        """Take chunks, one ahead: who leaves is noticed though no more can be worked on just now."""
        message = await receive()
        while message["type"] != "http.disconnect":
            await self._chunks.put(message)
            message = await receive()
        self._leave()
        await self._chunks.put(message)

    async def _read(self, tasks: asyncio.TaskGroup) -> None:
        """Work on what comes; of a body that is cut off, on the lines that are whole."""
        lines = Lines(self._limits.max_body_bytes)
        is_more = True
        while is_more:
            message = await self._chunks.get()
            if message["type"] == "http.disconnect":
                return
            for line in lines.feed(message.get("body", b"")):
                await self._begin(line, tasks)
            is_more = message.get("more_body", False)
        for line in lines.end():
            await self._begin(line, tasks)
        self._is_read = True
        self._woken.set()

    async def _begin(self, line: Line, tasks: asyncio.TaskGroup) -> None:
        """Work on a line, as soon as there is a place for it."""
        size = len(line.text or b"")
        while self._in_flight and (
            self._in_flight >= self._limits.batch_lines or self._bytes + size > _MAX_BYTES
        ):
            self._freed.clear()
            await self._freed.wait()
        await self._places.acquire()
        self._in_flight += 1
        self._bytes += size
        self._woken.set()
        tasks.create_task(self._work(line, size))

    async def _work(self, line: Line, size: int) -> None:
        try:
            kind, result = await self._asker.ask(line)
        finally:
            if self._is_gone:  # perhaps cancelled; nobody hands its result over
                self._free(1, size)
        if self._is_gone:
            return
        self._counts[kind] += 1
        self._bytes += len(result) - size
        self._results.append(result)
        self._woken.set()

    async def _write(self) -> None:
        """Write the status when the first line is being worked on, results as they come."""
        await self._woken.wait()
        await self._send(self._start())
        while not self._is_gone:
            results, self._results = self._results, []
            is_taken = not results or await self._hand_over(b"".join(results))
            self._free(len(results), sum(map(len, results)))
            if not is_taken:
                return
            if not self._in_flight and (self._is_read or self._is_cut):
                last = b"" if self._is_cut else self._summary()
                await self._send(_body(last, is_more=False))
                return
            if not self._results:
                self._woken.clear()
                await self._woken.wait()

    async def _hand_over(self, content: bytes) -> bool:
        """Hand results to the connection; False when the client has not taken any for long."""
        try:
            async with asyncio.timeout(_STALL_S):
                await self._send(_body(content, is_more=True))
        except TimeoutError:
            _log.warning("batch-stalled", service=self._asker.service.name, seconds=_STALL_S)
            self._leave()
            self._stop_reading()
            return False
        return True

    def _free(self, lines: int, size: int) -> None:
        self._in_flight -= lines
        self._bytes -= size
        for _ in range(lines):
            self._places.release()
        self._freed.set()

    def _cut(self) -> None:
        self._is_cut = True
        self._stop_reading()
        self._woken.set()

    def _stop_reading(self) -> None:
        for task in self._reading:
            task.cancel()

    def _leave(self) -> None:
        """Wait for nothing more: nobody is there to be told. What has come is written, and goes on."""
        self._is_gone = True
        self._free(len(self._results), sum(map(len, self._results)))
        self._results.clear()
        self._asker.leave()
        self._woken.set()

    def _start(self) -> Message:
        headers = [(b"content-type", NDJSON.encode()), (b"cache-control", b"no-store")]
        if self._preference:
            headers.append((b"preference-applied", self._preference.encode()))
        return {"type": "http.response.start", "status": OK, "headers": headers}

    def _summary(self) -> bytes:
        members = {"lines": self._counts.total(), **self._counts}
        return msgspec.json.encode({"summary": members}) + b"\n"


def _body(content: bytes, *, is_more: bool) -> Message:
    return {"type": "http.response.body", "body": content, "more_body": is_more}
