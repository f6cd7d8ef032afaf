"""The stored index: small, exact, and proof against damage."""

from __future__ import annotations

import mmap
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgate.errors import StreamGateError
from streamgate.native.isobmff import Index, Track

from . import mp4_builder as mp4
from .mp4_builder import HEADER, box, elst, entry, full, parse, stbl, trak, u32, u64
from .test_isobmff_hostile import FILES

CRC = slice(8, 12)


def same(a: Track, b: Track) -> bool:
    plain = ("id", "handler", "timescale", "language", "name", "enabled", "width", "height", "matrix", "entries",
             "entries_used", "edits", "samples", "first_dts", "duration", "payload", "end", "all_sync")  # fmt: skip
    n = a.samples
    return (
        all(getattr(a, name) == getattr(b, name) for name in plain)
        and a.sizes.dtype == b.sizes.dtype
        and np.array_equal(a.sizes, b.sizes)
        and np.array_equal(a.keyframes, b.keyframes)
        and np.array_equal(a.dts(), b.dts())
        and np.array_equal(a.composition_offsets(), b.composition_offsets())
        and np.array_equal(a.ranges(0, n), b.ranges(0, n))
    )


@pytest.mark.parametrize("name", FILES)
def test_a_stored_index_is_the_same(name: str) -> None:
    index = parse(FILES[name])
    data = index.dumps()
    again = Index.loads(data)
    for field in ("size", "timescale", "duration", "fragmented", "brands"):
        assert getattr(again, field) == getattr(index, field)
    assert len(again.tracks) == len(index.tracks) > 0
    assert all(map(same, index.tracks, again.tracks))
    assert again.dumps() == data


def test_no_table_is_copied() -> None:
    data = parse(FILES["moov last"]).dumps()
    whole = np.frombuffer(data, np.uint8)
    track = Index.loads(data).tracks[0]
    assert np.shares_memory(track.sizes, whole) and np.shares_memory(track.keyframes, whole)
    assert not track.sizes.flags.writeable


