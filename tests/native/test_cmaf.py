"""The CMAF kernel's media segments, taken apart again by a small box walker: fields, times, sizes and failures."""

import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgate.errors import StreamGateError
from streamgate.native.cmaf import keyframe_segment, segment, segment_sizes
from streamgate.native.samples import Track
from tests.native.boxes import boxes

BRANDS = ("cmfs", "cmfc", "iso6")
SYNC, NON_SYNC = 0x02000000, 0x01010000
ENTRY = struct.pack(">I4s8x", 16, b"test")


@dataclass
class Parsed:
    """What a segment says: (duration, size, flags, composition offset) a sample, and which fields its boxes have."""

    kinds: list[str]
    sequence: int
    track_id: int
    decode_time: int
    tf: int
    tr: int
    samples: list[tuple[int, int, int, int]]
    data_offset: int
    mdat_header: int


def parse(head: bytes) -> Parsed:
    kinds, moof, moof_at, at, header = [], b"", 0, 0, 0
    while at < len(head):
        size, kind = struct.unpack_from(">I4s", head, at)
        kinds.append(kind.decode())
        if kind == b"moof":
            moof, moof_at = head[at + 8 : at + size], at
        if kind == b"mdat":
            header = len(head) - at
            break
        at += size
    (_, mfhd), (_, traf) = boxes(moof)
    (tfhd_kind, tfhd), (tfdt_kind, tfdt), (trun_kind, trun) = boxes(traf)
    assert (tfhd_kind, tfdt_kind, trun_kind) == ("tfhd", "tfdt", "trun")
    tf, track_id = struct.unpack_from(">II", tfhd)
    rest = [number for (number,) in struct.iter_unpack(">I", tfhd[8:])]
    duration = rest.pop(0) if tf & 0x8 else None
    size = rest.pop(0) if tf & 0x10 else None
    flags = rest.pop(0) if tf & 0x20 else None
    assert not rest
    version, decode_time = struct.unpack(">IQ", tfdt)
    assert version == 1 << 24
    tr, count, data_offset = struct.unpack_from(">IIi", trun)
    assert tr >> 24 == 1
    tr &= 0xFFFFFF
    numbers = [number for (number,) in struct.iter_unpack(">I", trun[12:])]
    first_flags = numbers.pop(0) if tr & 0x4 else flags
    samples = []
    for n in range(count):
        one_duration = numbers.pop(0) if tr & 0x100 else duration
        one_size = numbers.pop(0) if tr & 0x200 else size
        one_flags = numbers.pop(0) if tr & 0x400 else first_flags if n == 0 else flags
        offset = numbers.pop(0) if tr & 0x800 else 0
        assert one_duration is not None and one_size is not None and one_flags is not None
        samples.append((one_duration, one_size, one_flags, offset - (offset >> 31 << 32)))
    assert not numbers
    assert moof_at + data_offset == len(head)
    sequence = struct.unpack(">II", mfhd)[1]
    return Parsed(kinds, sequence, track_id, decode_time, tf, tr, samples, data_offset, header)


def track_of(
    sizes: Sequence[int],
    deltas: Sequence[int] | None = None,
    offsets: Sequence[int] | None = None,
    syncs: Sequence[int] | None = None,
    gap: int = 0,
    first_dts: int = 0,
) -> Track:
    positions = np.concatenate([[0], np.cumsum(np.asarray(sizes, np.uint64) + gap)[:-1]]) + 100
    return Track.from_samples(
        timescale=90_000,
        entries=[ENTRY],
        sizes=sizes,
        deltas=deltas or [3000] * len(sizes),
        offsets=offsets,
        syncs=syncs,
        positions=positions,
        first_dts=first_dts,
    )


def cut(
    track: Track, first: int = 0, last: int | None = None, shift: int = 0, brands: tuple[str, ...] = BRANDS
) -> Parsed:
    last = track.samples if last is None else last
    plan = segment(track, first, last, track_id=7, sequence=3, shift=shift, brands=brands)
    assert plan.ranges.tolist() == track.ranges(first, last).tolist()
    return parse(plan.head)


@st.composite
def tracks(draw: st.DrawFn) -> Track:
    """Tracks in which each column is constant, or nearly, or not at all."""
    count = draw(st.integers(1, 60))

    def column(values: st.SearchStrategy[int]) -> list[int]:
        common = draw(values)
        made = [common] * count
        for at in draw(st.lists(st.integers(0, count - 1), max_size=3)):
            made[at] = draw(values)
        return draw(st.just(made) | st.lists(values, min_size=count, max_size=count))

    syncs = draw(st.none() | st.sets(st.integers(0, count - 1)))
    return track_of(
        column(st.integers(0, 5000)),
        column(st.integers(0, 9000)),
        draw(st.none() | st.just(column(st.integers(-4000, 4000)))),
        None if syncs is None else sorted(syncs),
        gap=draw(st.sampled_from([0, 10])),
        first_dts=draw(st.integers(0, 1 << 40)),
    )


