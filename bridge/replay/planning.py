"""Planning a replay on Kafka: bounds are frozen, records are read, nothing is written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from bridge import dead
from bridge.ends import Ends
from bridge.envelope import Record
from bridge.errors import SettingsError, TopicError
from bridge.kafka import Config, Facts, Reader, describe_topics, look_at_topic, open_reader
from bridge.offsets import Runs
from bridge.plan import (
    Decide,
    Draft,
    Left,
    Mode,
    Part,
    Plan,
    SchemaCount,
    Selection,
    Selector,
    digest,
)
from bridge.redrive import MARGIN_MS, Letter, Letters
from bridge.redrive import State as LetterState
from bridge.replay.dead import find_completed, read_letters_with
from bridge.replay.writing import Told
from bridge.replays import TOPIC
from bridge.service import Service
from bridge.where import Condition

_LETTERS_LEFT = {
    LetterState.RESOLVED: Left.RESOLVED,
    LetterState.REDRIVEN: Left.REDRIVEN,
    LetterState.PARKED: Left.SPENT,
    LetterState.UNKNOWN: Left.UNKNOWN,
    LetterState.UNREADABLE: Left.UNREADABLE,
}


@dataclass(frozen=True, slots=True)
class Bound:
    """Where a range begins or ends: at an offset, or at a time in Unix milliseconds."""

    offset: int | None = None
    time_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What an operator asks for.

    Attributes:
        replay_id: Names the replay.
        mode: What for.
        start, end: The range; where both are empty, all that is kept.
        partitions: Which; None: all.
        key, headers, where, state, reason, ids, sample, takes_replays: As of a `Selection`.
        is_dead: Whether dead letters are the source.
        is_known_only: Whether records of which nothing is known any more are left out; else they
            are a reason to refuse.
        answers: Whether the answers go where those of the originals went.
        target: Where copies go, in mode `copy`.
        reserved: Topics that mode `copy` must not write to.
        rate: Records a second at the most.
        by: Who asks.
        said: All of that, as it was said.
    """

    replay_id: str
    mode: Mode
    start: Bound = Bound()
    end: Bound = Bound()
    partitions: Sequence[int] | None = None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    where: tuple[Condition, ...] = ()
    state: str | None = None
    is_dead: bool = False
    reason: str | None = None
    ids: frozenset[str] | None = None
    sample: int | None = None
    takes_replays: bool = False
    is_known_only: bool = False
    answers: bool = False
    target: str | None = None
    reserved: frozenset[str] = frozenset()
    rate: float | None = None
    by: str = ""
    said: dict[str, object] = field(default_factory=dict)


async def make_plan(
    config: Config, service: Service, asked: Asked, *, now_ms: int, told: Told
) -> Plan:
    """Plan a replay: read everything, write nothing.

    Args:
        config: librdkafka settings.
        service: Whose.
        asked: What is asked for.
        now_ms: Unix milliseconds.
        told: Told how far it is.

    Raises:
        SettingsError: It cannot be done so; the message says why.
        TopicError: A topic does not exist.
        BrokerDownError: Kafka does not answer.
    """
    planning = await _prepare(config, service, asked)
    async with open_reader(config) as reader:
        return await planning.run(reader, now_ms, told)


async def _prepare(config: Config, service: Service, asked: Asked) -> "_Planning":
    counts = await describe_topics(config)
    source = service.dead_topic if asked.is_dead else service.requests_topic
    target = asked.target or service.replay_topic
    wanted = [TOPIC, source, service.replay_topic, service.replies_topic]
    wanted.append(service.replay_replies_topic)
    missing = [topic for topic in wanted if topic not in counts]
    if missing:
        raise TopicError(f"{', '.join(missing)} missing: run `kbridge topics apply`")
    check_target(asked, source, target, await look_at_topic(config, target))
    odd = [p for p in asked.partitions or () if p >= counts[source]]
    if odd:
        raise SettingsError(f"{source} has no partition {odd[0]}: want 0 to {counts[source] - 1}")
    facts = await look_at_topic(config, source)
    return _Planning(service, asked, source, target, facts, counts)


def check_target(asked: Asked, source: str, target: str, facts: Facts) -> None:
    """See that a topic can take copies.

    Raises:
        SettingsError: It cannot, or must not.
    """
    if target == source:
        raise SettingsError(f"{target} would be copied onto itself: want another topic")
    if asked.mode is Mode.COPY and (target in asked.reserved or target.startswith("bridge.")):
        raise SettingsError(
            f"{target} is a topic of the bridge: what is copied there would be taken for live "
            "records, and answered to whoever asked first; want another topic, or mode reprocess"
        )
    check_cleanup(target, facts)


def check_cleanup(target: str, facts: Facts) -> None:
    """See that a topic keeps all copies.

    Raises:
        SettingsError: It does not.
    """
    if "compact" in facts.settings.get("cleanup.policy", ""):
        raise SettingsError(
            f"{target} is compacted, so copies of one key would delete one another: want a topic "
            "with cleanup.policy=delete"
        )


