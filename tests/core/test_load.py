"""What an ingress knows of workers: each service by its own figures, whoever else shares its group."""

from dataclasses import replace
from pathlib import Path
from typing import cast

from bridge.ingress.lanes import Lanes
from bridge.ingress.load import Load
from bridge.kafka import Backlog, Groups
from bridge.registry import load_services
from bridge.service import Service

SCHEMAS = Path(__file__).parents[1] / "services" / "schemas"


async def test_services_that_share_a_group_are_not_judged_by_one_anothers_queues() -> None:
    services = {name: in_group("app", service) for name, service in load_services(SCHEMAS).items()}
    behind = services["slow"].requests_topic
    asked: list[tuple[str, str]] = []

    class Kafka:
        """Says that `slow` has a queue, and nobody else has."""

        async def look(self, wanted: dict[tuple[str, str], int]) -> dict[tuple[str, str], Backlog]:
            asked.extend(wanted)
            return {
                (group, topic): Backlog(
                    members=2, committed={0: 0}, ends={0: 9 * (topic == behind)}
                )
                for group, topic in wanted
            }

    load = Load(services, cast(Lanes, OneEach()), chance=lambda: 0, no_worker_s=15)
    await load.look(cast(Groups, Kafka()))

    assert sorted(asked) == sorted(("app", each.requests_topic) for each in services.values())
    lags = {name: load.describe(service)["lag"] for name, service in services.items()}
    assert lags == {name: 9 if name == "slow" else 0 for name in services}


def in_group(group: str, service: Service) -> Service:
    return replace(service, worker=service.worker.model_copy(update={"group": group}))


class OneEach:
    """Lanes of services that have one partition each."""

    def partitions(self, _: Service) -> int:
        return 1
