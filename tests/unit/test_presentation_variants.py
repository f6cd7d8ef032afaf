"""How renditions are combined: the most compatible first, and nobody shut out by a codec he does not know."""

from __future__ import annotations

from streamgate.media.presentation import build
from streamgate.media.variants import audio_groups, choices, start_first, video_families
from tests.track_factory import aac, audio_track, given, h264, video_track

EAC3 = aac(6, family="eac3", string="ec-3")


def test_groups_go_from_the_most_compatible_to_the_least() -> None:
    codecs = [
        EAC3,
        aac(family="flac", string="fLaC"),
        aac(string="mp4a.40.29"),
        aac(6),
        aac(family="opus", string="Opus"),
        aac(1),
        aac(),
        aac(string="mp4a.40.5"),
        aac(family="mp3", string="mp4a.6B"),
    ]
    p = build([given(audio_track(id=n + 2), codec, identity=bytes([n])) for n, codec in enumerate(codecs)])
    assert [group.id for group in audio_groups(p)] == [
        "mp4a.40.2-2ch",
        "mp4a.40.2-1ch",
        "mp4a.40.2-6ch",
        "mp4a.40.5-2ch",
        "mp4a.40.29-2ch",
        "Opus-2ch",
        "fLaC-2ch",
        "ec-3-6ch",
        "mp4a.6B-2ch",
    ]


def test_a_missing_language_comes_from_a_more_compatible_group_only() -> None:
    p = build(
        [
            given(audio_track(id=2), language="en"),
            given(audio_track(id=3), language="de"),
            given(audio_track(id=4), EAC3, language="en"),
            given(audio_track(id=5), EAC3, language="fr", default=True),
        ]
    )
    stereo, dolby = audio_groups(p)
    assert stereo.codecs == ["mp4a.40.2"], "a player without E-AC-3 can play every member of the first group"
    assert [(r.language, r.codec.string) for r in stereo.renditions] == [("en", "mp4a.40.2"), ("de", "mp4a.40.2")]
    assert {(r.language, r.codec.string) for r in dolby.renditions} == {
        ("en", "ec-3"),
        ("de", "mp4a.40.2"),
        ("fr", "ec-3"),
    }
    for group in (stereo, dolby):
        assert sum(choice.default for choice in group.choices) == 1
    assert (stereo.default.language, dolby.default.language) == ("en", "fr")


def test_one_default_even_if_several_are_said_to_be() -> None:
    p = build([given(audio_track(id=n), language=tag, default=True) for n, tag in ((2, "en"), (3, "de"))])
    assert [choice.default for choice in choices(p.audio, "Audio")] == [True, False]


def test_names_never_meet() -> None:
    labels = ["x", "x", "x 2", "x", ""]
    p = build([given(audio_track(id=n + 2), label=label) for n, label in enumerate(labels)])
    names = [choice.name for choice in choices(p.audio, "Audio")]
    assert names == ["x", "x 2", "x 2 2", "x 3", "Audio"]


def test_families_of_video() -> None:
    told = [
        ("av1", "av01.0.05M.08", "SDR"),
        ("hevc", "hvc1.1", "PQ"),
        ("hevc", "hvc1.1", "SDR"),
        ("h264", "avc1.64", "SDR"),
    ]
    p = build(
        [
            given(video_track(sizes=[500 - n] * 250), h264(family=f, string=s, video_range=r), identity=bytes([n, m]))
            for n, (f, s, r) in enumerate(told)
            for m in range(2)
        ]
    )
    families = video_families(p)
    assert [(rungs[0].codec.family, rungs[0].codec.video_range, len(rungs)) for rungs in families] == [
        ("h264", "SDR", 2),
        ("hevc", "SDR", 2),
        ("hevc", "PQ", 2),
        ("av1", "SDR", 2),
    ]


def test_the_lowest_rung_begins_where_all_are_beyond_two_megabits() -> None:
    p = build([given(video_track(sizes=[size] * 250), identity=bytes([size % 251])) for size in (30_000, 20_000)])
    (rungs,) = video_families(p)
    assert [r.average_bandwidth // 1_000_000 for r in start_first(rungs)] == [4, 6]
