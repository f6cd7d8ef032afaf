"""The parser on fragmented files: defaults, flags, times and bases of moof boxes."""

from __future__ import annotations

import pytest

from streamgate.errors import StreamGateError
from streamgate.native.isobmff import Track

from . import mp4_builder as mp4
from .mp4_builder import (
    box,
    entry,
    fragment,
    full,
    init,
    moof,
    parse,
    parse_counting,
    stbl,
    tfdt,
    tfhd,
    trak,
    trex,
    trun,
    u32,
    u64,
)

NON_SYNC = 0x10000
DEPENDS = 0x1000000
MOOF_IS_BASE = 0x20000


def one(file: bytes) -> Track:
    (track,) = parse(file).tracks
    return track


def refusal(file: bytes, **limits: int) -> str:
    with pytest.raises(StreamGateError) as caught:
        parse(file, **limits)
    return caught.value.code


def positions(track: Track) -> list[int]:
    return [int(track.ranges(i, i + 1)[0, 0]) for i in range(track.samples)]


def with_offset(payload: int, *parts: bytes, run: tuple[object, ...], **flags: object) -> bytes:
    """A fragment whose only run starts at the first byte of its mdat."""
    size = len(fragment(0, *parts, trun(*run, offset=0, **flags))) - 8  # type: ignore[arg-type]
    return fragment(payload, *parts, trun(*run, offset=size + 8, **flags))  # type: ignore[arg-type]


def test_every_field_of_a_run() -> None:
    head = init(trak(stbl()))
    rows = ([40, 50, 60], [5, 6, 7], [0, NON_SYNC, NON_SYNC], [0, 100, -40])
    one_fragment = with_offset(18, tfhd(), tfdt(1000), run=(3, *rows), flags=0xF00, version=1)
    index = parse(head + one_fragment)
    track = index.tracks[0]
    assert index.fragmented and index.brands == ("iso6", "dash") and index.duration == 150
    assert (track.samples, track.first_dts, track.duration, track.payload) == (3, 1000, 150, 18)
    assert track.dts().tolist() == [1000, 1040, 1090] and track.deltas().tolist() == [40, 50, 60]
    assert track.sizes.tolist() == [5, 6, 7] and track.composition_offsets().tolist() == [0, 100, -40]
    assert track.keyframes.tolist() == [0]
    start = len(head) + len(one_fragment) - 18
    assert track.ranges(0, 3).tolist() == [[start, 18]]
    assert track.entries_used == (0,)


@pytest.mark.parametrize("flags", [0x100, 0x200, 0x400, 0x800, 0x300, 0x500, 0x900, 0x600, 0xA00, 0xC00, 0x700, 0xE00])
def test_each_column_alone_and_with_others(flags: int) -> None:
    """What the run leaves out comes from tfhd."""
    columns = {0x100: [40, 50], 0x200: [5, 6], 0x400: [NON_SYNC, 0], 0x800: [3, -4]}
    given = [values for flag, values in columns.items() if flags & flag]
    part = with_offset(20, tfhd(1, 9, 8, NON_SYNC, flags=0x20038), run=(2, *given), flags=flags)
    track = one(init(trak(stbl())) + part)
    assert track.deltas().tolist() == ([40, 50] if flags & 0x100 else [9, 9])
    assert track.sizes.tolist() == ([5, 6] if flags & 0x200 else [8, 8])
    assert track.keyframes.tolist() == ([1] if flags & 0x400 else [])
    assert track.composition_offsets().tolist() == ([3, -4] if flags & 0x800 else [0, 0])


def test_defaults_of_trex_and_first_sample_flags() -> None:
    defaults = trex(1, description=2, duration=512, size=10, flags=NON_SYNC)
    head = init(trak(stbl(entries=[entry("avc1"), entry("avc3")])), defaults=defaults)
    part = with_offset(40, tfhd(), run=(4,), first_flags=0x2000000)
    track = one(head + part + part)
    assert track.keyframes.tolist() == [0, 4] and track.entries_used == (1,)
    assert track.deltas().tolist() == [512] * 8 and track.sizes.tolist() == [10] * 8


