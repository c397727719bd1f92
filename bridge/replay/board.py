"""`bridge.replays` on Kafka: read as a whole, and written to."""

from bridge.envelope import Record
from bridge.errors import TopicError
from bridge.kafka import Config, describe_topics, open_producer, open_reader
from bridge.replays import MAX_BYTES, TOPIC, Replays


async def read_replays(config: Config) -> Replays:
    """Read everything that is known of replays.

    Raises:
        BrokerDownError: Kafka does not answer.
        TopicError: The topic does not exist.
    """
    counts = await describe_topics(config)
    if TOPIC not in counts:
        raise TopicError(f"{TOPIC} missing: run `kbridge topics apply`")
    found = Replays()

    def take(record: Record) -> bool:
        found.take(record)
        return False

    async with open_reader(config) as reader:
        lanes = [(TOPIC, partition) for partition in range(counts[TOPIC])]
        await reader.read(lanes, since_ms=0, is_enough=take)
    return found


async def say(config: Config, record: Record) -> None:
    """Write one record there, and await that Kafka has it.

    Raises:
        BrokerDownError, TopicError: It is not written.
        OutcomeUnknownError: It may be.
    """
    async with open_producer(config, largest_bytes=MAX_BYTES) as producer:
        await producer.route(0)(record)
