"""Three outcomes of a write, never two: written, not written, unknown.

librdkafka knows whether a failed message may have been persisted; its Python binding does not pass
that on. So the error code decides (RELIABILITY 2.2, read off librdkafka's request handling), and a
code that is not listed here is *unknown*, never *refused*.
"""

import confluent_kafka as ck

from bridge.errors import (
    BodyTooLargeError,
    BridgeError,
    BrokerDownError,
    OutcomeUnknownError,
    OverloadedError,
    TopicError,
)

_K = ck.KafkaError

TOO_LARGE = frozenset({_K.MSG_SIZE_TOO_LARGE, _K.RECORD_LIST_TOO_LARGE, _K.INVALID_MSG_SIZE})
NO_TOPIC = frozenset({_K._UNKNOWN_TOPIC, _K._UNKNOWN_PARTITION, _K.UNKNOWN_TOPIC_OR_PART})  # noqa: SLF001 - librdkafka's own names
NOT_WRITTEN = frozenset(
    {
        _K.TOPIC_AUTHORIZATION_FAILED,
        _K.CLUSTER_AUTHORIZATION_FAILED,
        _K.INVALID_MSG,
        _K.INVALID_RECORD,
        _K.NOT_ENOUGH_REPLICAS,
        _K.KAFKA_STORAGE_ERROR,
        _K.POLICY_VIOLATION,
        _K.UNKNOWN_PRODUCER_ID,
        _K.INVALID_PRODUCER_EPOCH,
        _K._PURGE_QUEUE,  # noqa: SLF001 - librdkafka's own name
        _K._FENCED,  # noqa: SLF001 - librdkafka's own name
    }
)


def classify(code: int, detail: str) -> BridgeError:
    """Say what a failed write means.

    Returns:
        `OverloadedError`, `BodyTooLargeError`, `TopicError` or `BrokerDownError`: surely not
        written. `OutcomeUnknownError`: it may be in the log, now or later.
    """
    if code == _K._QUEUE_FULL:  # noqa: SLF001 - librdkafka's own name
        return OverloadedError("the producer's queue is full: try again in a moment")
    if code in TOO_LARGE:
        return BodyTooLargeError(f"the record is larger than Kafka takes: {detail}")
    if code in NO_TOPIC:
        return TopicError(f"{detail}: create the topics with `kbridge topics apply`")
    if code in NOT_WRITTEN:
        return BrokerDownError(f"Kafka did not take the record: {detail}")
    return OutcomeUnknownError(f"Kafka did not acknowledge the record: {detail}")
