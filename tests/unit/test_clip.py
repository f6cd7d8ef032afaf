"""The demo clip: aligned rungs, two languages, and a clock that tells the time."""

from __future__ import annotations

import errno
import tomllib
from pathlib import Path

import av
import numpy as np
import pytest

from streamgate.errors import StreamGateError
from streamgate.transcode import clip
from tests.media_factory import moment

SECONDS = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "demo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clip, "RUNGS", ((192, 108, 30), (320, 180, 30)))
        clip.make_clip(path, seconds=SECONDS)
    return path


def test_description_names_what_is_there(folder: Path) -> None:
    told = tomllib.loads((folder / "asset.toml").read_text())
    named = [part["file"] for part in (*told["source"], *told["subtitle"])]
    assert sorted(named) == sorted(p.name for p in folder.iterdir() if p.name != "asset.toml")
    assert [part["language"] for part in told["subtitle"]] == ["eng", "fra"]
    assert [part.get("default") for part in told["source"] if "language" in part] == [True, False]


def test_rungs_share_their_keyframes(folder: Path) -> None:
    times = []
    for path in sorted(folder.glob("v*.mp4")):
        with av.open(str(path)) as container:
            packets = [p for p in container.demux(video=0) if p.size]
            assert len(packets) == SECONDS * clip.FPS
            times.append([float(moment(p)) for p in packets if p.is_keyframe])
    assert times == [[0.0, 2.0, 4.0]] * 2


def test_keyframes_are_closed(folder: Path) -> None:
    with av.open(str(folder / "v108.mp4")) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    for number, packet in enumerate(packets):
        if packet.is_keyframe:
            assert all(moment(later) > moment(packet) for later in packets[number + 1 :])


@pytest.mark.parametrize("language", ["eng", "fra"])
def test_sound_ticks_every_second(folder: Path, language: str) -> None:
    with av.open(str(folder / f"{language}.m4a")) as container:
        stream = container.streams.audio[0]
        assert stream.language == language
        wave = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(stream)])
    loud = np.abs(wave[: SECONDS * clip.SAMPLE_RATE]).reshape(SECONDS * 100, -1).max(axis=1)
    for second in range(1, SECONDS):
        assert loud[second * 100] == pytest.approx(loud[second * 100 - 2 : second * 100 + 3].max())
        assert loud[second * 100] > 1.5 * np.median(loud)


def test_languages_sound_different() -> None:
    english, french = clip.sound("eng", 2), clip.sound("fra", 2)
    assert np.abs(english).max() < 1
    assert np.abs(english - french).max() > 0.1


def test_subtitles_end_with_the_clip(folder: Path) -> None:
    text = (folder / "fra.vtt").read_text()
    assert text.startswith("WEBVTT\n")
    assert text.count("-->") == 2
    assert "00:00:03.000 --> 00:00:05.500\nCe clip" in text


def test_clock_is_readable_in_the_decoded_picture(folder: Path) -> None:
    with av.open(str(folder / "v180.mp4")) as container:
        frames = list(container.decode(video=0))
    scale, place = 180 // 60, 180 // 24
    for number in (0, 60, 149):
        luma = frames[number].to_ndarray()[:180]
        mask = clip.stencil(clip.clock(number), scale)
        shown = luma[place : place + mask.shape[0], place : place + mask.shape[1]]
        assert shown[mask].mean() > 180
        assert shown[~mask].mean() < 100


def test_clock() -> None:
    assert clip.clock(0) == "00:00.00"
    assert clip.clock(clip.FPS * 61 + 5) == "01:01.20"


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(StreamGateError) as caught:
        clip.make_clip(tmp_path)
    assert caught.value.code == "output_exists"


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(clip, "write_video", full)
    monkeypatch.setattr(clip, "write_audio", lambda *_: None)
    with pytest.raises(StreamGateError) as caught:
        clip.make_clip(tmp_path / "demo")
    assert caught.value.code == "output_failed"
    assert list(tmp_path.iterdir()) == []
