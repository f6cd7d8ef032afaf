"""Assets as people really have them: ladders whose rungs all bring the sound, samples without bytes, late clocks."""

from __future__ import annotations

import html
import re
import shutil
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.subtitles.stream
import av.subtitles.subtitle
import pytest

from streamgate.errors import StreamGateError
from streamgate.media import codecs, hls
from streamgate.media.subtitles import Cue
from streamgate.native.isobmff import read_index
from streamgate.storage import tracks
from streamgate.storage.assets import Asset, discover, open_asset
from streamgate.storage.objects.file import FileSource
from streamgate.transcode.streamcopy import ASS_HEADER
from tests.media_factory import Audio, Video, make
from tests.native.mp4_builder import HEADER, box, progressive, stbl, trak
from tests.oracles import footage

SMALL = Video(size=(64, 36))


def opened(path: Path) -> Asset:
    return open_asset(discover(path)[0])


def describe(folder: Path, *sources: str) -> None:
    text = "".join(f"[[source]]\n{source}\n" for source in sources)
    (folder / "asset.toml").write_text(text, encoding="utf-8")


def patch(path: Path, kind: bytes, table: bytes, *, nth: int = 0) -> None:
    """Write ``table`` over the fields of the ``nth`` box of this type."""
    data = bytearray(path.read_bytes())
    at = -1
    for _ in range(nth + 1):
        at = data.index(kind, at + 1)
    data[at + 4 : at + 4 + len(table)] = table
    path.write_bytes(data)


def test_sound_that_each_rung_brings_is_offered_once(tmp_path: Path) -> None:
    make(tmp_path / "low.mp4", SMALL, Audio(), seconds=2)
    make(tmp_path / "high.mp4", Video(size=(128, 72)), Audio(), seconds=2)
    describe(tmp_path, 'file = "low.mp4"', 'file = "high.mp4"\ndefault = true')
    p = opened(tmp_path).presentation
    assert len(p.video) == 2
    (audio,) = p.audio
    assert audio.source == 0 and audio.default
    assert hls.multivariant(p).count("TYPE=AUDIO") == 1


@pytest.mark.parametrize("codec", ["aac", "ac3"])
def test_different_sounds_are_both_offered(tmp_path: Path, codec: str) -> None:
    # AC-3 has frames of one size: only their bytes tell two sounds apart.
    make(tmp_path / "a.mp4", SMALL, Audio(codec=codec, bitrate=96_000), seconds=1)
    make(tmp_path / "b.mp4", None, Audio(codec=codec, bitrate=96_000, pitch=555), seconds=1)
    describe(tmp_path, 'file = "a.mp4"', 'file = "b.mp4"')
    assert len(opened(tmp_path).presentation.audio) == 2


def test_the_same_sound_under_two_labels_is_two_choices(tmp_path: Path) -> None:
    make(tmp_path / "a.m4a", None, Audio(), seconds=1)
    describe(tmp_path, 'file = "a.m4a"\nlabel = "One"', 'file = "a.m4a"\nlabel = "Two"')
    assert len(opened(tmp_path).presentation.audio) == 2


@pytest.mark.parametrize("codec", ["aac", "libmp3lame"])
def test_an_empty_first_sample_is_left_out(tmp_path: Path, codec: str) -> None:
    path = make(tmp_path / "a.mp4", None, Audio(codec=codec, rate=22050, layout="mono"), seconds=1)
    (whole,) = opened(path).presentation.audio
    count = whole.track.samples
    patch(path, b"stsz", struct.pack(">III", 0, 0, count) + bytes(4) + struct.pack(">I", int(whole.track.sizes[1])))
    (audio,) = opened(path).presentation.audio
    assert audio.track.samples == count - 1 and audio.track.sizes.all()


