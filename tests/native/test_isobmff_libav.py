"""The index against libavformat's packets: positions, sizes, times and keyframes of files that real muxers wrote."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest

from streamgate.native.isobmff import Index, Track, read_index
from tests.media_factory import Audio, Video, make, widen

from .mp4_builder import parse_counting

MEDIA = sorted(Path(os.environ["STREAMGATE_MEDIA"]).glob("*.mp4")) if "STREAMGATE_MEDIA" in os.environ else []

# What is made: file name, movflags, further options of make().
KINDS: dict[str, tuple[str, str, dict[str, object]]] = {
    "moov in front": ("a.mp4", "+faststart", {}),
    "moov last": ("a.mp4", "", {}),
    "quicktime": ("a.mov", "", {"audio": Audio(codec="pcm_s16le")}),
    "negative offsets": ("a.mp4", "+negative_cts_offsets", {}),
    "variable frame rate": ("a.mp4", "", {"video": Video(variable=True)}),
    "open gop": ("a.mp4", "", {"video": Video(closed=False, gop=20)}),
    "several tracks": (
        "a.mp4",
        "",
        {"video": [Video(), Video(size=(64, 64), fps=Fraction(30))], "audio": [Audio(), Audio(rate=44100)]},
    ),
    "audio alone": ("a.m4a", "", {"video": None}),
    "fragment a keyframe": ("a.mp4", "+frag_keyframe+empty_moov", {}),
    "moof is base": ("a.mp4", "+frag_keyframe+empty_moov+default_base_moof", {}),
    "no base at all": ("a.mp4", "+frag_keyframe+empty_moov+omit_tfhd_offset", {}),
    "a moof a track": ("a.mp4", "+frag_keyframe+empty_moov+separate_moof", {}),
    "fragment a frame": ("a.mp4", "+frag_every_frame+empty_moov+default_base_moof", {}),
    "moov with samples": ("a.mp4", "+frag_keyframe", {}),
    "one index": ("a.mp4", "+dash+global_sidx+frag_keyframe", {"audio": None}),
    "an index a fragment": ("a.mp4", "+dash+frag_keyframe", {}),
}


@pytest.fixture(scope="module", params=KINDS)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name, flags, options = KINDS[request.param]
    return make(tmp_path_factory.mktemp("media") / name, seconds=3.0, flags=flags, **options)  # type: ignore[arg-type]


class Packet(NamedTuple):
    pos: int
    size: int
    dts: int
    pts: int
    is_keyframe: bool


def read(path: Path) -> Index:
    with open(path, "rb") as file:
        return read_index(lambda offset, length: os.pread(file.fileno(), length, offset), path.stat().st_size)


def compare(path: Path, index: Index) -> None:
    """Every packet of every stream. libav shifts the times of a stream by a constant; the rest must be the same."""
    with av.open(str(path), options={"advanced_editlist": "0"}) as container:
        packets: dict[int, list[Packet]] = {stream.index: [] for stream in container.streams}
        for packet in container.demux():
            if packet.dts is not None:
                assert packet.pos is not None and packet.pts is not None
                packets[packet.stream_index].append(
                    Packet(packet.pos, packet.size, packet.dts, packet.pts, packet.is_keyframe)
                )
        assert len(index.tracks) == len(packets) > 0
        for track, stream in zip(index.tracks, container.streams, strict=True):
            assert stream.time_base is not None and 1 / stream.time_base == track.timescale
            assert {"vide": "video", "soun": "audio"}.get(track.handler, "subtitle") == stream.type
            compare_track(track, packets[stream.index])


def compare_track(track: Track, packets: list[Packet]) -> None:
    assert track.samples >= len(packets)
    sizes, dts = track.sizes.astype(np.int64), track.dts()
    positions = np.array([track.ranges(i, i + 1)[0, 0] for i in range(track.samples)])
    if track.samples > len(packets):  # libav reads several PCM samples at once
        starts = np.searchsorted(positions, [packet.pos for packet in packets])
        assert positions[starts].tolist() == [packet.pos for packet in packets]
        assert np.add.reduceat(sizes, starts).tolist() == [packet.size for packet in packets]
        assert len({int(dts[at]) - packet.dts for at, packet in zip(starts, packets, strict=True)}) == 1
        return
    assert positions.tolist() == [packet.pos for packet in packets]
    assert sizes.tolist() == [packet.size for packet in packets]
    pts = dts + track.composition_offsets()
    assert len({int(time) - packet.dts for time, packet in zip(dts, packets, strict=True)}) <= 1
    assert len({int(time) - packet.pts for time, packet in zip(pts, packets, strict=True)}) <= 1
    assert track.keyframes.tolist() == [number for number, packet in enumerate(packets) if packet.is_keyframe]


def test_made_files(path: Path) -> None:
    index = read(path)
    compare(path, index)
    assert Index.loads(index.dumps()).dumps() == index.dumps()


def test_headers_of_made_files(path: Path) -> None:
    index = read(path)
    for track in index.tracks:
        if track.handler == "soun":
            assert track.language == "eng" and track.name and track.width == 0
        else:
            assert track.width > 0 and track.height > 0
        assert len(track.entries) == 1 and len(track.entries[0]) == int.from_bytes(track.entries[0][:4], "big")


def test_64_bit_sizes_and_offsets(tmp_path: Path) -> None:
    narrow = make(tmp_path / "narrow.mp4", seconds=2.0, flags="")
    wide = widen(narrow, tmp_path / "wide.mp4")
    compare(wide, read(wide))
    for a, b in zip(read(narrow).tracks, read(wide).tracks, strict=True):
        assert (b.ranges(0, b.samples)[:, 0] - a.ranges(0, a.samples)[:, 0] == 8).all()


def test_payload_bytes(tmp_path: Path) -> None:
    """The bytes of the ranges are those of libav's packets."""
    path = make(tmp_path / "a.mp4", seconds=1.0, flags="+frag_keyframe+empty_moov")
    data = path.read_bytes()
    index = parse_counting(data)[0]
    with av.open(str(path)) as container:
        for track, stream in zip(index.tracks, container.streams, strict=True):
            container.seek(0)
            expected = b"".join(bytes(packet) for packet in container.demux(stream) if packet.size)
            assert b"".join(data[o : o + n] for o, n in track.ranges(0, track.samples).tolist()) == expected


if MEDIA:

    @pytest.mark.parametrize("footage", MEDIA, ids=[path.name for path in MEDIA])
    def test_real_footage(footage: Path) -> None:
        compare(footage, read(footage))
