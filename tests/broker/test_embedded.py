"""The embedded Kafka, through another client's eyes."""

from confluent_kafka.admin import AdminClient


def test_the_run_has_a_kafka(kafka: str) -> None:
    nodes = AdminClient({"bootstrap.servers": kafka}).list_topics(timeout=10).brokers

    assert len(nodes) >= 1
