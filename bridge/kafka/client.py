"""What all client objects share: configuration, log lines, and messages read as records."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from threading import Event as Flag
from threading import Thread

import confluent_kafka as ck
import structlog

from bridge.envelope import UNREADABLE, Headers, Record
from bridge.errors import SettingsError

Config = Mapping[str, str | int | bool]
"""librdkafka settings: `bootstrap.servers` and whatever the operator passed through."""

_log = structlog.get_logger("bridge.kafka")
_library_log = logging.getLogger("bridge.librdkafka")
# A broker that has just started says so to every new producer; it is retried and over in a moment.
_library_log.addFilter(lambda line: "Coordinator load in progress" not in line.getMessage())

SHARED: Config = {
    # A broker that comes back is found within 1 s (the default backs off up to 10 s).
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 1000,
    # A stopped leader (SIGSTOP) is noticed after 4 s; measured: with 60 s, 167 of 2,000 records failed.
    "socket.timeout.ms": 4000,
    "allow.auto.create.topics": False,
    # New partitions and lost leaders are seen within 30 s (the default is 5 min).
    "topic.metadata.refresh.interval.ms": 30_000,
    # A broker closes idle connections: nothing to tell anybody about.
    "log.connection.close": False,
}

READING: Config = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "isolation.level": "read_committed",
    "check.crcs": True,
    "fetch.wait.max.ms": 500,
}

_RESTING_S = 1.0
"""After an error of our own on a poll thread: the thread goes on, the log does not run over."""

_running: set[Thread] = set()
"""Poll threads whose blocks have not ended."""

BATCH = 1000
"""Records taken from librdkafka's queue at once; the rest waits for the next turn."""


def merge(*parts: Config, on_down: Callable[[], object] | None = None) -> dict[str, object]:
    """Merge settings, the later ones winning, with librdkafka's log and error lines in ours.

    `on_down` is told, on a poll thread, when no broker can be reached.
    """
    merged: dict[str, object] = {}
    for part in parts:
        merged.update(part)
    merged["error_cb"] = partial(_report, on_down)
    merged["logger"] = _library_log
    return merged


def _report(on_down: Callable[[], object] | None, error: ck.KafkaError) -> None:
    if error.fatal():  # such a client works no more; the rest is in librdkafka's lines, and heals
        _log.critical("kafka-fatal", error=error.name(), detail=error.str())
        os.kill(os.getpid(), signal.SIGTERM)
    elif on_down is not None and error.code() == ck.KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - librdkafka's own name
        on_down()


PROTECTED = frozenset(
    {
        "acks",
        "request.required.acks",
        "auto.offset.reset",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.idempotence",
        "enable.partition.eof",
        "group.id",
        "group.protocol",
        "isolation.level",
        "partitioner",
        "transactional.id",
    }
)
"""What the design stands on: another value would break a promise without a word."""


def check_config(config: Config) -> None:
    """Refuse settings that librdkafka does not know, or that would break what is promised.

    Raises:
        SettingsError: The message says which and why.
    """
    fixed = sorted(PROTECTED & set(config))
    if fixed:
        raise SettingsError(f"Kafka settings: {', '.join(fixed)} cannot be set: the bridge does")
    try:
        nowhere: Config = {"group.id": "bridge.check", "bootstrap.servers": ""}
        ck.Consumer(merge(SHARED, config, nowhere)).close()
    except (ck.KafkaException, TypeError, ValueError) as refused:
        cause = refused.args[0] if refused.args else refused
        detail = cause.str() if isinstance(cause, ck.KafkaError) else str(cause)
        raise SettingsError(
            f"Kafka settings: {detail}; want librdkafka's names and values, "
            "for example BRIDGE_KAFKA__SECURITY_PROTOCOL=SASL_SSL"
        ) from None


def as_record(message: ck.Message) -> Record:
    """Read one message as a record; only for messages without an error."""
    return Record(
        topic=message.topic() or "",
        key=message.key(),
        value=message.value(),
        headers=_headers(message),
        partition=message.partition(),
        offset=message.offset() or 0,
        timestamp_ms=message.timestamp()[1],
    )


def _headers(message: ck.Message) -> Headers:
    try:
        return message.headers() or []  # type: ignore[return-value]  # a header without a value is None: read as absent
    except (SystemError, UnicodeDecodeError):  # one such record must not take its batch with it
        return UNREADABLE


def dead_threads() -> list[str]:
    """Name the poll threads that have ended before their blocks: their clients are deaf."""
    return sorted(thread.name for thread in _running if not thread.is_alive())


@asynccontextmanager
async def polling(name: str, poll: Callable[[], None]) -> AsyncIterator[None]:
    """Run `poll` again and again on a thread of its own for as long as the block."""
    stop = Flag()

    def run() -> None:
        while not stop.is_set():
            try:
                poll()
            except Exception:  # noqa: BLE001 - a thread that dies silently would leave its client deaf
                _log.exception("poll-failed", thread=name)
                stop.wait(_RESTING_S)

    thread = Thread(target=run, name=name, daemon=True)
    thread.start()
    _running.add(thread)
    try:
        yield
    finally:
        _running.discard(thread)
        stop.set()
        await asyncio.shield(asyncio.to_thread(thread.join))
