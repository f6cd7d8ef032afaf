"""GStreamer, by the table of abilities."""

from __future__ import annotations

from html import unescape
from pathlib import Path

import numpy as np
import pytest

from tests.media_factory import CUES
from tests.players import gstreamer
from tests.players.abilities import Client
from tests.players.conftest import FPS, SECONDS
from tests.players.test_programs import FRAMES, RUNGS, able, frame_number, manifest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.players,
    pytest.mark.needs("gst-launch-1.0", "gst:playbin3", "gst:avdec_h264", "gst:hlsdemux", "gst:dashdemux"),
]

WIDTH, HEIGHT = 320, 180
PICTURE = WIDTH * HEIGHT * 3 // 2
RATE = 48_000
SYNCED = "fakesink sync=true"


@able("gstreamer", "end")
def test_plays_every_frame(client: Client, origin: str, tmp_path: Path) -> None:
    # One rung: a switch of its own would change the size of the pictures that are counted here.
    raw = tmp_path / "picture.yuv"
    gstreamer.launch(manifest(origin, client, "single"), picture=f"filesink location={raw} sync=false")
    assert raw.stat().st_size == FRAMES * PICTURE


@pytest.mark.needs("gst-play-1.0")
@able("gstreamer", "seek")
def test_seeks_to_the_exact_picture(client: Client, origin: str, tmp_path: Path) -> None:
    raw = tmp_path / "picture.yuv"
    for frame in (100, 30, 180, 51):
        start = f"--start-position={(frame + 0.5) / FPS + client.offset:.3f}"
        with gstreamer.playing(
            manifest(origin, client, "single"), start, picture=f"filesink location={raw} sync=false"
        ):
            pass
        pictures = raw.read_bytes()
        numbers = [
            frame_number(pictures[n : n + WIDTH * HEIGHT], WIDTH, HEIGHT) for n in range(0, len(pictures), PICTURE)
        ]
        assert numbers == list(range(frame, FRAMES))


@able("gstreamer", "rung")
def test_picks_the_rung_that_the_connection_bears(client: Client, origin: str, tmp_path: Path) -> None:
    raw = tmp_path / "picture.yuv"
    for height, kbit in zip(RUNGS, (150, 350, 5000), strict=True):
        raw.unlink(missing_ok=True)
        gstreamer.launch(
            manifest(origin, client), f"connection-speed={kbit}", picture=f"filesink location={raw} sync=false"
        )
        assert raw.stat().st_size == FRAMES * (height * 16 // 9 * height) * 3 // 2


@pytest.mark.needs("gst-play-1.0")
@able("gstreamer", "language")
def test_switches_the_language(client: Client, origin: str, tmp_path: Path) -> None:
    raw = tmp_path / "sound.pcm"
    sound = f"audioconvert ! audioresample ! audio/x-raw,format=S16LE,channels=1,rate={RATE} ! filesink location={raw} sync=true"
    with gstreamer.playing(manifest(origin, client), picture=SYNCED, sound=sound) as terminal:
        terminal.until(r"0:00:01\.\d")
        terminal.press("a")
        terminal.until(r"Switching to audio track 2 of 2 \(French\)")
    samples = np.fromfile(raw, np.int16).astype(float)
    for part, heard, silent in ((samples[: RATE // 2], 440, 660), (samples[-RATE // 2 :], 660, 440)):
        spectrum = np.abs(np.fft.rfft(part, RATE))
        assert spectrum[heard] > 10 * spectrum[silent]


@able("gstreamer", "subtitles")
def test_shows_the_subtitles(client: Client, origin: str, tmp_path: Path) -> None:
    # Which cues are shown, and that a ladder with all its groups plays to the end.
    written = tmp_path / "text"
    gstreamer.launch(manifest(origin, client), text=f"filesink location={written} sync=false")
    # Its WebVTT parser makes Pango markup of text that is escaped already.
    text = unescape(unescape(written.read_text()))
    assert any(text == "".join(cues[:SECONDS]) for cues in CUES.values()), text
