"""A request that is written again after a crash is the same one: only its deadline is fresh."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from bridge import ids
from bridge.envelope import Request, format_request, parse_request
from bridge.ingress.job import Job, make_record, rename
from bridge.registry import load_services
from bridge.service import Service

SCHEMAS = Path(__file__).parents[1] / "services" / "schemas"
PARTITIONS = 4
FORWARDED = [("x-tenant", b"blue")]


@pytest.fixture(scope="module")
def services() -> dict[str, Service]:
    return dict(load_services(SCHEMAS))


def make(service: Service, key: bytes | None, *, time_ms: int, lane: int) -> Job:
    """Make a job as a client's POST at that time, to the replica of that lane, would."""
    has_log = service.kind != "none"
    request = Request(
        request_id=ids.make(time_ms=time_ms, lane=lane, chance=time_ms),
        reply_to=service.replies_topic if has_log else None,
        reply_partition=lane if has_log else None,
        deadline_ms=time_ms + 60_000,
        principal="ann",
    )
    headers = [*format_request(request), *FORWARDED]
    record = make_record(service, request, key, b"value", headers, PARTITIONS)
    return Job(service, request, record, wait_s=30.0)


@pytest.mark.parametrize(("name", "key"), [("once", None), ("echo", b"a text"), ("oneway", None)])
@pytest.mark.parametrize("first_ms", range(1_000_000, 1_000_020, 5))
def test_it_has_its_first_name_lane_key_and_partition_and_a_fresh_deadline(
    services: dict[str, Service], name: str, key: bytes | None, first_ms: int
) -> None:
    first = make(services[name], key, time_ms=first_ms, lane=2)
    later = make(services[name], key, time_ms=first_ms + 90_003, lane=1)

    again = rename(later, first.request.request_id, 2, PARTITIONS)

    assert again.record == replace(first.record, headers=again.record.headers)
    assert again.request == replace(first.request, deadline_ms=later.request.deadline_ms)
    assert parse_request(again.record).deadline_ms == first_ms + 150_003
    assert again.record.headers == [*format_request(again.request), *FORWARDED]
    assert (again.wait_s, again.is_claimed) == (0.0, True)
