"""Dead letters on Kafka: read, found, and redriven.

Three bounded reads decide what is redriven: the dead letters, what was redriven already, and the
reply logs. Letters are held without their bytes; those that go are read again, a few at a time.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter

from bridge import dead
from bridge.envelope import Record
from bridge.errors import TopicError, UnknownRequestError
from bridge.kafka import Config, Reader, describe_topics, open_reader
from bridge.redrive import (
    MARGIN_MS,
    Completed,
    Letter,
    Letters,
    State,
    find_lanes,
    read_letter,
    select,
)
from bridge.replay.writing import Order, Told, Writing, read_chunk
from bridge.service import Service


def _tell_nobody(what: str, done: int, total: int | None) -> None:
    del what, done, total


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the letters that were chosen.

    Attributes:
        states: Of each letter, in the order of the dead letters; `waiting` are those that were
            redriven, or would be.
        others: Records that are no dead letters, where all were chosen.
    """

    states: list[tuple[Letter, State]] = field(default_factory=list)
    others: int = 0

    def count(self, state: State) -> int:
        """Count the letters of a state."""
        return sum(each is state for _, each in self.states)


@dataclass(frozen=True, slots=True)
class Found:
    """One dead letter with its bytes.

    Attributes:
        record: As it lies in `<service>.dead`.
        letter: What it says.
        state: What becomes of it when it is redriven, as far as its reply log has no say.
        generations: All generations of its request that are dead letters.
    """

    record: Record
    letter: Letter
    state: State
    generations: list[int]


async def read_letters(config: Config, service: Service, told: Told = _tell_nobody) -> Letters:
    """Read all dead letters of a service, and what was redriven of them.

    Raises:
        BrokerDownError: Kafka does not answer.
        TopicError: The topics do not exist.
    """
    counts = await _count_partitions(config, service)
    async with open_reader(config) as reader:
        return await read_letters_with(reader, service, counts, told)


async def find_letter(
    config: Config, service: Service, which: str | tuple[int, int], told: Told = _tell_nobody
) -> Found:
    """Find one dead letter, by its request or by its place.

    Args:
        config: librdkafka settings.
        service: Whose.
        which: A request ID: the first letter of its latest generation; or partition and offset.
        told: Told how far it is.

    Raises:
        UnknownRequestError: There is none.
        RecordError: At that place is another record.
        BrokerDownError, TopicError: As `read_letters`.
    """
    counts = await _count_partitions(config, service)
    topic = service.dead_topic
    async with open_reader(config) as reader:
        letters = await read_letters_with(reader, service, counts, told)
        place = _place(letters, which, topic) if isinstance(which, str) else which
        records: list[Record] = []
        if place[0] < counts[topic]:
            records, _ = await read_chunk(reader, (topic, place[0]), [place[1]])
    if not records:
        raise UnknownRequestError(f"no record at {topic}/{place[0]}/{place[1]}")
    letter = read_letter(records[0])
    named = select(letters.in_order(), request_id=letter.request_id)
    return Found(
        records[0], letter, letters.decide(letter), sorted(each.generation for each in named)
    )


async def redrive(
    config: Config,
    service: Service,
    order: Order,
    *,
    own_ms: Callable[[], int],
    told: Told = _tell_nobody,
) -> Outcome:
    """Write chosen dead letters to `<service>.replay`, where workers take them up again.

    Args:
        config: librdkafka settings.
        service: Whose.
        order: Which, and how.
        own_ms: Own clock, Unix milliseconds; the broker's is asked before the first is written.
        told: Told how far it is.

    Raises:
        UnknownRequestError: The one that was asked for is not there; nothing was written.
        BrokerDownError, TopicError: Nothing was written.
        OutcomeUnknownError: It stopped in between; what is written is found by the next redrive.
    """
    counts = await _count_partitions(config, service)
    async with open_reader(config) as reader:
        letters = await read_letters_with(reader, service, counts, told)
        chosen = select(letters.in_order(), request_id=order.request_id, reason=order.reason)
        if order.request_id is not None and not chosen:
            raise UnknownRequestError(
                f"no dead letter of request {order.request_id} in {service.dead_topic}"
            )
        completed = await find_completed(reader, service, counts, chosen, told)
        known_since_ms = 0 if order.is_unknown_taken else own_ms() - dead.REPLAY_KEEP_S * 1000
        states = {
            letter: letters.decide(letter, completed, known_since_ms=known_since_ms)
            for letter in chosen
        }
        going = [letter for letter, state in states.items() if state is State.WAITING]
        if going and not order.is_dry:
            writing = Writing(reader, service, order, told, len(going))
            lost = await writing.run(config, going, own_ms)
            states |= dict.fromkeys(lost, State.UNREADABLE)
    is_all = order.request_id is None and order.reason is None
    return Outcome(list(states.items()), letters.others if is_all else 0)


async def _count_partitions(config: Config, service: Service) -> dict[str, int]:
    """Return the topics that a redrive uses, each with its number of partitions."""
    found = await describe_topics(config)
    wanted = [
        service.dead_topic,
        service.replay_topic,
        service.replies_topic,
        service.replay_replies_topic,
    ]
    missing = [topic for topic in wanted if topic not in found]
    if missing:
        raise TopicError(f"{', '.join(missing)} missing: run `kbridge topics apply`")
    return {topic: found[topic] for topic in wanted}


async def read_letters_with(
    reader: Reader, service: Service, counts: Mapping[str, int], told: Told
) -> Letters:
    """Read all dead letters of a service, and what was redriven of them, with a reader."""
    letters, done = Letters(), 0

    def take(record: Record) -> bool:
        nonlocal done
        letters.take(record)
        done += 1
        told("reading dead letters", done, None)
        return False

    def take_replayed(record: Record) -> bool:
        letters.take_replayed(record)
        return False

    await reader.read(_all(service.dead_topic, counts), since_ms=0, is_enough=take)
    found = letters.in_order()
    if found:
        since_ms = max(0, found[0].time_ms - MARGIN_MS)
        replayed = _all(service.replay_topic, counts)
        await reader.read(replayed, since_ms=since_ms, is_enough=take_replayed)
    return letters


async def find_completed(
    reader: Reader,
    service: Service,
    counts: Mapping[str, int],
    letters: Iterable[Letter],
    told: Told,
) -> set[str]:
    """Find which letters' requests have been completed, from their beginnings to the present end."""
    answered = (service.replies_topic, service.replay_replies_topic)
    lanes = find_lanes(letters, {topic: counts[topic] for topic in answered})
    completed = Completed(letters)

    done = 0

    def take(record: Record) -> bool:
        nonlocal done
        completed.take(record)
        done += 1
        told("looking for answers", done, None)
        return False

    if lanes:
        await reader.read(list(lanes), since_ms=min(lanes.values()), is_enough=take)
    return completed.found


def _all(topic: str, counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return [(topic, partition) for partition in range(counts[topic])]


def _place(letters: Letters, request_id: str, topic: str) -> tuple[int, int]:
    named = select(letters.in_order(), request_id=request_id)
    if not named:
        raise UnknownRequestError(f"no dead letter of request {request_id} in {topic}")
    latest = max(named, key=attrgetter("generation"))
    return latest.partition, latest.offset