@given(track=tracks(), data=st.data())
def test_a_segment_says_what_the_track_says(track: Track, data: st.DataObject) -> None:
    borders = data.draw(st.sets(st.integers(0, track.samples), min_size=2))
    starts = sorted(borders)
    brands = data.draw(st.sampled_from([BRANDS, ("msdh",), ()]))
    shift = data.draw(st.integers(0, 1 << 33))
    keys = set(track.keyframes.tolist())
    sizes = segment_sizes(track, np.array(starts, np.uint32), brands=brands)
    assert sizes.dtype == np.uint64
    assert len(sizes) == len(starts) - 1
    for n, (first, last) in enumerate(zip(starts, starts[1:], strict=False)):
        plan = segment(track, first, last, track_id=7, sequence=n + 1, shift=shift, brands=brands)
        assert plan.size == sizes[n] == len(plan.head) + sum(track.sizes[first:last].tolist())
        assert plan.ranges.tolist() == track.ranges(first, last).tolist()
        parsed = parse(plan.head)
        assert parsed.kinds == (["styp"] if brands else []) + ["moof", "mdat"]
        assert (parsed.sequence, parsed.track_id) == (n + 1, 7)
        assert parsed.decode_time == track.dts()[first] + shift
        assert parsed.samples == list(
            zip(
                track.deltas(first, last).tolist(),
                track.sizes[first:last].tolist(),
                [SYNC if sample in keys else NON_SYNC for sample in range(first, last)],
                track.composition_offsets(first, last).tolist(),
                strict=True,
            )
        )


BASE = 0x020000  # default-base-is-moof
EACH = 0x000001  # data-offset-present


@pytest.mark.parametrize(
    ("track", "tf", "tr"),
    [
        pytest.param(track_of([9] * 4), 0x38, 0, id="all constant"),
        pytest.param(track_of([9, 8, 9, 9]), 0x28, 0x200, id="sizes differ"),
        pytest.param(track_of([9] * 4, [1, 1, 1, 2]), 0x30, 0x100, id="durations differ"),
        pytest.param(track_of([9] * 4, None, [0, 0, 0, 5]), 0x38, 0x800, id="one offset"),
        pytest.param(track_of([9] * 4, None, [5] * 4), 0x38, 0x800, id="constant offset"),
        pytest.param(track_of([9] * 4, None, None, [0]), 0x38, 0x4, id="first is sync"),
        pytest.param(track_of([9] * 4, None, None, [1, 2, 3]), 0x38, 0x4, id="all but the first are sync"),
        pytest.param(track_of([9] * 4, None, None, []), 0x38, 0, id="none is sync"),
        pytest.param(track_of([9] * 4, None, None, [0, 2]), 0x18, 0x400, id="two are sync"),
        pytest.param(track_of([9] * 4, None, None, [2]), 0x18, 0x400, id="one in the middle is sync"),
        pytest.param(track_of([9], None, None, [0]), 0x38, 0, id="one sample"),
        pytest.param(track_of([9, 8, 9], [1, 2, 3], [4, -1, 0], [0, 2]), 0, 0xF00, id="nothing is constant"),
    ],
)
def test_only_needed_fields_are_there(track: Track, tf: int, tr: int) -> None:
    parsed = cut(track)
    assert (parsed.tf, parsed.tr) == (BASE | tf, EACH | tr)


def test_fields_are_decided_for_each_segment() -> None:
    track = track_of([5, 5, 5, 7, 6, 5], [1, 1, 1, 1, 1, 9], None, [0, 3])
    assert [cut(track, *bounds).tr for bounds in ((0, 3), (3, 6), (3, 5), (0, 6))] == [0x5, 0x305, 0x205, 0x701]


def test_negative_composition_offsets() -> None:
    offsets = [0, -3000, -(1 << 31)]
    assert [sample[3] for sample in cut(track_of([1] * 3, None, offsets)).samples] == offsets


def test_shift_may_be_negative_but_no_time_may() -> None:
    track = track_of([1] * 4, first_dts=6000)
    assert cut(track, 0, 4, shift=-6000).decode_time == 0
    assert cut(track, 1, 4, shift=-9000).decode_time == 0
    assert cut(track_of([1], first_dts=-500), 0, 1, shift=500).decode_time == 0
    for first, shift in ((0, -6001), (1, -9001), (0, -(1 << 63)), (0, (1 << 63) - 1)):
        with pytest.raises(StreamGateError) as error:
            cut(track, first, 4, shift=shift)
        assert error.value.code == "source_malformed"
    with pytest.raises(StreamGateError) as error:
        cut(track_of([1], first_dts=-500), shift=-(1 << 63))
    assert error.value.code == "source_malformed"


