"""Players without a browser: ffmpeg and streamlink, by the same table of abilities."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urljoin
from urllib.request import urlopen

import numpy as np
import pytest

from tests.conftest import find_program
from tests.media_factory import CUES
from tests.players.abilities import PROGRAMS, Client
from tests.players.conftest import FPS, SECONDS

pytestmark = [pytest.mark.slow, pytest.mark.players]

DEADLINE_S = 60
FRAMES = SECONDS * FPS
RUNGS = (90, 180, 360)
# Lines that ffmpeg prints about streams of ours which are as they should be.
FFMPEG_SAYS = {
    r"Can't support the subtitle\(uri: ": "its HLS demuxer has no WebVTT; it says so for each subtitle playlist"
}


def able(engine: str, ability: str) -> pytest.MarkDecorator:
    """The manifests with which ``engine`` has ``ability``."""
    clients = [client for client in PROGRAMS if client.engine == engine and getattr(client, ability) is True]
    return pytest.mark.parametrize("client", clients, ids=lambda client: client.name)


def run(*command: str, folder: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run a program; it must end well in time."""
    program = find_program(command[0])
    assert program
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        [program, *command[1:]], capture_output=True, timeout=DEADLINE_S, cwd=folder, env=environment, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}: {done.stderr.decode()[-2000:]}"
    return done


def ffmpeg(*arguments: str) -> bytes:
    """What ffmpeg writes to its output; it must not warn."""
    done = run("ffmpeg", "-nostdin", "-xerror", "-v", "warning", *arguments)
    lines = [line for line in done.stderr.decode().splitlines() if not any(re.search(p, line) for p in FFMPEG_SAYS)]
    assert lines == []
    return done.stdout


def probe(url: str, *arguments: str) -> list[dict[str, Any]]:
    """The streams of ``url``, with the number of frames that were decoded."""
    done = run("ffprobe", "-v", "error", "-count_frames", "-show_streams", "-of", "json", *arguments, url)
    assert done.stderr == b""
    streams: list[dict[str, Any]] = json.loads(done.stdout)["streams"]
    return streams


