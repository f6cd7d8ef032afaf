"""The parser on files that are cut, damaged or made to hurt: an index or StreamGateError, in little time and memory."""

from __future__ import annotations

import random
import struct
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgate.errors import StreamGateError
from streamgate.native.isobmff import Index, Parser

from . import mp4_builder as mp4
from .mp4_builder import HEADER, box, elst, entry, full, parse, parse_counting, progressive, stbl, trak, u32

SIZES = [5, 7, 11, 13, 17, 19]


def rich_file(last: bool, start: int = HEADER) -> bytes:
    """A small file with one of everything that a moov has, whose media data start at ``start``."""
    sizes = full("stsz", u32(4, 4))
    entries = [entry("mp4a"), entry("enca")]
    sound = stbl((), [1024] * 4, [(start + 72, 2), (start + 80, 2, 2)], size_box=sizes, entries=entries)
    other = stbl([1, 2, 3], [5, 6, 7], [(start + 94, 3)], size_box=mp4.stz2([1, 2, 3], 4), co64=True)
    chunks = [(start, 2), (start + 12, 4)]
    picture = stbl(SIZES, [40, 40, 40, 80, 40, 41], chunks, syncs=[0, 3], offsets=[0, 80, -40, 0, 0, 1])
    traks = [
        trak(picture, edits=elst((200, 40, 65536)), size=(64, 48)),
        trak(sound, id=2, handler="soun", version=1, edits=elst((9, -1, 65536), (8, 0, 65536), version=1)),
        trak(other, id=3, handler="text", name=b"\x04Text", component=b"mhlr"),
    ]
    file = progressive(100, *traks, last=last)
    return file if last or start != HEADER else rich_file(last, file.index(b"mdat") + 4)


def fragmented_file() -> bytes:
    defaults = mp4.trex(1, 1, 40, 10, 0x10000) + mp4.trex(2, 1, 20, 10)
    head = mp4.init(trak(stbl()), trak(stbl(), id=2, handler="soun"), defaults=defaults)
    parts = b""
    for n in range(3):
        video = box("traf", mp4.tfhd(1), mp4.tfdt(n * 80), mp4.trun(2, [0, 40], flags=0x800, offset=200, first_flags=0))
        audio = box("traf", mp4.tfhd(2), mp4.tfdt(n * 40, 0), mp4.trun(2, [20, 20], [10, 10], flags=0x300, offset=220))
        parts += mp4.moof(video, audio, sequence=n) + box("mdat", bytes(60))
    leaf = full("sidx", u32(1, 1000, 0, 0, 1, len(parts), 240, 0x90000000))
    return head + leaf + parts


FILES = {"moov last": rich_file(True), "moov first": rich_file(False), "fragmented": fragmented_file()}


def outcome(file: bytes, **limits: int) -> str:
    """The error's code, or "index"; anything but an index or a StreamGateError fails the test."""
    try:
        index = parse(file, **limits)
    except StreamGateError as error:
        return error.code
    inspect(index)
    return "index"


def inspect(index: Index) -> None:
    """Uses every table of an index."""
    for track in index.tracks:
        assert track.end <= index.size
        assert len(track.sizes) == len(track.dts()) == len(track.composition_offsets()) == track.samples
        assert int(track.sizes.sum()) == track.payload == int(track.ranges(0, track.samples)[:, 1].sum())
        assert int(track.deltas().sum()) == track.duration
        assert all(0 <= number < track.samples for number in track.keyframes.tolist())
        assert all(number < len(track.entries) for number in track.entries_used)
    assert Index.loads(index.dumps()).dumps() == index.dumps()


@pytest.mark.parametrize("name", FILES)
def test_whole_files_are_read(name: str) -> None:
    assert outcome(FILES[name]) == "index"


@pytest.mark.parametrize("name", FILES)
def test_cut_at_every_byte(name: str) -> None:
    file = FILES[name]
    for size in range(len(file)):
        if name == "fragmented" and size == file.index(b"sidx") - 4:
            assert outcome(file[:size]) == "index"  # an init segment alone
        else:
            assert outcome(file[:size]) in ("source_truncated", "source_unsupported" if size < 8 else ""), size


@pytest.mark.parametrize("name", FILES)
def test_a_source_that_gives_fewer_bytes_than_its_size(name: str) -> None:
    file = FILES[name]
    for size in range(0, len(file), 7):
        parser = Parser(len(file))
        with pytest.raises(StreamGateError, match="source_truncated"):
            while parser.want is not None:
                offset, length = parser.want
                parser.feed(file[:size][offset : offset + length])