def test_the_sample_description_of_a_fragment() -> None:
    head = init(trak(stbl(entries=[entry("avc1"), entry("avc3")])))
    first = with_offset(4, tfhd(1, 1, 4, flags=0x20012), run=(1,))
    second = with_offset(4, tfhd(1, 2, 4, flags=0x20012), run=(1,))
    assert one(head + first + second).entries_used == (0, 1)
    assert refusal(head + with_offset(4, tfhd(1, 3, 4, flags=0x20012), run=(1,))) == "source_malformed"
    assert refusal(head + with_offset(4, tfhd(1, 0, 4, flags=0x20012), run=(1,))) == "source_malformed"


def test_sync_needs_both_flags() -> None:
    flags = [0, NON_SYNC, DEPENDS, 0x2000000, NON_SYNC | DEPENDS]
    part = with_offset(5, tfhd(1, 1, 1, flags=0x20018), run=(5, flags), flags=0x400)
    assert one(init(trak(stbl())) + part).keyframes.tolist() == [0, 3]
    audio = one(init(trak(stbl(), handler="soun")) + part)
    assert audio.all_sync and audio.keyframes.tolist() == [0, 1, 2, 3, 4]


def test_first_sample_flags_win_over_the_column() -> None:
    part = with_offset(3, tfhd(1, 1, 1, flags=0x20018), run=(3, [NON_SYNC, 0, NON_SYNC]), flags=0x400, first_flags=0)
    assert one(init(trak(stbl())) + part).keyframes.tolist() == [0, 1]


def test_several_runs_and_trafs() -> None:
    """A run without an offset follows the one before it, in the same traf."""
    head = init(trak(stbl(), id=1), trak(stbl(), id=2, handler="soun"), defaults=trex(1) + trex(2))

    def trafs(start: int) -> bytes:
        pictures = trun(2, [3, 4], flags=0x200, offset=start), trun(1, [5], flags=0x200)
        video = box("traf", tfhd(1, 10, flags=0x20008), *pictures)
        audio = box("traf", tfhd(2, 20, 6, flags=0x20018), trun(2, offset=start + 12), trun(1, offset=start + 40))
        return moof(video, audio)

    part = trafs(len(trafs(0)) + 8) + box("mdat", bytes(60))
    video, audio = parse(head + part).tracks
    start = len(head) + len(part) - 60
    assert video.ranges(0, 3).tolist() == [[start, 12]]
    assert audio.ranges(0, 3).tolist() == [[start + 12, 12], [start + 40, 6]]


def test_base_data_offset() -> None:
    head = init(trak(stbl()))
    data = box("mdat", bytes(30))
    part = moof(box("traf", tfhd(1, 10, 4, flags=0x18, base=len(head) + 8), trun(2), trun(1, offset=20)))
    assert positions(one(head + data + part)) == [len(head) + 8, len(head) + 12, len(head) + 28]


def test_without_any_base_the_next_traf_follows_the_previous_one() -> None:
    head = init(trak(stbl(), id=1), trak(stbl(), id=2), defaults=trex(1) + trex(2))

    def trafs(start: int) -> bytes:
        first = box("traf", tfhd(1, 10, 4, flags=0x18), trun(2, offset=start))
        second = box("traf", tfhd(2, 10, 5, flags=0x18), trun(2))
        third = box("traf", tfhd(1, 10, 4, flags=0x18), trun(1, offset=3))
        return moof(first, second, third)

    part = trafs(len(trafs(0)) + 8) + box("mdat", bytes(40))
    video, other = parse(head + part).tracks
    start = len(head) + len(part) - 40
    assert positions(video) == [start, start + 4, start + 18 + 3]
    assert positions(other) == [start + 8, start + 13]


def test_data_in_front_of_its_moof() -> None:
    head = init(trak(stbl()))
    data = box("mdat", bytes(10))
    part = moof(box("traf", tfhd(1, 10, 5, flags=0x20018), trun(2, offset=-10)))
    assert one(head + data + part).ranges(0, 2).tolist() == [[len(head) + 8, 10]]


@pytest.mark.parametrize("version", [0, 1])
def test_decode_times(version: int) -> None:
    head = init(trak(stbl()))

    def part(*times: bytes) -> bytes:
        return with_offset(2, tfhd(1, 10, 1, flags=0x20018), *times, run=(2,))

    continuous = one(head + part(tfdt(100, version)) + part(tfdt(120, version)) + part())
    assert continuous.dts().tolist() == [100, 110, 120, 130, 140, 150]
    gap = one(head + part(tfdt(100, version)) + part(tfdt(500, version)) + part(tfdt(521, version)))
    assert gap.deltas().tolist() == [10, 390, 10, 11, 10, 10] and gap.dts().tolist() == [100, 110, 500, 510, 521, 531]
    overlap = one(head + part(tfdt(100, version)) + part(tfdt(113, version)))
    assert overlap.deltas().tolist() == [10, 3, 10, 10]
    touching = one(head + part(tfdt(100, version)) + part(tfdt(110, version)))
    assert touching.deltas().tolist() == [10, 0, 10, 10]
    assert refusal(head + part(tfdt(100, version)) + part(tfdt(109, version))) == "source_malformed"
    absent = one(head + part() + part())
    assert absent.first_dts == 0 and absent.duration == 40


