"""Packaging to static files: what is written, and what is said where it cannot be finished."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from streamgate.errors import StreamGateError
from streamgate.media import dash, hls
from streamgate.storage import static
from streamgate.storage.assets import Asset, discover, open_asset
from tests.media_factory import Audio, Video, make


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make(tmp_path / "clip.mp4", Video(), [Audio()])


@pytest.fixture
def asset(clip: Path) -> Asset:
    return open_asset(discover(clip)[0])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("trick_play", [False, True])
def test_files_are_those_that_the_edge_gives(asset: Asset, tmp_path: Path, trick_play: bool) -> None:
    written = static.write(asset, tmp_path / "out", trick_play=trick_play)
    made = asset.presentation
    expected = {
        "main.m3u8": hls.multivariant(made, trick_play=trick_play).encode(),
        "main.mpd": dash.mpd(made, trick_play=trick_play).encode(),
    }
    for r in (*made.video, *made.audio):
        fd = asset.sources[r.source].fd
        expected[f"{r.name}/init.mp4"] = r.init()
        expected[f"{r.name}/index.m3u8"] = hls.media_playlist(made, r).encode()
        expected |= {f"{r.name}/{n}.m4s": r.segment(n).from_fd(fd) for n in range(r.segments)}
        if trick_play and r.keyframes:
            expected[f"{r.name}/iframes.m3u8"] = hls.iframe_playlist(made, r).encode()
            expected |= {f"{r.name}/k{k}.m4s": r.keyframe(k).from_fd(fd) for k in range(r.keyframes)}
    assert contents(tmp_path / "out") == expected
    assert written == sum(map(len, expected.values()))


def test_playlists_name_keyframes_only_where_they_are_written(asset: Asset, tmp_path: Path) -> None:
    for trick_play in (False, True):
        out = tmp_path / str(trick_play)
        static.write(asset, out, trick_play=trick_play)
        assert ("EXT-X-I-FRAME-STREAM-INF" in (out / "main.m3u8").read_text()) is trick_play
        assert ("trickmode" in (out / "main.mpd").read_text()) is trick_play


def test_progress_is_told_per_segment(asset: Asset, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    static.write(asset, tmp_path / "out", progress=lambda done, total: told.append((done, total)))
    total = max(r.segments for r in (*asset.presentation.video, *asset.presentation.audio))
    assert told == [(n + 1, total) for n in range(total)]


def test_a_large_ts_segment_is_refused_before_anything_is_written(asset: Asset, tmp_path: Path) -> None:
    """At the limit, which is the size of the largest file, all is written; a byte below it nothing is."""
    static.write(asset, tmp_path / "all", ts=True)
    largest = max(p.stat().st_size for p in (tmp_path / "all").rglob("*.ts"))
    static.write(asset, tmp_path / "limited", ts=True, max_ts_segment=largest)
    assert contents(tmp_path / "limited") == contents(tmp_path / "all")
    with pytest.raises(StreamGateError) as caught:
        static.write(asset, tmp_path / "out", ts=True, max_ts_segment=largest - 1)
    assert caught.value.code == "ts_unavailable"
    assert f"a segment has {largest} bytes" in caught.value.detail
    assert not (tmp_path / "out").exists()
    static.write(asset, tmp_path / "out", max_ts_segment=largest - 1)  # the limit is one of MPEG-TS alone


def test_a_source_cut_off_meanwhile(asset: Asset, clip: Path, tmp_path: Path) -> None:
    made = asset.presentation
    spans = [r.segment(0).span for r in (*made.video, *made.audio)]
    os.truncate(clip, max(offset + length for offset, length in spans))
    with pytest.raises(StreamGateError) as caught:
        static.write(asset, tmp_path / "out")
    assert caught.value.code == "source_truncated"
    assert f"{tmp_path / 'out'} is left unfinished (whole segments of each rendition: 1)" in caught.value.detail
    assert not list(tmp_path.glob("out/*.m3u8"))


def test_a_full_disk(clip: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: both refuse a write in the middle of a file."""
    out = tmp_path / "out"
    limit = 2048
    script = (
        "import resource, sys; from streamgate.cli import main;"
        f" resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}));"
        f" main(['package', {str(clip)!r}, {str(out)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "[output_failed]" in done.stderr
    assert "File too large" in done.stderr
    assert f"{out} is left unfinished (whole segments of each rendition: 0)" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (out / "main.m3u8").exists()


def test_an_unwritable_place(asset: Asset, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StreamGateError) as caught:
        static.write(asset, tmp_path / "file" / "out")
    assert caught.value.code == "output_failed"


def test_an_mp4_needs_no_decoder_and_no_control_plane(clip: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from streamgate.cli import main;"
        f" main(['package', {str(clip)!r}, {str(tmp_path / 'out')!r}, '--quiet'], standalone_mode=False);"
        " print(*sorted({name.partition('.')[0] for name in sys.modules}),"
        " *sorted(name for name in sys.modules if name.startswith('streamgate.')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    loaded = set(done.stdout.split())
    assert "streamgate.storage.static" in loaded
    unwanted = {"av", "aiohttp", "asyncio", "pydantic", "pydantic_settings", "rich", "structlog", "uvloop", "edge"}
    assert not loaded & (unwanted | {"streamgate.control", "streamgate.transcode"})
