"""Whatever the GOPs, clocks and lengths: the timeline contract holds for every sample."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import given as examples
from hypothesis import strategies as st

from streamgate.errors import CODES, StreamGateError
from streamgate.media import bandwidth, dash, hls, timeline
from streamgate.media.presentation import Limits, Presentation, Rendition, TrackInput, build
from streamgate.media.renditions import microseconds
from tests.track_factory import audio_track, given, video_track

# Timescale and ticks of a picture: common rates on common clocks, and odd ones.
RATES = [(12800, 512), (90000, 3600), (30000, 1001), (24000, 1001), (90000, 3003), (1000, 40), (25, 1), (7, 3)]
CLOCKS = [(48000, 1024), (44100, 1024), (44100, 1152), (8000, 1024), (48000, 960), (90000, 1920), (997, 40)]


@dataclass(frozen=True)
class Case:
    inputs: list[TrackInput]
    limits: Limits


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A ladder (perhaps with other clocks, lengths and keyframes), some audio, and limits that suit it."""
    gops = draw(st.lists(st.integers(1, 40), min_size=1, max_size=12))
    inputs = []
    for n in range(draw(st.integers(0, 3))):
        timescale, ticks = draw(st.sampled_from(RATES if n == 0 else RATES[:2]))
        mine = list(gops)
        while len(mine) > 1 and draw(st.booleans()):  # merge two GOPs: fewer keyframes than the other rungs
            at = draw(st.integers(0, len(mine) - 2))
            mine[at : at + 2] = [mine[at] + mine[at + 1]]
        track = video_track(
            mine,
            timescale=timescale,
            ticks=draw(st.lists(st.integers(1, 2 * ticks), min_size=sum(mine), max_size=sum(mine)))
            if draw(st.booleans())
            else ticks,
            bframes=draw(st.integers(0, 3)),
            closed=draw(st.booleans()) or draw(st.booleans()),
            edited=draw(st.booleans()),
            begins=draw(st.sampled_from((0, 0, ticks, 100 * ticks))),
        )
        inputs.append(given(track, source=n, identity=bytes([n])))
    for n in range(draw(st.integers(0 if inputs else 1, 2))):
        timescale, ticks = draw(st.sampled_from(CLOCKS))
        delay = draw(st.sampled_from((0, 0, 700, 3001)))
        priming = draw(st.sampled_from((0, 1024, 2112)))
        edits = [(delay, -1, 1 << 16)] if delay else []
        track = audio_track(
            draw(st.integers(1, 300)), timescale=timescale, ticks=ticks, id=5 + n, edits=[*edits, (0, priming, 1 << 16)]
        )
        inputs.append(given(track, source=9, identity=b"audio"))
    limits = Limits(
        target=draw(st.sampled_from((0.5, 1.0, 2.0, 4.0))), max_segment=draw(st.sampled_from((1.0, 3.0, 12.0)))
    )
    return Case(inputs, limits)


def built(case: Case) -> Presentation | None:
    try:
        return build(case.inputs, limits=case.limits)
    except StreamGateError as error:
        assert error.code == "gop_too_long"
        return None


def shown(r: Rendition) -> list[Fraction]:
    """When each sample is shown, in seconds on the shifted clock, in decoding order."""
    pts = r.track.dts() + r.track.composition_offsets() + r.shift
    return [Fraction(int(t), r.timescale) for t in pts]


def times(r: Rendition) -> list[Fraction]:
    return [Fraction(int(t), r.timescale) for t in r.times]


@examples(cases())
def test_segments_partition_the_samples_and_their_time(case: Case) -> None:
    if (p := built(case)) is None:
        return
    for r in (*p.video, *p.audio):
        assert r.starts[0] == 0 and r.starts[-1] == r.track.samples
        assert np.all(np.diff(r.starts.astype(np.int64)) > 0), "no segment is empty"
        assert np.all(r.durations > 0)
        pts = shown(r)
        assert r.times[0] == min(r.track.dts() + r.track.composition_offsets()) + r.shift
        ends = r.track.dts() + r.track.composition_offsets() + r.track.deltas() + r.shift
        assert r.times[-1] == max(ends)
        for n, start in enumerate(times(r)[:-1]):
            assert start == min(pts[r.starts[n] : r.starts[n + 1]]), "a segment's time is that of its first picture"
        micro = microseconds(r.times, r.timescale)
        assert abs(
            Fraction(sum(np.diff(micro).tolist()), 1_000_000) - Fraction(int(r.durations.sum()), r.timescale)
        ) < Fraction(1, 500_000)
        assert max(np.diff(micro)) < (p.target_duration + Fraction(1, 2)) * 1_000_000


