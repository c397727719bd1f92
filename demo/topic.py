"""What lies on the topics of a service for one request, read as an operator would."""

import asyncio
from pathlib import Path

from bridge import envelope
from bridge.codec import render_json, schema_id_of
from bridge.envelope import Record
from bridge.kafka import describe_topics, open_reader
from bridge.registry import load_services, schemas_by_id

SHOWN_HEADERS = frozenset({envelope.EVENT, envelope.ATTEMPT, envelope.REPLY_PARTITION})


def read_trail(kafka: str, service: str, request_id: str) -> list[Record]:
    """Read the records of one request: the request itself, then its reply log.

    Args:
        kafka: host:port.
        service: Whose topics are read, from their start to their present end.
        request_id: Its name; the key of its records where the contract has no key of its own.

    Raises:
        BrokerDownError: Kafka does not answer.
        TopicError: The topics do not exist.
    """
    found = asyncio.run(_read(kafka, (f"{service}.requests", f"{service}.replies"), request_id))
    return sorted(found, key=lambda record: (record.topic.endswith(".replies"), record.offset))


def describe(record: Record, schemas: Path) -> tuple[str, str, str]:
    """Put a record into words: where it lies, what its headers say, and its value as JSON.

    Args:
        record: As read.
        schemas: The folder of contracts that the value was written by.

    Raises:
        RecordError: No schema in the folder wrote the value.
    """
    where = f"{record.topic}/{record.partition}/{record.offset}"
    headers = [
        f"{name}: {value.decode()}" for name, value in record.headers if name in SHOWN_HEADERS
    ]
    if record.value is None:
        return where, "\n".join(headers), ""
    schema = schemas_by_id(load_services(schemas))[schema_id_of(record.value)]
    value = schema.decode(record.value)
    return where, "\n".join(headers), render_json(value).decode()


async def _read(kafka: str, topics: tuple[str, ...], request_id: str) -> list[Record]:
    config = {"bootstrap.servers": kafka}
    partitions = await describe_topics(config)
    lanes = [(topic, lane) for topic in topics for lane in range(partitions.get(topic, 0))]
    found: list[Record] = []

    def keep(record: Record) -> bool:
        if record.key == request_id.encode():
            found.append(record)
        return False

    async with open_reader(config, size=1) as reader:
        await reader.read(lanes, since_ms=0, is_enough=keep)
    return found