GIB = 1 << 30


@pytest.mark.parametrize(
    ("sizes", "header"),
    [([GIB] * 3 + [GIB - 9], 8), ([GIB] * 3 + [GIB - 8], 16), ([GIB] * 4, 16), ([0xFFFFFFFF] * 3, 16), ([0], 8)],
)
def test_mdat_of_4_gib_has_a_64_bit_size(sizes: list[int], header: int) -> None:
    track = track_of(sizes)
    plan = segment(track, 0, len(sizes), track_id=1, sequence=1, shift=0, brands=BRANDS)
    assert parse(plan.head).mdat_header == header
    assert plan.size == len(plan.head) + sum(sizes)
    if header == 16:
        assert struct.unpack(">I4sQ", plan.head[-16:]) == (1, b"mdat", sum(sizes) + 16)
    else:
        assert struct.unpack(">I4s", plan.head[-8:]) == (sum(sizes) + 8, b"mdat")
    assert segment_sizes(track, np.array([0, len(sizes)], np.uint32), brands=BRANDS).tolist() == [plan.size]


def test_long_segments_with_many_ranges() -> None:
    chance = random.Random(3)
    count = 3000
    track = track_of([chance.randrange(1, 900) for _ in range(count)], None, None, list(range(0, count, 50)), gap=5)
    parsed = cut(track)
    assert [size for _, size, _, _ in parsed.samples] == track.sizes.tolist()
    plan = segment(track, 0, count, track_id=1, sequence=1, shift=0, brands=BRANDS)
    assert len(plan.ranges) == count
    assert segment_sizes(track, np.array([0, 10, count], np.uint32), brands=BRANDS)[1] == cut_size(track, 10, count)


def cut_size(track: Track, first: int, last: int) -> int:
    return segment(track, first, last, track_id=1, sequence=1, shift=0, brands=BRANDS).size


@pytest.mark.parametrize("bounds", [(0, 0), (3, 2), (0, 5), (4, 5), (-1, 2), (5, 9)])
def test_samples_that_are_not_there(bounds: tuple[int, int]) -> None:
    track = track_of([1] * 4)
    with pytest.raises(StreamGateError) as error:
        segment(track, *bounds, track_id=1, sequence=1, shift=0, brands=BRANDS)
    assert error.value.code == "segment_not_found"
    if min(bounds) >= 0:
        with pytest.raises(StreamGateError) as error:
            segment_sizes(track, np.array(bounds, np.uint32), brands=BRANDS)
        assert error.value.code == "segment_not_found"


def test_no_starts_no_sizes() -> None:
    track = track_of([1] * 4)
    assert segment_sizes(track, np.array([], np.uint32), brands=BRANDS).shape == (0,)
    assert segment_sizes(track, np.array([2], np.uint32), brands=BRANDS).shape == (0,)


def test_a_brand_has_four_characters() -> None:
    with pytest.raises(StreamGateError) as error:
        segment(track_of([1]), 0, 1, track_id=1, sequence=1, shift=0, brands=("cmf",))
    assert error.value.code == "internal"


def test_a_keyframe_segment_is_one_sample_at_its_presentation_time() -> None:
    track = track_of([10, 20, 30, 40], [1000] * 4, [2000, 5000, -500, 0], [0, 2], gap=3)
    plan = keyframe_segment(track, 2, 77_000, track_id=4, sequence=9, shift=100, brands=BRANDS)
    parsed = parse(plan.head)
    assert (parsed.sequence, parsed.track_id) == (9, 4)
    assert parsed.decode_time == 2000 - 500 + 100
    assert parsed.samples == [(77_000, 30, SYNC, 0)]
    assert plan.ranges.tolist() == track.ranges(2, 3).tolist()


@pytest.mark.parametrize(
    ("sample", "duration", "shift", "code"),
    [
        (1, 10, 0, "segment_not_found"),  # no keyframe
        (4, 10, 0, "segment_not_found"),
        (-1, 10, 0, "segment_not_found"),
        (0, 1 << 32, 0, "source_malformed"),
        (0, -1, 0, "source_malformed"),
        (0, 10, -2001, "source_malformed"),
    ],
)
def test_keyframe_segments_that_cannot_be(sample: int, duration: int, shift: int, code: str) -> None:
    track = track_of([10, 20, 30, 40], [1000] * 4, [2000, 5000, -500, 0], [0, 2])
    with pytest.raises(StreamGateError) as error:
        keyframe_segment(track, sample, duration, track_id=4, sequence=9, shift=shift, brands=BRANDS)
    assert error.value.code == code
