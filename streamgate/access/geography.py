"""Where viewers are, as far as a database knows, against where a token lets them be (catgeoiso3166, catgeocoord, geohash).

A database gives a place and how far from it the viewer may be. So an answer is yes or no only where that does not matter,
else None: unknown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_EARTH_M = 6_371_009.0  # mean radius
_FLATTENING = 0.006  # the part of a distance by which that on a sphere is wrong at most
_DEGREE_M = 110_500.0  # of latitude, at its shortest
_BASE32 = "0123456789bcdefghjkmnpqrstuvwxyz"
_MAX_HASH = 12


@dataclass(frozen=True, slots=True)
class Point:
    """Degrees north and east, and within how many metres of it the viewer is said to be."""

    latitude: float
    longitude: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Place:
    """What is known of an address: ISO 3166-1 and 3166-2 codes, the latter without the country; None: not known."""

    country: str | None = None
    subdivisions: frozenset[str] | None = None
    point: Point | None = None


NOWHERE = Place()


def in_country(code: str, place: Place) -> bool | None:
    """Whether a place lies in what ``code`` names: ``DE`` or ``US-CA`` (ISO 3166-1 alpha-2, ISO 3166-2)."""
    country, _, subdivision = code.upper().partition("-")
    if place.country is None or len(country) != 2:
        return None
    if place.country != country:
        return False
    if not subdivision:
        return True
    return None if place.subdivisions is None else subdivision in place.subdivisions


def in_circle(area: Sequence[float], point: Point | None) -> bool | None:
    """Whether a point lies within ``area``: degrees north, degrees east, and metres."""
    north, east, radius = area
    if point is None or not (abs(north) <= 90 and abs(east) <= 180 and 0 <= radius < math.inf):
        return None
    here, there = math.radians(point.latitude), math.radians(north)
    half = math.radians(point.longitude - east) / 2
    haversine = math.sin((here - there) / 2) ** 2 + math.cos(here) * math.cos(there) * math.sin(half) ** 2
    distance = 2 * _EARTH_M * math.asin(math.sqrt(min(1.0, haversine)))
    if distance * (1 + _FLATTENING) + point.accuracy <= radius:
        return True
    return False if distance * (1 - _FLATTENING) - point.accuracy > radius else None


def in_cell(geohash: str, point: Point | None) -> bool | None:
    """Whether a point lies within the cell that a geohash names."""
    cell = _bounds(geohash)
    if point is None or cell is None:
        return None
    south, north, west, east = cell
    high = point.accuracy / _DEGREE_M
    furthest = abs(point.latitude) + high  # where degrees of longitude are shortest
    wide = high / math.cos(math.radians(furthest)) if furthest < 90 else 360.0
    low, top = point.latitude - high, point.latitude + high
    left, right = point.longitude - wide, point.longitude + wide
    if low >= north or top < south:
        return False
    if left < -180 or right > 180:  # around the back of the world
        return True if (west, east) == (-180, 180) and south <= low and top < north else None
    if left >= east or right < west:
        return False
    return True if south <= low and top < north and west <= left and right < east else None


def _bounds(geohash: str) -> tuple[float, float, float, float] | None:
    """South, north, west, east."""
    if not 1 <= len(geohash) <= _MAX_HASH or not set(geohash) <= set(_BASE32):
        return None
    latitude, longitude = [-90.0, 90.0], [-180.0, 180.0]
    along = True  # bits are of longitude and latitude by turns
    for character in geohash:
        value = _BASE32.index(character)
        for bit in (16, 8, 4, 2, 1):
            span = longitude if along else latitude
            middle = (span[0] + span[1]) / 2
            span[0 if value & bit else 1] = middle
            along = not along
    return latitude[0], latitude[1], longitude[0], longitude[1]
