"""Producers: a record goes in, its acknowledgement comes back.

Two librdkafka producers, chosen by load: linger 0 while few records wait (latency), linger 1 ms
above (a broker pays per batch, not per record). Measured on a real broker, one run, requests/s at
1 / 8 / 32 / 256 clients: linger 0 alone 509 / 1,144 / 2,024 / 3,018; linger 1 alone 199 / 1,310 /
3,424 / 4,330; by load 655 / 1,440 / 4,159 / 6,062.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import NamedTuple

import confluent_kafka as ck

from bridge.envelope import Record
from bridge.errors import BodyTooLargeError
from bridge.kafka.client import SHARED, Config, merge, polling
from bridge.kafka.outcome import classify

WRITING: Config = {
    "acks": "all",
    "enable.idempotence": True,
    # One batch under way at a time: the next one grows meanwhile (+17 to 26 % requests/s, measured).
    "max.in.flight.requests.per.connection": 1,
    "request.timeout.ms": 4000,
    "delivery.timeout.ms": 30_000,
    # A topic that is not there is told after 5 s, as such; by default only as a time-out after 30 s.
    "topic.metadata.propagation.max.ms": 5000,
    "partitioner": "murmur2_random",
    "compression.type": "none",
    # 64 MiB at most in memory; beyond it `send` says OverloadedError at once.
    "queue.buffering.max.messages": 100_000,
    "queue.buffering.max.kbytes": 65_536,
    "message.max.bytes": 1_000_000,
}
_RECORD_EXTRA, _HEADER_EXTRA = 128, 20
"""What a record and a header take beside their content, in bytes, at the most."""


def delivery_timeout_ms(config: Config) -> int:
    """Return how long a producer tries to write a record, in milliseconds.

    Args:
        config: What was passed through; its own value wins, under either of librdkafka's names.
    """
    found = {**WRITING, **config}
    return int(found.get("message.timeout.ms", found["delivery.timeout.ms"]))


class Placed(NamedTuple):
    """Where an acknowledged record lies.

    `offset` is -1 and `timestamp_ms` -1 when the broker acknowledged a repetition (KIP-98) and so
    did not say. `is_broker_time` tells `LogAppendTime` from the client's own clock given back.
    """

    partition: int
    offset: int
    timestamp_ms: int
    is_broker_time: bool


Send = Callable[[Record], "asyncio.Future[Placed]"]
"""The seam between applications and Kafka: queue one record now, await its acknowledgement."""

_Key = tuple[str, bytes | None]
"""A topic, and a key of its records."""

_Done = tuple["asyncio.Future[Placed]", ck.KafkaError | None, ck.Message]


_Report = Callable[["asyncio.Future[Placed]", ck.KafkaError | None, ck.Message], None]
_LAZY_MAX = 64
"""So many acknowledgements that nobody is in a hurry for are handed over together."""


class _Client:
    """One librdkafka producer; `send` in the loop, `poll` on its thread."""

    def __init__(self, config: dict[str, object], loop: asyncio.AbstractEventLoop) -> None:
        self.client = ck.Producer(config)
        self._loop = loop
        self._done: list[_Done] = []
        self._is_urgent = False

    def poll(self) -> None:
        """Serve delivery reports, at most one hand-over to the loop per call."""
        served = self.client.poll(0.1)
        if self._done and (self._is_urgent or not served or len(self._done) >= _LAZY_MAX):
            done, self._done, self._is_urgent = self._done, [], False
            self._loop.call_soon_threadsafe(_settle, done)

    def post(self, record: Record) -> "asyncio.Future[Placed]":
        """Queue a record; the future has its place, or why it has none."""
        return self._post(record, self._report)

    def post_lazily(self, record: Record) -> "asyncio.Future[Placed]":
        """Queue a record whose acknowledgement may be told up to 0.1 s late; a failure is not."""
        return self._post(record, self._report_lazily)

    def _post(self, record: Record, report: _Report) -> "asyncio.Future[Placed]":
        future = self._loop.create_future()
        try:
            self.client.produce(
                record.topic,
                record.value,
                record.key,
                -1 if record.partition is None else record.partition,
                partial(report, future),
                headers=record.headers,  # type: ignore[arg-type]  # the stub's list is invariant in str | bytes | None
            )
        except BufferError:
            future.set_exception(classify(ck.KafkaError._QUEUE_FULL, "queue full"))  # noqa: SLF001 - librdkafka's own name
        except ck.KafkaException as refused:
            error = refused.args[0]
            future.set_exception(classify(error.code(), error.str()))
        return future

    def _report(
        self, future: "asyncio.Future[Placed]", error: ck.KafkaError | None, message: ck.Message
    ) -> None:
        self._is_urgent = True
        self._done.append((future, error, message))

    def _report_lazily(
        self, future: "asyncio.Future[Placed]", error: ck.KafkaError | None, message: ck.Message
    ) -> None:
        self._is_urgent = self._is_urgent or error is not None
        self._done.append((future, error, message))


class Producer:
    """Writes records; owned by the block that opened it, used from its event loop only.

    Args:
        quick: Lingers not at all.
        bulk: Lingers 1 ms.
        few: With so many in hand, or fewer, records go by the quick one.
        max_bytes: Larger records are refused.

    Attributes:
        grace_s: So long, in seconds, the end of its block waits for acknowledgements.
    """

    grace_s: float

    def __init__(self, quick: _Client, bulk: _Client, few: int, max_bytes: int) -> None:
        self._quick = quick
        self._bulk = bulk
        self._few = few
        self._max_bytes = max_bytes
        self._held: dict[_Key, tuple[_Client, int]] = {}

    def check_size(self, record: Record) -> None:
        """See that a record will not be refused for its size, before anything is promised for it.

        Raises:
            BodyTooLargeError: It may be; those that have some bytes left are refused too.
        """
        size = _RECORD_EXTRA + len(record.key or b"") + len(record.value or b"")
        size += sum(_HEADER_EXTRA + len(n) + len(v or b"") for n, v in record.headers)
        if size > self._max_bytes:
            raise BodyTooLargeError(
                f"the record has up to {size} bytes: want at most {self._max_bytes} "
                "(message.max.bytes)"
            )

    def route(self, in_hand: int, *, is_lazy: bool = False, ordered: Record | None = None) -> Send:
        """Choose by load which client the next records take.

        What one route writes to one partition arrives in the order of the calls, so whatever
        belongs to one request takes one route. A route raises, when awaited:
        OverloadedError, BodyTooLargeError, TopicError or BrokerDownError when the record is surely
        not written, OutcomeUnknownError when it may be in the log, now or later.

        Args:
            in_hand: How many requests wait (ingress) or are worked on (worker) right now.
            is_lazy: Acknowledgements may come up to 0.1 s late, which saves waking the loop for
                each; for whoever waits for something else first. Failures are told at once.
            ordered: A record to be sent next whose key says an order. While others of its topic
                and key are not acknowledged, it takes the client that they took: by the other one
                it could come before them.
        """
        client = self._quick if in_hand <= self._few else self._bulk
        if ordered is None:
            return client.post_lazily if is_lazy else client.post
        key = (ordered.topic, ordered.key)
        client, _ = self._held.get(key, (client, 0))
        return partial(
            self._post_ordered, client, key, client.post_lazily if is_lazy else client.post
        )

    def _post_ordered(
        self, client: _Client, key: "_Key", post: "Send", record: Record
    ) -> "asyncio.Future[Placed]":
        written = post(record)
        if (record.topic, record.key) == key and not written.done():
            self._held[key] = (client, self._held.get(key, (client, 0))[1] + 1)
            written.add_done_callback(partial(self._let_go, key))
        return written

    def _let_go(self, key: "_Key", _: "asyncio.Future[Placed]") -> None:
        client, count = self._held[key]
        if count > 1:
            self._held[key] = (client, count - 1)
        else:
            del self._held[key]


@asynccontextmanager
async def open_producer(
    config: Config,
    *,
    few: int = 8,
    grace_s: float = 10.0,
    on_down: Callable[[], None] = lambda: None,
    largest_bytes: int = 0,
) -> AsyncIterator[Producer]:
    """Run a producer for as long as the block.

    Leaving the block flushes. What Kafka has not acknowledged after the producer's `grace_s` is given
    up: its awaiter gets BrokerDownError if it never left, else OutcomeUnknownError.

    Args:
        config: librdkafka settings.
        few: With so many requests in hand, or fewer, records are sent without linger.
        grace_s: Seconds to wait for acknowledgements on leaving; the producer's may be set later.
        on_down: Told in the event loop when no broker can be reached.
        largest_bytes: Records up to this size are sent too, if nobody asked `check_size` about
            them: dead letters, whose topic takes more than others.
    """
    loop = asyncio.get_running_loop()
    told = partial(loop.call_soon_threadsafe, on_down)
    max_bytes = int({**WRITING, **config}["message.max.bytes"])
    config = {**config, "message.max.bytes": max(max_bytes, largest_bytes)}
    quick = _Client(merge(SHARED, WRITING, {"linger.ms": 0}, config, on_down=told), loop)
    bulk = _Client(merge(SHARED, WRITING, {"linger.ms": 1}, config, on_down=told), loop)
    async with AsyncExitStack() as threads:
        for client in (quick, bulk):
            await threads.enter_async_context(polling("producer-poll", client.poll))
        producer = Producer(quick, bulk, few, max_bytes)
        producer.grace_s = grace_s
        try:
            yield producer
        finally:
            clients = (quick.client, bulk.client)
            await asyncio.shield(asyncio.to_thread(_finish, *clients, producer.grace_s))


def _finish(quick: ck.Producer, bulk: ck.Producer, grace_s: float) -> None:
    for client in (quick, bulk):
        client.flush(grace_s / 2)
    for client in (quick, bulk):
        client.purge()
        client.flush(1.0)


def _settle(done: list[_Done]) -> None:
    for future, error, message in done:
        if future.done():  # its request was cancelled; the record is written all the same
            continue
        if error is not None:
            future.set_exception(classify(error.code(), error.str()))
        else:
            kind, timestamp_ms = message.timestamp()
            future.set_result(
                Placed(
                    message.partition() or 0,
                    -1 if message.offset() is None else message.offset() or 0,
                    timestamp_ms,
                    kind == ck.TIMESTAMP_LOG_APPEND_TIME,
                )
            )
