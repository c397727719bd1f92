"""Joining another's request: what it asks of Kafka."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from bridge import ids
from bridge.claims import Ruling
from bridge.envelope import Event, Reply, Request
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

    find_claimed = look

    async def heal(self, *_: object) -> bool:
        return True

    async def post(self, *_: object) -> None:
        self.written += 1
