"""Finds the airports nearest to a place: all that have an IATA code, in memory.

The airports lie sorted by latitude. No airport outside a band of latitudes around the place can
be nearer than the band is wide, so a search looks at one band and widens it only when the answer
might lie outside: exact at the poles and across the date line, with no index to build.

`handle` is async although it never waits: measured here, a search for one airport takes 0.02 ms
near a city (p99 0.04) and at the worst 1 ms in mid-ocean, a hop to a thread and back 0.1 ms.
"""

import heapq
import math
from bisect import bisect_left, bisect_right
from itertools import repeat
from typing import NamedTuple, TypedDict

import airportsdata

from bridge import PermanentError

EARTH_RADIUS_KM = 6371.0088
"""The mean radius R1 = (2a + b) / 3 of the GRS 80 ellipsoid.

Source: H. Moritz, "Geodetic Reference System 1980", Journal of Geodesy 74 (2000), 128-133.
"""

MAX_COUNT = 50
FIRST_REACH_DEGREES = 1.0
"""Measured: 0.5 and 2 are as good over the whole globe, 4 takes thrice the time near cities."""

Point = tuple[float, float, float]


class Query(TypedDict):
    """A request; units and ranges stand in its schema."""

    latitude: float
    longitude: float
    count: int


class Airport(NamedTuple):
    """One airport, in degrees."""

    latitude: float
    longitude: float
    iata: str
    name: str
    city: str
    country: str


def _load() -> list[Airport]:
    return sorted(
        Airport(each["lat"], each["lon"], iata, each["name"], each["city"], each["country"])
        for iata, each in airportsdata.load("IATA").items()
    )


def _on_unit_sphere(latitude: float, longitude: float) -> Point:
    north, east = math.radians(latitude), math.radians(longitude)
    return (
        math.cos(north) * math.cos(east),
        math.cos(north) * math.sin(east),
        math.sin(north),
    )


AIRPORTS = _load()
_LATITUDES = [airport.latitude for airport in AIRPORTS]
_POINTS = [_on_unit_sphere(airport.latitude, airport.longitude) for airport in AIRPORTS]


async def handle(request: Query) -> dict[str, list[dict[str, str | float]]]:
    """Answer with the `count` nearest airports, the nearest first.

    Raises:
        PermanentError: `bad-coordinate` or `bad-count`: a number is out of its range.
    """
    latitude, longitude, count = request["latitude"], request["longitude"], request["count"]
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):  # noqa: PLR2004 - degrees
        raise PermanentError(
            f"latitude {latitude}, longitude {longitude}: want -90 to 90 and -180 to 180 degrees",
            code="bad-coordinate",
        )
    if not 1 <= count <= MAX_COUNT:
        raise PermanentError(f"count is {count}: want 1 to {MAX_COUNT}", code="bad-count")
    return {"airports": [_render(*found) for found in _nearest(latitude, longitude, count)]}


def _nearest(latitude: float, longitude: float, count: int) -> list[tuple[float, int]]:
    """Find the nearest as (chord of the unit sphere, index), the nearest first."""
    here = _on_unit_sphere(latitude, longitude)
    reach = FIRST_REACH_DEGREES
    while True:
        low = bisect_left(_LATITUDES, latitude - reach)
        high = bisect_right(_LATITUDES, latitude + reach)
        chords = map(math.dist, _POINTS[low:high], repeat(here))
        found = heapq.nsmallest(count, zip(chords, range(low, high), strict=True))
        if len(found) == count and found[-1][0] <= _chord(reach):
            return found
        reach *= 2


def _chord(degrees: float) -> float:
    return 2 * math.sin(math.radians(min(degrees, 180)) / 2)


def _render(chord: float, index: int) -> dict[str, str | float]:
    airport = AIRPORTS[index]
    angle = 2 * math.asin(min(1.0, chord / 2))
    return {**airport._asdict(), "distance_km": round(EARTH_RADIUS_KM * angle, 3)}
