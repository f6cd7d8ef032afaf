"""Where a presentation is cut, and on which clock: the timeline contract.

1. A track's edit list is *folded* into its timestamps: folded time = media time + ``offset``.
2. One constant *shift* moves the folded times of all tracks to zero or above, without rounding any of them.
3. The video rungs are cut at the closed keyframes that they have in common: for each k the first at or after
   k x target, then the next k beyond it.
4. An audio frame belongs to the segment in which it starts.

All arithmetic is on integers: ticks of a track, or *units*, of which a whole number makes a tick of every track
involved.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgate.errors import StreamGateError
from streamgate.native.samples import Track

Ints = NDArray[Any]  # int64, or Python integers (dtype object) where 64 bits do not suffice

NORMAL_RATE = 1 << 16
EMPTY = -1
# Times beyond this are a lie (3 000 years at 90 kHz), and below it no sum of three overflows.
MAX_TICKS = 1 << 60
MAX_INT64 = (1 << 63) - 1
LONG = 50_000


def fold(edits: Sequence[tuple[int, int, int]], timescale: int, movie_timescale: int) -> int:
    """Ticks to add to a track's media times so that its edit list holds (ISO/IEC 14496-12 section 8.6.6).

    Accepted: empty edits (a delay), then one normal edit at normal speed, or several that continue each other; empty
    edits at the end are overlooked.
    An edit that ends before the media does is read as if it did not. The delay is rounded half away from zero, as
    libav does.

    Raises ``edit_unsupported`` for anything else.
    """
    delay = 0
    ended = False
    start = following = None
    for duration, media_time, rate in edits:
        if media_time == EMPTY:
            ended = start is not None  # an empty edit at the end shows nothing and moves nothing
            delay += 0 if ended else duration
        elif ended:
            raise StreamGateError("edit_unsupported", "the edit list has a gap in the middle")
        elif rate != NORMAL_RATE:
            raise StreamGateError("edit_unsupported", "the edit list changes the speed")
        elif media_time < 0:
            raise StreamGateError("source_malformed", "an edit begins before the media")
        else:
            # Durations are in the coarser clock of the movie: what continues may be off by one of its ticks.
            slack = timescale // max(movie_timescale, 1) + 1
            if start is None:
                start = media_time
            elif following is None or abs(media_time - following) > slack:
                raise StreamGateError("edit_unsupported", "the edit list cuts or repeats in the middle")
            # Zero stands for "until the end" (fragmented sources): nothing can follow it.
            following = media_time + _rescale(duration, timescale, movie_timescale) if duration else None
    if start is None:
        if edits:
            raise StreamGateError("edit_unsupported", "the edit list shows nothing of the media")
        return 0
    return _rescale(delay, timescale, movie_timescale) - start


def _rescale(duration: int, timescale: int, movie_timescale: int) -> int:
    if not duration:
        return 0
    if movie_timescale <= 0:
        raise StreamGateError("source_malformed", "the movie has no timescale")
    return (2 * duration * timescale + movie_timescale) // (2 * movie_timescale)


@dataclass(frozen=True, slots=True, eq=False)
class Folded:
    """The times of a track's samples with its edit list folded in, in ticks, shape (samples,)."""

    timescale: int
    offset: int
    pts: NDArray[np.int64]  # in decoding order
    horizon: NDArray[np.int64]  # the earliest pts of each sample and all after it: ascending
    first_dts: int
    end: int  # the latest pts plus its sample's duration; always beyond every pts

    @property
    def begin(self) -> int:
        """The earliest pts."""
        return int(self.horizon[0])


def lay_out(track: Track, movie_timescale: int) -> Folded:
    """The folded times of ``track``, which must have samples.

    Raises ``edit_unsupported`` and, for absurd times, ``source_malformed``.
    """
    offset = fold(track.edits, track.timescale, movie_timescale)
    if max(abs(offset), abs(track.first_dts), track.duration) > MAX_TICKS:
        raise StreamGateError("source_malformed", f"track {track.id}: its times are beyond all reason")
    pts = track.dts() + track.composition_offsets() + offset
    # Sound and pictures without B-frames are in order already, which is far quicker to see than to bring about.
    ordered = bool((pts[1:] >= pts[:-1]).all())
    horizon = pts if ordered else np.minimum.accumulate(pts[::-1])[::-1]
    end = max(int((pts + track.deltas()).max()), int(pts.max()) + 1)
    # Where composition offsets are negative, MPEG-TS and libav count decoding times from the lowest of them.
    early = min(0, int(track.composition_offsets().min()))
    return Folded(track.timescale, offset, pts, horizon, track.first_dts + early + offset, end)


