"""The benchmarks' titles: given footage repeated without a gap, kept, and told apart from generated."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest
from click.testing import CliRunner

from benchmarks import footage
from tests.media_factory import Audio, Video, make, moment


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/streamgate/footage"


def ask(*arguments: str) -> list[Path]:
    """The titles that the command prints."""
    done = CliRunner().invoke(footage.main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return [Path(line) for line in done.output.splitlines()]


def test_given_footage_goes_on_for_the_whole_title(cached: Path, tmp_path: Path) -> None:
    given = make(tmp_path / "given.mp4", Video(size=(64, 36), gop=25), Audio(rate=44100), seconds=7)
    [path] = ask("--input", str(given), "--minutes", "1")
    assert path.parent == cached and path.name.startswith("title-1min-")
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(str(path)) as source:
        packets = [p for p in source.demux() if p.size]
        video = sorted(moment(p) for p in packets if p.stream.type == "video")
        audio = [moment(p) for p in packets if p.stream.type == "audio"]
    assert {after - before for before, after in zip(video, video[1:], strict=False)} == {Fraction(1, 25)}
    assert {after - before for before, after in zip(audio, audio[1:], strict=False)} == {Fraction(1024, 44100)}
    assert 60 <= video[-1] - video[0] < 67 and abs(video[-1] - audio[-1]) < 1


def test_is_made_once_for_each_given_file(cached: Path, tmp_path: Path) -> None:
    given = make(tmp_path / "given.mp4", Video(size=(64, 36)), None, seconds=6)
    [first] = ask("--input", str(given), "--minutes", "1")
    made = first.stat().st_mtime_ns
    assert ask("--input", str(given), "--minutes", "1") == [first]
    assert first.stat().st_mtime_ns == made
    make(given, Video(size=(64, 36), gop=10), None, seconds=6)
    [second] = ask("--input", str(given), "--minutes", "1")
    assert second != first and second.exists()
    assert sorted(path.name for path in cached.iterdir()) == sorted([first.name, second.name])


def test_footage_without_pictures_is_refused_in_words(cached: Path, tmp_path: Path) -> None:
    given = make(tmp_path / "given.m4a", None, Audio(), seconds=1)
    done = CliRunner().invoke(footage.main, ["--input", str(given), "--minutes", "1"])
    assert done.exit_code == 1
    assert done.output.startswith("Error:") and "no video" in done.output
    assert not list(cached.glob("*.mp4"))
