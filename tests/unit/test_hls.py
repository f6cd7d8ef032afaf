"""HLS playlists: what RFC 8216 demands of each."""

from __future__ import annotations

import re
from fractions import Fraction
from time import process_time

import pytest

from streamgate.errors import StreamGateError
from streamgate.media import hls
from streamgate.media.presentation import Presentation, TextInput, build
from streamgate.media.subtitles import Cue
from tests.track_factory import aac, audio_track, given, h264, video_track

ATTRIBUTE = re.compile(r'([A-Z0-9-]+)=("[^"\r\n]*"|[^",\s]+)(?:,|$)')


def attributes(line: str) -> dict[str, str]:
    """The attributes of a tag; every character of the list must belong to one (RFC 8216 section 4.2)."""
    text = line.partition(":")[2]
    found = ATTRIBUTE.findall(text)
    assert sum(len(name) + len(value) + 2 for name, value in found) == len(text) + 1, line
    assert len({name for name, _ in found}) == len(found)
    return {name: value.strip('"') for name, value in found}


def tags(playlist: str, name: str) -> list[dict[str, str]]:
    return [attributes(line) for line in playlist.splitlines() if line.startswith(f"#{name}:")]


def value(playlist: str, name: str) -> str:
    (line,) = [line for line in playlist.splitlines() if line.startswith(f"#{name}:")]
    return line.partition(":")[2]


def durations(playlist: str) -> list[Fraction]:
    return [Fraction(t) for t in re.findall(r"^#EXTINF:([0-9]+\.[0-9]{6}),$", playlist, re.MULTILINE)]


def uris(playlist: str) -> list[str]:
    return [line for line in playlist.splitlines() if line and not line.startswith("#")]


def text(language: str = "eng", label: str = "", **others: bool) -> TextInput:
    told = {"default": False, "forced": False} | others
    return TextInput(b"text", (Cue(0, 1000, "hi"),), language, label, **told)


@pytest.fixture
def rich() -> Presentation:
    """Two H.264 rungs, one of HEVC in PQ, AAC in two languages, E-AC-3 in one, and subtitles."""
    hevc = h264(1920, 1080, family="hevc", string="hvc1.2.4.L120.90", video_range="PQ")
    eac3 = aac(6, family="eac3", string="ec-3")
    inputs = [
        given(video_track(), h264(640, 360), identity=b"a"),
        given(video_track(timescale=90000, ticks=3600, sizes=[500] * 250), h264(1280, 720), identity=b"b"),
        given(video_track(sizes=[50_000] * 250), hevc, identity=b"c"),
        given(audio_track(id=2), eac3, language="eng", label="Surround"),
        given(audio_track(id=3), language="eng", label="English"),
        given(audio_track(id=4), language="deu", default=True),
    ]
    return build(inputs, [text("fra", default=True), text("eng", 'Say "no"\n'), text("eng", "Signs", forced=True)])


def test_the_multivariant_playlist(rich: Presentation) -> None:
    playlist = hls.multivariant(rich)
    lines = playlist.splitlines()
    assert lines[:3] == ["#EXTM3U", "#EXT-X-VERSION:1", "#EXT-X-INDEPENDENT-SEGMENTS"]
    assert playlist.endswith("\n") and "\n\n" not in playlist
    variants = tags(playlist, "EXT-X-STREAM-INF")
    assert [v["CODECS"] for v in variants] == [
        "avc1.64001E,mp4a.40.2",
        "avc1.64001E,mp4a.40.2",
        "hvc1.2.4.L120.90,mp4a.40.2",
        "avc1.64001E,ec-3,mp4a.40.2",
        "avc1.64001E,ec-3,mp4a.40.2",
        "hvc1.2.4.L120.90,ec-3,mp4a.40.2",
    ]
    assert {v["AUDIO"] for v in variants[:3]} == {"mp4a.40.2-2ch"} and {v["AUDIO"] for v in variants[3:]} == {
        "ec-3-6ch"
    }
    assert {v["FRAME-RATE"] for v in variants} == {"25.000"}
    assert [v["VIDEO-RANGE"] for v in variants[:3]] == ["SDR", "SDR", "PQ"]
    assert {v["CLOSED-CAPTIONS"] for v in variants} == {"NONE"} and {v["SUBTITLES"] for v in variants} == {"subtitles"}
    assert len(uris(playlist)) == len(variants)
    for variant, uri in zip(variants, uris(playlist), strict=True):
        video = rich.renditions[uri.partition("/")[0]]
        assert variant["RESOLUTION"] == f"{video.width}x{video.height}"  # type: ignore[union-attr]


def test_every_uri_is_relative_and_known(rich: Presentation) -> None:
    playlist = hls.multivariant(rich)
    media = tags(playlist, "EXT-X-MEDIA") + tags(playlist, "EXT-X-I-FRAME-STREAM-INF")
    for uri in uris(playlist) + [m["URI"] for m in media]:
        name, _, file = uri.partition("/")
        assert name in rich.renditions and file in ("index.m3u8", "iframes.m3u8")


