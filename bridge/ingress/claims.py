"""Claims of this replica: written, read back, and only then acted on."""

import asyncio
import sqlite3
from contextlib import AsyncExitStack, suppress
from functools import partial

import msgspec
import structlog

from bridge import metrics
from bridge.claims import (
    TOPIC,
    Entry,
    Kind,
    Ruling,
    fingerprint,
    format_entry,
    may_write,
    parse_entry,
)
from bridge.envelope import Record
from bridge.errors import (
    BridgeError,
    ClaimsAwayError,
    IdempotencyKeyReusedError,
    OutcomeUnknownError,
    TopicError,
)
from bridge.ingress.index import Index
from bridge.ingress.job import Job
from bridge.ingress.load import Load
from bridge.ingress.room import Room
from bridge.kafka import Config, Placed, Producer, describe_topics, open_tail

_log = structlog.get_logger("bridge.ingress")

READ_BACK_S = 10.0
"""A claim that is not read back within this is not acted on."""
_RETRY_S = 1.0

MADE, JOINED, REUSED, HEALED = (
    metrics.CLAIMS.labels(result) for result in ("made", "joined", "reused", "healed")
)


class Claims:
    """Which request each `Idempotency-Key` stands for; used in the event loop only.

    Args:
        producer: Writes claims.
        load: Whether another request can be taken; broker time.
        room: Who waits.
        index: What the log says, as far as it has been read.
        heal_after_ms: A claimed request that shows no event for so long may be written again.
    """

    def __init__(
        self,
        *,
        producer: Producer,
        load: Load,
        room: Room,
        index: Index,
        heal_after_ms: int,
    ) -> None:
        self._producer = producer
        self._load = load
        self._lanes = load.lanes
        self._room = room
        self._index = index
        self._deciding: dict[str, asyncio.Future[Ruling]] = {}
        self._awaited: dict[str, asyncio.Future[Ruling]] = {}
        self._read_to_ms: dict[int, int] = {}
        self._trouble: BridgeError | None = ClaimsAwayError(f"{TOPIC} is being read: ask again")
        self.heal_after_ms = heal_after_ms
        metrics.CLAIMS_KNOWN.set_function(lambda: len(index))

    @property
    def trouble(self) -> BridgeError | None:
        """Why no request with a key can be taken now; None when all is well."""
        return self._trouble

    async def run(self, config: Config) -> None:
        """Follow the log until cancelled; whatever breaks is said, waited out and tried again.

        Each time the index is built anew: one that lacks a claim would let a second one win.
        """
        while True:
            try:
                async with AsyncExitStack() as held:
                    lost = await self._follow(held, config)
                    await lost
            except BridgeError as error:
                self._say(error)
            except Exception as error:  # noqa: BLE001 - without claims every key would be refused for ever
                _log.error("claims-broke", exc_info=error)
                self._say(ClaimsAwayError(f"{TOPIC} cannot be read: the log says why"))
                with suppress(sqlite3.Error, OSError):
                    self._index.reset()
            await asyncio.sleep(_RETRY_S)

    async def _follow(self, held: AsyncExitStack, config: Config) -> "asyncio.Future[None]":
        found = await describe_topics(config)
        if TOPIC not in found:
            raise TopicError(f"{TOPIC} does not exist: run `kbridge topics apply`")
        self._read_to_ms = dict.fromkeys(range(found[TOPIC]), 0)
        partitions = [(TOPIC, number) for number in range(found[TOPIC])]
        self._index.reset()
        return await held.enter_async_context(
            open_tail(config, partitions, self.take, since_ms=0, at_end=self._set_ready)
        )

    def _set_ready(self) -> None:
        _log.info("claims-read", known=len(self._index))
        self._trouble = None

    def _say(self, error: BridgeError) -> None:
        if type(self._trouble) is not type(error):
            _log.warning("claims-away", reason=str(error))
        self._trouble = error

    def take(self, records: list[Record]) -> None:
        """Fold what the log brought, and tell whoever waits for a claim of this replica."""
        entries = []
        for record in records:
            if record.partition is not None:
                self._read_to_ms[record.partition] = record.timestamp_ms
            entry = parse_entry(record)
            if entry is not None:
                entries.append(entry)
        self._index.take(entries, read_to_ms=min(self._read_to_ms.values(), default=0))
        for entry in entries:
            waiting = self._awaited.get(_name(entry.kind, entry.heal_id or entry.request_id))
            if waiting is not None and not waiting.done():
                ruling = self._index.find(entry.key)
                if ruling is not None:
                    waiting.set_result(ruling)

    async def settle(self, job: Job, key: str) -> Ruling:
        """Decide which request a claim key stands for; nothing of the job is written yet.

        When the ruling `is_own`, the caller writes the job; else it joins the request of the
        ruling's ID. `Ingress.write` does either. An answer about a request of another ID than the
        job's carries `Idempotency-Replayed: true`.

        Args:
            job: What the client asks for.
            key: Of `claim_key`.

        Raises:
            IdempotencyKeyReusedError: The key stands for a request with another body.
            BodyTooLargeError: Kafka would not take the request; the key stays free.
            ClaimsAwayError, UnavailableError, TopicError: Nothing can be decided now; the request
                is not written.
            OutcomeUnknownError: The claim may be in the log, now or later; the request is not.
        """
        if self._trouble is not None:
            raise self._trouble
        ruling = self._valid(key)
        if ruling is None and key in self._deciding:
            ruling = await asyncio.shield(self._deciding[key])
        if ruling is None:
            ruling = await self._claim(job, key)
        if ruling.fingerprint != fingerprint(job.record.value):
            REUSED.inc()
            raise IdempotencyKeyReusedError(
                f"this Idempotency-Key stands for request {ruling.request_id}, whose body is "
                "another one: send the same body, or another key"
            )
        (MADE if ruling.request_id == job.request.request_id else JOINED).inc()
        return ruling

    def _valid(self, key: str) -> Ruling | None:
        ruling = self._index.find(key)
        if ruling is None or ruling.until_ms <= self._lanes.now_ms():
            return None  # whether it has really ended, the log says: a claim may still lose
        return ruling

    async def _claim(self, job: Job, key: str) -> Ruling:
        """Write a claim and read it back; those who come meanwhile with the same key wait for it."""
        # A claim without a request would have to be healed; one that can never be written, for ever.
        self._producer.check_size(job.record)
        with self._room.promise():  # the caller enters in the same turn of the event loop
            self._load.admit_job(job)
            return await self._decide(job, key)

    async def _decide(self, job: Job, key: str) -> Ruling:
        request_id = job.request.request_id
        self._deciding[key] = decided = asyncio.get_running_loop().create_future()
        decided.add_done_callback(_look_away)
        failed: BridgeError = ClaimsAwayError("the claim was given up: ask again")
        try:
            ruling = await self._read_back(_claim_of(job, key), request_id)
            if ruling.request_id == request_id and not self.is_own(job, ruling):
                raise ClaimsAwayError("the claim came back too late to be acted on: ask again")
            decided.set_result(ruling)
        except BridgeError as error:
            failed = error
            raise
        finally:
            del self._deciding[key]
            if not decided.done():
                decided.set_exception(failed)
        return ruling

    def is_own(self, job: Job, ruling: Ruling) -> bool:
        """Tell whether a key stands for the job's own request, and it may be written still."""
        return ruling.request_id == job.request.request_id and self._may_write(ruling)

    def _may_write(self, ruling: Ruling) -> bool:
        return may_write(ruling, self._lanes.now_ms(), self.heal_after_ms)

    async def heal(self, job: Job, ruling: Ruling) -> bool:
        """Promise to write a lost request again.

        Args:
            job: The duplicate that found it lost; its ID names the promise.
            ruling: What the log said before.

        Returns:
            Whether this promise counts: then the caller writes the request. Else another one does.

        Raises:
            As `settle`.
        """
        heal_id = job.request.request_id
        entry = Entry(
            kind=Kind.HEAL,
            key=ruling.key,
            request_id=ruling.request_id,
            lane=ruling.lane,
            fingerprint=ruling.fingerprint,
            service=job.service.name,
            rules_ms=self.heal_after_ms,
            heal_id=heal_id,
        )
        after = await self._read_back(entry, heal_id)
        if after.heal_id != heal_id or not self._may_write(after):
            return False
        HEALED.inc()
        _log.info("request-healed", request_id=ruling.request_id, service=job.service.name)
        return True

    def note_written(self, job: Job, ruling: Ruling) -> "asyncio.Future[Placed]":
        """Tell all replicas that a one-way request is written: no reply log says so.

        Returns:
            The acknowledgement, which need not be awaited; without the note a duplicate waits, and
            then writes the request again.
        """
        entry = _claim_of(job, ruling.key)
        entry = msgspec.structs.replace(entry, kind=Kind.WRITTEN, request_id=ruling.request_id)
        noted = self._producer.route(len(self._room))(format_entry(entry))
        noted.add_done_callback(_look_away)
        return noted

    async def wait_written(self, ruling: Ruling, limit_s: float) -> bool:
        """Wait until a one-way request is known to be written; False: it is not, in time."""
        name = _name(Kind.WRITTEN, ruling.request_id)
        told = self._awaited.get(name)
        if told is None:
            self._awaited[name] = told = asyncio.get_running_loop().create_future()
            told.add_done_callback(lambda _: self._awaited.pop(name, None))
            asyncio.get_running_loop().call_later(limit_s, told.cancel)
        await asyncio.wait([told], timeout=limit_s)
        now = self._index.find(ruling.key)
        return now is not None and now.request_id == ruling.request_id and now.is_written

    async def _read_back(self, entry: Entry, own_id: str) -> Ruling:
        """Write an entry, and wait until the log has brought it.

        Returns:
            What rules after it.
        """
        name = _name(entry.kind, own_id)
        waiting: asyncio.Future[Ruling] = asyncio.get_running_loop().create_future()
        self._awaited[name] = waiting
        in_hand = len(self._room) + len(self._awaited)
        written = self._producer.route(in_hand, is_lazy=True)(format_entry(entry))
        written.add_done_callback(partial(_note_failed, waiting))
        try:
            async with asyncio.timeout(READ_BACK_S):
                return await waiting
        except TimeoutError:
            raise ClaimsAwayError(
                f"the claim did not come back from {TOPIC} within {READ_BACK_S:g} s: ask again"
            ) from None
        except OutcomeUnknownError as lost:  # of the claim; the request itself is not written
            raise ClaimsAwayError(f"the claim may not be written: {lost}") from None
        finally:
            del self._awaited[name]


def _name(kind: Kind, own_id: str) -> str:
    return f"{kind.value} {own_id}"


def _claim_of(job: Job, key: str) -> Entry:
    request = job.request
    return Entry(
        kind=Kind.CLAIM,
        key=key,
        request_id=request.request_id,
        lane=request.reply_partition or 0,
        fingerprint=fingerprint(job.record.value),
        service=job.service.name,
        rules_ms=job.service.topics.result_retention_s * 1000,
    )


def _note_failed(waiting: "asyncio.Future[Ruling]", written: "asyncio.Future[Placed]") -> None:
    """Wake whoever waits for an entry that could not be written."""
    if written.cancelled() or waiting.done():
        return
    trouble = written.exception()
    if trouble is not None:
        waiting.set_exception(trouble)


def _look_away(done: "asyncio.Future[Ruling] | asyncio.Future[Placed]") -> None:
    """Read a result that perhaps nobody waits for, so that its error is not reported as lost."""
    if not done.cancelled():
        done.exception()
