"""A TCP proxy in front of Kafka that disturbs single requests: it knows the protocol's frames.

A request says its kind and its number (`int32 size, int16 api_key, int16 version, int32
correlation_id`), a response only its number. So one EndTxn can be held while everything else goes on,
which no packet filter can do.

A request that is held holds what comes behind it on its connection, as a network would. It reaches
Kafka even when its client has closed the connection meanwhile, or has died: that is the late
request which a later transaction must not be ended by.

Clients do not go around the proxy: it belongs in front of a Kafka that was started with
`--proxied-port` (`python -m bridge.embedded`), which tells them the proxy's address.
"""

import asyncio
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

_HOST, _BEHIND = "127.0.0.1", "127.0.0.2"
_LATE_S = 5.0
"""So long Kafka has for its response to a request whose client is gone."""

PRODUCE, OFFSET_COMMIT, HEARTBEAT = 0, 8, 12
ADD_PARTITIONS_TO_TXN, ADD_OFFSETS_TO_TXN, END_TXN, TXN_OFFSET_COMMIT = 24, 25, 26, 28


class Way(StrEnum):
    """What is done to a request or to its response."""

    DROP_RESPONSE = "drop-response"
    DELAY_RESPONSE = "delay-response"
    DELAY_REQUEST = "delay-request"
    CUT = "cut"
    """Kafka gets the request, and the connection is closed in place of the response."""


class Fault(NamedTuple):
    """One disturbance.

    Attributes:
        api_key: Which kind of request.
        way: What is done.
        seconds: For how long it is delayed.
    """

    api_key: int
    way: Way
    seconds: float = 0.0


@dataclass(eq=False)
class _Connection:
    """One client's connection and what is under way on it."""

    client: asyncio.StreamWriter
    kafka: asyncio.StreamWriter
    asked: dict[int, tuple[int, Fault | None]] = field(default_factory=dict)
    is_left: bool = False

    def close(self) -> None:
        self.client.close()
        self.kafka.close()


class Proxy:
    """Runs on a thread of its own; `open_proxy` owns it.

    Attributes:
        port: Where clients come to, on 127.0.0.1.
        seen: Requests that came, by API key.
        done: Faults that have happened.
        held: Requests and responses that are held at the moment.
        late: Error codes of Kafka's answers to EndTxn requests whose client was gone by then.
    """

    def __init__(self) -> None:
        self.port = 0
        self.seen: Counter[int] = Counter()
        self.done: list[Fault] = []
        self.held = 0
        self.late: list[int] = []
        self._planned: list[Fault] = []
        self._is_cut = False
        self._connections: set[_Connection] = set()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()

    def plan(self, fault: Fault) -> None:
        """Disturb the next request of its kind."""
        self._loop.call_soon_threadsafe(self._planned.append, fault)

    def cut(self) -> None:
        """Close every connection, and each new one, until `mend`."""
        self._loop.call_soon_threadsafe(self._cut)

    def mend(self) -> None:
        """Let connections through again."""
        self._loop.call_soon_threadsafe(setattr, self, "_is_cut", False)

    def _cut(self) -> None:
        self._is_cut = True
        for connection in self._connections:
            connection.close()

    def run(self, ready: threading.Event) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve(ready))

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)

    async def _serve(self, ready: threading.Event) -> None:
        server = await asyncio.start_server(self._accept, _HOST, 0)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._stop.wait()
        server.close()
        self._cut()

    async def _accept(
        self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter
    ) -> None:
        if self._is_cut:
            client.close()
            return
        try:
            kafka_reader, kafka = await asyncio.open_connection(_BEHIND, self.port)
        except OSError:  # Kafka is not there yet, or no more
            client.close()
            return
        connection = _Connection(client, kafka)
        self._connections.add(connection)
        with suppress(asyncio.CancelledError):  # by the end of the proxy
            async with asyncio.TaskGroup() as tasks:
                answering = tasks.create_task(self._answer(kafka_reader, connection))
                await self._ask(client_reader, connection)
                connection.is_left = True
                if connection.asked:  # Kafka shall still read what has come late
                    await asyncio.wait([answering], timeout=_LATE_S)
                connection.close()
        self._connections.discard(connection)

    async def _ask(self, reader: asyncio.StreamReader, connection: _Connection) -> None:
        """Carry requests, one after the other."""
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                frame = await _read(reader)
                api_key, _, number = struct.unpack_from(">hhi", frame)
                self.seen[api_key] += 1
                fault = self._find(api_key)
                connection.asked[number] = (api_key, fault)
                if fault is not None and fault.way is Way.DELAY_REQUEST:
                    await self._hold(fault)
                _write(connection.kafka, frame)

    async def _answer(self, reader: asyncio.StreamReader, connection: _Connection) -> None:
        """Carry responses, one after the other."""
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                frame = await _read(reader)
                (number,) = struct.unpack_from(">i", frame)
                api_key, fault = connection.asked.pop(number)
                if connection.is_left and api_key == END_TXN:
                    self.late.append(struct.unpack_from(">ih", frame, 4)[1])
                await self._pass_on(connection, frame, fault)
        connection.client.close()

    async def _pass_on(self, connection: _Connection, frame: bytes, fault: Fault | None) -> None:
        match fault:
            case Fault(way=Way.DROP_RESPONSE):
                self.done.append(fault)
            case Fault(way=Way.CUT):
                self.done.append(fault)
                connection.close()
            case Fault(way=Way.DELAY_RESPONSE):
                await self._hold(fault)
                _write(connection.client, frame)
            case _:
                _write(connection.client, frame)

    async def _hold(self, fault: Fault) -> None:
        self.held += 1
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            self.held -= 1
            self.done.append(fault)

    def _find(self, api_key: int) -> Fault | None:
        for number, fault in enumerate(self._planned):
            if fault.api_key == api_key:
                return self._planned.pop(number)
        return None


async def _read(reader: asyncio.StreamReader) -> bytes:
    (size,) = struct.unpack(">i", await reader.readexactly(4))
    return await reader.readexactly(size)


def _write(writer: asyncio.StreamWriter, frame: bytes) -> None:
    if not writer.is_closing():
        writer.write(struct.pack(">i", len(frame)) + frame)


@contextmanager
def open_proxy() -> Iterator[Proxy]:
    """Run a proxy at a free port for as long as the block."""
    proxy = Proxy()
    ready = threading.Event()
    thread = threading.Thread(target=proxy.run, args=(ready,), name="faults")
    thread.start()
    assert ready.wait(10)
    try:
        yield proxy
    finally:
        proxy.end()
        thread.join()


@dataclass(frozen=True)
class ProxiedKafka:
    """A Kafka with a proxy in front of it.

    Attributes:
        address: By which clients get to it through the proxy, and only so.
        direct: By which they get to it as it is.
        proxy: The proxy.
    """

    address: str
    direct: str
    proxy: Proxy