@pytest.mark.parametrize("name", FILES)
def test_every_byte_damaged(name: str) -> None:
    """Each byte in turn becomes 0, 255 and its complement."""
    file = bytearray(FILES[name])
    seen = set()
    for at in range(len(file)):
        original = file[at]
        for value in (0, 255, original ^ 255, original ^ 1):
            file[at] = value
            seen.add(outcome(bytes(file)))
        file[at] = original
    assert {"index", "source_malformed", "source_truncated"} <= seen


@given(st.sampled_from(list(FILES)), st.data())
def test_damaged_files(name: str, data: st.DataObject) -> None:
    file = bytearray(FILES[name])
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(file) - 4))
        value = data.draw(st.one_of(st.integers(0, 0xFFFFFFFF), st.sampled_from([0, 1, 7, 8, 0x7FFFFFFF, 0xFFFFFFFF])))
        file[at : at + 4] = struct.pack(">I", value)
    outcome(bytes(file), max_samples=100_000)


@given(st.binary(max_size=300), st.sampled_from(["moov", "moof", "sidx", "ftyp", "trak", "stbl", "traf"]))
def test_random_contents(content: bytes, kind: str) -> None:
    if kind in ("trak", "stbl"):
        content = box("trak", content) if kind == "trak" else trak(box("stbl", full("stsd", u32(0)), content))
        kind = "moov"
        content = mp4.mvhd() + content
    if kind == "traf":
        content = mp4.fragment(0, content)
        outcome(mp4.init(trak(stbl())) + content)
    outcome(mp4.ftyp() + box(kind, content))
    outcome(mp4.init(trak(stbl())) + box(kind, content))


@pytest.mark.parametrize("kind", ["stts", "ctts", "stss", "stsc", "stsz", "stco", "co64", "stsd", "elst"])
def test_counts_that_lie(kind: str) -> None:
    """A table that claims 4 billion entries is refused before anything is made for it."""
    samples = stbl(SIZES, [40] * 6, [(HEADER, 6)], syncs=[0], offsets=[0] * 6, co64=kind == "co64")
    file = bytearray(progressive(100, trak(samples, edits=elst((1, 0, 65536)))))
    at = file.index(kind.encode()) + (12 if kind == "stsz" else 8)
    for count in (0xFFFFFFFF, 0x40000000, 7 if kind in ("stsc", "stsd") else 8):
        struct.pack_into(">I", file, at, count)
        assert outcome(bytes(file)) == "source_malformed", count


def test_four_billion_samples_of_one_size() -> None:
    """Constant sizes, durations and chunks need no bytes, so a tiny file may claim any number of samples."""
    for size, count in ((1, 0xFFFFFFFF), (1, 49_000_000), (0xFFFFFFFF, 0xFFFFFFFF)):
        samples = stbl((), [1], [(HEADER, count)], size_box=full("stsz", u32(size, count)))
        samples = samples.replace(mp4.table("stts", [(1, 1)]), mp4.table("stts", [(count, 1)]))
        assert outcome(progressive(100, trak(samples))) in ("source_too_complex", "source_truncated")
    run = mp4.fragment(0, mp4.tfhd(1, 1, 0, flags=0x20018), full("trun", u32(0xFFFFFFFF)))
    assert outcome(mp4.init(trak(stbl())) + run) == "source_too_complex"


def test_many_empty_samples_stay_small() -> None:
    """Samples of size 0 fit into any file: what they take is bounded by max_samples, and tiny."""
    run = mp4.fragment(0, mp4.tfhd(1, 1, 0, flags=0x20018), full("trun", u32(1_000_000)))
    tracemalloc.start()
    started = time.process_time()
    index = parse(mp4.init(trak(stbl())) + run * 49)
    assert index.tracks[0].samples == 49_000_000 and len(index.dumps()) < 1 << 20
    assert time.process_time() - started < 5
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()
    assert outcome(mp4.init(trak(stbl())) + run * 51) == "source_too_complex"