def test_a_track_of_empty_samples_is_empty(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", None, Audio(), seconds=0.1)
    count = opened(path).presentation.audio[0].track.samples
    patch(path, b"stsz", struct.pack(">III", 0, 0, count) + bytes(4 * count))
    with pytest.raises(StreamGateError) as error:
        opened(path)
    assert error.value.code == "track_empty"


@pytest.mark.parametrize(("rates", "code"), [((44100, 44100), None), ((44100, 48000), "sample_entry_change")])
def test_an_empty_sample_where_entries_change_is_no_crash(
    tmp_path: Path, rates: tuple[int, int], code: str | None
) -> None:
    entries = [box(".mp3", struct.pack(">6xH8xHH4xI", 1, 2, 16, rate << 16)) for rate in rates]
    table = stbl([0, 10], [1024] * 2, [(HEADER, 1, 1), (HEADER, 1, 2)], entries=entries)
    path = tmp_path / "a.mp4"
    path.write_bytes(progressive(64, trak(table, handler="soun")))
    if code is None:
        (audio,) = opened(path).presentation.audio
        assert (audio.codec.family, audio.track.samples) == ("mp3", 1)
        return
    with pytest.raises(StreamGateError) as error:
        opened(path)
    assert error.value.code == code


def test_sbr_that_only_the_tracks_clock_tells_is_found(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", None, Audio(rate=22050, layout="mono"), seconds=1)
    (plain,) = opened(path).presentation.audio
    assert plain.codec.string == "mp4a.40.2"
    patch(path, b"mdhd", bytes(12) + struct.pack(">I", 44100))
    patch(path, b"stts", struct.pack(">IIII", 0, 1, plain.track.samples, 2048))
    # The encoder's sync extension, which says that there is no SBR, is made unreadable.
    data = path.read_bytes()
    assert data.count(b"\x56\xe5\x00") == 1
    path.write_bytes(data.replace(b"\x56\xe5\x00", bytes(3)))
    (audio,) = opened(path).presentation.audio
    assert (audio.codec.string, audio.codec.sample_rate) == ("mp4a.40.5", 44100)


def test_cues_of_a_wvtt_track_are_read(tmp_path: Path) -> None:
    cue = box("vttc", box("payl", b"hello"))
    empty = box("vtte")
    table = stbl([len(empty), len(cue)], [1000, 2000], [(HEADER, 2)], entries=[box("wvtt", bytes(8))])
    path = tmp_path / "a.mp4"
    path.write_bytes(progressive(64, trak(table, handler="text")).replace(bytes(len(empty + cue)), empty + cue, 1))
    source = FileSource(path)
    index = read_index(source.read, source.size)
    (track,) = index.tracks
    codec = codecs.describe(track.entries[0], handler="text")
    assert tracks._cues(source, index, track, codec) == (Cue(1000, 3000, "hello"),)


def test_a_video_without_keyframes_is_one_segment(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", SMALL, None, seconds=2)
    patch(path, b"stss", bytes(8))
    p = opened(path).presentation
    assert [(r.segments, r.keyframes) for r in p.video] == [(1, 0)] and not p.independent
    assert "I-FRAME" not in hls.multivariant(p)


def test_sidecar_subtitles_count_from_the_start_of_what_was_recorded_live(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", SMALL, None, seconds=2, flags="+frag_keyframe+empty_moov+default_base_moof")
    data = bytearray(path.read_bytes())
    at = 0
    while (at := data.find(b"tfdt", at + 1)) > 0:
        (time,) = struct.unpack_from(">Q", data, at + 8)
        struct.pack_into(">Q", data, at + 8, time + 5 * 3600 * 12800)
    path.write_bytes(data)
    path.with_suffix(".vtt").write_text("WEBVTT\n\n00:01.000 --> 00:02.000\nhello\n")
    p = opened(path).presentation
    assert p.zero >= 5 * 3600
    (text,) = p.text
    assert b"00:00:01.000 --> 00:00:02.000" in text.whole()
    clock = round(p.zero * 90000) % (1 << 33)
    assert f"MPEGTS:{clock},LOCAL:00:00:00.000\n".encode() in text.segment(0) and b"hello" in text.segment(0)


def captioned(path: Path) -> Path:
    """An MP4 with a video and two ``tx3g`` tracks, the second of which starts late and is silent between its cues."""
    texts = (
        [(0, 500, ""), (500, 1500, "Hello & all"), (1500, 2000, "Two\nlines <3")],
        [(250, 1000, "Bonjour"), (1000, 1250, ""), (1250, 2000, "\u00e0 tous")],
    )
    make(path.with_name("plain.mp4"), SMALL, None, seconds=2)
    with av.open(str(path.with_name("plain.mp4"))) as source, av.open(str(path), "w") as out:
        video = source.streams.video[0]
        packets: list[av.Packet[Any]] = [p for p in source.demux(video) if p.size]
        copy = out.add_stream_from_template(video, opaque=True)
        for packet in packets:
            packet.stream = copy
        for cues, language in zip(texts, ("eng", "fra"), strict=True):
            stream = out.add_stream("mov_text")
            assert isinstance(stream, av.subtitles.stream.SubtitleStream)
            stream.codec_context.subtitle_header = ASS_HEADER
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
            stream.metadata["language"] = language
            for start, end, text in cues:
                packet = av.Packet(struct.pack(">H", len(text.encode())) + text.encode())
                packet.pts = packet.dts = start
                packet.duration, packet.time_base, packet.stream = end - start, Fraction(1, 1000), stream
                packets.append(packet)
        for packet in sorted(packets, key=lambda p: (p.dts or 0) * p.time_base):
            out.mux_one(packet)
    return path


def decoded_cues(path: Path, track: int) -> list[tuple[int, int, str]]:
    """What libav decodes of a text track: (start ms, end ms, text)."""
    found = []
    with av.open(str(path)) as container:
        stream = next(s for s in container.streams.subtitles if s.id == track)
        for packet in container.demux(stream):
            start, end = (
                int(t * packet.time_base * 1000) for t in (packet.pts or 0, (packet.pts or 0) + (packet.duration or 0))
            )
            for rect in packet.decode() if packet.size > 2 else ():
                assert isinstance(rect, av.subtitles.subtitle.AssSubtitle)
                found.append((start, end, rect.dialogue.decode()))
    return found


@pytest.mark.parametrize(
    "name", ["captioned.mp4", *(n for n in footage.real(".mp4") if n.startswith("nasa-multitrack"))]
)
def test_cues_of_tx3g_tracks_are_those_that_libav_decodes(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    if name == "captioned.mp4":
        captioned(path)
    else:
        shutil.copyfile(footage.obtain(name, tmp_path), path)
    tracks = opened(path).indexes[0].tracks
    texts = [t.id for t in tracks if t.handler not in ("vide", "soun")]
    assert len(texts) == 2
    for text in texts:
        describe(tmp_path, f'file = "a.mp4"\ntracks = [{tracks[0].id}, {text}]')
        (rendition,) = opened(tmp_path).presentation.text
        cues = [(c.start, c.end, html.unescape(re.sub("<[^>]+>", "", c.text))) for c in rendition.cues]
        theirs = decoded_cues(path, text)
        assert theirs
        assert cues == theirs


def test_a_srt_sidecar_is_read(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", SMALL, None, seconds=2)
    path.with_suffix(".fra.srt").write_text("1\n00:00:00,250 --> 00:00:01,500\nOne & <i>two</i>\n", encoding="utf-8")
    (text,) = opened(path).presentation.text
    assert text.language == "fra"
    assert text.cues == (Cue(250, 1500, "One &amp; <i>two</i>"),)


def test_only_the_tracks_that_are_asked_for(tmp_path: Path) -> None:
    make(tmp_path / "a.mp4", SMALL, Audio(), seconds=1)
    describe(tmp_path, 'file = "a.mp4"\ntracks = [2]')
    p = opened(tmp_path).presentation
    assert (p.video, [r.track.id for r in p.audio]) == ([], [2])


def test_a_track_that_is_not_there_is_named(tmp_path: Path) -> None:
    make(tmp_path / "a.mp4", SMALL, Audio(), seconds=1)
    describe(tmp_path, 'file = "a.mp4"\ntracks = [2, 7]')
    with pytest.raises(StreamGateError, match="a.mp4 has no track 7") as error:
        opened(tmp_path)
    assert error.value.code == "asset_description"


X265 = Video(
    size=(128, 72), codec="libx265", options={"x265-params": "keyint=10:log-level=none", "preset": "ultrafast"}
)


@pytest.mark.parametrize("keyframe", [None, 0, 2, -1])
@pytest.mark.parametrize(
    ("video", "in_band", "out_of_band", "parameter_set"),
    [(Video(size=(64, 36), gop=10), "avc3", "avc1", 0x67), (X265, "hev1", "hvc1", 0x42)],
)
def test_parameter_sets_of_a_later_keyframe_are_seen(
    video: Video, in_band: str, out_of_band: str, parameter_set: int, keyframe: int | None, tmp_path: Path
) -> None:
    path = make(tmp_path / "a.mp4", video, None, seconds=2)
    data = bytearray(path.read_bytes().replace(b"avc1\0", b"avc3\0"))
    source = FileSource(path)
    (track,) = read_index(source.read, source.size).tracks
    assert track.keyframes.size == 5
    if keyframe is not None:
        sample = int(track.keyframes[keyframe])
        [(offset, _)] = track.ranges(sample, sample + 1).tolist()
        data[offset + 4] = parameter_set
    path.write_bytes(data)
    (rendition,) = opened(path).presentation.video
    expected = in_band if keyframe is not None else out_of_band
    assert (rendition.codec.string[:4], rendition.codec.entry[4:8]) == (expected, expected.encode())
