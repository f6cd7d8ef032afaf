"""The timeline contract, rule by rule."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from streamgate.errors import StreamGateError
from streamgate.media import timeline
from tests.track_factory import audio_track, video_track

NORMAL = 1 << 16


@pytest.mark.parametrize(
    ("edits", "offset"),
    [
        ((), 0),
        (((5000, 0, NORMAL),), 0),
        (((5000, 1024, NORMAL),), -1024),
        (((0, 1024, NORMAL),), -1024),
        (((500, -1, NORMAL), (5000, 0, NORMAL)), 24000),
        (((500, -1, NORMAL), (250, -1, NORMAL), (5000, 1024, NORMAL)), 36000 - 1024),
        # Two edits that continue each other are one, give or take a tick of the movie's clock.
        (((1000, 1024, NORMAL), (1000, 49024, NORMAL)), -1024),
        (((1000, 1024, NORMAL), (1000, 49060, NORMAL)), -1024),
    ],
)
def test_folds_delays_and_priming(edits: tuple[tuple[int, int, int], ...], offset: int) -> None:
    assert timeline.fold(edits, 48000, 1000) == offset


def test_a_delay_is_rounded_half_away_from_zero() -> None:
    assert timeline.fold(((1, -1, NORMAL), (9, 0, NORMAL)), 3, 2) == 2  # 1.5 ticks
    assert timeline.fold(((1, -1, NORMAL), (9, 0, NORMAL)), 4, 3) == 1  # 1.33 ticks


@pytest.mark.parametrize(
    "edits",
    [
        ((1000, 0, 2 << 16),),
        ((1000, 0, 0),),
        ((1000, -1, NORMAL),),
        ((1000, 0, NORMAL), (1000, -1, NORMAL), (1000, 48000, NORMAL)),
        ((1000, 0, NORMAL), (1000, 96000, NORMAL)),
        ((1000, 0, NORMAL), (1000, 0, NORMAL)),
        ((0, 0, NORMAL), (1000, 0, NORMAL)),
    ],
)
def test_refuses_edits_that_cut_repeat_or_change_speed(edits: tuple[tuple[int, int, int], ...]) -> None:
    with pytest.raises(StreamGateError) as error:
        timeline.fold(edits, 48000, 1000)
    assert error.value.code == "edit_unsupported"


def test_an_empty_edit_at_the_end_moves_nothing() -> None:
    edits = ((500, -1, NORMAL), (1000, 1024, NORMAL), (700, -1, NORMAL), (300, -1, NORMAL))
    assert timeline.fold(edits, 48000, 1000) == 24000 - 1024


def test_an_edit_list_needs_the_movies_clock() -> None:
    with pytest.raises(StreamGateError) as error:
        timeline.fold(((1000, -1, NORMAL), (1000, 0, NORMAL)), 48000, 0)
    assert error.value.code == "source_malformed"


def test_absurd_times_are_refused() -> None:
    track = video_track(edits=[(0, 1 << 62, NORMAL)])
    with pytest.raises(StreamGateError) as error:
        timeline.lay_out(track, 1000)
    assert error.value.code == "source_malformed"


def test_keyframes_of_closed_gops_are_closed() -> None:
    track = video_track((10, 12, 7))
    folded = timeline.lay_out(track, 1000)
    assert timeline.closed_keyframes(folded, track).tolist() == [0, 10, 22]
    assert timeline.open_keyframes(folded, track).tolist() == [0, 10, 22]


def test_a_keyframe_with_leading_pictures_is_not_closed() -> None:
    track = video_track((10, 12, 7), closed=False)
    folded = timeline.lay_out(track, 1000)
    assert timeline.closed_keyframes(folded, track).tolist() == [0]
    assert timeline.open_keyframes(folded, track).tolist() == [0, 10, 22]


def test_a_keyframe_shown_before_an_earlier_sample_is_not_closed() -> None:
    track = video_track((2, 2), bframes=0, offsets=[0, 2000, 0, 0], edited=False)
    assert timeline.closed_keyframes(timeline.lay_out(track, 1000), track).tolist() == [0]


def test_the_end_is_that_of_the_last_shown_picture_and_never_empty() -> None:
    assert timeline.lay_out(video_track((4,), ticks=[100, 100, 100, 0], bframes=0), 1000).end == 301
    assert timeline.lay_out(video_track((4,), ticks=100, timescale=1000), 1000).end == 400


def test_the_shift_is_the_least_that_rounds_nowhere() -> None:
    video = timeline.lay_out(video_track(timescale=12800, ticks=512), 1000)  # first dts: a picture below zero
    audio = timeline.lay_out(audio_track(priming=1024), 1000)
    assert timeline.shift_of([video]) == Fraction(1, 25)
    assert timeline.shift_of([audio]) == Fraction(1024, 48000)
    # gcd(12800, 48000) = 3200: the least multiple of 1/3200 s for -0.0213 s is 69/3200 s.
    beside = timeline.lay_out(video_track(timescale=12800, bframes=0), 1000)
    assert timeline.shift_of([beside, audio]) == Fraction(69, 3200)
    assert timeline.shift_of([beside]) == 0


def test_the_presentation_starts_with_what_is_seen_or_heard_first() -> None:
    late = timeline.lay_out(video_track(edited=False), 1000)  # the first pts is a picture late
    audio = timeline.lay_out(audio_track(priming=1024), 1000)
    assert timeline.origin_of([late]) == Fraction(1, 25)
    assert timeline.origin_of([late, audio]) == 0


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([2, 4, 6, 8, 10], [4, 8]),
        ([3, 5, 7, 9, 11, 13], [5, 9, 13]),
        ([7, 14, 21], [7, 14, 21]),
        ([7, 8, 9, 12], [7, 8, 12]),
        ([1, 2, 3], []),
        ([], []),
    ],
)
def test_cuts_at_the_first_keyframe_at_or_after_each_multiple(times: list[int], expected: list[int]) -> None:
    array = np.array(times, np.int64)
    assert [times[n] for n in timeline.cut(array, 0, 0, Fraction(4))] == expected


def test_media_in_front_of_the_start_is_cut_as_well_but_no_short_piece() -> None:
    times = np.arange(-10, 12)
    for begin, expected in ((-10, [-4, 0, 4, 8]), (-5, [0, 4, 8]), (-4, [0, 4, 8]), (-3, [4, 8])):
        assert [int(times[n]) for n in timeline.cut(times, begin, 0, Fraction(4))] == expected


def test_a_late_start_goes_on_with_the_next_multiple() -> None:
    assert [int(n) for n in timeline.cut(np.arange(5, 20), 5, 0, Fraction(4))] == [3, 7, 11]


def test_times_beyond_64_bits_are_exact() -> None:
    ticks = np.array([0, 1 << 59, (1 << 59) + 1], np.int64)
    assert timeline.units(ticks, 1000).tolist() == [0, 1000 << 59, (1000 << 59) + 1000]
    assert timeline.units(ticks, 2).dtype == np.int64


def test_audio_frames_belong_to_the_segment_in_which_they_start() -> None:
    folded = timeline.lay_out(audio_track(400, ticks=10, timescale=1000), 1000)
    starts = timeline.audio_starts(folded, [1005, 2010, 3000], 1000, 4000, 0, Fraction(1000))
    assert starts.tolist() == [0, 101, 201, 300, 400]


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        (404, [0, 200, 404]),  # a few frames more than the video stay with the last segment
        (450, [0, 200, 400, 450]),
        (549, [0, 200, 400, 549]),
        (550, [0, 200, 400, 500, 550]),
        (760, [0, 200, 400, 500, 600, 760 - 60, 760]),
    ],
)
def test_longer_audio_ends_in_further_segments(frames: int, expected: list[int]) -> None:
    folded = timeline.lay_out(audio_track(frames, ticks=10, timescale=1000), 1000)
    assert timeline.audio_starts(folded, [2000], 1000, 4000, 0, Fraction(1000)).tolist() == expected


def test_segments_without_a_frame_keep_their_place() -> None:
    late = timeline.lay_out(audio_track(100, ticks=10, timescale=1000, begins=2500), 1000)
    assert timeline.audio_starts(late, [1000, 2000, 3000], 1000, 4000, 0, Fraction(1000)).tolist() == [0, 0, 0, 50, 100]


def test_audio_alone_is_cut_at_the_frames_at_or_after_each_multiple() -> None:
    folded = timeline.lay_out(audio_track(100, ticks=30, timescale=1000), 1000)
    starts = timeline.audio_starts(folded, [], 1000, None, 0, Fraction(1000))
    assert starts.tolist() == [0, 34, 67, 100]


def test_a_huge_gap_in_the_audio_costs_nothing() -> None:
    deltas = [1024, (1 << 31) - 1, 1024, 1024]
    track = audio_track(4, timescale=1, ticks=1024, deltas=deltas)
    starts = timeline.audio_starts(timeline.lay_out(track, 1000), [], 1, None, 0, Fraction(4))
    assert starts.tolist() == [0, 1, 2, 3, 4]
