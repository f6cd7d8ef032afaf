"""The frame rate of a video track, from its sample table alone."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from streamgate.native.samples import Track

# What timescales such as 1000 or 90000 can only approach.
USUAL = (
    Fraction(24000, 1001),
    Fraction(24),
    Fraction(25),
    Fraction(30000, 1001),
    Fraction(30),
    Fraction(48),
    Fraction(50),
    Fraction(60000, 1001),
    Fraction(60),
    Fraction(120000, 1001),
    Fraction(120),
)
MOSTLY = 0.9
NEAR = Fraction(1, 3000)  # a third of the way from 24000/1001 to 24


def frame_rate(track: Track) -> Fraction | None:
    """Pictures per second, at most: None where it cannot be told.

    Exact for a constant rate, also if some pictures were dropped. Where durations differ by no more than the rounding
    of the timescale it is their mean. Else it is the largest number of pictures in any one second.
    """
    if track.samples < 2:
        return None
    deltas = track.deltas(0, track.samples - 1)  # the last sample's own duration is often made up
    shortest, longest = int(deltas.min()), int(deltas.max())
    total = int(deltas.sum(dtype=np.uint64))
    if not total:
        return None
    if longest - shortest > 1:
        values, counts = np.unique(deltas, return_counts=True)
        if counts.max() >= MOSTLY * len(deltas) and values[counts.argmax()]:
            return Fraction(track.timescale, int(values[counts.argmax()]))
        dts = track.dts()
        return Fraction(int((np.searchsorted(dts, dts + track.timescale) - np.arange(len(dts))).max()))
    rate = Fraction(track.timescale * len(deltas), total)
    if shortest == longest:
        return rate
    # The sum of the rounded durations is off by a tick at most: take the usual or the simplest rate that this allows.
    near = min(USUAL, key=lambda usual: abs(usual - rate))
    simple = (rate.limit_denominator(denominator) for denominator in (*range(1, 13), 1001))
    return next((r for r in (near, *simple) if abs(r - rate) <= max(NEAR, Fraction(1, total)) * rate), rate)
