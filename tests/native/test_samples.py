"""Sample tables: whatever goes in comes out, in every form a column may take."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamgate.errors import StreamGateError
from streamgate.native.samples import Track


def make(count: int, **columns: Any) -> Track:
    told: dict[str, Any] = {
        "timescale": 1000,
        "entries": [b"entry"],
        "sizes": np.full(count, 10),
        "deltas": np.full(count, 40),
        "positions": np.arange(count) * 10,
    }
    return Track.from_samples(**(told | columns))


def expected_ranges(positions: list[int], sizes: list[int], first: int, last: int) -> list[list[int]]:
    """The definition: the byte range of each sample, those that touch joined, empty ones left out."""
    ranges: list[list[int]] = []
    for offset, length in zip(positions[first:last], sizes[first:last], strict=True):
        if length and ranges and sum(ranges[-1]) == offset:
            ranges[-1][1] += length
        elif length:
            ranges.append([offset, length])
    return ranges


@st.composite
def columns(draw: st.DrawFn) -> dict[str, Any]:
    """Columns of up to 700 samples, in every width: constant, palette, 16, 32 and 64 bits, long and short runs."""
    count = draw(st.integers(0, 700))
    generator = np.random.default_rng(draw(st.integers(0, 1 << 30)))

    def values(*kinds: tuple[int, int]) -> NDArray[np.int64]:
        low, high = draw(st.sampled_from(kinds))
        few = generator.integers(low, high + 1, draw(st.sampled_from([1, 2, 50, 256, 257, 700])))
        return generator.choice(few, count)

    sizes = values((0, 3), (0, 65535), (0, 65536), (0, (1 << 32) - 1))
    broken = generator.random(count) < draw(st.sampled_from([0.0, 0.01, 0.5, 1.0]))
    gaps = values((0, 0), (0, 65535), (0, 1 << 20), (0, 1 << 33)) * broken
    positions = np.concatenate([[0], np.cumsum(sizes + gaps)])[:count] + draw(st.integers(0, 1 << 40))
    if draw(st.booleans()):
        positions = positions[::-1].copy()
    syncs = draw(st.sampled_from([None, [], [0], list(range(0, count, 7)), list(range(count))]))
    return {
        "sizes": sizes,
        "positions": positions,
        "deltas": values((0, 0), (512, 513), (0, 90000), (0, (1 << 31) - 1)),
        "offsets": draw(st.sampled_from([None, values((-1 << 31, (1 << 31) - 1)), values((0, 0), (-5, 5))])),
        "syncs": syncs if syncs is None or count else [],
        "first_dts": draw(st.integers(-1 << 59, 1 << 59)),
    }


@given(columns(), st.data())
def test_what_goes_in_comes_out(told: dict[str, Any], data: st.DataObject) -> None:
    count = len(told["sizes"])
    track = make(count, **told)
    sizes, positions, deltas = told["sizes"].tolist(), told["positions"].tolist(), told["deltas"].tolist()
    offsets = [0] * count if told["offsets"] is None else told["offsets"].tolist()
    syncs = list(range(count)) if told["syncs"] is None else told["syncs"]
    dts = [told["first_dts"] + sum(deltas[:i]) for i in range(count)]

    assert (track.samples, track.first_dts, track.duration) == (count, told["first_dts"], sum(deltas))
    assert track.payload == sum(sizes)
    assert track.end == max((p + s for p, s in zip(positions, sizes, strict=True)), default=0)
    assert track.sizes.tolist() == sizes
    assert track.keyframes.tolist() == syncs and track.all_sync == (len(syncs) == count)
    first, last = sorted((data.draw(st.integers(0, count)), data.draw(st.integers(0, count))))
    assert track.dts(first, last).tolist() == dts[first:last]
    assert track.deltas(first, last).tolist() == deltas[first:last]
    assert track.composition_offsets(first, last).tolist() == offsets[first:last]
    assert track.ranges(first, last).tolist() == expected_ranges(positions, sizes, first, last)
    assert track.ranges(0, count).tolist() == expected_ranges(positions, sizes, 0, count)


def test_the_narrowest_types_are_used() -> None:
    assert make(3, sizes=[1, 65535, 3]).sizes.dtype == np.uint16
    assert make(3, sizes=[1, 65536, 3]).sizes.dtype == np.uint32
    constant = make(1000).sizes
    assert constant.strides == (0,) and constant.shape == (1000,)


def test_views_are_read_only() -> None:
    track = make(10, sizes=range(10), positions=np.arange(10) * 100, syncs=[0, 5])
    for view in (track.sizes, track.keyframes, make(10).sizes):
        assert not view.flags.writeable


@pytest.mark.parametrize("length", [1, 2, 254, 255, 256, 510, 511, 100_000])
@pytest.mark.parametrize("chunk", [1, 3, 255, 256, 100_000])
def test_runs_of_every_length(length: int, chunk: int) -> None:
    positions = np.arange(length) * 10 + np.arange(length) // chunk * 5
    track = make(length, positions=positions)
    chunks = -(-length // chunk)
    ranges = track.ranges(0, length)
    assert len(ranges) == chunks and int(ranges[:, 1].sum()) == 10 * length
    middle = length // 2
    assert track.ranges(middle, middle + 1).tolist() == [[int(positions[middle]), 10]]
    assert track.ranges(length - 1, length).tolist() == [[int(positions[-1]), 10]]


def test_defaults_and_fields() -> None:
    track = make(1)
    assert (track.id, track.handler, track.language, track.name, track.enabled) == (1, "vide", "und", "", True)
    assert track.matrix == (65536, 0, 0, 0, 65536, 0, 0, 0, 1073741824)
    assert (track.entries, track.entries_used, track.edits) == ((b"entry",), (0,), ())
    told: dict[str, Any] = {
        "id": 9, "handler": "soun", "timescale": 48000, "language": "deu", "name": "Ton", "width": 1.5, "height": 2.0,
        "matrix": tuple(range(9)), "edits": ((1, -1, 65536),), "enabled": False,
    }  # fmt: skip
    other = make(2, **told)
    assert {name: getattr(other, name) for name in told} == told
    assert "samples=2" in repr(other)


def test_an_empty_track() -> None:
    track = make(0)
    assert (track.samples, track.duration, track.payload, track.end, track.entries_used) == (0, 0, 0, 0, ())
    assert track.dts().shape == track.sizes.shape == track.keyframes.shape == (0,)
    assert track.ranges(0, 0).shape == (0, 2)


@pytest.mark.parametrize(
    "columns",
    [
        {"sizes": [1, 2]},
        {"deltas": [1, 2]},
        {"offsets": [1, 2]},
        {"positions": [1, 2]},
        {"sizes": [1, 2, -3]},
        {"sizes": [1, 2, 1 << 32]},
        {"deltas": [1, 2, -3]},
        {"deltas": [1, 2, 1 << 31]},
        {"offsets": [0, 0, 1 << 31]},
        {"positions": [0, 1, (1 << 63) - 5]},
        {"syncs": [3]},
        {"timescale": 0},
        {"matrix": [0] * 8},
        {"sizes": [[1, 2, 3]]},
        {"first_dts": 1 << 61},
    ],
)
def test_columns_that_disagree(columns: dict[str, Any]) -> None:
    with pytest.raises(StreamGateError) as caught:
        make(3, **columns)
    assert caught.value.code in ("source_malformed", "source_truncated")


@pytest.mark.parametrize("first,last", [(-1, 2), (0, 4), (2, 1), (4, 4)])
def test_samples_that_do_not_exist(first: int, last: int) -> None:
    track = make(3)
    for table in (track.dts, track.deltas, track.composition_offsets, track.ranges):
        with pytest.raises(IndexError):
            table(first, last)