def frame_number(picture: bytes, width: int, height: int) -> int:
    """The number that tests.media_factory drew into a grey picture."""
    row = np.frombuffer(picture, np.uint8).reshape(height, width)[height // 12]
    step = width // 16
    return sum(1 << bit for bit in range(16) if row[bit * step + step // 2] > 128)


def manifest(origin: str, client: Client, asset: str = "ladder") -> str:
    return f"{origin}/v/{asset}/{client.manifest}"


# ---- ffmpeg ----


@pytest.mark.needs("ffmpeg", "ffprobe")
@able("ffmpeg", "end")
def test_ffmpeg_plays_all(client: Client, origin: str) -> None:
    ffmpeg("-i", manifest(origin, client), "-map", "0:v", "-map", "0:a", "-f", "null", "-")


@pytest.mark.needs("ffmpeg", "ffprobe")
@able("ffmpeg", "end")
def test_ffprobe_counts_the_source_s_frames(client: Client, origin: str, library: Path) -> None:
    url = manifest(origin, client)
    heights = set()
    for number in range(3):
        [stream] = probe(url, "-select_streams", f"v:{number}")
        [source] = probe(str(library / "ladder" / f"v{stream['height']}.mp4"))
        assert stream["nb_read_frames"] == source["nb_read_frames"] == str(FRAMES)
        heights.add(stream["height"])
    assert heights == set(RUNGS)
    [sound] = probe(url, "-select_streams", "a:0")
    [source] = probe(str(library / "ladder" / "eng.m4a"))
    # The source's edit list hides one frame of priming; in the segments it is there, timed before the picture starts.
    assert int(sound["nb_read_frames"]) - int(source["nb_read_frames"]) in (0, 1)


@pytest.mark.needs("ffmpeg")
@able("ffmpeg", "seek")
def test_ffmpeg_seeks(client: Client, origin: str) -> None:
    # To keyframes: between them ffmpeg's HLS demuxer goes on to the next one.
    for frame in (100, 50, 150):
        picture = ffmpeg(
            "-ss", str(frame // FPS), "-i", manifest(origin, client, "single"), "-map", "0:v:0",
            "-frames:v", "1", "-pix_fmt", "gray", "-f", "rawvideo", "-",
        )  # fmt: skip
        assert frame_number(picture, 320, 180) == frame


@pytest.mark.needs("ffmpeg")
def test_ffmpeg_cannot_seek_in_its_own_hls_either(library: Path, tmp_path: Path) -> None:
    """What FFMPEG_SEEK says. Where this fails, ffmpeg has learnt it, and the table's "no" can go."""
    made = tmp_path / "main.m3u8"
    run("ffmpeg", "-nostdin", "-v", "error", "-i", str(library / "single" / "v180.mp4"), "-c", "copy", "-f", "hls",
        "-hls_playlist_type", "vod", "-hls_segment_type", "fmp4", str(made))  # fmt: skip
    done = run("ffmpeg", "-nostdin", "-v", "warning", "-ss", "4", "-i", str(made), "-map", "0:v:0", "-frames:v", "1",
               "-f", "rawvideo", "-")  # fmt: skip
    assert done.stdout == b"" and b"Invalid NAL unit size" in done.stderr


@pytest.mark.needs("ffmpeg")
@able("ffmpeg", "rung")
def test_ffmpeg_picks_a_rung(client: Client, origin: str) -> None:
    found = {
        len(ffmpeg("-i", manifest(origin, client), "-map", f"0:v:{number}", "-frames:v", "1",
                   "-pix_fmt", "gray", "-f", "rawvideo", "-"))
        for number in range(3)
    }  # fmt: skip
    assert found == {height * 16 // 9 * height for height in RUNGS}


@pytest.mark.needs("ffmpeg")
@able("ffmpeg", "language")
def test_ffmpeg_picks_a_language(client: Client, origin: str) -> None:
    for language, heard, silent in (("en", 440, 660), ("fr", 660, 440)):
        samples = np.frombuffer(
            ffmpeg("-i", manifest(origin, client), "-map", f"0:m:language:{language}", "-map", "-0:v", "-map", "-0:s",
                   "-t", "4", "-ac", "1", "-ar", "48000", "-f", "s16le", "-"),
            np.int16,
        )  # fmt: skip
        spectrum = np.abs(np.fft.rfft(samples[:48000].astype(float)))
        assert spectrum[heard] > 10 * spectrum[silent]


@pytest.mark.needs("ffmpeg")
@able("ffmpeg", "subtitles")
def test_ffmpeg_reads_the_subtitles(client: Client, origin: str) -> None:
    for number, language in enumerate(("eng", "fra")):
        # -copyts: else ffmpeg takes the start of the audio off the cues' times.
        text = ffmpeg("-copyts", "-i", manifest(origin, client), "-map", f"0:s:{number}", "-f", "webvtt", "-").decode()
        cues = re.findall(r"(\d\d:\d\d\.\d{3}) --> \S+\n(.+)", text)
        expected = [f"00:{n:02d}.250" for n in range(SECONDS)]
        assert [start for start, _ in cues] == expected
        plain = [cue.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") for _, cue in cues]
        assert plain == CUES[language][:SECONDS]


@pytest.mark.needs("ffprobe", "ffmpeg")
@able("ffmpeg", "iframes")
def test_ffmpeg_reads_the_keyframes(client: Client, origin: str) -> None:
    if client.protocol == "dash":
        streams = [probe(manifest(origin, client), "-select_streams", f"v:{3 + number}")[0] for number in range(3)]
        assert [stream["nb_read_frames"] for stream in streams] == [str(SECONDS // 2)] * 3
        return
    playlist = iframe_playlist(manifest(origin, client))
    pictures = ffmpeg("-i", playlist, "-pix_fmt", "gray", "-fps_mode", "passthrough", "-f", "rawvideo", "-")
    height = int(re.findall(r"/v(\d+)-", playlist)[0])
    size = height * 16 // 9 * height
    numbers = [frame_number(pictures[n : n + size], height * 16 // 9, height) for n in range(0, len(pictures), size)]
    assert numbers == [0, 50, 100, 150]


def iframe_playlist(url: str) -> str:
    """The URL of the last I-frame playlist of a multivariant playlist."""
    with urlopen(url, timeout=DEADLINE_S) as answer:
        text = str(answer.read().decode())
    uris: list[str] = re.findall(r'#EXT-X-I-FRAME-STREAM-INF:.*URI="([^"]+)"', text)
    return urljoin(url, uris[-1])


# ---- streamlink ----


def streamlink(url: str, target: Path, quality: str = "best", *options: str) -> list[dict[str, Any]]:
    """Download with streamlink into ``target``; gives its streams with their frames."""
    scheme = "dash" if url.endswith(".mpd") else "hls"
    done = run(
        "streamlink",
        "--loglevel",
        "warning",
        "--force",
        *options,
        "--output",
        str(target),
        f"{scheme}://{url}",
        quality,
    )
    assert done.stderr == b"" and not re.search(rb"warning|error", done.stdout), done
    return probe(str(target))


def frames(streams: list[dict[str, Any]], kind: str) -> int:
    return int(next(stream for stream in streams if stream["codec_type"] == kind)["nb_read_frames"])


@pytest.mark.needs("streamlink", "ffmpeg", "ffprobe")
@able("streamlink", "end")
def test_streamlink_gets_every_frame(client: Client, origin: str, tmp_path: Path) -> None:
    streams = streamlink(manifest(origin, client), tmp_path / "all.ts")
    assert frames(streams, "video") == FRAMES
    assert frames(streams, "audio") >= SECONDS * 48000 // 1024


@pytest.mark.needs("streamlink", "ffmpeg", "ffprobe")
@able("streamlink", "seek")
def test_streamlink_starts_in_the_middle(client: Client, origin: str, tmp_path: Path) -> None:
    streams = streamlink(manifest(origin, client), tmp_path / "half.ts", "best", "--hls-start-offset", "4")
    assert frames(streams, "video") == FRAMES // 2


@pytest.mark.needs("streamlink", "ffmpeg", "ffprobe")
@able("streamlink", "rung")
def test_streamlink_picks_a_rung(client: Client, origin: str, tmp_path: Path) -> None:
    for height in RUNGS:
        streams = streamlink(manifest(origin, client), tmp_path / f"{height}.ts", f"{height}p")
        assert next(stream["height"] for stream in streams if stream["codec_type"] == "video") == height


@pytest.mark.needs("streamlink", "ffmpeg", "ffprobe")
@able("streamlink", "language")
def test_streamlink_picks_a_language(client: Client, origin: str, tmp_path: Path) -> None:
    streams = streamlink(manifest(origin, client), tmp_path / "fr.ts", "90p", "--hls-audio-select", "fr")
    assert [stream["tags"]["language"] for stream in streams if stream["codec_type"] == "audio"] == ["fra"]
