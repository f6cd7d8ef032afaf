"""The parser on files that are built box by box: everything a moov may say."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from streamgate.errors import StreamGateError
from streamgate.native.isobmff import Parser, Track, read_index

from . import mp4_builder as mp4
from .mp4_builder import HEADER, box, elst, entry, full, parse, parse_counting, progressive, stbl, trak, u32, u64

SIZES = [5, 7, 11, 13, 17, 19]
TOTAL = sum(SIZES)


def one(file: bytes) -> Track:
    (track,) = parse(file).tracks
    return track


def simple(**others: object) -> bytes:
    """The sample table of six samples in one chunk."""
    return stbl(SIZES, [40] * 6, [(HEADER, 6)], **others)  # type: ignore[arg-type]


def test_a_plain_file() -> None:
    offsets = [80, 200, 80, 0, 40, 80]
    samples = stbl(SIZES, [40, 40, 40, 40, 40, 60], [(HEADER, 6)], offsets=offsets, syncs=[0, 3])
    file = progressive(TOTAL, trak(samples, id=7, timescale=1000, size=(640, 360)))
    index = parse(file)
    assert (index.size, index.timescale, index.fragmented, index.brands) == (len(file), 1000, False, ("isom", "mp42"))
    track = index.tracks[0]
    assert (track.id, track.handler, track.timescale, track.enabled) == (7, "vide", 1000, True)
    assert (track.width, track.height, track.matrix) == (640.0, 360.0, mp4.IDENTITY)
    assert (track.samples, track.payload, track.first_dts, track.duration) == (6, TOTAL, 0, 260)
    assert track.sizes.tolist() == SIZES
    assert track.deltas().tolist() == [40, 40, 40, 40, 40, 60]
    assert track.dts().tolist() == [0, 40, 80, 120, 160, 200]
    assert track.composition_offsets().tolist() == offsets
    assert track.keyframes.tolist() == [0, 3] and not track.all_sync
    assert track.ranges(0, 6).tolist() == [[HEADER, TOTAL]]
    assert track.ranges(2, 4).tolist() == [[HEADER + 12, 24]]
    assert track.entries == (entry(),) and track.entries_used == (0,)


def test_the_movie_duration_is_the_longest_tracks_when_the_header_has_none() -> None:
    longer = trak(stbl([1] * 4, [100] * 4, [(HEADER, 4)]), id=2, timescale=30)
    assert parse(progressive(TOTAL, trak(simple()), longer)).duration == 13334  # 400 / 30 s, rounded up
    head = mp4.mvhd(600, 1234, version=1)
    index = parse(mp4.ftyp() + mp4.moov(header=head))
    assert (index.timescale, index.duration, index.tracks) == (600, 1234, ())


@pytest.mark.parametrize("version,unknown", [(0, 0xFFFFFFFF), (1, 0xFFFFFFFFFFFFFFFF)])
def test_an_unknown_movie_duration(version: int, unknown: int) -> None:
    file = mp4.ftyp() + box("mdat", bytes(TOTAL)) + mp4.moov(trak(simple()), header=mp4.mvhd(1000, unknown, version))
    assert parse(file).duration == 240


@pytest.mark.parametrize("version", [0, 1])
def test_header_versions(version: int) -> None:
    matrix = (0, 65536, 0, -65536, 0, 0, 0, 0, 1073741824)
    fields = trak(simple(), id=3, version=version, timescale=90000, matrix=matrix, size=(1.5, 2), enabled=False)
    track = one(progressive(TOTAL, fields))
    assert (track.id, track.timescale, track.language, track.matrix) == (3, 90000, "und", matrix)
    assert (track.width, track.height, track.enabled) == (1.5, 2.0, False)


@pytest.mark.parametrize(
    "code,language", [(0x15C7, "eng"), (0x1A41, "fra"), (0x55C4, "und"), (0x7FFF, "und"), (0, "und"), (0x400, "und")]
)
def test_languages(code: int, language: str) -> None:
    assert one(progressive(TOTAL, trak(simple(), language=code))).language == language


def test_macintosh_languages_of_quicktime_files() -> None:
    head = mp4.ftyp("qt  ", "qt  ", "qt  ")
    languages = [one(progressive(TOTAL, trak(simple(), language=code), head=head)).language for code in (0, 1, 11, 500)]
    assert languages == ["eng", "fra", "jpn", "und"]


@pytest.mark.parametrize(
    "name,component,expected",
    [
        (b"Sound Handler\0", b"\0\0\0\0", "Sound Handler"),
        (b"Sound Handler", b"\0\0\0\0", "Sound Handler"),
        (b"\x05Apple", b"mhlr", "Apple"),
        (b"\x05Apple\0\0\0", b"mhlr", "Apple"),
        (b"\x05Apple\0", b"\0\0\0\0", "Apple"),
        (b"\xc3\xa9t\xc3\xa9\0junk\0", b"\0\0\0\0", "été"),
        (b"\xff\xfe\0", b"\0\0\0\0", "\ufffd\ufffd"),
        (b"", b"\0\0\0\0", ""),
        (b"\0", b"mhlr", ""),
    ],
)
def test_handler_names(name: bytes, component: bytes, expected: str) -> None:
    assert one(progressive(TOTAL, trak(simple(), name=name, component=component))).name == expected


@pytest.mark.parametrize("version", [0, 1])
def test_edit_lists_are_reported(version: int) -> None:
    edits = ((500, -1, 65536), (1000, 1024, 65536), (1, 5, -32768))
    assert one(progressive(TOTAL, trak(simple(), edits=elst(*edits, version=version)))).edits == edits
    large = (1 << 40, 1 << 41, 65536)
    assert one(progressive(TOTAL, trak(simple(), edits=elst(large, version=1)))).edits == (large,)


@pytest.mark.parametrize("version", [0, 1])
def test_negative_composition_offsets(version: int) -> None:
    offsets = [0, -40, 80, -2147483648, 2147483647, 0]
    track = one(progressive(TOTAL, trak(simple(offsets=offsets, ctts_version=version))))
    assert track.composition_offsets().tolist() == offsets


def test_short_ctts_means_zero_and_a_long_one_is_cut() -> None:
    assert one(progressive(TOTAL, trak(simple(offsets=[7, 7])))).composition_offsets().tolist() == [7, 7, 0, 0, 0, 0]
    assert one(progressive(TOTAL, trak(simple(offsets=[7] * 99)))).composition_offsets().tolist() == [7] * 6


def test_sync_samples() -> None:
    absent = one(progressive(TOTAL, trak(simple())))
    assert absent.all_sync and absent.keyframes.tolist() == list(range(6))
    empty = one(progressive(TOTAL, trak(simple(syncs=[]))))
    assert not empty.all_sync and empty.keyframes.tolist() == []
    every = one(progressive(TOTAL, trak(simple(syncs=range(6)))))
    assert every.all_sync and every.keyframes.tolist() == list(range(6))
    beyond = one(progressive(TOTAL, trak(simple(syncs=[1, 5, 6, 100]))))
    assert beyond.keyframes.tolist() == [1, 5]


@pytest.mark.parametrize("co64", [False, True])
def test_chunks(co64: bool) -> None:
    """Chunks in any order of the file; those that touch become one range."""
    chunks = [(HEADER + 100, 1), (HEADER + 105, 2), (HEADER, 2), (HEADER + 50, 1)]
    track = one(progressive(200, trak(stbl(SIZES, [40] * 6, chunks, co64=co64))))
    assert track.ranges(0, 6).tolist() == [[HEADER + 100, 23], [HEADER, 30], [HEADER + 50, 19]]
    assert [track.ranges(i, i + 1)[0, 0] - HEADER for i in range(6)] == [100, 105, 112, 0, 13, 50]


def test_the_last_chunk_may_claim_more_samples() -> None:
    track = one(progressive(TOTAL, trak(stbl(SIZES, [40] * 6, [(HEADER, 4), (HEADER + 36, 4)]))))
    assert track.ranges(0, 6).tolist() == [[HEADER, TOTAL]]


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("count", [5, 6])
def test_compact_sizes(bits: int, count: int) -> None:
    sizes = {4: [1, 15, 3, 0, 9, 2], 8: [1, 255, 3, 0, 9, 2], 16: [1, 65535, 3, 0, 256, 2]}[bits][:count]
    samples = stbl(sizes, [1] * count, [(HEADER, count)], size_box=mp4.stz2(sizes, bits))
    track = one(progressive(70000, trak(samples)))
    assert track.sizes.tolist() == sizes and track.sizes.dtype == np.uint16


def test_large_and_constant_sizes() -> None:
    large = one(progressive(70000, trak(stbl([1, 65536, 2], [1] * 3, [(HEADER, 3)]))))
    assert large.sizes.tolist() == [1, 65536, 2] and large.sizes.dtype == np.uint32
    for size_box in (full("stsz", u32(4, 1000)), mp4.stsz([4] * 1000)):
        constant = one(progressive(4000, trak(stbl((), [1] * 1000, [(HEADER, 1000)], size_box=size_box))))
        assert constant.sizes.strides == (0,) and constant.sizes.tolist() == [4] * 1000
        assert constant.ranges(300, 700).tolist() == [[HEADER + 1200, 1600]]


def test_several_sample_entries() -> None:
    entries = [entry("avc1"), entry("encv"), entry("avc3", b"other")]
    chunks = [(HEADER, 2, 1), (HEADER + 12, 2, 3), (HEADER + 36, 2, 3)]
    track = one(progressive(TOTAL, trak(stbl(SIZES, [40] * 6, chunks, entries=entries))))
    assert track.entries == tuple(entries) and track.entries_used == (0, 2)


@pytest.mark.parametrize("description", [0, 2, 0xFFFFFFFF])
def test_a_sample_entry_that_does_not_exist(description: int) -> None:
    samples = stbl(SIZES, [40] * 6, [(HEADER, 6, description)])
    assert refusal(progressive(TOTAL, trak(samples))) == "source_malformed"


def test_a_track_without_samples_is_kept() -> None:
    track = one(mp4.ftyp() + mp4.moov(trak(stbl(), handler="text")))
    assert (track.samples, track.payload, track.duration, track.handler, track.entries_used) == (0, 0, 0, "text", ())
    assert track.sizes.tolist() == track.keyframes.tolist() == track.dts().tolist() == track.ranges(0, 0).tolist() == []


def test_box_sizes_of_64_bits_and_to_the_end_of_the_file() -> None:
    samples = stbl(SIZES, [40] * 6, [(HEADER + 8, 6)])
    wide = mp4.ftyp() + mp4.wide_box("mdat", bytes(TOTAL)) + mp4.wide_box("moov", mp4.mvhd(), trak(samples))
    assert one(wide).ranges(0, 6).tolist() == [[HEADER + 8, TOTAL]]
    front = mp4.moov(trak(stbl(SIZES, [40] * 6, [(1000, 6)])))
    endless = mp4.ftyp() + front + box("free", bytes(1000 - 24 - len(front) - 16)) + u32(0) + b"mdat" + bytes(TOTAL)
    assert one(endless).ranges(0, 6).tolist() == [[1000, TOTAL]]
    last = progressive(TOTAL, trak(simple()))
    at = last.index(b"moov") - 4
    assert one(last[:at] + u32(0) + last[at + 4 :]).samples == 6


def test_several_mdat_and_boxes_in_between() -> None:
    first = mp4.ftyp() + box("mdat", bytes(12)) + box("free") + box("uuid", bytes(40)) + box("wide")
    samples = stbl(SIZES, [40] * 6, [(HEADER, 2), (len(first) + 8, 4)])
    track = one(first + box("mdat", bytes(60)) + mp4.moov(trak(samples)))
    assert track.ranges(0, 6).tolist() == [[HEADER, 12], [len(first) + 8, 60]]


def test_quicktime_leaves_zeros_at_the_end_of_a_box() -> None:
    samples = stbl(SIZES, [40] * 6, [(24, 6)])
    file = box("wide") + box("free") + box("mdat", bytes(TOTAL)) + box("moov", mp4.mvhd(), trak(samples), bytes(4))
    index = parse(file)
    assert index.brands == () and index.tracks[0].samples == 6


def test_unknown_boxes_are_ignored_everywhere() -> None:
    samples = stbl(SIZES, [40] * 6, [(HEADER, 6)], others=box("sgpd", b"whatever"))
    boxes = mp4.moov(box("udta", b"12345"), trak(samples), box("zzzz"), box("uuid"))
    file = mp4.ftyp() + box("mdat", bytes(TOTAL)) + boxes
    assert one(file).samples == 6


def test_more_stts_than_samples_is_cut() -> None:
    track = one(progressive(TOTAL, trak(stbl(SIZES, [40] * 5 + [9] * 5, [(HEADER, 6)]))))
    assert track.deltas().tolist() == [40] * 5 + [9]


def test_variable_durations() -> None:
    deltas = [i * i % 1000 for i in range(2000)]
    track = one(progressive(2000, trak(stbl([1] * 2000, deltas, [(HEADER, 2000)]))))
    assert track.deltas().tolist() == deltas
    assert track.dts().tolist() == [0, *np.cumsum(deltas)[:-1].tolist()]
    assert track.duration == sum(deltas)


def refusal(file: bytes, **limits: int) -> str:
    with pytest.raises(StreamGateError) as caught:
        parse(file, **limits)
    return caught.value.code


@pytest.mark.parametrize(
    "samples",
    [
        stbl(SIZES, [40] * 5, [(HEADER, 6)]),
        stbl(SIZES, [40] * 6, [(HEADER, 5)]),
        stbl(SIZES, [40] * 6, []),
        stbl(SIZES, [40] * 5 + [0x80000000], [(HEADER, 6)]),
        stbl(SIZES, [40] * 6, [(HEADER, 6)], syncs=[3, 3]),
        stbl(SIZES, [40] * 6, [(HEADER, 6)], syncs=[-1, 3]),
        stbl(SIZES, [40] * 6, [(HEADER, 6)], size_box=full("stz2", u32(5, 6), bytes(60))),
        stbl(SIZES, [40] * 6, [(HEADER, 6)], entries=[]),
        stbl(SIZES, [40] * 6, [(HEADER, 6)], entries=[u32(4) + b"avc1"]),
    ],
    ids=["stts short", "stsc short", "no chunk", "negative", "stss twice", "stss 0", "stz2", "no entry", "entry size"],
)
def test_tables_that_disagree(samples: bytes) -> None:
    assert refusal(progressive(TOTAL, trak(samples))) == "source_malformed"


def test_a_stsc_that_does_not_ascend() -> None:
    samples = simple().replace(mp4.table("stsc", [(1, 6, 1)]), mp4.table("stsc", [(2, 6, 1)]))
    assert refusal(progressive(TOTAL, trak(samples))) == "source_malformed"
    two = stbl(SIZES, [40] * 6, [(HEADER, 2), (HEADER, 2), (HEADER, 1)])
    assert mp4.table("stsc", [(1, 2, 1), (3, 1, 1)]) in two
    samples = two.replace(mp4.table("stsc", [(1, 2, 1), (3, 1, 1)]), mp4.table("stsc", [(1, 2, 1), (1, 3, 1)]))
    assert refusal(progressive(TOTAL, trak(samples))) == "source_malformed"


def test_two_tracks_of_one_number() -> None:
    assert refusal(progressive(TOTAL, trak(simple()), trak(simple()))) == "source_malformed"


@pytest.mark.parametrize("missing", ["tkhd", "mdhd", "hdlr", "stsd", "mvhd"])
def test_boxes_that_must_be_there(missing: str) -> None:
    file = progressive(TOTAL, trak(simple()))
    assert refusal(file.replace(missing.encode(), b"none")) == "source_malformed"


def test_timescales_of_zero() -> None:
    assert refusal(progressive(TOTAL, trak(simple(), timescale=0))) == "source_malformed"
    assert refusal(mp4.ftyp() + mp4.moov(header=mp4.mvhd(0))) == "source_malformed"


def test_samples_beyond_the_end_of_the_file() -> None:
    size = len(progressive(TOTAL, trak(simple())))
    assert refusal(progressive(TOTAL, trak(stbl(SIZES, [40] * 6, [(size - TOTAL + 1, 6)])))) == "source_truncated"
    assert one(progressive(TOTAL, trak(stbl(SIZES, [40] * 6, [(size - TOTAL, 6)])))).end == size
    samples = stbl(SIZES, [40] * 6, [((1 << 64) - 1, 6)], co64=True)
    assert refusal(progressive(TOTAL, trak(samples))) == "source_truncated"


def test_a_compressed_moov() -> None:
    assert refusal(mp4.ftyp() + box("moov", box("cmov", bytes(20)))) == "source_unsupported"


@pytest.mark.parametrize("file", [b"", b"\x1aE\xdf\xa3" + bytes(100), b"<html>" * 9, bytes(64), b"ID3" + bytes(9), b""])
def test_files_of_other_kinds(file: bytes) -> None:
    assert refusal(file) == "source_unsupported"


def test_no_moov() -> None:
    assert refusal(mp4.ftyp() + box("mdat", bytes(9))) == "source_truncated"


def test_requests_are_few() -> None:
    media = 30 << 20
    front = progressive(media, trak(stbl(SIZES, [40] * 6, [(1000, 6)])), last=False)
    assert parse_counting(front)[1] == [(0, 512 << 10)]
    last = progressive(media, trak(simple()))
    assert parse_counting(last)[1] == [(0, 512 << 10), (HEADER + media, len(last) - HEADER - media)]
    large = stbl([1] * 200_000 + [2], [1] * 200_001, [(9 << 20, 200_001)])
    front = progressive(media, trak(large), last=False)
    start = len(mp4.ftyp())
    assert parse_counting(front)[1] == [(0, 512 << 10), (start, front.index(b"mdat") - 4 - start)]


def test_a_moov_last_that_is_larger_than_the_tail() -> None:
    count = 3_000_000
    sizes = full("stsz", u32(0, count), bytes(4 * count - 4), u32(1))
    samples = stbl((), [1], [(HEADER, count)], size_box=sizes)
    samples = samples.replace(mp4.table("stts", [(1, 1)]), mp4.table("stts", [(count, 1)]))
    file = progressive(4, trak(samples))
    index, reads = parse_counting(file)
    assert index.tracks[0].samples == count and len(reads) == 2


def test_read_index_drives_the_parser() -> None:
    file = progressive(TOTAL, trak(simple()))
    reads = []

    def read(offset: int, length: int) -> bytes:
        reads.append((offset, length))
        return file[offset : offset + length]

    assert read_index(read, len(file)).tracks[0].sizes.tolist() == SIZES
    assert reads == [(0, len(file))]
    with pytest.raises(StreamGateError, match="source_too_complex"):
        read_index(read, len(file), max_samples=5)


def test_the_parser_refuses_early_and_late_calls() -> None:
    file = progressive(TOTAL, trak(simple()))
    parser = Parser(len(file))
    with pytest.raises(StreamGateError, match="source_truncated"):
        parser.index()
    parser.feed(file)
    assert parser.want is None and parser.index().tracks[0].samples == 6
    with pytest.raises(ValueError):
        parser.feed(file)
    with pytest.raises(ValueError):
        Parser(-1)


def test_a_failure_stays() -> None:
    parser = Parser(100)
    with pytest.raises(StreamGateError, match="source_truncated"):
        parser.feed(bytes(99))
    assert parser.want is None
    with pytest.raises(StreamGateError, match="source_truncated"):
        parser.index()


def test_offsets_beyond_four_gibibytes() -> None:
    """A sparse file of 6 GiB with 64-bit positions, of which only the ends are ever asked for."""
    size = 6 << 30
    samples = stbl(SIZES, [40] * 6, [(5 << 30, 3), (1 << 20, 3)], co64=True)
    tail = mp4.moov(trak(samples))
    head = mp4.ftyp() + struct.pack(">I4sQ", 1, b"mdat", size - len(mp4.ftyp()) - len(tail))

    def read(offset: int, length: int) -> bytes:
        end = head.ljust(length, b"\0")[:length] if offset == 0 else b""
        return end or tail[offset - (size - len(tail)) :][:length]

    track = read_index(read, size).tracks[0]
    assert track.ranges(0, 6).tolist() == [[5 << 30, 23], [1 << 20, 49]]
    assert u64(5 << 30) in tail
