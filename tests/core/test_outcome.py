"""Every error code of the library means written, not written, or unknown."""

import confluent_kafka as ck
import pytest

from bridge.errors import OutcomeUnknownError
from bridge.kafka.outcome import NO_TOPIC, NOT_WRITTEN, TOO_LARGE, classify

CODES = {
    name: code
    for name in dir(ck.KafkaError)
    if name.strip("_").isupper() and isinstance(code := getattr(ck.KafkaError, name), int)
}
SURELY_NOT = TOO_LARGE | NO_TOPIC | NOT_WRITTEN | {CODES["_QUEUE_FULL"]}


@pytest.mark.parametrize("name", sorted(CODES))
def test_a_code_is_unknown_unless_it_is_surely_not_written(name: str) -> None:
    error = classify(CODES[name], "detail")

    assert (error.outcome == "unknown") == (CODES[name] not in SURELY_NOT)
    assert error.status in {413, 503}


@pytest.mark.parametrize(
    "name",
    [
        "_MSG_TIMED_OUT",
        "_TRANSPORT",
        "REQUEST_TIMED_OUT",
        "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
        "_PURGE_INFLIGHT",
        "OUT_OF_ORDER_SEQUENCE_NUMBER",
        "_TIMED_OUT",
        "_SSL",
        "_BAD_MSG",
    ],
)
def test_these_may_have_been_written(name: str) -> None:
    assert isinstance(classify(CODES[name], "detail"), OutcomeUnknownError)
