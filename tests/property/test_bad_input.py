"""Bad files through the whole way: what comes out is a presentation or a StreamGateError, never anything else."""

from __future__ import annotations

import os
import resource
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamgate.errors import StreamGateError
from streamgate.media import dash, hls
from streamgate.storage.assets import discover, open_asset
from tests.media_factory import Audio, Video, make

_BORDERS = 400
_SECONDS = 5.0
_MEGABYTES = 300


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("bad")
    video, audio = Video(size=(64, 36), gop=12), Audio(rate=16000, layout="mono", bitrate=16000)
    made = {
        "faststart": make(folder / "a.mp4", video, audio, seconds=2.0),
        "moov-last": make(folder / "b.mp4", video, audio, flags="", seconds=2.0),
        "fragmented": make(
            folder / "c.mp4", video, audio, flags="+frag_keyframe+empty_moov+default_base_moof", seconds=2.0
        ),
        "sidx": make(folder / "d.mp4", video, audio, flags="+dash+frag_keyframe+empty_moov+global_sidx", seconds=2.0),
    }
    return {name: path.read_bytes() for name, path in made.items()}


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Whatever asks for more than _MEGABYTES on top of what the process has now, gets a MemoryError, native code too.

    The address space is limited, as a peak of resident memory would hide all growth below an earlier peak.
    """
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _MEGABYTES * 1024 * 1024, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def use(data: bytes, path: Path) -> str:
    """Open ``data`` as an asset and use all of it; returns "ok" or the code of the StreamGateError."""
    path.write_bytes(data)
    start = time.monotonic()
    try:
        with bounded_memory():
            outcome = _use(path)
    except StreamGateError as e:
        # The parser tells a refused allocation in this way: it must not even have asked.
        assert "not enough memory" not in e.detail
        outcome = e.code
    assert time.monotonic() - start < _SECONDS, "bounded time"
    return outcome


def _use(path: Path) -> str:
    asset = open_asset(discover(path)[0])
    made = asset.presentation
    hls.multivariant(made)
    dash.mpd(made)
    for rendition in (*made.video, *made.audio):
        hls.media_playlist(made, rendition)
        rendition.init()
        for n in range(min(rendition.segments, 50)):
            rendition.segment(n).from_fd(asset.sources[rendition.source].fd)
    return "ok"


def borders(data: bytes) -> list[int]:
    """Where boxes begin and end, at every depth."""
    found = {0, len(data)}

    def walk(at: int, end: int) -> None:
        while at + 8 <= end:
            size, kind = struct.unpack_from(">I4s", data, at)
            if size < 8 or at + size > end:
                return
            found.update((at, at + 4, at + 8, at + size))
            if kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf", b"mvex", b"edts", b"dinf"):
                walk(at + 8, at + size)
            elif kind == b"stsd":
                walk(at + 16, at + size)
            at += size

    walk(0, len(data))
    return sorted(found)


def test_memory_beyond_the_bound_is_refused() -> None:
    size = 2 * _MEGABYTES << 20
    with bounded_memory(), pytest.raises(MemoryError):
        np.empty(size, np.uint8)
    assert np.empty(size, np.uint8).size == size


@pytest.mark.parametrize("name", ["faststart", "moov-last", "fragmented", "sidx"])
def test_truncated_at_every_box_border(name: str, files: dict[str, bytes], tmp_path: Path) -> None:
    data = files[name]
    cuts = borders(data)
    assert len(cuts) > 60
    outcomes = {at: use(data[:at], tmp_path / "cut.mp4") for at in cuts[:_BORDERS]}
    assert outcomes[len(data)] == "ok"
    assert set(outcomes.values()) <= {
        "ok",
        "source_truncated",
        "source_malformed",
        "source_unsupported",
        "source_empty",
        "track_empty",
    }
    if name in ("faststart", "moov-last"):
        assert all(code != "ok" for at, code in outcomes.items() if at < len(data))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_flipped_bytes(files: dict[str, bytes], tmp_path: Path, data: st.DataObject) -> None:
    body = bytearray(files[data.draw(st.sampled_from(sorted(files)))])
    head = [at for at in borders(bytes(body)) if at < len(body)]
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.sampled_from(head)) + data.draw(st.integers(0, 40))
        if at < len(body):
            body[at] = data.draw(st.integers(0, 255))
    assert use(bytes(body), tmp_path / "flipped.mp4")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=600))
def test_random_bytes(tmp_path: Path, body: bytes) -> None:
    assert use(body, tmp_path / "noise.mp4") != "ok"


@pytest.mark.parametrize(
    "kind", [b"stsz", b"stts", b"ctts", b"stco", b"stsc", b"stss", b"elst", b"trun", b"sidx", b"stsd"]
)
@pytest.mark.parametrize("count", [0, 0x7FFFFFFF, 0xFFFFFFFF])
def test_counts_that_lie(kind: bytes, count: int, files: dict[str, bytes], tmp_path: Path) -> None:
    used = 0
    for body in files.values():
        at = body.find(kind)
        while at >= 0:
            place = at + {b"stsz": 12, b"sidx": 30}.get(kind, 8)
            lie = body[:place] + struct.pack(">I", count) + body[place + 4 :]
            assert use(lie, tmp_path / "lie.mp4") not in ("", "internal")
            used += 1
            at = body.find(kind, at + 4)
    assert used


@pytest.mark.parametrize("name", ["faststart", "fragmented"])
def test_encrypted_sources_are_named(name: str, files: dict[str, bytes], tmp_path: Path) -> None:
    body = files[name].replace(b"avc1", b"encv").replace(b"mp4a", b"enca")
    assert use(body, tmp_path / "encrypted.mp4") == "source_encrypted"


def test_a_file_replaced_while_it_is_read_is_a_named_error(files: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "shrinks.mp4"
    path.write_bytes(files["faststart"])
    asset = open_asset(discover(path)[0])
    video = asset.presentation.video[0]
    os.truncate(path, 3000)
    assert asset.changed()
    with pytest.raises(StreamGateError) as e:
        video.segment(video.segments - 1).from_fd(asset.sources[0].fd)
    assert e.value.code == "source_truncated"
