"""What is offered of an asset, where it is cut, and under which names."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from streamgate.errors import Finding, StreamGateError
from streamgate.media import assembly
from streamgate.media.presentation import Limits, Presentation, Rendition, TextInput, build
from streamgate.media.subtitles import Cue
from streamgate.native.samples import Track
from tests.track_factory import aac, audio_track, box, given, h264, video_track

NAME = re.compile(r"[vat][a-z0-9]*-[0-9a-f]{16}")


def seconds(rendition: Rendition) -> list[Fraction]:
    return [Fraction(int(t), rendition.timescale) for t in rendition.times]


def text(**others: object) -> TextInput:
    told = {"identity": b"text", "cues": (Cue(1000, 5000, "one"), Cue(9500, 9900, "two")), "language": "eng"}
    return TextInput(**(told | {"label": "", "default": False, "forced": False} | others))  # type: ignore[arg-type]


def codes(presentation: Presentation) -> list[tuple[str, str]]:
    return [(finding.code, finding.subject) for finding in presentation.findings]


def test_one_file_with_video_and_audio() -> None:
    p = build([given(video_track()), given(audio_track(priming=1024))])
    (video,), (audio,) = p.video, p.audio
    # The first picture's dts is 40 ms below zero: gcd(12800, 48000) = 3200, and 0.04 s is 128/3200 s.
    assert (p.shift, p.zero, p.duration) == (Fraction(1, 25), Fraction(1, 25), Fraction(470 * 1024 - 1024, 48000))
    assert seconds(video) == [p.zero + t for t in (0, 4, 8, 10)]
    assert video.starts.tolist() == [0, 100, 200, 250]
    # Frame 188 starts 187 x 1024 ticks after zero, 3.989 s; frame 189 at 4.011 s.
    assert audio.starts.tolist() == [0, 189, 376, 470]
    assert audio.times[0] == int(p.zero * 48000) - 1024
    assert (p.target_duration, p.independent, p.findings) == (4, True, [])
    assert (video.shift, audio.shift) == (-512 + 512, 1920 - 1024)


def test_segments_give_every_sample_once() -> None:
    p = build([given(video_track()), given(audio_track(480))])
    for r in (*p.video, *p.audio):
        plans = [r.segment(n) for n in range(r.segments)]
        assert sum(plan.size - len(plan.head) for plan in plans) == r.track.payload
        assert [plan.size for plan in plans] == r.sizes.tolist()
        assert b"cmfc" in r.init()[:40] and b"cmfs" in plans[0].head[:40]


@pytest.mark.parametrize("n", [-1, 3])
def test_what_is_not_there_is_named(n: int) -> None:
    p = build([given(video_track()), given(audio_track())], [text()])
    for ask in (p.video[0].segment, p.audio[0].segment, p.text[0].segment):
        with pytest.raises(StreamGateError) as error:
            ask(n)
        assert error.value.code == "segment_not_found"
    with pytest.raises(StreamGateError) as error:
        p.video[0].keyframe(10 if n > 0 else n)
    assert error.value.code == "segment_not_found"


def test_rungs_are_cut_at_the_keyframes_that_they_share() -> None:
    ladder = [
        given(video_track((25, 25, 50, 25, 25, 50, 50)), identity=b"a"),
        given(video_track((50, 50, 100, 50), timescale=90000, ticks=3600), identity=b"b"),
    ]
    p = build(ladder)
    a, b = p.video
    assert seconds(a) == seconds(b) == [p.zero + t for t in (0, 4, 8, 10)]
    assert (a.starts.tolist(), b.starts.tolist()) == ([0, 100, 200, 250], [0, 100, 200, 250])
    assert p.findings == []


def test_a_rung_with_long_gops_is_not_offered() -> None:
    p = build([given(video_track((325, 25))), given(video_track((50,) * 7), source=1)])
    assert codes(p) == [("gop_too_long", "source 0 track 1")]
    assert [r.source for r in p.video] == [1]


def test_the_last_gop_counts_as_well() -> None:
    p = build([given(video_track((25, 325))), given(audio_track(700))])
    assert codes(p) == [("gop_too_long", "source 0 track 1")]
    assert not p.video and p.audio


def test_a_rung_that_shares_too_few_keyframes_is_not_offered() -> None:
    p = build(
        [given(video_track((50,) * 7)), given(video_track((60,) * 5 + (50,)), source=1)], limits=Limits(max_segment=8)
    )
    assert codes(p) == [("keyframes_unaligned", "source 1 track 1")]
    assert [r.source for r in p.video] == [0]


def test_a_rung_that_is_much_shorter_is_not_offered() -> None:
    p = build([given(video_track((50,) * 12)), given(video_track((50,) * 4), source=1)])
    assert codes(p) == [("keyframes_unaligned", "source 1 track 1")]


def test_a_rung_alone_with_open_gops_is_cut_at_those() -> None:
    p = build([given(video_track((48,) * 5, closed=False))])
    (video,) = p.video
    assert not p.independent
    # The segments begin with the two pictures that lead to the keyframe.
    assert video.starts.tolist() == [0, 144, 240]
    assert seconds(video)[1] - p.zero == Fraction(144, 25)
    assert b"cmfc" not in video.init()[:40] and b"cmfs" not in video.segment(0).head[:40]


def test_open_gops_in_a_ladder_are_no_boundaries() -> None:
    rungs = [given(video_track((48,) * 5, closed=False), source=n) for n in range(2)]
    p = build(rungs)
    assert p.independent and [r.segments for r in p.video] == [1, 1]


def test_a_short_title_of_one_gop_is_one_segment() -> None:
    p = build([given(video_track((10,)))])
    assert (p.video[0].segments, p.target_duration, p.independent) == (1, 1, True)


def test_nothing_to_play_is_an_error() -> None:
    nothing: tuple[tuple[list[Track], str], ...] = (
        ([], "source_empty"),
        ([audio_track(0)], "track_empty"),
        ([video_track((400,))], "gop_too_long"),
    )
    for tracks, code in nothing:
        with pytest.raises(StreamGateError) as error:
            build([given(track) for track in tracks])
        assert error.value.code == code


def test_what_is_not_offered_becomes_a_finding() -> None:
    why = Finding("profile_unplayable", "track 1", "no browser plays it")
    # Only a file can make such a track.
    told = {
        "id": 7,
        "handler": "soun",
        "samples": 9,
        "timescale": 48000,
        "entries": (b"a", b"b"),
        "entries_used": (0, 1),
    }
    changing = cast(Track, SimpleNamespace(**told))
    inputs = [
        given(video_track(), h264(playable=False, problem=why)),
        given(audio_track(0), source=1),
        given(changing),
        given(audio_track()),
    ]
    p = build(inputs)
    assert codes(p) == [
        ("profile_unplayable", "track 1"),
        ("track_empty", "source 1 track 2"),
        ("sample_entry_change", "source 0 track 7"),
    ]
    assert len(p.audio) == 1 and not p.video


def test_a_caveat_is_a_finding_of_what_is_offered() -> None:
    caveat = Finding("profile_unplayable", "mp4a.6B", "some browsers do not play it")
    p = build([given(audio_track(), aac(problem=caveat))])
    assert p.findings == [caveat] and len(p.audio) == 1


def test_an_edit_that_cuts_in_the_middle_is_refused() -> None:
    track = video_track(edits=[(1000, 0, 1 << 16), (1000, 90000, 1 << 16)])
    with pytest.raises(StreamGateError) as error:
        build([given(track)])
    assert error.value.code == "edit_unsupported"


def test_a_trimmed_presentation_starts_at_the_keyframe_that_its_first_picture_needs() -> None:
    # Keyframes are shown at 0.04, 1.04, … s of the media; the edit begins at 5 s.
    inputs = [given(video_track(edits=[(0, 64000, 1 << 16)])), given(audio_track(edits=[(0, 240_000, 1 << 16)]))]
    cues = [text(from_start=beside) for beside in (True, False)]
    p = build(inputs, cues)
    assert p.begin == p.shift and p.zero == p.begin - Fraction(96, 100)
    ends = [Fraction(int(r.times[-1]), r.timescale) for r in (*p.video, *p.audio)]
    assert p.duration == max(ends) - p.zero
    for r in p.text:
        assert b"00:00:01.960 --> 00:00:05.960" in r.whole()
        assert f"MPEGTS:{round(p.begin * 90000)},".encode() in r.segment(1)
    assert build(inputs[1:]).zero == build(inputs[1:]).begin  # sound starts anywhere


def test_an_edit_that_cuts_one_track_leaves_the_others() -> None:
    cut = audio_track(edits=[(1000, 0, 1 << 16), (1000, 96000, 1 << 16)], id=3)
    p = build([given(video_track()), given(audio_track()), given(cut)])
    assert codes(p) == [("edit_unsupported", "source 0 track 3")]
    assert len(p.video) == len(p.audio) == 1


def test_where_nothing_is_left_the_shared_reason_is_the_code() -> None:
    with pytest.raises(StreamGateError) as error:
        build([given(video_track((750, 750)))])
    assert error.value.code == "gop_too_long"
    with pytest.raises(StreamGateError) as error:
        build([given(video_track((750, 750))), given(audio_track(edits=[(1000, 0, 0)]))])
    assert error.value.code == "source_empty" and "track 2" in error.value.detail


def test_sample_entries_that_are_equal_are_one_configuration() -> None:
    track = SimpleNamespace(samples=1, timescale=1, entries_used=(0, 2), entries=(b"a", b"b", b"a"))
    findings: list[Finding] = []
    assert assembly._playable(given(cast(Track, track), h264()), findings) and not findings


def test_audio_that_starts_late_keeps_its_delay() -> None:
    p = build([given(video_track(bframes=0)), given(audio_track(edits=[(1500, -1, 1 << 16), (0, 0, 1 << 16)]))])
    assert p.shift == p.zero == 0
    assert seconds(p.audio[0])[0] == Fraction(3, 2)


def test_audio_without_frames_in_some_segments_has_no_empty_ones() -> None:
    p = build([given(video_track()), given(audio_track(100, edits=[(5000, -1, 1 << 16), (0, 0, 1 << 16)]))])
    (audio,) = p.audio
    assert audio.starts.tolist() == [0, 100]
    assert audio.aligned.tolist() == [0, 0, 100, 100]


def test_audio_alone_sets_its_own_boundaries() -> None:
    p = build([given(audio_track(48000 * 10 // 1024))])
    assert p.audio[0].starts.tolist() == [0, 188, 375, 468]
    assert not p.video


def test_a_target_duration_holds_for_every_segment() -> None:
    p = build([given(video_track((96,) * 4)), given(audio_track(720, begins=-1024 * 3))])
    longest = max(max(r.durations) / r.timescale for r in (*p.video, *p.audio))
    assert p.target_duration == 8 and 7.5 < longest < 8.5


def test_names_promise_bytes() -> None:
    def names(p: Presentation) -> list[str]:
        assert all(NAME.fullmatch(name) for name in p.renditions)
        return list(p.renditions)

    video, audio = given(video_track()), given(audio_track(), language="pt-BR")
    first = names(build([video, audio], [text()]))
    assert first == names(build([video, audio], [text()]))
    assert [name.split("-")[0] for name in first] == ["v360", "aptbr", "teng"]
    changed = [
        build([replace(video, identity=b"other"), audio], [text()]),
        build([replace(video, codec=h264(entry=box("avc3"))), audio], [text()]),
        build([video, audio], [text()], Limits(target=6)),
        build([video, audio], [text()], Limits(trick_interval=3)),
    ]
    assert len({names(p)[0] for p in changed} | {first[0]}) == 5
    # Another language makes another rendition; the same audio beside another video does not, if it is cut alike.
    assert names(changed[0])[1:] == first[1:]
    assert names(build([video, replace(audio, language="pt")]))[1] != first[1]
    other = text(cues=(Cue(0, 1, "x"),))
    assert names(build([video, audio], [other]))[2] != first[2]


def test_a_track_given_twice_gets_two_names() -> None:
    p = build([given(audio_track())] * 3, [text(), text()])
    assert len(p.renditions) == 5


def test_keyframes_for_trick_play_last_until_the_next() -> None:
    p = build([given(video_track((10,) * 25))])
    (video,) = p.video
    # Every 0.4 s there is one; the first at or after each second is taken.
    assert video.keyframe_samples.tolist() == [0, 30, 50, 80, 100, 130, 150, 180, 200, 230]
    assert [Fraction(int(t), 12800) - p.zero for t in video.keyframe_times[[0, 1, -1]]] == [0, Fraction(6, 5), 10]
    sizes = [video.keyframe(n).size for n in range(video.keyframes)]
    peak, mean = video.keyframe_bandwidths
    assert mean == -(-8 * sum(sizes) // 10) and peak >= mean


def test_the_picture_is_described_as_displayed() -> None:
    turned = (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    plain = build([given(video_track(), h264(720, 576, pasp=(16, 11)))]).video[0]
    rotated = build([given(video_track(matrix=turned), h264(720, 576, pasp=(16, 11)))]).video[0]
    assert (plain.width, plain.height, plain.sample_aspect, plain.rotated) == (1047, 576, (16, 11), False)
    assert (rotated.width, rotated.height, rotated.sample_aspect, rotated.rotated) == (576, 1047, (11, 16), True)


def test_text_covers_the_whole_presentation() -> None:
    p = build([given(video_track(edited=False)), given(audio_track(700))], [text()])
    (subtitles,) = p.text
    assert subtitles.segments == 4  # three of the video, one of the audio that is longer
    assert Fraction(int(subtitles.times[-1]), subtitles.timescale) == p.duration + p.zero
    first, second, third, fourth = (subtitles.segment(n).decode() for n in range(4))
    assert "MPEGTS:0,LOCAL:00:00:00.000" in first
    assert "one" in first and "one" in second
    assert "two" in third and "one" not in third
    assert first.startswith("WEBVTT") and "-->" not in fourth
    assert b"00:00:09.500 --> 00:00:09.900" in subtitles.whole() and subtitles.bandwidth > 0


def test_text_ends_with_the_longest_rendition() -> None:
    p = build([given(video_track()), given(audio_track(540))], [text()])  # 1.5 s more: no further segment of audio
    (subtitles,) = p.text
    assert (p.video[0].segments, p.audio[0].segments, subtitles.segments) == (3, 3, 3)
    assert Fraction(int(subtitles.times[-1]), subtitles.timescale) == p.zero + p.duration > seconds(p.video[0])[-1]


def test_text_runs_on_the_shifted_clock() -> None:
    p = build([given(video_track()), given(audio_track(priming=48000))], [text()])
    assert p.shift == 1
    assert b"MPEGTS:90000,LOCAL:00:00:00.000" in p.text[0].segment(0)
    assert b"00:00:01.000 --> 00:00:05.000" in p.text[0].segment(0)


def test_whole_text_counts_from_the_start_of_the_presentation() -> None:
    p = build([given(video_track(begins=12800, edited=False, bframes=0))], [text()])
    assert p.zero == 1
    assert b"00:00:00.000 --> 00:00:04.000" in p.text[0].whole()


def test_ts_pairs_each_h264_rung_with_the_default_audio() -> None:
    inputs = [
        given(video_track(), identity=b"a"),
        given(video_track(), h264(family="hevc", string="hvc1.1.6.L90.90"), identity=b"b"),
        given(audio_track(), language="de"),
        given(audio_track(id=3), language="en", default=True),
        given(audio_track(id=4), aac(family="opus", string="Opus"), default=True),
    ]
    p = build(inputs)
    assert list(p.ts_variants) == [f"{p.video[0].name}+{p.audio[1].name}"]
    muxer = p.ts_muxer(p.video[0].name, p.audio[1].name)
    assert muxer is p.ts_muxer(p.video[0].name, p.audio[1].name)
    assert muxer.segments == 3 == len(p.ts_times(p.video[0], p.audio[1])) - 1


def test_ts_of_half_a_pair() -> None:
    silent = build([given(video_track())])
    assert list(silent.ts_variants) == [f"{silent.video[0].name}+none"]
    assert silent.ts_muxer(silent.video[0].name, "none").segments == 3
    blind = build([given(audio_track())])
    assert list(blind.ts_variants) == [f"none+{blind.audio[0].name}"]
    assert blind.ts_muxer(None, blind.audio[0].name).segments == 3
    mute = build([given(video_track()), given(audio_track(), aac(family="opus", string="Opus"))])
    assert mute.ts_variants == {}


def test_ts_segments_go_on_behind_the_video() -> None:
    p = build([given(video_track()), given(audio_track(700))])
    (video,), (audio,) = p.video, p.audio
    times = p.ts_times(video, audio)
    assert p.ts_muxer(video.name, audio.name).segments == len(times) - 1 == 4
    assert times[3] == round((10 + p.zero) * 1_000_000) and times[4] == round(float(seconds(audio)[-1] * 1_000_000))


def test_ts_names_are_checked() -> None:
    p = build([given(video_track()), given(audio_track(), aac(family="opus", string="Opus"))])
    for names, code in (
        (("v1-0", None), "rendition_gone"),
        ((p.audio[0].name, None), "rendition_gone"),
        ((p.video[0].name, p.audio[0].name), "ts_unavailable"),
    ):
        with pytest.raises(StreamGateError) as error:
            p.ts_muxer(*names)
        assert error.value.code == code


@pytest.mark.parametrize("begins", [-(1 << 59), 1 << 59])
def test_times_that_fit_one_clock_only_are_refused(begins: int) -> None:
    far = video_track(timescale=1, ticks=1, begins=begins, edited=False)
    with pytest.raises(StreamGateError) as error:
        build([given(far), given(audio_track())])
    assert error.value.code == "source_malformed"


def test_times_since_the_epoch_are_as_good_as_any() -> None:
    """Archived live streams begin at the time of day."""
    now = 1_795_000_000
    p = build(
        [
            given(video_track(timescale=10_000_000, ticks=400_000, begins=now * 10_000_000, edited=False, bframes=0)),
            given(audio_track(begins=now * 48000)),
        ],
        [text()],
    )
    assert p.zero == now and p.shift == 0
    assert [r.segments for r in (*p.video, *p.audio)] == [3, 3]
    assert [plan.size > 0 for plan in map(p.video[0].segment, range(3))] == [True] * 3


def test_two_timescales_share_one_clock_exactly() -> None:
    """44.1 kHz beside 30000/1001: the shift is whole ticks in both."""
    p = build(
        [given(video_track((30,) * 12, timescale=30000, ticks=1001)), given(audio_track(timescale=44100, priming=1105))]
    )
    for r in (*p.video, *p.audio):
        assert (p.shift * r.timescale).denominator == 1
    assert np.all(p.video[0].times >= 0) and np.all(p.audio[0].times >= 0)
