"""The three services, called as a worker calls them."""

import asyncio
import math
import selectors

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge import Context, PermanentError
from consumers import airports, greeter, work

NORTH_POLE = (90.0, 0.0)
NOWHERE = float("nan")


async def test_the_greeter_greets() -> None:
    assert await greeter.handle({"name": "Ada"}) == {"greeting": "Hello, Ada"}


async def test_the_greeter_refuses_nobody() -> None:
    with pytest.raises(PermanentError, match="nobody to greet"):
        await greeter.handle({"name": ""})


def test_work_takes_a_second_a_dot_and_tells_of_each() -> None:
    told: list[tuple[float | None, str]] = []
    context = Context(request_id="test", report=lambda *progress: told.append(progress))
    loop = LeapingLoop()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        reply = runner.run(work.handle({"task": "a.b.c.d."}, context))

    assert reply == {"task": "a.b.c.d.", "seconds": 4}
    assert loop.time() == pytest.approx(4)
    assert told == [(0.25, "1 of 4 s"), (0.5, "2 of 4 s"), (0.75, "3 of 4 s"), (1.0, "4 of 4 s")]


async def test_work_without_a_dot_is_done_at_once() -> None:
    reply = await work.handle({"task": ""}, Context(request_id="test"))

    assert reply == {"task": "", "seconds": 0}


async def test_an_airport_is_found_with_all_its_facts() -> None:
    reply = await airports.handle({"latitude": -41.29, "longitude": 174.78, "count": 1})

    assert reply["airports"] == [
        {
            "iata": "WLG",
            "name": "Wellington International Airport",
            "city": "Wellington",
            "country": "NZ",
            "latitude": pytest.approx(-41.33, abs=0.01),
            "longitude": pytest.approx(174.81, abs=0.01),
            "distance_km": pytest.approx(4.8, abs=0.5),
        }
    ]


@settings(max_examples=30)  # each looks at all airports by the other formula
@given(st.floats(-90, 90), st.floats(-180, 180), st.integers(1, airports.MAX_COUNT))
async def test_nothing_nearer_is_overlooked(latitude: float, longitude: float, count: int) -> None:
    reply = await airports.handle({"latitude": latitude, "longitude": longitude, "count": count})

    nearest = sorted(haversine_km(latitude, longitude, each) for each in airports.AIRPORTS)
    found = [each["distance_km"] for each in reply["airports"]]
    assert found == pytest.approx(nearest[:count], abs=0.001)


async def test_the_date_line_is_no_border() -> None:
    west = await airports.handle({"latitude": -16.7, "longitude": 180.0, "count": 5})
    east = await airports.handle({"latitude": -16.7, "longitude": -180.0, "count": 5})

    assert west == east
    assert {each["country"] for each in west["airports"]} == {"FJ"}


@pytest.mark.parametrize(
    ("latitude", "longitude"), [(90.1, 0), (-90.1, 0), (0, 180.1), (0, -180.1), (NOWHERE, 0)]
)
async def test_a_place_off_the_earth_is_refused(latitude: float, longitude: float) -> None:
    with pytest.raises(PermanentError, match="want -90 to 90") as refusal:
        await airports.handle({"latitude": latitude, "longitude": longitude, "count": 1})

    assert refusal.value.failure_code == "bad-coordinate"


@pytest.mark.parametrize("count", [0, -1, 51])
async def test_a_count_out_of_range_is_refused(count: int) -> None:
    with pytest.raises(PermanentError, match="want 1 to 50") as refusal:
        await airports.handle({"latitude": 0, "longitude": 0, "count": count})

    assert refusal.value.failure_code == "bad-count"


def haversine_km(latitude: float, longitude: float, airport: airports.Airport) -> float:
    """Say the distance by another formula than the service uses."""
    north, south = math.radians(latitude), math.radians(airport.latitude)
    east = math.radians(airport.longitude - longitude)
    square = (
        math.sin((south - north) / 2) ** 2
        + math.cos(north) * math.cos(south) * math.sin(east / 2) ** 2
    )
    return 2 * airports.EARTH_RADIUS_KM * math.asin(math.sqrt(min(1.0, square)))


class LeapingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock leaps over every wait."""

    def __init__(self) -> None:
        self._leapt_s = 0.0
        super().__init__(LeapingSelector(self))

    def time(self) -> float:
        return self._leapt_s

    def leap(self, seconds: float) -> None:
        self._leapt_s += seconds


class LeapingSelector(selectors.SelectSelector):
    """Looks at what is ready; where nothing is, the time-out has passed at once."""

    def __init__(self, loop: LeapingLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout:
            self._loop.leap(timeout)
        return ready