def test_bandwidth_is_the_video_and_the_largest_audio_of_the_group(rich: Presentation) -> None:
    aacs = [r for r in rich.audio if r.codec.family == "aac"]
    first = tags(hls.multivariant(rich), "EXT-X-STREAM-INF")[0]
    video = rich.renditions[uris(hls.multivariant(rich))[0].partition("/")[0]]
    assert int(first["BANDWIDTH"]) == video.bandwidth + max(r.bandwidth for r in aacs)
    assert int(first["AVERAGE-BANDWIDTH"]) == video.average_bandwidth + max(r.average_bandwidth for r in aacs)  # type: ignore[union-attr]


def test_audio_groups_have_the_same_members(rich: Presentation) -> None:
    """RFC 8216 section 4.3.4.1.1: alike but for URI and CHANNELS."""
    groups: dict[str, list[dict[str, str]]] = {}
    for media in tags(hls.multivariant(rich), "EXT-X-MEDIA"):
        if media["TYPE"] == "AUDIO":
            groups.setdefault(media["GROUP-ID"], []).append(media)
    stripped = [
        [{k: v for k, v in m.items() if k not in ("URI", "CHANNELS", "GROUP-ID")} for m in members]
        for members in groups.values()
    ]
    assert len(stripped) == 2 and stripped[0] == stripped[1]
    assert [(m["NAME"], m["LANGUAGE"], m["DEFAULT"]) for m in stripped[0]] == [
        ("English", "en", "NO"),
        ("Deutsch", "de", "YES"),
    ]
    assert [m["CHANNELS"] for m in groups["ec-3-6ch"]] == ["6", "2"], "German has no E-AC-3: the AAC stands in"


def test_subtitles(rich: Presentation) -> None:
    subtitles = [m for m in tags(hls.multivariant(rich), "EXT-X-MEDIA") if m["TYPE"] == "SUBTITLES"]
    assert [(m["NAME"], m["LANGUAGE"], m["DEFAULT"], m["AUTOSELECT"], m.get("FORCED")) for m in subtitles] == [
        ("Français", "fr", "YES", "YES", None),
        ("Say 'no'", "en", "NO", "YES", None),
        ("Signs", "en", "NO", "YES", "YES"),
    ]


def test_names_in_a_group_differ_and_one_of_a_language_is_selected_automatically() -> None:
    inputs = [given(audio_track(id=n), language="eng", default=n == 3) for n in (2, 3, 4)]
    media = tags(hls.multivariant(build(inputs)), "EXT-X-MEDIA")
    assert [m["NAME"] for m in media] == ["English", "English 2", "English 3"]
    assert [m["DEFAULT"] for m in media] == ["NO", "YES", "NO"] == [m["AUTOSELECT"] for m in media]


def test_an_unknown_language_is_not_told() -> None:
    (media,) = tags(hls.multivariant(build([given(audio_track())])), "EXT-X-MEDIA")
    assert "LANGUAGE" not in media and media["NAME"] == "Audio" and media["DEFAULT"] == "YES"


def test_audio_alone_is_a_variant_of_its_own() -> None:
    p = build([given(audio_track())])
    playlist = hls.multivariant(p)
    (variant,) = tags(playlist, "EXT-X-STREAM-INF")
    assert variant["CODECS"] == "mp4a.40.2" and "RESOLUTION" not in variant
    assert variant["BANDWIDTH"] == str(p.audio[0].bandwidth)
    assert uris(playlist) == [f"{p.audio[0].name}/index.m3u8"]


def test_video_alone_names_no_audio_group() -> None:
    (variant,) = tags(hls.multivariant(build([given(video_track())])), "EXT-X-STREAM-INF")
    assert "AUDIO" not in variant and "SUBTITLES" not in variant and variant["CODECS"] == "avc1.64001E"


