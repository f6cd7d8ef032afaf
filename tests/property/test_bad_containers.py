"""Bad Matroska, WebM, MPEG-TS and MOV: the conversion gives a file that opens, or a StreamGateError, and leaves nothing half."""

from __future__ import annotations

import time
from pathlib import Path

import av
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamgate.errors import StreamGateError
from streamgate.storage.assets import discover, open_asset
from streamgate.transcode.remux import remux
from tests.media_factory import Audio, Video, make

_SECONDS = 10.0
_QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("bad")
    video, audio = Video(size=(64, 36), gop=12), Audio(rate=48000, layout="mono", bitrate=32000)
    made = {
        ".mkv": make(folder / "a.mkv", video, audio, seconds=1),
        ".webm": make(folder / "a.webm", Video(size=(64, 36), codec="libvpx"), Audio(codec="libopus"), seconds=0.5),
        ".ts": make(folder / "a.ts", video, audio, seconds=1),
        ".mov": make(folder / "a.mov", video, Audio(codec="pcm_s16le"), seconds=0.5),
    }
    return {suffix: path.read_bytes() for suffix, path in made.items()}


def convert(data: bytes, suffix: str, folder: Path) -> str:
    """Convert ``data`` and open what comes out; "ok" or the code of the StreamGateError. The folder is empty before and after."""
    source, target = folder / f"bad{suffix}", folder / "out.mp4"
    source.write_bytes(data)
    began = time.monotonic()
    try:
        remux(source, target, deadline_s=_SECONDS, max_bytes=1 << 24)
        assert target.exists()
        open_asset(discover(target)[0])
        outcome = "ok"
    except StreamGateError as error:
        assert error.detail
        outcome = error.code
    assert time.monotonic() - began < _SECONDS, "bounded time"
    left = {path.name for path in folder.iterdir()} - {source.name, target.name, target.with_suffix(".json").name}
    assert not left, "nothing half is left behind"
    for path in folder.iterdir():
        path.unlink()
    return outcome


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".ts", ".mov"])
def test_whole_and_cut(suffix: str, files: dict[str, bytes], tmp_path: Path) -> None:
    data = files[suffix]
    assert convert(data, suffix, tmp_path) == "ok"  # what has no place in HLS and DASH, VP8 and PCM, is left out
    outcomes = {convert(data[: len(data) * n // 40], suffix, tmp_path) for n in range(40)}
    assert "remux_failed" in outcomes  # nothing at all is no container


@settings(max_examples=60, deadline=None, suppress_health_check=_QUIET)
@given(st.data())
def test_flipped_bytes(files: dict[str, bytes], tmp_path: Path, data: st.DataObject) -> None:
    suffix = data.draw(st.sampled_from(sorted(files)))
    body = bytearray(files[suffix])
    for _ in range(data.draw(st.integers(1, 30))):
        # Headers are where most of the structure is.
        at = data.draw(st.integers(0, min(len(body), data.draw(st.sampled_from((100, 1000, len(body))))) - 1))
        body[at] = data.draw(st.integers(0, 255))
    assert convert(bytes(body), suffix, tmp_path)


@settings(max_examples=40, deadline=None, suppress_health_check=_QUIET)
@given(st.sampled_from([b"\x1a\x45\xdf\xa3", b"\x47\x40\x00\x10", b"\0\0\0\x14ftypqt  ", b""]), st.binary(max_size=800))
def test_noise_behind_a_signature(tmp_path: Path, signature: bytes, body: bytes) -> None:
    assert convert(signature + body, ".mkv", tmp_path) != "ok"


def test_every_demuxer_at_work_is_one_that_is_allowed(files: dict[str, bytes], tmp_path: Path) -> None:
    """The inputs above reach the demuxers that they are meant for."""
    names = set()
    for suffix, data in files.items():
        path = tmp_path / f"a{suffix}"
        path.write_bytes(data)
        with av.open(str(path)) as container:
            names.add(container.format.name)
    assert names == {"matroska,webm", "mpegts", "mov,mp4,m4a,3gp,3g2,mj2"}
