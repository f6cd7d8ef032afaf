"""Bit rates and frame rates, from the index alone."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from streamgate.media import bandwidth
from streamgate.media.frame_rate import frame_rate
from tests.track_factory import video_track


def sized(*sizes: int) -> np.ndarray:
    return np.array(sizes, np.uint64)


def test_the_peak_is_that_of_a_single_long_segment() -> None:
    assert bandwidth.peak(sized(100, 300, 100), np.array([4, 4, 4]), 1, 4) == 600


def test_a_short_segment_does_not_count_alone() -> None:
    # One second of four is too short for a set; with its neighbour it lasts five.
    assert bandwidth.peak(sized(400, 1000), np.array([4, 1]), 1, 4) == -(-8 * 1400 // 5)


def test_short_segments_count_together() -> None:
    assert bandwidth.peak(sized(10, 50, 90, 50, 10), np.array([1, 1, 1, 1, 1]), 1, 4) == 8 * 140 // 2


def test_where_nothing_is_long_enough_the_average_is_the_peak() -> None:
    assert bandwidth.peak(sized(10), np.array([1]), 1, 4) == 80
    assert bandwidth.average(sized(10, 11), np.array([1, 2]), 1) == 56


def test_rates_are_rounded_up() -> None:
    assert bandwidth.average(sized(1), np.array([3]), 1) == 3
    assert bandwidth.peak(sized(1, 1), np.array([3, 3]), 1, 4) == 3


def test_the_buffer_holds_what_comes_too_late_at_the_rate() -> None:
    # Two segments of 4 pictures, one a second; 10 bytes of boxes each. At 800 bit/s 100 bytes come in a second.
    track = video_track((4, 4), timescale=1, ticks=1, bframes=0, sizes=[290, 90, 10, 10, 90, 90, 90, 90])
    sizes = sized(410, 370)
    # The first picture is there after 3 s. What follows is early; from the second segment on it takes 1 s.
    assert bandwidth.buffer_time(track, np.array([0, 4, 8], np.uint32), sizes, 800) == pytest.approx(3)
    # A start at the second segment may be the worse one.
    track = video_track((4, 4), timescale=1, ticks=1, bframes=0, sizes=[90, 90, 90, 90, 390, 10, 10, 10])
    assert bandwidth.buffer_time(track, np.array([0, 4, 8], np.uint32), sized(370, 430), 800) == pytest.approx(4)


def rounded(rate: Fraction) -> list[int]:
    """Durations of 300 pictures in milliseconds, as a container with such a clock has them."""
    times = [round(n * 1000 / rate) for n in range(301)]
    return [end - start for start, end in pairwise(times)]


@pytest.mark.parametrize(
    ("timescale", "ticks", "expected"),
    [
        (12800, 512, Fraction(25)),
        (30000, 1001, Fraction(30000, 1001)),
        (90000, 3754, Fraction(90000, 3754)),
        (1000, rounded(Fraction(30)), Fraction(30)),
        (1000, rounded(Fraction(30000, 1001)), Fraction(30000, 1001)),
        (1000, rounded(Fraction(24000, 1001)), Fraction(24000, 1001)),
        (1000, rounded(Fraction(35, 3)), Fraction(35, 3)),
        (90000, [3003] * 59 + [6006], Fraction(30000, 1001)),
        (1000, [25, 40] * 60, Fraction(31)),
    ],
)
def test_frame_rates(timescale: int, ticks: int | list[int], expected: Fraction) -> None:
    count = 60 if isinstance(ticks, int) else len(ticks)
    assert frame_rate(video_track((count,), timescale=timescale, ticks=ticks, bframes=0)) == expected


def test_a_last_picture_that_is_said_to_last_longer_changes_nothing() -> None:
    assert frame_rate(video_track((10,), ticks=[512] * 9 + [99999], bframes=0)) == 25


def test_a_single_picture_has_no_rate() -> None:
    assert frame_rate(video_track((1,))) is None
    assert frame_rate(video_track((3,), ticks=[0, 0, 5], bframes=0)) is None
