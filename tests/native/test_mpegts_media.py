"""The TS kernel on encoded media: the strict checker and libav read back what the source holds, without a complaint."""

from __future__ import annotations

import io
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from streamgate.native.samples import Track
from tests.media_factory import Audio, Video, make
from tests.native.test_mpegts import Source, cut, expect, split
from tests.native.ts_checker import check, nal_units, pictures

CLOCK = 90000
SEGMENT_S = 2


def demux(path: Path, kind: str) -> tuple[Source, bytes] | None:
    """One track as libav sees it, moved so that no time is negative, and its decoder configuration."""
    with av.open(str(path), options={"advanced_editlist": "0"}) as container:
        stream = next((one for one in container.streams if one.type == kind), None)
        if stream is None:
            return None
        packets = [packet for packet in container.demux(stream) if packet.size]
        assert stream.time_base is not None
        scale = stream.time_base.denominator
        config = bytes(stream.codec_context.extradata or b"")
    dts = np.array([packet.dts for packet in packets], np.int64)
    pts = np.array([packet.pts for packet in packets], np.int64)
    syncs = [n for n, packet in enumerate(packets) if packet.is_keyframe]
    borders = [min(0, int(pts[0])), *range(SEGMENT_S * scale, int(pts.max()), SEGMENT_S * scale)]
    if kind == "video":
        starts = sorted({next((n for n in syncs if pts[n] >= at), len(packets)) for at in borders} | {len(packets)})
    else:
        starts = [int(np.searchsorted(pts, at)) for at in borders] + [len(packets)]
    samples = [bytes(packet) for packet in packets]
    track = Track.from_samples(
        timescale=scale,
        entries=[],
        sizes=[len(one) for one in samples],
        positions=np.cumsum([0, *(len(one) for one in samples)])[:-1],
        first_dts=int(dts[0]),
        deltas=np.diff(dts, append=dts[-1] + packets[-1].duration),
        offsets=pts - dts,
        syncs=syncs,
    )
    return Source(track, samples, starts, scale), config


def read_back(data: bytes, kind: str) -> list[tuple[int, int, bytes]]:
    """Presentation time, decoding time and payload of every packet that libav finds."""
    found = []
    with av.open(io.BytesIO(data), mode="r", format="mpegts") as container:
        stream = next(one for one in container.streams if one.type == kind)
        for packet in container.demux(stream):
            if packet.size:
                assert packet.pts is not None and packet.dts is not None
                found.append((packet.pts, packet.dts, bytes(packet)))
    return found


def complaints(data: bytes) -> list[str]:
    """What libav logs while it reads and decodes everything."""
    av.logging.set_level(av.logging.VERBOSE)
    try:
        with av.logging.Capture() as logs, av.open(io.BytesIO(data), mode="r", format="mpegts") as container:
            for stream in container.streams:
                stream.codec_context.thread_count = 1
            for _ in container.decode():
                pass
    finally:
        av.logging.set_level(None)
    return [
        message
        for level, _, message in logs
        if level <= av.logging.WARNING or "ontinuity" in message or "corrupt" in message or "PES" in message
    ]


VIDEOS = {
    "b-frames": Video(bframes=3),
    "no-b-frames": Video(bframes=0),
    "open-gop": Video(closed=False),
    "23.976": Video(fps=Fraction(24000, 1001), gop=24),
    "59.94": Video(fps=Fraction(60000, 1001), gop=60),
    "variable": Video(variable=True),
    "slow": Video(fps=Fraction(2), gop=4, bframes=1),
    "in-band": Video(options={"x264-params": "keyint=25:repeat-headers=1:aud=1:bframes=2"}),
    "slices": Video(options={"x264-params": "keyint=25:slices=4:aud=1"}),
}
AUDIOS = {
    "48k": Audio(),
    "44.1k": Audio(rate=44100, bitrate=128000),
    "22k": Audio(rate=22050),
    "8k-mono": Audio(rate=8000, layout="mono"),
    "96k": Audio(rate=96000, bitrate=256000),
}


