"""A transactional producer and its successors: what blocks, on one thread.

**A call whose outcome is not known is the dangerous one.** An EndTxn that was given up may arrive
later, and end the producer's *next* transaction: half of that would be visible, or none (Jepsen,
Bufstream 0.1.0; librdkafka has no KIP-890 yet). So whenever a request may still be under way, the
producer is thrown away and a new one initialises the same `transactional.id`: Kafka ends what was
open, and refuses whatever comes with the old epoch. Then the group's committed offsets, which are
part of the transaction, tell what became of it: each carries the transaction's mark.

**The library sends EndTxn again by itself**, without a word and without limit, when the connection
is lost or a response is late. It pauses before that for four fifths of `retry.backoff.ms` at the
least: a call that was quicker was sent once. One that was not counts as sent twice, though it went
well. And no call may last as long as a response is waited for (`socket.timeout.ms`).
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import confluent_kafka as ck
import structlog

from bridge.envelope import Record
from bridge.errors import (
    BodyTooLargeError,
    BridgeError,
    OutcomeUnknownError,
    SettingsError,
    TopicError,
)
from bridge.kafka.client import READING, SHARED, Config, merge
from bridge.kafka.member import GroupMetadata, Place, Position, offsets_of
from bridge.kafka.outcome import classify
from bridge.kafka.producer import WRITING

_log = structlog.get_logger("bridge.kafka")
_K = ck.KafkaError

TRANSACTIONS: Config = {
    # A killed worker's open transaction holds every read-committed reader of its partitions up for so
    # long, and for the broker's check interval (10 s by default).
    "transaction.timeout.ms": 5000,
    "delivery.timeout.ms": 4000,
    "request.timeout.ms": 3000,
    "socket.timeout.ms": 4000,
    "retry.backoff.ms": 250,
    "retry.backoff.max.ms": 1000,
    # A topic that is not there is told as such before the records time out.
    "topic.metadata.propagation.max.ms": 2000,
    # Records gather by themselves while their partitions are added to the transaction.
    "linger.ms": 0,
    "max.in.flight.requests.per.connection": 5,
}
_OPEN_S = 5.0
"""As `transaction.timeout.ms`: Kafka ends a transaction that is open for longer."""
_TWICE_S = 0.2
"""Four fifths of `retry.backoff.ms`: a call that took so long may have been sent twice."""
_ADD_TWICE_S = 0.5
"""The library's own pause before it adds partitions to a transaction again."""
_SLOW = "slow: a request may have been sent twice"
_CALL_S = 3.0
"""Less than `socket.timeout.ms`: a call ends before the library sends it again for want of a response."""
_FLUSH_S = 4.5
_STEP_S = 2.0
_PAUSE_S = 0.5

_RAISED = (ck.KafkaException, SystemError)
"""A producer that was fenced raises in whatever call serves callbacks next. When a delivery report is
served behind that, Python makes a `SystemError` of it, with its cause or without."""
_FENCED = frozenset({_K._FENCED, _K.INVALID_PRODUCER_EPOCH})  # noqa: SLF001 - librdkafka's own name
_NO_MEMBER = frozenset(
    {_K.UNKNOWN_MEMBER_ID, _K.FENCED_INSTANCE_ID, _K.STALE_MEMBER_EPOCH, _K.FENCED_MEMBER_EPOCH}
)
_REFUSED = _NO_MEMBER | {
    _K.ILLEGAL_GENERATION,
    _K.TOPIC_AUTHORIZATION_FAILED,
    _K.GROUP_AUTHORIZATION_FAILED,
}
"""Answers, not silence: nothing is under way any more, so the transaction can be aborted."""


