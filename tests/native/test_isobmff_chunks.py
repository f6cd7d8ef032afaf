"""Where samples lie: chunks of every kind, many enough that the tables' absolute positions and widths come into play."""

import random

import numpy as np
import pytest

from streamgate.errors import StreamGateError
from streamgate.native.isobmff import Parser
from streamgate.native.samples import Track
from tests.native.mp4_builder import entry, ftyp, moov, stbl, table, trak, u32

GAPS = {
    "none": [0],
    "narrow": [1, 200, 0xFFFF],
    "wider and wider": [0, 3, 0x1_0000, 7, 0x1_0000_0000],
    "backwards": [5, -40, 9, 1000],
    "mixed": [0, 0, 3, 70_000, -500, 1 << 33],
}
SIZES = {"equal": [50], "16 bits": [0, 1, 40, 0xFFFF], "32 bits": [0, 9, 0x1_0000, 200_000]}


def laid_out(seed: int, gaps: list[int], sizes: list[int]) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """Chunks (position, samples), the size of each sample and its position."""
    draw = random.Random(seed)
    at = 1_000_000
    chunks, lengths, positions = [], [], []
    for _ in range(700):
        at = max(at + draw.choice(gaps), 0)
        count = draw.choice([1, 1, 1, 2, 2, 3, 4, 300])
        chunks.append((at, count))
        for _ in range(count):
            lengths.append(draw.choice(sizes))
            positions.append(at)
            at += lengths[-1]
    return chunks, lengths, positions


def read(moov_box: bytes, size: int = 1 << 45) -> Track:
    parser = Parser(size)
    head = ftyp() + moov_box
    while parser.want is not None:
        offset, length = parser.want
        parser.feed(head[offset : offset + length].ljust(length, b"\0"))
    return parser.index().tracks[0]


@pytest.mark.parametrize("gaps", GAPS.values(), ids=GAPS)
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_every_sample_is_found(gaps: list[int], sizes: list[int]) -> None:
    chunks, lengths, positions = laid_out(3, gaps, sizes)
    track = read(moov(trak(stbl(lengths, [1] * len(lengths), chunks, co64=True))))
    assert track.sizes.tolist() == lengths
    assert track.payload == sum(lengths)
    assert track.end == max(map(sum, zip(positions, lengths, strict=True)))
    expected = [[at, length] for at, length in zip(positions, lengths, strict=True) if length]
    found = np.concatenate([track.ranges(n, n + 1) for n in range(track.samples)]).tolist()
    assert found == expected


def test_a_chunk_beyond_the_end_among_many() -> None:
    chunks = [(1000 + 60 * n, 1) for n in range(200)]
    sizes = [50] * 199 + [51]
    end = 1000 + 60 * 199 + 51
    samples = stbl(sizes, [1] * 200, chunks)
    assert read(moov(trak(samples)), end + 20_000).end == end
    with pytest.raises(StreamGateError) as error:
        read(moov(trak(stbl(sizes, [1] * 200, [*chunks[:100], (end + 20_000 - 10, 1), *chunks[101:]]))), end + 20_000)
    assert error.value.code == "source_truncated"


@pytest.mark.parametrize(
    "spans", [[], [(2, 1, 1)], [(0, 1, 1)], [(1, 1, 1), (1, 1, 1)], [(1, 1, 1), (3, 1, 1), (2, 1, 1)]]
)
def test_spans_that_do_not_ascend_from_one(spans: list[tuple[int, int, int]]) -> None:
    whole = stbl([50] * 4, [1] * 4, [(1000 * n, 1) for n in range(1, 5)])
    good = table("stsc", [(1, 1, 1)])
    assert good in whole
    samples = u32(len(whole) - len(good) + len(table("stsc", spans))) + whole[4:].replace(good, table("stsc", spans))
    with pytest.raises(StreamGateError) as error:
        read(moov(trak(samples)))
    assert error.value.code == "source_malformed"


def test_the_index_may_be_asked_for_again_and_holds_what_it_says() -> None:
    parser = Parser(1 << 30)
    head = ftyp() + moov(trak(stbl([50] * 4, [1] * 4, [(100_000, 4)], entries=[entry()])))
    while parser.want is not None:
        offset, length = parser.want
        parser.feed(head[offset : offset + length].ljust(length, b"\0"))
    assert parser.index() is parser.index()
    assert parser.index().tracks[0].ranges(0, 4).tolist() == [[100_000, 200]]