def test_limits() -> None:
    file = FILES["moov last"]
    assert outcome(file, max_samples=13) == "index"
    assert outcome(file, max_samples=12) == "source_too_complex"
    moov = len(file) - file.index(b"moov") + 4
    assert outcome(file, max_index_bytes=moov) == "index"
    assert outcome(file, max_index_bytes=moov - 1) == "source_too_complex"
    assert outcome(file, max_boxes=20) == "source_too_complex"
    parts = FILES["fragmented"]
    assert outcome(parts, max_index_bytes=1000) == "source_too_complex"
    assert outcome(parts, max_samples=11) == "source_too_complex"
    assert outcome(parts, max_samples=12) == "index"


def test_a_huge_moov_is_refused_before_it_is_read() -> None:
    size = 1 << 40
    parser = Parser(size)
    head = mp4.ftyp() + struct.pack(">I4sQ", 1, b"moov", size - 24)
    assert parser.want is not None
    with pytest.raises(StreamGateError, match="source_too_complex"):
        parser.feed(head.ljust(parser.want[1], b"\0"))


def test_too_many_tracks_edits_and_boxes() -> None:
    tracks = [trak(stbl(), id=n) for n in range(1025)]
    assert outcome(mp4.ftyp() + mp4.moov(*tracks[:1024])) == "index"
    assert outcome(mp4.ftyp() + mp4.moov(*tracks)) == "source_too_complex"
    edits = elst(*[(1, 0, 65536)] * 65537)
    assert outcome(mp4.ftyp() + mp4.moov(trak(stbl(), edits=edits))) == "source_too_complex"
    assert outcome(mp4.ftyp() + mp4.moov(box("free") * 1_000_001)) == "source_too_complex"
    assert outcome(mp4.ftyp() + box("ftyp", bytes(2 << 20))) == "source_malformed"


def test_sums_that_overflow() -> None:
    huge = 0x7FFFFFFF
    samples = stbl([1] * 4, [huge] * 4, [(HEADER, 4)])
    assert parse(progressive(100, trak(samples))).tracks[0].duration == 4 * huge
    sizes = stbl([0xFFFFFFFF] * 4, [1] * 4, [(HEADER, 4)])
    assert outcome(progressive(100, trak(sizes))) == "source_truncated"
    offset = stbl([0xFFFFFFFF] * 4, [1] * 4, [((1 << 64) - 0xFFFFFFFF, 4)], co64=True)
    assert outcome(progressive(100, trak(offset))) == "source_truncated"
    long = stbl((), [1], [(HEADER, 49_000_000)], size_box=full("stsz", u32(0, 1), u32(1)))
    slow = trak(long.replace(mp4.table("stts", [(1, 1)]), mp4.table("stts", [(1, huge)])), timescale=1)
    fast = mp4.ftyp() + box("mdat", bytes(9)) + mp4.moov(slow, header=mp4.mvhd(0xFFFFFFFF))
    assert parse(fast).duration == huge * 0xFFFFFFFF


def test_boxes_inside_out() -> None:
    """Boxes larger than what holds them, and of impossible sizes."""
    for size in (1, 2, 7, 0x10000, 0xFFFFFFFF):
        assert outcome(mp4.ftyp() + box("moov", struct.pack(">I4s", size, b"trak") + bytes(20))) == "source_malformed"
    for size in (2, 7):
        assert outcome(mp4.ftyp() + struct.pack(">I4s", size, b"free") + bytes(20)) == "source_malformed"
    for size in (0, 8, 15):
        assert outcome(mp4.ftyp() + struct.pack(">I4sQ", 1, b"free", size) + bytes(20)) == "source_malformed"
    for size in (100, (1 << 63) + 9, (1 << 64) - 1):
        assert outcome(mp4.ftyp() + struct.pack(">I4sQ", 1, b"free", size) + bytes(20)) == "source_truncated"
    wide = struct.pack(">I4sQ", 1, b"trak", (1 << 64) - 8)
    assert outcome(mp4.ftyp() + box("moov", wide + bytes(20))) == "source_malformed"


def test_reads_never_repeat() -> None:
    """Whatever a file says, the reads go forward, so that they end."""
    generator = random.Random(7)
    for name, file in FILES.items():
        for _ in range(300):
            damaged = bytearray(file)
            for _ in range(3):
                damaged[generator.randrange(len(file))] = generator.randrange(256)
            padded = bytes(damaged) + bytes(600_000)
            try:
                reads = parse_counting(padded)[1]
            except StreamGateError:
                continue
            assert len(reads) == len(set(reads)) <= 20, name
