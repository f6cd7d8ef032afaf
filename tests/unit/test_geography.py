"""Where a viewer is: yes and no only where the accuracy of what is known does not matter."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgate.access.geography import NOWHERE, Place, Point, in_cell, in_circle, in_country

BERLIN = Point(52.52, 13.405, 5_000)
BASE32 = "0123456789bcdefghjkmnpqrstuvwxyz"


def degrees(most: int) -> st.SearchStrategy[float]:
    """To a tenth of a metre."""
    return st.integers(-most * 10**6, most * 10**6).map(lambda millionths: millionths / 10**6)


points = st.builds(Point, degrees(90), degrees(180), st.sampled_from((1.0, 10.0, 5e3, 2e5, 3e6)))


def around(point: Point) -> list[tuple[float, float]]:
    """Where the viewer may be: the point, and others up to the accuracy away (a sphere's destination formula)."""
    found = [(point.latitude, point.longitude)]
    north, east = math.radians(point.latitude), math.radians(point.longitude)
    for part in (0.5, 0.98):
        arc = part * point.accuracy / 6_371_009
        for bearing in (math.tau * n / 8 for n in range(8)):
            there = math.asin(math.sin(north) * math.cos(arc) + math.cos(north) * math.sin(arc) * math.cos(bearing))
            turn = math.atan2(
                math.sin(bearing) * math.sin(arc) * math.cos(north), math.cos(arc) - math.sin(north) * math.sin(there)
            )
            found.append((math.degrees(there), (math.degrees(east + turn) + 180) % 360 - 180))
    return found


def hashed(latitude: float, longitude: float, length: int) -> str:
    """A point's geohash, bit by bit from its two coordinates as whole numbers."""
    bits = 5 * length
    east = min(int((longitude + 180) / 360 * 2**60), 2**60 - 1)
    north = min(int((latitude + 90) / 180 * 2**60), 2**60 - 1)
    code = 0
    for n in range(bits):
        code = code << 1 | ((north if n % 2 else east) >> (59 - n // 2) & 1)
    return "".join(BASE32[code >> 5 * (length - 1 - n) & 31] for n in range(length))


@settings(max_examples=300, deadline=None)
@given(points, st.integers(1, 6), st.booleans(), points)
def test_a_cell_is_as_sure_as_the_point(point: Point, length: int, near: bool, other: Point) -> None:
    cell = hashed(*((point.latitude, point.longitude) if near else (other.latitude, other.longitude)), length)
    inside = {hashed(*where, length) == cell for where in around(point)}
    answer = in_cell(cell, point)
    assert answer is None or inside == {answer}


@settings(max_examples=300, deadline=None)
@given(points, points, st.sampled_from((1e3, 1e5, 5e6, 1.9e7)))
def test_a_circle_is_as_sure_as_the_point(point: Point, centre: Point, radius: float) -> None:
    def within(latitude: float, longitude: float) -> bool:
        # By the angle between two directions from the middle of the world.
        a, b = (
            (math.radians(n), math.radians(e)) for n, e in ((latitude, longitude), (centre.latitude, centre.longitude))
        )
        unit = [(math.cos(n) * math.cos(e), math.cos(n) * math.sin(e), math.sin(n)) for n, e in (a, b)]
        cross = math.hypot(*(unit[0][i - 2] * unit[1][i - 1] - unit[0][i - 1] * unit[1][i - 2] for i in range(3)))
        return math.atan2(cross, _dot(*unit)) * 6_371_009 <= radius

    answer = in_circle((centre.latitude, centre.longitude, radius), point)
    assert answer is None or {within(*where) for where in around(point)} == {answer}


def _dot(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    "cell, expected",
    [
        ("u", True),
        ("u3", True),
        ("u33", True),
        ("u33d", None),
        ("u33db2mbsdhy", None),
        ("9q8", False),
        ("", None),
        ("A", None),
    ],
)
def test_cells_of_a_city(cell: str, expected: bool | None) -> None:
    assert in_cell(cell, BERLIN) is expected
    assert in_cell(cell, None) is None


def test_circles_of_a_city() -> None:
    assert in_circle((52.5, 13.4, 10_000), BERLIN) is True
    assert in_circle((52.5, 13.4, 5_000), BERLIN) is None
    assert in_circle((48.14, 11.58, 400_000), BERLIN) is False
    assert in_circle((48.14, 11.58, 600_000), BERLIN) is True
    assert in_circle((0, 179.9, 50_000), Point(0, -179.9, 1000)) is True
    for broken in ((91, 0, 1), (0, 181, 1), (0, 0, -1), (0, 0, math.inf), (math.nan, 0, 1), (0, 0, math.nan)):
        assert in_circle(broken, BERLIN) is None
    assert in_circle((52.5, 13.4, 1e7), None) is None


def test_countries_and_their_parts() -> None:
    place = Place("US", frozenset({"CA"}))
    assert [in_country(code, place) for code in ("US", "us-ca", "US-NY", "DE", "DE-BE")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert [in_country(code, place) for code in ("", "USA", "United States")] == [None] * 3
    assert [in_country(code, Place("US")) for code in ("US", "US-CA", "DE-CA")] == [True, None, False]
    assert in_country("US", NOWHERE) is None