def test_decode_times_beyond_32_bits() -> None:
    head = init(trak(stbl()))
    part = with_offset(2, tfhd(1, 10, 1, flags=0x20018), tfdt(1 << 50), run=(2,))
    assert one(head + part).first_dts == 1 << 50
    assert refusal(head + with_offset(2, tfhd(1, 10, 1, flags=0x20018), tfdt(1 << 61), run=(2,))) == "source_malformed"
    late = with_offset(2, tfhd(1, 10, 1, flags=0x20018), tfdt((1 << 50) + (1 << 33)), run=(2,))
    assert refusal(head + part + late) == "source_malformed"


def test_tfdt_may_follow_the_runs() -> None:
    head = init(trak(stbl()))
    part = with_offset(2, tfhd(1, 10, 1, flags=0x20018), run=(2,))
    at = part.index(b"trun") - 4
    run = part[at : at + 20]
    moved = moof(box("traf", tfhd(1, 10, 1, flags=0x20018), run, tfdt(77))) + box("mdat", bytes(40))
    assert one(head + moved).first_dts == 77


def test_fragments_after_a_moov_with_samples() -> None:
    samples = stbl([3, 4, 5], [10, 10, 20], [(36, 3)], syncs=[0], offsets=[1, 2, 3])
    head = mp4.ftyp("iso6", "dash", "mp41") + box("mdat", bytes(12)) + mp4.moov(trak(samples), box("mvex", trex()))
    part = with_offset(12, tfhd(1, 7, 6, NON_SYNC, flags=0x20038), tfdt(40), run=(2,), first_flags=0)
    track = one(head + part)
    assert track.dts().tolist() == [0, 10, 20, 40, 47] and track.sizes.tolist() == [3, 4, 5, 6, 6]
    assert track.keyframes.tolist() == [0, 3] and track.composition_offsets().tolist() == [1, 2, 3, 0, 0]
    later = one(head + with_offset(12, tfhd(1, 7, 6, NON_SYNC, flags=0x20038), tfdt(100), run=(2,)))
    assert later.deltas().tolist() == [10, 10, 80, 7, 7] and later.keyframes.tolist() == [0]


def test_all_samples_of_the_moov_are_sync_samples_when_it_has_no_stss() -> None:
    samples = stbl([4] * 3, [10, 20, 10], [(32, 3)])
    head = mp4.ftyp() + box("mdat", bytes(12)) + mp4.moov(trak(samples), box("mvex", trex()))
    track = one(head + with_offset(12, tfhd(1, 7, 6, NON_SYNC, flags=0x20038), run=(2,)))
    assert track.keyframes.tolist() == [0, 1, 2] and track.dts().tolist() == [0, 10, 30, 40, 47]


def test_a_movie_fragment_duration() -> None:
    for mehd in (full("mehd", u32(777)), full("mehd", u64(777), version=1)):
        assert parse(init(trak(stbl()), defaults=mehd + trex())).duration == 777
    assert parse(init(trak(stbl()), defaults=full("mehd", u32(777)) + trex(), header=mp4.mvhd(1000, 5))).duration == 5


def test_an_init_segment_alone_has_tracks_without_samples() -> None:
    index = parse(init(trak(stbl())))
    assert index.fragmented and index.tracks[0].samples == 0 and index.duration == 0


def test_empty_fragments() -> None:
    head = init(trak(stbl()))
    nothing = moof() + moof(box("traf", tfhd())) + moof(box("traf", tfhd(), tfdt(90), trun(0)))
    assert one(head + nothing).samples == 0
    assert one(head + nothing + with_offset(2, tfhd(1, 10, 1, flags=0x20018), run=(2,))).first_dts == 90