def test_the_first_variant_is_the_best_for_two_megabits() -> None:
    sizes = {360: 2000, 480: 5000, 720: 9000, 1080: 20000}
    inputs = [
        given(video_track(sizes=[size] * 250), h264(height * 16 // 9, height), identity=bytes([height % 251]))
        for height, size in sizes.items()
    ]
    variants = tags(hls.multivariant(build(inputs)), "EXT-X-STREAM-INF")
    assert [v["RESOLUTION"].partition("x")[2] for v in variants] == ["720", "360", "480", "1080"]


def test_a_media_playlist_is_exact() -> None:
    p = build([given(video_track((30,) * 10, timescale=30000, ticks=1001)), given(audio_track(timescale=44100))])
    for r in (*p.video, *p.audio):
        playlist = hls.media_playlist(p, r)
        assert value(playlist, "EXT-X-VERSION") == "6"
        assert value(playlist, "EXT-X-TARGETDURATION") == str(p.target_duration)
        assert value(playlist, "EXT-X-PLAYLIST-TYPE") == "VOD" and playlist.endswith("#EXT-X-ENDLIST\n")
        assert tags(playlist, "EXT-X-MAP") == [{"URI": "init.mp4"}]
        assert "#EXT-X-INDEPENDENT-SEGMENTS" in playlist
        assert uris(playlist) == [f"{n}.m4s" for n in range(r.segments)]
        lasts = durations(playlist)
        exact = [Fraction(int(d), r.timescale) for d in r.durations]
        assert all(abs(a - b) <= Fraction(1, 1_000_000) for a, b in zip(lasts, exact, strict=True))
        assert abs(sum(lasts, Fraction()) - sum(exact, Fraction())) <= Fraction(1, 1_000_000), (
            "rounding does not add up"
        )
        assert all(int(t + Fraction(1, 2)) <= p.target_duration for t in lasts)


def test_rounding_does_not_drift_over_hours() -> None:
    p = build([given(video_track((30,) * 7200, timescale=30000, ticks=1001, bframes=0))])
    lasts = durations(hls.media_playlist(p, p.video[0]))
    assert abs(sum(lasts) - Fraction(7200 * 30 * 1001, 30000)) <= Fraction(1, 1_000_000)
    assert len({*lasts}) > 1


def test_text_playlists_follow_the_video() -> None:
    p = build([given(video_track()), given(audio_track(700))], [text()])
    playlist = hls.media_playlist(p, p.text[0])
    assert value(playlist, "EXT-X-VERSION") == "3" and "EXT-X-MAP" not in playlist
    assert uris(playlist) == ["0.vtt", "1.vtt", "2.vtt", "3.vtt"]
    assert abs(sum(durations(playlist)) - p.duration) <= Fraction(1, 1_000_000)
    assert all(round(t) <= int(value(playlist, "EXT-X-TARGETDURATION")) for t in durations(playlist))


def test_iframe_playlists() -> None:
    p = build([given(video_track((10, 40, 150, 50)))])
    (video,) = p.video
    playlist = hls.iframe_playlist(p, video)
    assert value(playlist, "EXT-X-VERSION") == "5" and "#EXT-X-I-FRAMES-ONLY" in playlist
    assert tags(playlist, "EXT-X-MAP") == [{"URI": "init.mp4"}]
    # At 0, 0.4, 2 and 8 s; the second is not at or after a whole second, until which none is needed.
    assert durations(playlist) == [2, 6, 2] and uris(playlist) == ["k0.m4s", "k1.m4s", "k2.m4s"]
    assert value(playlist, "EXT-X-TARGETDURATION") == "6"
    (stream,) = tags(hls.multivariant(p), "EXT-X-I-FRAME-STREAM-INF")
    assert stream["URI"] == f"{video.name}/iframes.m3u8" and stream["CODECS"] == "avc1.64001E"
    assert (int(stream["BANDWIDTH"]), int(stream["AVERAGE-BANDWIDTH"])) == video.keyframe_bandwidths
    assert "FRAME-RATE" not in stream and "CLOSED-CAPTIONS" not in stream


def test_open_gops_are_not_called_independent() -> None:
    p = build([given(video_track((48,) * 5, closed=False))])
    for playlist in (hls.multivariant(p), hls.media_playlist(p, p.video[0]), hls.ts_playlist(p, p.video[0], None)):
        assert "INDEPENDENT" not in playlist


def test_the_ts_flavour(rich: Presentation) -> None:
    playlist = hls.multivariant(rich, ts=True)
    german = next(r for r in rich.audio if r.default)
    variants = tags(playlist, "EXT-X-STREAM-INF")
    assert [v["CODECS"] for v in variants] == ["avc1.64001E,mp4a.40.2"] * 2
    assert {v["SUBTITLES"] for v in variants} == {"subtitles"}
    assert {m["TYPE"] for m in tags(playlist, "EXT-X-MEDIA")} == {"SUBTITLES"} and "I-FRAME" not in playlist
    for uri, variant in zip(uris(playlist), variants, strict=True):
        video, audio = rich.ts_variants[uri.removesuffix("/index.m3u8")]
        assert video is not None and audio is german
        media = hls.ts_playlist(rich, video, audio)
        assert value(media, "EXT-X-VERSION") == "3" and "EXT-X-MAP" not in media
        assert value(media, "EXT-X-TARGETDURATION") == str(rich.target_duration)
        muxer = rich.ts_muxer(video.name, audio.name)
        assert uris(media) == [f"{n}.ts" for n in range(muxer.segments)]
        total = sum(durations(media))
        assert int(variant["AVERAGE-BANDWIDTH"]) == -(-8 * int(muxer.sizes().sum()) // total)
        assert int(variant["BANDWIDTH"]) >= int(variant["AVERAGE-BANDWIDTH"])


def test_no_ts_without_h264_or_aac() -> None:
    with pytest.raises(StreamGateError) as error:
        hls.multivariant(build([given(video_track(), h264(family="av1", string="av01.0.01M.08"))]), ts=True)
    assert error.value.code == "ts_unavailable"


@pytest.mark.parametrize(
    ("lines", "needed"),
    [
        (["#EXTINF:4,", "#EXT-X-ENDLIST"], 1),
        (["#EXTINF:4.0,"], 3),
        (["#EXTINF:4,a 1.5 times", "#EXT-X-BYTERANGE:5@0"], 4),
        (["#EXT-X-I-FRAMES-ONLY", '#EXT-X-MAP:URI="x"', "#EXTINF:4.0,"], 5),
        (['#EXT-X-MAP:URI="x"', "#EXTINF:4.0,"], 6),
        (['#EXT-X-MEDIA:TYPE=AUDIO,URI="1.5"'], 1),
    ],
)
def test_the_version_is_the_lowest_that_the_tags_need(lines: list[str], needed: int) -> None:
    assert hls.version(lines) == needed


def test_quoted_strings_hold_no_quotes_and_no_line_ends() -> None:
    assert hls.quoted('a "b"\r\nc\u2028d\x00') == "\"a 'b'  c d \""


def test_playlists_of_two_hours_are_made_in_milliseconds() -> None:
    p = build([given(video_track((25,) * 7200, bframes=0)), given(audio_track(337_500))])
    hls.multivariant(p)
    best = 1.0
    for _ in range(5):
        start = process_time()
        hls.media_playlist(p, p.audio[0])
        best = min(best, process_time() - start)
    assert best < 0.006, "twice the goal: machines of tests are shared"


def test_a_trimmed_video_begins_where_its_edit_does() -> None:
    trimmed = video_track(edits=[(0, 5 * 12800, 1 << 16)])
    p = build([given(trimmed), given(audio_track(edits=[(0, 5 * 48000, 1 << 16)]))])
    (video,), (audio,) = p.video, p.audio
    hidden = p.begin - Fraction(int(video.times[0]), video.timescale)
    assert hidden == 5 - Fraction(512, 12800)  # the first picture's own pts is a frame late
    for playlist in (hls.media_playlist(p, video), hls.ts_playlist(p, video, None)):
        assert tags(playlist, "EXT-X-START") == [{"TIME-OFFSET": "4.960000", "PRECISE": "YES"}]
    assert "EXT-X-START" not in hls.media_playlist(p, audio) + hls.iframe_playlist(p, video)


def test_priming_hides_no_picture() -> None:
    p = build([given(video_track()), given(audio_track(priming=9600))])
    (video,), (audio,) = p.video, p.audio
    assert p.zero * 48000 > audio.times[0]
    assert "EXT-X-START" not in hls.media_playlist(p, audio)
    # The first picture is shown a frame (40 ms) after it is decoded, and 200 ms after the sound before it.
    assert tags(hls.media_playlist(p, video), "EXT-X-START") == [{"TIME-OFFSET": "0.040000"}]
    assert tags(hls.ts_playlist(p, video, audio), "EXT-X-START") == [{"TIME-OFFSET": "0.200000"}]


def test_a_picture_that_is_there_at_once_needs_no_start() -> None:
    p = build([given(video_track(bframes=0)), given(audio_track())])
    for playlist in (hls.media_playlist(p, p.video[0]), hls.ts_playlist(p, p.video[0], p.audio[0])):
        assert "EXT-X-START" not in playlist


def test_the_picture_alone_comes_last_where_no_sound_plays_everywhere() -> None:
    ac3, eac3 = aac(family="ac3", string="ac-3"), aac(6, family="eac3", string="ec-3")
    inputs = [given(video_track()), given(audio_track(), ac3), given(audio_track(id=3), eac3)]
    playlist = hls.multivariant(build(inputs))
    variants = tags(playlist, "EXT-X-STREAM-INF")
    assert [v["CODECS"].split(",")[1:] for v in variants] == [["ac-3"], ["ec-3"], []]
    assert "AUDIO" not in variants[-1]
    # No player that can have the sound finds the silent one cheaper.
    assert int(variants[-1]["BANDWIDTH"]) == max(int(v["BANDWIDTH"]) for v in variants)
    with_aac = hls.multivariant(build([*inputs, given(audio_track(id=4))]))
    assert all("AUDIO" in v for v in tags(with_aac, "EXT-X-STREAM-INF"))
    alone = tags(hls.multivariant(build(inputs[1:2])), "EXT-X-STREAM-INF")
    assert [v["CODECS"] for v in alone] == ["ac-3"]