@pytest.mark.parametrize(
    "video, audio, lengths",
    [
        *((name, "48k", (5.0, 5.0)) for name in VIDEOS),
        *(("b-frames", name, (5.0, 5.0)) for name in AUDIOS),
        *((None, name, (5.0, 5.0)) for name in AUDIOS),
        ("b-frames", None, (5.0, 5.0)),
        ("b-frames", "44.1k", (3.0, 8.0)),
        ("b-frames", "44.1k", (6.0, 2.5)),
    ],
)
def test_media_comes_out_again(
    video: str | None, audio: str | None, lengths: tuple[float, float], tmp_path: Path
) -> None:
    path = make(
        tmp_path / "source.mp4",
        VIDEOS[video] if video else None,
        AUDIOS[audio] if audio else None,
        seconds=lengths[0],
        audio_seconds=lengths[1],
    )
    picture, sound = demux(path, "video"), demux(path, "audio")
    segments = cut(
        picture and picture[0], sound and sound[0], avcc=picture[1] if picture else b"", asc=sound[1] if sound else b""
    )
    expect(check(segments), picture and picture[0], sound and sound[0])
    whole = b"".join(segments)
    assert complaints(whole) == []
    if picture:
        source = picture[0]
        found = read_back(whole, "video")
        assert [pictures(nal_units(data)) for _, _, data in found] == [pictures(split(one)) for one in source.samples]
        dts = source.track.dts() + source.shift
        assert_close([one[1] for one in found], dts, source.track.timescale)
        assert_close([one[0] for one in found], dts + source.track.composition_offsets(), source.track.timescale)
    if sound:
        source = sound[0]
        found = read_back(whole, "audio")
        assert [data[7:] for _, _, data in found] == source.samples
        assert_close([one[0] for one in found], source.track.dts() + source.shift, source.track.timescale)


def assert_close(ours: list[int], times: np.ndarray, timescale: int) -> None:
    """All within one tick of 90 kHz."""
    assert len(ours) == len(times)
    worst = max(abs(one - Fraction(int(time) * CLOCK, timescale)) for one, time in zip(ours, times, strict=True))
    assert worst <= 1, float(worst)


def test_overhead_is_small(tmp_path: Path) -> None:
    path = make(tmp_path / "source.mp4", Video(size=(640, 360), bitrate=1_500_000), Audio(bitrate=128000), seconds=4)
    picture, sound = demux(path, "video"), demux(path, "audio")
    assert picture and sound
    payload = sum(map(len, picture[0].samples + sound[0].samples))
    assert sum(map(len, cut(picture[0], sound[0], avcc=picture[1], asc=sound[1]))) < 1.1 * payload


@pytest.mark.slow
@pytest.mark.needs("tsreport", "tsinfo")
@pytest.mark.parametrize("video, audio", [("b-frames", "44.1k"), ("slow", "48k"), (None, "44.1k")])
def test_tstools_agree(video: str | None, audio: str, tmp_path: Path) -> None:
    path = make(tmp_path / "source.mp4", VIDEOS[video] if video else None, AUDIOS[audio], seconds=6)
    picture, sound = demux(path, "video"), demux(path, "audio")
    segments = cut(
        picture and picture[0], sound and sound[0], avcc=picture[1] if picture else b"", asc=sound[1] if sound else b""
    )
    whole = tmp_path / "whole.ts"
    whole.write_bytes(b"".join(segments))
    info = subprocess.run(["tsinfo", whole], capture_output=True, text=True, check=True).stdout
    assert "AAC" in info or "ADTS" in info
    assert ("H.264" in info) == (video is not None)
    report = subprocess.run(["tsreport", "-timing", whole], capture_output=True, text=True, check=True)
    assert not report.stderr and "PCR" in report.stdout
    assert "continuity" not in report.stdout.lower() and "###" not in report.stdout
