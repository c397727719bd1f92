"""Which topics a service has, and what each is for."""

from pathlib import Path

from bridge.cli.topics import shapes_of
from bridge.kafka import Shape
from bridge.registry import load_services

SERVICES = load_services(Path(__file__).parents[1] / "services" / "schemas")
DAY_MS = 86_400_000


def shape_of(name: str) -> Shape:
    (found,) = [shape for shape in shapes_of({"echo": SERVICES["echo"]}) if shape.name == name]
    return found


def test_a_service_has_five_topics_and_shares_three() -> None:
    names = [shape.name for shape in shapes_of({"echo": SERVICES["echo"]})]

    assert names == [
        "echo.requests",
        "echo.replies",
        "echo.dead",
        "echo.replay",
        "echo.replay-replies",
        "bridge.cancels",
        "bridge.claims",
        "bridge.replays",
    ]


def test_claims_and_replies_must_be_kept_or_work_is_done_twice() -> None:
    kept = {shape.name for shape in shapes_of({"echo": SERVICES["echo"]}) if shape.must_keep}

    assert kept == {"bridge.claims", "echo.replies"}


def test_a_dead_letter_lies_in_its_requests_partition_by_broker_time_and_is_kept_for_30_days() -> (
    None
):
    assert shape_of("echo.dead") == Shape(
        name="echo.dead",
        partitions=SERVICES["echo"].topics.partitions,
        settings={
            "cleanup.policy": "delete",
            "retention.ms": str(30 * DAY_MS),
            "message.timestamp.type": "LogAppendTime",
            "max.message.bytes": str(16 * 1024 * 1024),
        },
    )


def test_what_is_done_again_is_kept_for_a_day_with_answers_of_its_own() -> None:
    requests, answers = shape_of("echo.replay"), shape_of("echo.replay-replies")

    assert requests.partitions == SERVICES["echo"].topics.partitions
    assert requests.settings["max.message.bytes"] == str(16 * 1024 * 1024)
    assert answers.partitions == SERVICES["echo"].topics.lanes
    assert {requests.settings["retention.ms"], answers.settings["retention.ms"]} == {str(DAY_MS)}
    assert answers.settings["message.timestamp.type"] == "LogAppendTime"
