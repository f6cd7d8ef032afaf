"""Other people's strict parsers (m3u8-parser, mpd-parser, mp4box) over every playlist, MPD, init segment and segment of an asset."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.conftest import ROOT, find_program
from tests.media_factory import Audio, Video, make
from tests.players.conftest import FPS, SECONDS
from tests.players.serving import serving

pytestmark = [pytest.mark.slow, pytest.mark.players, pytest.mark.needs("node", "web")]

DEADLINE_S = 120
ALLOWED = {
    r"Found multiple boxes of type styp": "mp4box keeps styp in one slot and says that it makes a list: several segments in one go",
    r"'dfLa' read 38 more bytes than": "mp4box 2.4 goes on where a FLAC metadata block is flagged as the last one, instead of ending",
}
RUNGS = {"v90": (160, 90), "v180": (320, 180), "v360": (640, 360)}
Understood = dict[str, Any]


def understand(asset_url: str, *options: str) -> Understood:
    """What the parsers understood of the asset; they must have nothing to complain about."""
    node = find_program("node")
    assert node
    command = [node, str(Path(__file__).with_name("strict_parsers.mjs")), str(ROOT / "web"), asset_url, *options]
    done = subprocess.run(command, capture_output=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0 and done.stderr == b"", done.stderr.decode()[-3000:]
    told: Understood = json.loads(done.stdout)
    assert [line for line in told["complaints"] if not any(re.search(pattern, line) for pattern in ALLOWED)] == []
    return told


@pytest.fixture(scope="module")
def understood(origin: str) -> Understood:
    return understand(f"{origin}/v/ladder", "--ts")


def fetched(url: str) -> str:
    with urlopen(url, timeout=DEADLINE_S) as answer:
        return str(answer.read().decode())


def test_the_multivariant_playlist(understood: Understood) -> None:
    variants = {item["uri"].partition("-")[0]: item["attributes"] for item in understood["hls"]["variants"]}
    assert set(variants) == set(RUNGS)
    for name, (width, height) in RUNGS.items():
        attributes = variants[name]
        assert attributes["RESOLUTION"] == {"width": width, "height": height}
        assert attributes["FRAME-RATE"] == FPS
        assert attributes["BANDWIDTH"] >= int(attributes["AVERAGE-BANDWIDTH"])
        assert re.fullmatch(r"avc1\.[0-9A-F]{6},mp4a\.40\.2", attributes["CODECS"])
    assert sorted(item["language"] for item in understood["hls"]["languages"]) == ["en", "en", "fr", "fr"]
    assert len(understood["hls"]["iframes"]) == len(understood["ts"]["variants"]) == len(RUNGS)


@pytest.mark.parametrize("flavour", ["hls", "ts"])
def test_the_media_playlists(understood: Understood, flavour: str) -> None:
    for uri, playlist in understood[flavour]["media"].items():
        text = fetched(playlist["url"])
        assert playlist["end"], uri
        assert playlist["version"] == int((re.findall(r"#EXT-X-VERSION:(\d+)", text) or ["1"])[0])
        durations = [segment["duration"] for segment in playlist["segments"]]
        assert durations == [float(value) for value in re.findall(r"#EXTINF:([\d.]+),", text)]
        assert all(round(value) <= playlist["target"] for value in durations)
        assert sum(durations) == pytest.approx(SECONDS, abs=0.05)
        assert playlist["iframes"] == ("#EXT-X-I-FRAMES-ONLY" in text)


def test_bandwidths_are_those_of_the_segments(understood: Understood) -> None:
    """RFC 8216 section 4.3.4.2: BANDWIDTH bounds each segment's bit rate, AVERAGE-BANDWIDTH is that of the whole."""
    media = understood["hls"]["media"]
    audio = next(playlist for uri, playlist in media.items() if uri.startswith("aeng"))
    for variant in understood["hls"]["variants"]:
        payload = media[variant["uri"]]["file"]["bytes"] + audio["file"]["bytes"]
        average = int(variant["attributes"]["AVERAGE-BANDWIDTH"])
        assert payload * 8 / SECONDS <= average <= payload * 8 / SECONDS * 1.1


def test_the_fragments(understood: Understood, library: Path) -> None:
    for uri, playlist in understood["hls"]["media"].items():
        file = playlist["file"]
        if uri.startswith("t"):
            assert file is None
            continue
        assert file["gaps"] == 0, uri
        assert file["brands"] and set(file["boxes"]) == {"ftyp", "moov", "styp", "moof", "mdat"}
        if uri.startswith("v"):
            name = uri.partition("-")[0]
            assert (file["width"], file["height"]) == RUNGS[name]
            assert file["samples"] == (SECONDS // 2 if playlist["iframes"] else SECONDS * FPS)
            assert file["duration"] == SECONDS * file["timescale"]
        else:
            assert file["samples"] == -(-SECONDS * 48000 // 1024) + 1  # with the frame of priming
            assert file["duration"] == file["samples"] * 1024


def test_the_mpd_says_the_same(understood: Understood) -> None:
    dash, media = understood["dash"], understood["hls"]["media"]
    assert dash["end"] and dash["duration"] == SECONDS
    by_name = {uri.partition("/")[0]: playlist for uri, playlist in media.items() if not playlist["iframes"]}
    named = {item["name"]: item for item in dash["playlists"] if item["name"] in by_name}
    assert set(named) == set(by_name)
    for name, item in named.items():
        hls = by_name[name]
        assert item["end"]
        assert item["file"] == hls["file"]
        if name.startswith("t"):
            assert [segment["uri"].rpartition("/")[2] for segment in item["segments"]] == ["all.vtt"]
            continue
        base = hls["url"].rpartition("/")[0]
        assert [segment["uri"] for segment in item["segments"]] == [
            f"{base}/{segment['uri']}" for segment in hls["segments"]
        ]
        for mine, theirs in zip(item["segments"], hls["segments"], strict=True):
            assert mine["duration"] == pytest.approx(theirs["duration"], abs=1e-6)
        if name.startswith("v"):
            width, height = RUNGS[name.partition("-")[0]]
            assert item["attributes"]["RESOLUTION"] == {"width": width, "height": height}


@pytest.mark.parametrize(
    "codec, audio", [("libx265", "eac3"), ("libx264", "ac3"), ("libvpx-vp9", "libopus"), ("libx264", "flac")]
)
def test_other_codecs(tmp_path: Path, codec: str, audio: str) -> None:
    make(tmp_path / "clip.mp4", Video(codec=codec), Audio(codec=audio), seconds=4, strict="experimental")
    with serving(tmp_path) as origin:
        told = understand(f"{origin}/v/clip")
    for uri, playlist in told["hls"]["media"].items():
        assert playlist["file"]["gaps"] == 0, uri
        assert playlist["file"]["samples"] > 0