@examples(cases())
def test_boundaries_are_closed_shared_and_as_the_rule_says(case: Case) -> None:
    if (p := built(case)) is None or not p.video:
        return
    inner = times(p.video[0])[1:-1]
    assert all(times(r)[1:-1] == inner for r in p.video)
    if p.independent:
        shared: set[Fraction] | None = None
        for r in p.video:
            pts = shown(r)
            closed = set()
            for n in r.track.keyframes.tolist():
                if n and max(pts[:n]) < pts[n] < min(pts[n + 1 :], default=pts[n] + 1):
                    closed.add(pts[n])
            assert {pts[n] for n in r.starts[1:-1].tolist()} <= closed
            shared = closed if shared is None else shared & closed
        assert shared is not None
        assert inner == naive_cut(
            sorted(shared), min(times(r)[0] for r in p.video), p.zero, Fraction(case.limits.target)
        )
    else:
        assert len(p.video) == 1 or any(shown(r)[0] > times(r)[0] for r in p.video)


def naive_cut(candidates: list[Fraction], begin: Fraction, zero: Fraction, target: Fraction) -> list[Fraction]:
    """Rule 1 of the contract, word for word, for what starts less than a target before zero."""
    found: list[Fraction] = []
    last = max(begin, zero)
    k = int((last - zero) // target) + 1
    while at := [t for t in candidates if t >= zero + k * target]:
        found.append(at[0])
        while zero + k * target <= at[0]:
            k += 1
    return found


@examples(cases())
def test_audio_frames_are_in_the_segment_in_which_they_start(case: Case) -> None:
    if (p := built(case)) is None or not p.video:
        return
    boundaries = times(p.video[0])[1:-1]
    end = max(times(r)[-1] for r in p.video)
    for r in p.audio:
        pts = shown(r)
        for n, boundary in enumerate(boundaries, 1):
            first = int(r.aligned[n])
            assert all(t < boundary for t in pts[max(0, first - 2) : first])
            assert all(t >= boundary for t in pts[first : first + 2])
        tail = times(r)[len(times(r)) - (len(r.aligned) - len(p.video[0].aligned)) - 1 : -1]
        target = Fraction(case.limits.target)
        assert all(t >= end for t in tail)
        assert all(2 * (times(r)[-1] - t) >= target for t in tail)


@examples(cases())
def test_the_shift_is_one_exact_and_minimal(case: Case) -> None:
    if (p := built(case)) is None:
        return
    members = [timeline.lay_out(i.track, i.movie_timescale) for i in case.inputs]
    step = Fraction(1, int(np.gcd.reduce([m.timescale for m in members])))
    assert (p.shift / step).denominator == 1
    lowest = min(Fraction(min(m.first_dts, m.begin), m.timescale) for m in members)
    assert lowest + p.shift >= 0
    assert p.shift == 0 or lowest + p.shift - step < 0
    for r in (*p.video, *p.audio):
        i = next(i for i in case.inputs if i.track is r.track)
        folded = timeline.fold(i.track.edits, r.timescale, i.movie_timescale)
        assert Fraction(r.shift - folded, r.timescale) == p.shift, "every track is moved by the same time"
    assert p.zero >= 0 and p.shift >= 0 and p.duration > 0
    assert p.zero >= p.shift or p.duration + p.zero <= p.shift, "only what is all in front of an edit starts there"


@examples(cases())
def test_keyframes_for_trick_play_cover_the_track(case: Case) -> None:
    if (p := built(case)) is None:
        return
    for r in p.video:
        spans = np.diff(r.keyframe_times)
        assert np.all(spans > 0)
        assert r.keyframe_times[-1] == r.times[-1]
        assert [shown(r)[n] for n in r.keyframe_samples] == [
            Fraction(int(t), r.timescale) for t in r.keyframe_times[:-1]
        ]
        assert r.keyframe_samples[0] == r.track.keyframes[0]


@examples(
    st.lists(
        st.tuples(st.integers(0, 1 << 40), st.integers(-1, 1 << 40), st.sampled_from((1 << 16, 0, 1 << 15))), max_size=4
    )
)
def test_any_edit_list_gives_an_offset_or_a_code(edits: list[tuple[int, int, int]]) -> None:
    try:
        offset = timeline.fold(edits, 48000, 1000)
    except StreamGateError as error:
        assert error.code == "edit_unsupported"
    else:
        first = next((n for n, e in enumerate(edits) if e[1] >= 0), len(edits))
        assert offset == 48 * sum(e[0] for e in edits[:first]) - (edits[first][1] if edits else 0)


@examples(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(1, 8))
def test_peak_bandwidth_is_the_largest_of_the_windows(sizes: list[int], target: int) -> None:
    rng = np.random.default_rng(sum(sizes))
    lasts = rng.integers(1, 5, len(sizes))
    wanted = 8 * Fraction(sum(sizes), int(lasts.sum()))
    for i in range(len(sizes)):
        for j in range(i + 1, len(sizes) + 1):
            window = int(lasts[i:j].sum())
            if target <= 2 * window <= 3 * target:
                wanted = max(wanted, 8 * Fraction(sum(sizes[i:j]), window))
    assert bandwidth.peak(np.array(sizes, np.uint64), lasts, 1, target) == -(-wanted.numerator // wanted.denominator)


WILD_TIMESCALES = st.sampled_from((1, 3, 25, 1000, 48000, 90000, 10_000_000, (1 << 31) - 1, (1 << 32) - 5))
WILD_TIMES = st.one_of(st.integers(0, 3000), st.sampled_from((1 << 30, (1 << 31) - 1)))


@st.composite
def wild_tracks(draw: st.DrawFn) -> TrackInput:
    """Sample tables that no sane muxer writes, but that are well-formed."""
    count = draw(st.integers(1, 40))
    handler = draw(st.sampled_from(("vide", "soun")))
    make = video_track if handler == "vide" else audio_track
    edits = draw(st.lists(st.tuples(WILD_TIMES, st.one_of(st.just(-1), WILD_TIMES), st.just(1 << 16)), max_size=2))
    columns: dict[str, Any] = {
        "timescale": draw(WILD_TIMESCALES),
        "sizes": draw(st.lists(st.integers(0, 1 << 20), min_size=count, max_size=count)),
        "deltas": draw(st.lists(WILD_TIMES, min_size=count, max_size=count)),
        "offsets": draw(st.lists(st.integers(-(1 << 31), (1 << 31) - 1), min_size=count, max_size=count)),
        "syncs": sorted(draw(st.sets(st.integers(0, count - 1)))),
        "positions": list(range(0, count << 21, 1 << 21)),
        "first_dts": draw(st.sampled_from((0, -5, 1 << 40, -(1 << 59), 1 << 59))),
        "edits": edits,
    }
    return given(make(**columns), movie_timescale=draw(st.sampled_from((0, 1, 600, (1 << 32) - 1))))


@examples(st.lists(wild_tracks(), min_size=1, max_size=3), st.sampled_from((0.001, 0.3, 4.0, 1e9)))
def test_any_tables_give_a_presentation_or_a_code(inputs: list[TrackInput], target: float) -> None:
    try:
        p = build(inputs, limits=Limits(target=target, max_segment=1e9))
        dash.mpd(p)
        hls.multivariant(p)
        for r in (*p.video, *p.audio):
            hls.media_playlist(p, r)
            assert sum(r.segment(n).size for n in range(r.segments)) == r.sizes.sum()
        for video, audio in p.ts_variants.values():
            hls.ts_playlist(p, video, audio)
        hls.multivariant(p, ts=True)
    except StreamGateError as error:
        assert error.code in CODES
