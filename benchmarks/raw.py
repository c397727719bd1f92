"""The raw round trip: records there and back, with nothing but the client library.

Two processes, as with the bridge: `client` writes a record with a request's headers to a topic and
reads the answers from one partition of another; `echo` reads, answers, and commits now and then.
Topics, client settings and record sizes are the bridge's, so what differs is our code. Run as
`python -m benchmarks.raw client|echo KAFKA LINGER_MS [LOAD]`.
"""

import signal
import sys
import time
from typing import cast

import confluent_kafka as ck

from benchmarks.meter import Meter, parse_load
from bridge import envelope
from bridge.envelope import Headers
from bridge.kafka.client import BATCH, READING, SHARED
from bridge.kafka.group import GROUP
from bridge.kafka.lane import LANES
from bridge.kafka.producer import WRITING

REQUESTS, REPLIES = "raw.requests", "raw.replies"
LANE = 3
COMMIT_S = 0.25  # as the worker

_VALUE = b"\x00\x00\x00\x00\x01\x06Ann"  # what the bridge makes of {"name":"Ann"}
_POLL_S = 0.1

_Headers = list[tuple[str, str | bytes | None]]


class Client:
    """Keeps so many records under way; one thread, as fast as it can."""

    def __init__(self, kafka: str, linger_ms: int, load_text: str) -> None:
        load = parse_load(load_text)
        self._producer = _producer(kafka, linger_ms)
        self._consumer = ck.Consumer({"bootstrap.servers": kafka, **SHARED, **READING, **LANES})
        lane = ck.TopicPartition(REPLIES, LANE)
        lane.offset = self._consumer.get_watermark_offsets(lane, timeout=10)[1]
        self._consumer.assign([lane])
        self._at_once = load.at_once
        self._meter = Meter(load)
        self._asked: dict[bytes, float] = {}
        self._number = 0

    def run(self) -> None:
        """Ask and ask again until the meter has enough and everything is answered."""
        for _ in range(self._at_once):
            self._ask()
        while self._asked:
            self._producer.poll(0)
            first = self._consumer.poll(_POLL_S)
            if first is None:
                continue
            for message in (first, *self._consumer.consume(BATCH, 0)):
                self._take(message)
        self._consumer.close()
        self._meter.print()

    def _ask(self) -> None:
        self._number += 1
        name = b"%036d" % self._number  # as long as a request ID
        headers: _Headers = [
            (envelope.REQUEST_ID, name),
            (envelope.REPLY_TO, REPLIES.encode()),
            (envelope.REPLY_PARTITION, b"%d" % LANE),
            (envelope.DEADLINE, b"%d" % (time.time_ns() // 1_000_000)),
        ]
        self._asked[name] = time.perf_counter()
        self._producer.produce(REQUESTS, _VALUE, name, headers=headers)

    def _take(self, message: ck.Message) -> None:
        if message.error() is not None:
            sys.exit(f"the reply topic cannot be read: {message.error()}")
        asked_s = self._asked.pop(message.key() or b"", None)
        if asked_s is not None and self._meter.note(asked_s):
            self._ask()


def run_echo(kafka: str, linger_ms: int) -> None:
    """Answer every record until SIGTERM."""
    producer = _producer(kafka, linger_ms)
    group = {"group.id": "raw", "enable.auto.offset.store": True}  # what `commit` commits
    consumer = ck.Consumer({"bootstrap.servers": kafka, **SHARED, **READING, **GROUP, **group})
    consumer.subscribe([REQUESTS], on_assign=lambda _, __: print("assigned", flush=True))
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stop.append(number))
    committed_s = time.perf_counter()
    while not stop:
        producer.poll(0)
        first = consumer.poll(_POLL_S)
        if first is None:
            continue
        for message in (first, *consumer.consume(BATCH, 0)):
            _answer(producer, message)
        if time.perf_counter() - committed_s >= COMMIT_S:
            consumer.commit(asynchronous=True)
            committed_s = time.perf_counter()
    producer.flush()
    consumer.close()


def _answer(producer: ck.Producer, message: ck.Message) -> None:
    if message.error() is not None:
        sys.exit(f"the request topic cannot be read: {message.error()}")
    found = dict(cast(Headers, message.headers()))
    headers: _Headers = [
        (envelope.REQUEST_ID, found[envelope.REQUEST_ID]),
        (envelope.EVENT, envelope.Event.COMPLETED.value.encode()),
        (envelope.ATTEMPT, b"1"),
    ]
    producer.produce(
        found[envelope.REPLY_TO].decode(),
        message.value(),
        message.key(),
        int(found[envelope.REPLY_PARTITION]),
        headers=headers,
    )


def _producer(kafka: str, linger_ms: int) -> ck.Producer:
    return ck.Producer({"bootstrap.servers": kafka, **SHARED, **WRITING, "linger.ms": linger_ms})


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["client", kafka, linger_ms, load]:
            Client(kafka, int(linger_ms), load).run()
        case ["echo", kafka, linger_ms]:
            run_echo(kafka, int(linger_ms))
        case found:
            sys.exit(f"{found}: want client|echo KAFKA LINGER_MS [LOAD]")