class _Planning:
    """One plan in the making."""

    def __init__(
        self,
        service: Service,
        asked: Asked,
        source: str,
        target: str,
        facts: Facts,
        counts: Mapping[str, int],
    ) -> None:
        self._service = service
        self._asked = asked
        self._source = source
        self._target = target
        self._facts = facts
        self._counts = counts

    async def run(self, reader: Reader, now_ms: int, told: Told) -> Plan:
        bounds, gone = await self._freeze(reader)
        asked = self._asked
        selection = Selection(
            mode=asked.mode,
            topic=self._source,
            starts={partition: start for partition, (start, _) in bounds.items()},
            ends={partition: end for partition, (_, end) in bounds.items()},
            since_ms=asked.start.time_ms,
            until_ms=asked.end.time_ms,
            key=asked.key,
            headers=asked.headers,
            where=asked.where,
            state=asked.state,
            is_dead=asked.is_dead,
            reason=asked.reason,
            ids=asked.ids,
            sample=asked.sample,
            takes_replays=asked.takes_replays,
        )
        ends = await read_ends(reader, self._service, told) if selection.wants_state else None
        decide = None
        if asked.mode is Mode.REDRIVE:
            decide = await find_decider(reader, self._service, self._counts, now_ms, told)
        draft = Draft(Selector(selection, self._service, ends, decide), asked.sample)
        for partition, (start, end) in bounds.items():
            if start < end:
                take = partial(_take, draft, end, told)
                await reader.read_on((self._source, partition), start, is_enough=take)
        return self._finish(draft, bounds, gone, now_ms)

    async def _freeze(self, reader: Reader) -> tuple[dict[int, tuple[int, int]], dict[int, int]]:
        """Find where to begin and to end in each partition, and what is gone before that."""
        asked = self._asked
        bounds, gone = {}, {}
        for partition in sorted(asked.partitions or range(self._counts[self._source])):
            lane = (self._source, partition)
            low, high = await reader.bounds(lane)
            start = low if asked.start.offset is None else max(low, asked.start.offset)
            if asked.start.offset is not None and asked.start.offset < low:
                gone[partition] = low - asked.start.offset
            if asked.start.time_ms is not None:
                found = await reader.find_offset(lane, asked.start.time_ms)
                start = high if found is None else max(start, found)
            end = high if asked.end.offset is None else min(high, asked.end.offset)
            bounds[partition] = (start, max(start, end))
        return bounds, gone

    def _finish(
        self,
        draft: Draft,
        bounds: Mapping[int, tuple[int, int]],
        gone: Mapping[int, int],
        now_ms: int,
    ) -> Plan:
        asked, service = self._asked, self._service
        self._check_unknown(draft.left[Left.UNKNOWN])
        selected = draft.finish()
        return Plan(
            id=asked.replay_id,
            service=service.name,
            mode=asked.mode,
            source=self._source,
            source_id=self._facts.id,
            target=self._target,
            answers=asked.answers,
            asked=asked.said,
            by=asked.by,
            at_ms=now_ms,
            parts={
                partition: Part(
                    start=start,
                    end=end,
                    selected=len(runs := selected.get(partition, Runs())),
                    offsets=runs.encode(),
                    gone=gone.get(partition, 0),
                )
                for partition, (start, end) in bounds.items()
            },
            left={why: number for why, number in sorted(draft.left.items()) if number},
            schemas={
                "none" if schema_id is None else str(schema_id): SchemaCount(
                    count=count, readable=schema_id == service.request.id
                )
                for schema_id, count in draft.schemas.items()
            },
            effects=service.effects,
            digest=digest(asked.mode, self._source, selected),
            rate=asked.rate,
        )

    def _check_unknown(self, unknown: int) -> None:
        if not unknown or self._asked.is_known_only:
            return
        service = self._service
        what = (
            f"whether they were redriven: {service.replay_topic} keeps that for a day"
            if self._asked.is_dead
            else f"how they ended: {service.replies_topic} does not go back so far"
        )
        raise SettingsError(
            f"of {unknown} records it is not known any more {what}; --known-only leaves them out"
        )


def _take(draft: Draft, end: int, told: Told, record: Record) -> bool:
    """Take one record; True: the frozen end is reached."""
    if record.offset >= end:
        return True
    draft.take(record)
    if draft.seen % 1000 == 0:
        told("planning", draft.seen, None)
    return False


async def read_ends(reader: Reader, service: Service, told: Told, since_ms: int = 0) -> Ends:
    """Read how all requests of a service have ended, up to now.

    Args:
        reader: Reads.
        service: Whose.
        told: Told how far it is.
        since_ms: Unix milliseconds; what ended before it is of no interest.
    """
    topic = service.replies_topic
    counts = range(service.topics.lanes)
    known = {lane: await reader.kept_since_ms((topic, lane)) for lane in counts}
    ends, done = Ends(topic, known), 0

    def take(record: Record) -> bool:
        nonlocal done
        ends.take(record)
        done += 1
        if done % 1000 == 0:
            told("reading how requests ended", done, None)
        return False

    await reader.read([(topic, lane) for lane in counts], since_ms=since_ms, is_enough=take)
    return ends


async def find_decider(
    reader: Reader, service: Service, counts: Mapping[str, int], now_ms: int, told: Told
) -> Decide:
    """Read what has become of all dead letters of a service, and say which are not redriven."""
    letters: Letters = await read_letters_with(reader, service, counts, told)
    completed = await find_completed(reader, service, counts, letters.in_order(), told)
    first = {(each.request_id, each.generation): each for each in letters.in_order()}
    known_since_ms = now_ms - dead.REPLAY_KEEP_S * 1000 + MARGIN_MS

    def decide(_: Record, letter: Letter) -> Left | None:
        counted = first[letter.request_id, letter.generation]
        if (counted.partition, counted.offset) != (letter.partition, letter.offset):
            return Left.REPEATED
        state = letters.decide(letter, completed, known_since_ms=known_since_ms)
        return _LETTERS_LEFT.get(state)

    return decide