def test_buffers_of_any_kind(tmp_path: Path) -> None:
    data = parse(FILES["moov last"]).dumps()
    (tmp_path / "index").write_bytes(data)
    with open(tmp_path / "index", "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    unaligned = memoryview(b"x" + data)[1:]
    writable = bytearray(data)
    for buffer in (memoryview(data), mapped, unaligned, writable):
        assert Index.loads(buffer).dumps() == data  # type: ignore[arg-type]
    kept = Index.loads(writable)  # type: ignore[arg-type]
    writable[:] = bytes(len(writable))
    assert kept.dumps() == data


def refused(data: bytes) -> bool:
    try:
        Index.loads(data)
    except StreamGateError as error:
        return error.code == "source_malformed"
    return False


@pytest.mark.parametrize("name", FILES)
def test_every_damaged_byte_is_noticed(name: str) -> None:
    data = bytearray(parse(FILES[name]).dumps())
    for at in range(len(data)):
        data[at] ^= 1 << at % 8
        assert refused(bytes(data)), at
        data[at] ^= 1 << at % 8
    assert not refused(bytes(data))


def test_every_cut_is_noticed() -> None:
    data = parse(FILES["moov last"]).dumps()
    assert all(refused(data[:size]) for size in range(len(data)))
    assert refused(data + b"\0")
    assert refused(b"")


def mended(data: bytearray) -> bytes:
    """The same bytes with a checksum that fits, as someone who means harm would make them."""
    data[CRC] = struct.pack("<I", zlib.crc32(data[12:]))
    return bytes(data)


def use(data: bytes) -> None:
    """Loads the index and touches every table; StreamGateError is fine."""
    try:
        index = Index.loads(data)
    except StreamGateError:
        return
    for track in index.tracks:
        assert track.end <= index.size
        assert int(track.sizes.sum(dtype=np.uint64)) == track.payload
        track.dts()
        track.composition_offsets()
        assert all(offset + length <= index.size for offset, length in track.ranges(0, track.samples).tolist())
        assert all(number < track.samples for number in track.keyframes.tolist())


@pytest.mark.parametrize("name", FILES)
def test_forged_bytes_do_no_harm(name: str) -> None:
    """With the checksum mended, the tables must prove themselves."""
    original = bytearray(parse(FILES[name]).dumps())
    for at in range(12, len(original)):
        for value in (original[at] ^ 1, original[at] ^ 0x80, 255, 0):
            forged = bytearray(original)
            forged[at] = value
            use(mended(forged))


@given(st.sampled_from(list(FILES)), st.data())
def test_forged_words_do_no_harm(name: str, data: st.DataObject) -> None:
    forged = bytearray(parse(FILES[name]).dumps())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(3, len(forged) // 4 - 1)) * 4
        forged[at : at + 4] = struct.pack("<I", data.draw(st.integers(0, 0xFFFFFFFF)))
    use(mended(forged))


def long_movie(fps: int, seconds: int = 3600) -> bytes:
    """The head of an hour of video and AAC at 48 kHz, interleaved sample by sample by time, as ffmpeg does."""
    generator = np.random.default_rng(0)
    pictures, frames = fps * seconds, seconds * 48000 // 1024
    sizes = np.concatenate([generator.integers(500, 60_000, pictures), generator.integers(200, 700, frames)])
    sizes[:pictures:60] += 100_000
    order = np.argsort(np.concatenate([np.arange(pictures) / fps, np.arange(frames) * 1024 / 48000]), kind="stable")
    positions = np.empty_like(sizes)
    positions[order] = 20_000_000 + np.concatenate([[0], np.cumsum(sizes[order])[:-1]])
    traks = []
    for part, id, delta in ((slice(0, pictures), 1, 512), (slice(pictures, None), 2, 1024)):
        count = len(sizes[part])
        offsets = np.stack([np.ones(count), np.resize([1024, 2560, 1024, 0, 512], count)], 1).astype(">u4")
        syncs = np.arange(1, count + 1, 60).astype(">u4")
        reordered = full("ctts", u32(count), offsets.tobytes()) + full("stss", u32(len(syncs)), syncs.tobytes())
        tables = box(
            "stbl",
            full("stsd", u32(1), entry()),
            full("stts", u32(1, count, delta)),
            reordered if id == 1 else b"",
            full("stsc", u32(1, 1, 1, 1)),
            full("stsz", u32(0, count), sizes[part].astype(">u4").tobytes()),
            full("co64", u32(count), positions[part].astype(">u8").tobytes()),
        )
        traks.append(trak(tables, id=id, timescale=fps * 512 if id == 1 else 48000))
    return mp4.ftyp() + mp4.moov(*traks) + struct.pack(">I4sQ", 1, b"mdat", int(sizes.sum()) + 20_000_000)


@pytest.mark.parametrize("fps", [30, 60])
def test_an_hour_takes_less_than_three_mebibytes(fps: int) -> None:
    from streamgate.native.isobmff import read_index

    head = long_movie(fps)
    index = read_index(lambda offset, length: head[offset : offset + length].ljust(length, b"\0"), 60 << 30)
    video, audio = index.tracks
    assert (video.samples, audio.samples) == (fps * 3600, 168750)
    assert len(index.dumps()) < 3 << 20
    assert len(video.ranges(0, video.samples)) > 100_000


def test_large_numbers_survive() -> None:
    edits = elst((1 << 63, -(1 << 62), -65536), version=1)
    samples = stbl([1], [0x7FFFFFFF], [(HEADER, 1)])
    header = mp4.mvhd(0xFFFFFFFF, (1 << 63) + 1, version=1)
    fields = trak(samples, id=0xFFFFFFFF, timescale=0xFFFFFFFF, edits=edits)
    file = mp4.ftyp() + box("mdat", bytes(9)) + mp4.moov(fields, header=header)
    index = Index.loads(parse(file).dumps())
    assert index.duration == (1 << 63) + 1 and index.tracks[0].edits == ((1 << 63, -(1 << 62), -65536),)
    assert (index.tracks[0].id, index.tracks[0].timescale) == (0xFFFFFFFF, 0xFFFFFFFF)


def test_an_index_cannot_be_made_by_hand() -> None:
    with pytest.raises(TypeError):
        Index()
    with pytest.raises(TypeError):
        Track()
    assert "fragmented=False" in repr(parse(FILES["moov last"]))
    assert u64(1) == bytes(7) + b"\1"