def sidx(*sizes: int, first: int = 0, version: int = 0, children: bool = False) -> bytes:
    head = u32(1, 1000) + (u64(0, first) if version else u32(0, first))
    rows = (u32((int(children) << 31) | size, 1000, 0x90000000) for size in sizes)
    return full("sidx", head, u32(len(sizes)), *rows, version=version)


@pytest.mark.parametrize("version", [0, 1])
def test_segment_indexes(version: int) -> None:
    head = init(trak(stbl()))
    part = with_offset(20, tfhd(1, 10, 10, flags=0x20018), run=(2,))
    flat = head + sidx(len(part), len(part), version=version) + part + part
    assert one(flat).samples == 4
    leaf = sidx(len(part), version=version)
    tree = head + sidx(len(leaf + part), len(leaf + part), children=True, version=version) + leaf + part + leaf + part
    assert one(tree).samples == 4
    gap = head + sidx(len(part), first=8, version=version) + box("free") + part
    assert one(gap).samples == 2


def test_a_segment_index_tells_that_fragments_are_missing() -> None:
    head = init(trak(stbl()))
    part = with_offset(20, tfhd(1, 10, 10, flags=0x20018), run=(2,))
    file = head + sidx(len(part), len(part)) + part
    assert refusal(file) == "source_truncated"
    assert refusal(head + sidx(len(part), first=1 << 20) + part) == "source_truncated"
    assert refusal(head + sidx(len(part), first=-1, version=1) + part) == "source_truncated"
    lying = full("sidx", u32(1, 1000, 0, 0, 60000))
    assert refusal(head + lying + part) == "source_malformed"


def test_a_request_a_fragment() -> None:
    """Small fragments share a read; large ones need one each."""
    head = init(trak(stbl()))
    small = with_offset(2000, tfhd(1, 10, 1000, flags=0x20018), run=(2,))
    assert len(parse_counting(head + small * 100)[1]) == 1
    large = with_offset(1 << 20, tfhd(1, 10, 1 << 19, flags=0x20018), run=(2,))
    index, reads = parse_counting(head + large * 5)
    assert index.tracks[0].samples == 10 and len(reads) == 5
    assert all(length <= 64 << 10 for _, length in reads[1:])
    many = with_offset(100_000, tfhd(1, 10, 1, flags=0x20018), run=(100_000, [1] * 100_000), flags=0x200)
    index, reads = parse_counting(head + many * 3)
    assert index.tracks[0].samples == 300_000 and len(reads) <= 6


@pytest.mark.parametrize(
    "parts",
    [
        [tfdt(0), trun(1)],
        [tfhd(9, 10, 10, flags=0x20018), trun(1)],
        [full("tfhd", u32(1), flags=0x39), trun(1)],
        [tfhd(1, 10, 10, flags=0x20018), full("trun", u32(5), flags=0x200)],
        [tfhd(1, 10, 10, flags=0x20018), full("trun", u32(0x40000001, 1, 1, 1, 1), flags=0xF00)],
        [tfhd(1, 0x80000000, 10, flags=0x20018), trun(1)],
        [tfhd(1, 10, 10, flags=0x20018), full("trun")],
        [tfhd(1, 10, 10, flags=0x20018), full("trun", u32(0), flags=1)],
    ],
    ids=["no tfhd", "no track", "short tfhd", "short trun", "overflow", "negative", "no count", "no offset"],
)
def test_malformed_fragments(parts: list[bytes]) -> None:
    assert refusal(init(trak(stbl())) + fragment(1000, *parts)) == "source_malformed"


def test_samples_of_fragments_beyond_the_end_of_the_file() -> None:
    head = init(trak(stbl()))
    assert refusal(head + with_offset(10, tfhd(1, 10, 11, flags=0x20018), run=(1,))) == "source_truncated"
    assert refusal(head + fragment(10, tfhd(1, 10, 1, flags=0x20018), trun(1, offset=-100000))) == "source_truncated"
    assert refusal(head + fragment(10, tfhd(1, 10, 1, flags=0x18, base=1 << 63), trun(1))) == "source_truncated"
    assert refusal(head + fragment(10, tfhd(1, 10, 1, flags=0x20018), trun(1, offset=0))[:-1]) == "source_truncated"


def test_segments_without_their_init_segment() -> None:
    part = with_offset(20, tfhd(1, 10, 10, flags=0x20018), run=(2,))
    assert refusal(box("styp", b"msdh", u32(0)) + part) == "source_unsupported"
    assert refusal(part) == "source_unsupported"
