"""Joining another's request: what it asks of Kafka."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from bridge import ids
from bridge.claims import Ruling
from bridge.envelope import Event, Reply, Request
from bridge.errors import GoneError, OutcomeUnknownError, UnknownRequestError
from bridge.ingress.claims import Claims
from bridge.ingress.job import Job, make_record
from bridge.ingress.join import Joins
from bridge.ingress.lanes import Lanes
from bridge.ingress.look import Lookups
from bridge.ingress.room import Room
from bridge.registry import load_services
from bridge.replylog import ReplyLog
from bridge.service import Service

SCHEMAS = Path(__file__).parents[1] / "services" / "schemas"
NOW_MS = 1_800_000_000_000
HEAL_MS = 60_000


async def test_a_request_that_has_ended_is_looked_up_once() -> None:
    kafka = Kafka([Event.ACCEPTED, Event.COMPLETED])

    log = await joins(kafka).join(job(kafka), ruling(age_ms=2 * HEAL_MS))

    assert log.state == "completed"
    assert (kafka.looks, kafka.written) == (1, 0)


@pytest.mark.parametrize("kept_ms", [0, NOW_MS - 2 * HEAL_MS])
async def test_a_request_of_which_its_whole_lane_shows_nothing_is_written_again(
    kept_ms: int,
) -> None:
    kafka = Kafka([], kept_ms)

    with pytest.raises(OutcomeUnknownError):
        await joins(kafka).join(job(kafka), ruling(age_ms=2 * HEAL_MS))

    assert kafka.written == 1


@pytest.mark.parametrize("kept_ms", [None, NOW_MS - 2 * HEAL_MS + 1])
async def test_a_request_whose_log_may_be_deleted_is_not_written_again(kept_ms: int | None) -> None:
    """An empty lane was taken for a request that was never written, and it was worked on twice."""
    kafka = Kafka([], kept_ms)

    with pytest.raises(GoneError):
        await joins(kafka).join(job(kafka), ruling(age_ms=2 * HEAL_MS))

    assert kafka.written == 0


def ruling(*, age_ms: int) -> Ruling:
    made_ms = NOW_MS - age_ms
    return Ruling(
        key="a" * 64,
        request_id=ids.make(time_ms=made_ms, lane=1, chance=1),
        lane=1,
        fingerprint="f" * 64,
        time_ms=made_ms,
        rules_ms=86_400_000,
    )


def job(kafka: "Kafka") -> Job:
    """What a client asks for that came later."""
    name = ids.make(time_ms=NOW_MS, lane=1, chance=2)
    request = Request(request_id=name, reply_to="once.replies", reply_partition=1)
    record = make_record(kafka.service, request, None, b"value", [], 4)
    return Job(kafka.service, request, record, wait_s=0.5, is_claimed=True)


def joins(kafka: "Kafka") -> Joins:
    return Joins(cast(Claims, kafka), cast(Lookups, kafka), cast(Lanes, kafka), Room(9), kafka.post)


@dataclass
class Kafka:
    """A reply log, and all that a duplicate asks about it."""

    events: list[Event]
    kept_ms: int | None = 0
    looks: int = 0
    written: int = 0
    heal_after_ms: int = HEAL_MS
    service: Service = field(default_factory=lambda: load_services(SCHEMAS)["once"])

    def now_ms(self) -> int:
        return NOW_MS

    def partitions(self, _: Service) -> int:
        return 4

    async def look(self, *_: object, **__: object) -> ReplyLog:
        self.looks += 1
        log = ReplyLog()
        for offset, event in enumerate(self.events):
            log.take(Reply(request_id="r", event=event, offset=offset))
        return log

    async def find_claimed(self, *_: object, **__: object) -> ReplyLog:
        log = await self.look()
        if not log.is_seen:
            raise UnknownRequestError("nothing")
        return log

    async def is_whole(self, _: Service, lane: int, since_ms: int) -> bool:
        assert lane == 1
        return self.kept_ms is not None and self.kept_ms <= since_ms

    async def heal(self, *_: object) -> bool:
        return True

    async def post(self, *_: object) -> None:
        self.written += 1