@dataclass(frozen=True, slots=True)
class Committed:
    """All of it is visible, and the offsets are committed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotCommitted:
    """Nothing of it is visible, nor ever will be: the same may be sent again.

    Where partitions are no longer owned by then, without theirs; always with the group's latest
    metadata, for an older generation is one reason for this.

    Attributes:
        why: For the log.
        refused: Records that Kafka does not take, each with the reason: without them, or not at all.
    """

    why: str
    refused: tuple[tuple[Record, BridgeError], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """Nothing of it is visible, nor ever will be: the process is no member, its partitions are another's.

    Attributes:
        why: For the log.
    """

    why: str


Outcome = Committed | NotCommitted | Lost
_Failed = tuple[Record, BridgeError]


class Writer:
    """A transactional producer and its successors; everything here blocks, on one thread.

    Args:
        config: librdkafka settings.
        transactional_id: What Kafka knows it by.
        now_s: Tells the time, in seconds that only go forward.
    """

    def __init__(self, config: Config, transactional_id: str, now_s: Callable[[], float]) -> None:
        passed = {name: value for name, value in config.items() if name != "message.timeout.ms"}
        own = {"transactional.id": transactional_id}
        self._config = config
        self._settings = merge(SHARED, WRITING, passed, TRANSACTIONS, own)
        # A fatal error is a producer that was fenced: no reason for the process to end.
        del self._settings["error_cb"]
        self._id = transactional_id
        self._now_s = now_s
        self._leaving = threading.Event()
        self._client: ck.Producer | None = None
        self._is_opened_twice = False
        self._began_s = 0.0
        self._count = 0

    def leave(self) -> None:
        """Be patient no more; from any thread."""
        self._leaving.set()

    def serve(self) -> None:
        """Take log lines off the producer."""
        if self._client is not None:
            with suppress(*_RAISED):  # the next call meets it too
                self._client.poll(0)

    def open(self) -> None:
        """Make a producer; what an earlier one had left open is ended, and its requests are refused.

        Raises:
            SettingsError: Kafka does not allow it.
            OutcomeUnknownError: The block is left.
        """
        client = ck.Producer(self._settings)
        started_s = self._now_s()
        while True:
            try:
                client.init_transactions(_STEP_S)
            except ck.KafkaException as trouble:
                self._check_opening(trouble.args[0])
                continue
            # An InitProducerId that was given up and comes late fences this very producer.
            self._is_opened_twice = self._now_s() - started_s >= _CALL_S
            self._client = client
            return

    def _check_opening(self, error: ck.KafkaError) -> None:
        if not error.retriable():
            raise SettingsError(
                f"Kafka refuses transactional.id={self._id}: {error.str()}; allow Write and "
                "Describe on this TransactionalId, or set exactly_once = false"
            )
        _log.warning("transactions-not-ready", transactional_id=self._id, why=error.str())
        if self._leaving.wait(_PAUSE_S):
            raise OutcomeUnknownError(f"left before Kafka has let {self._id} begin")

    def write(
        self,
        records: Sequence[Record],
        positions: Mapping[Place, Position],
        metadata: GroupMetadata,
    ) -> Outcome:
        """Write one transaction; afterwards none is open. See `Transactions.commit`."""
        if self._client is None:
            self.open()
        self._count += 1
        offsets = offsets_of(positions, f"{self._id}.{self._count}")
        self._began_s = self._now_s()
        is_ending = False
        try:
            self._producer.begin_transaction()
            failed = self._send(records)
            if failed:
                return self._give_up(failed)
            sent_s = self._now_s()
            self._producer.send_offsets_to_transaction(offsets, metadata.token, _CALL_S)
            is_ending = True
            self._producer.commit_transaction(_CALL_S)
        except _RAISED as trouble:
            error = self._find_error(trouble)
            if error.txn_requires_abort() and error.code() in _REFUSED:
                self._abort()
                return (Lost if error.code() in _NO_MEMBER else NotCommitted)(why=error.str())
            self._start_anew(error)
            if is_ending and self._is_committed(offsets, metadata.group):
                return Committed()
            return NotCommitted(why=error.str())
        if self._is_slow(sent_s) or sent_s - self._began_s >= _ADD_TWICE_S:
            self._renew(_SLOW)
        return Committed()

    def _send(self, records: Sequence[Record]) -> list[_Failed]:
        """Write records into the transaction; returns those that failed, each with the reason."""
        failed: list[_Failed] = []

        def report(record: Record, error: ck.KafkaError | None, _: ck.Message) -> None:
            if error is not None:
                failed.append((record, classify(error.code(), error.str())))

        for record in records:
            try:
                self._producer.produce(
                    record.topic,
                    record.value,
                    record.key,
                    -1 if record.partition is None else record.partition,
                    partial(report, record),
                    headers=record.headers,  # type: ignore[arg-type]  # the stub's list is invariant in str | bytes | None
                )
            except BufferError:
                failed.append((record, classify(_K._QUEUE_FULL, "queue full")))  # noqa: SLF001 - librdkafka's own name
            except ck.KafkaException as refused:
                error = refused.args[0]
                failed.append((record, classify(error.code(), error.str())))
            if failed:
                break
        # Before the offsets: their request, unlike this one, would wait for `retry.backoff.ms` when
        # Kafka is not yet done with the last transaction.
        if self._producer.flush(_FLUSH_S) and not failed:
            late = OutcomeUnknownError(f"not acknowledged within {_FLUSH_S:g} s")
            failed.append((records[0], late))
        return failed

    def _give_up(self, failed: Sequence[_Failed]) -> NotCommitted:
        errors = [error for _, error in failed]
        is_renewed = self._abort()
        if not is_renewed and any(isinstance(error, OutcomeUnknownError) for error in errors):
            self._doubt(str(errors[0]))
        refused = [one for one in failed if isinstance(one[1], BodyTooLargeError | TopicError)]
        return NotCommitted(why=str(errors[0]), refused=tuple(refused))

    def _abort(self) -> bool:
        """Abort the transaction, in whatever way; returns whether it took a new producer."""
        started_s = self._now_s()
        try:
            self._producer.abort_transaction(_CALL_S)
        except _RAISED as trouble:
            self._start_anew(self._find_error(trouble))
            return True
        if self._is_slow(started_s):
            self._renew(_SLOW)
            return True
        return False

    def _find_error(self, trouble: Exception) -> ck.KafkaError:
        """Tell what the library has raised, or would raise at the next call."""
        known = trouble if isinstance(trouble, ck.KafkaException) else trouble.__cause__
        if not isinstance(known, ck.KafkaException):
            try:
                self._producer.begin_transaction()
            except ck.KafkaException as again:
                known = again
            else:
                raise trouble
        error: ck.KafkaError = known.args[0]
        return error

    def _start_anew(self, error: ck.KafkaError) -> None:
        """Have Kafka end the transaction, unless somebody else has already.

        Raises:
            SettingsError: Another producer has taken the `transactional.id`.
        """
        is_young = self._now_s() - self._began_s < _OPEN_S
        if error.code() in _FENCED and is_young and not self._is_opened_twice:
            self._client = None
            raise SettingsError(
                f"transactional.id={self._id} is used by another process as well, which came later: "
                "this one ends; each process wants an ID of its own"
            )
        self._doubt(error.str())

    def _doubt(self, why: str) -> None:
        _log.warning("transaction-outcome-unknown", transactional_id=self._id, why=why)
        self._renew(why)

    def _renew(self, why: str) -> None:
        """Put a new producer in the place of this one, of which requests may still be under way."""
        self._client = None  # the last reference: its connections close here, and nothing is resent
        self.open()
        _log.warning("transactional-producer-recreated", transactional_id=self._id, why=why)

    def _is_committed(self, wanted: list[ck.TopicPartition], group: str) -> bool:
        """Find out whether a transaction that is over now was committed: any of its marks tells.

        Whoever owns a partition by now may have overwritten its mark. When that is so of all, this
        process is no member any more, and what it sends again is refused.

        Raises:
            OutcomeUnknownError: The block is left.
        """
        consumer = ck.Consumer(merge(SHARED, READING, self._config, {"group.id": group}))
        try:
            while True:
                try:
                    found = consumer.committed([_bare(one) for one in wanted], timeout=_STEP_S)
                    return any(map(_is_same, wanted, found))
                except ck.KafkaException as trouble:
                    why = trouble.args[0].str()
                _log.warning("committed-offsets-not-read", transactional_id=self._id, why=why)
                if self._leaving.wait(_PAUSE_S):
                    raise OutcomeUnknownError("left before it was known whether it is committed")
        finally:
            consumer.close()

    @property
    def _producer(self) -> ck.Producer:
        # Never kept in a variable: the last reference has to be `_client`.
        if self._client is None:
            raise RuntimeError("no transactional producer is open")
        return self._client

    def _is_slow(self, since_s: float) -> bool:
        return self._now_s() - since_s >= _TWICE_S


def _bare(place: ck.TopicPartition) -> ck.TopicPartition:
    return ck.TopicPartition(place.topic, place.partition)


def _is_same(wanted: ck.TopicPartition, found: ck.TopicPartition) -> bool:
    if found.error is not None:
        raise ck.KafkaException(found.error)
    return (wanted.offset, wanted.metadata) == (found.offset, found.metadata)