def closed_keyframes(folded: Folded, track: Track) -> NDArray[np.int64]:
    """Sample numbers of the closed keyframes: nothing after one is shown before it, and nothing before one after it."""
    syncs = track.keyframes.astype(np.int64)
    pts = folded.pts
    later = np.append(folded.horizon, MAX_INT64)[syncs + 1]
    earlier = np.concatenate(([-MAX_INT64], np.maximum.accumulate(pts)))[syncs]
    return syncs[(later > pts[syncs]) & (earlier < pts[syncs])]


def open_keyframes(folded: Folded, track: Track) -> NDArray[np.int64]:
    """Sample numbers of the sync samples where what is still to be shown begins later than at the one before."""
    syncs = track.keyframes.astype(np.int64)
    return syncs[np.diff(folded.horizon[syncs], prepend=-MAX_INT64 // 2) > 0]


def shift_of(tracks: Iterable[Folded]) -> Fraction:
    """Seconds to add to all folded times: the smallest multiple of 1/g that leaves no dts and no pts below zero.

    g is the greatest common divisor of the timescales, so the shift is a whole number of ticks in each.
    """
    tracks = list(tracks)
    g = gcd(*(t.timescale for t in tracks))
    return Fraction(max(0, *(-(min(t.first_dts, t.begin) * g // t.timescale) for t in tracks)), g)


def origin_of(tracks: Iterable[Folded]) -> Fraction:
    """Where the presentation starts, in seconds of folded time: at the first picture or sound, but not below zero.

    What an edit list moved below zero (priming) is there to be decoded, not to be shown: unless that is all there is.
    """
    tracks = list(tracks)
    first = min(Fraction(t.begin, t.timescale) for t in tracks)
    return first if all(t.end <= 0 for t in tracks) else max(first, Fraction(0))


def zero_of(origin: Fraction, videos: Iterable[tuple[Folded, Track]]) -> Fraction:
    """Where the presentation's timeline starts: at ``origin``, or at the keyframe that its first picture needs.

    Media Source Extensions drop what lies before the start, and with a keyframe all pictures up to the next one.
    """
    zero = origin
    for folded, track in videos:
        keys = folded.pts[track.keyframes]
        before = keys[keys <= origin * folded.timescale // 1]
        zero = min(zero, Fraction(int(before.max()), folded.timescale)) if len(before) else zero
    return zero


def units(ticks: Ints, factor: int) -> Ints:
    """``ticks`` x ``factor``, exactly."""
    if len(ticks) and max(abs(int(ticks[0])), abs(int(ticks[-1]))) > MAX_INT64 // factor:
        return ticks.astype(object) * factor
    return ticks * factor


def cut(times: Ints, begin: int, origin: int, step: Fraction) -> list[int]:
    """Positions in ``times`` (ascending, in units) of the cuts: for each k the first time at or after origin + k x
    step.

    After each cut k goes on with the next multiple beyond it. There is no cut at ``begin``, where it all starts.
    """
    found = []
    p, q = step.numerator, step.denominator
    # Media long before the origin (in front of an edit) is cut as well: k is then negative, but a short piece is not
    # cut off.
    k = (begin - origin) * q // p + 1 if begin >= origin else 1 - (origin - begin) * q // p
    # Searching a list is far quicker, but making one of every frame of a long sound is not.
    known = times.tolist() if len(times) < LONG else times
    at = bisect_left(known, begin + 1)
    while (at := bisect_left(known, origin - (-k * p // q), at)) < len(known):
        found.append(at)
        k = (int(known[at]) - origin) * q // p + 1
    return found


def widest(times: Ints, begin: int, end: int) -> int:
    """The longest distance between neighbours of begin, times, end."""
    if not len(times):
        return end - begin
    inner = int(np.diff(times).max()) if len(times) > 1 else 0
    return max(int(times[0]) - begin, inner, end - int(times[-1]))


@dataclass(frozen=True, slots=True, eq=False)
class Rung:
    """A video track and where it may be cut: sample numbers and their times in units, without sample 0."""

    folded: Folded
    factor: int  # units per tick
    samples: NDArray[np.int64]
    times: Ints

    @property
    def begin(self) -> int:
        return self.folded.begin * self.factor

    @property
    def end(self) -> int:
        return self.folded.end * self.factor


def rung(folded: Folded, keyframes: NDArray[np.int64], unit: int) -> Rung:
    """``unit`` is the number of units in a second, a multiple of the timescale."""
    samples = keyframes[keyframes > 0]
    samples = samples[folded.horizon[samples] > folded.begin]
    factor = unit // folded.timescale
    return Rung(folded, factor, samples, units(folded.horizon[samples], factor))


def accept(rungs: Sequence[Rung], max_gap: Fraction) -> tuple[list[int], Ints, dict[int, str]]:
    """Which of the rungs can be offered together: (their positions, the times they share, why each other one is
    refused).

    Greedy, in the order given. ``max_gap`` is in units: neither a rung's keyframes nor the shared ones may be further
    apart.
    """
    taken: list[int] = []
    refused: dict[int, str] = {}
    common: Ints = np.zeros(0, np.int64)
    begin = end = 0
    for n, candidate in enumerate(rungs):
        if widest(candidate.times, candidate.begin, candidate.end) > max_gap:
            refused[n] = "gop_too_long"
            continue
        if not taken:
            shared, first, last = candidate.times, candidate.begin, candidate.end
        else:
            shared = np.intersect1d(common, candidate.times, assume_unique=True)
            first, last = min(begin, candidate.begin), max(end, candidate.end)
        if widest(shared, first, last) > max_gap:
            refused[n] = "keyframes_unaligned"
            continue
        taken.append(n)
        common, begin, end = shared, first, last
    return taken, common, refused


def video_starts(rung: Rung, boundaries: Ints) -> NDArray[np.uint32]:
    """Sample numbers at which the segments of ``rung`` start, and the number of samples: shape (segments + 1,)."""
    at = rung.samples[np.searchsorted(rung.times, boundaries)]
    return np.concatenate(([0], at, [len(rung.folded.pts)])).astype(np.uint32)


def audio_starts(
    folded: Folded, boundaries: Sequence[int], unit: int, end: int | None, origin: int, target: Fraction
) -> NDArray[np.uint32]:
    """Frame numbers at which the segments start, and the number of frames; equal neighbours are segments without a
    frame.

    ``boundaries`` are those of the video, ``end`` its end (None: there is no video), all in units.
    Frames that start at or after ``end`` form further segments of about ``target``, if there are enough of them for
    half a one; fewer stay with the last.
    """
    ts = folded.timescale
    firsts = [-(-b * ts // unit) for b in boundaries]
    starts = np.searchsorted(folded.horizon, np.array(firsts, np.int64 if _fits(firsts) else object)).tolist()
    tail = 0 if end is None else int(np.searchsorted(folded.horizon, min(-(-end * ts // unit), MAX_INT64)))
    times = units(folded.horizon[tail:], unit // ts)
    if len(times):
        picks = cut(times, int(times[0]), origin if end is None else end, target)
        if end is not None:
            picks.insert(0, 0)
            while picks and 2 * (folded.end * (unit // ts) - int(times[picks[-1]])) < target:
                picks.pop()
        starts += [tail + at for at in picks]
    return np.array([0, *starts, len(folded.pts)], np.uint32)


def _fits(values: Sequence[int]) -> bool:
    return not values or (-MAX_INT64 <= values[0] and values[-1] <= MAX_INT64)


def segment_times(folded: Folded, starts: NDArray[np.uint32]) -> NDArray[np.int64]:
    """The earliest pts of each segment and the end of the last one, in ticks of folded time: shape (segments + 1,)."""
    return np.append(folded.horizon[starts[:-1].astype(np.int64)], folded.end)
