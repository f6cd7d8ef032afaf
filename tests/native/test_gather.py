"""The gather kernel: every way to get the output gives head plus ranges, and reads no more than it needs."""

import os
import random
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgate.errors import StreamGateError
from streamgate.native.gather import Plan

SOURCE = random.Random(7).randbytes(150_000)

# Mostly small pieces close together, as in interleaved files, and some far apart or backwards.
RANGES = st.lists(st.tuples(st.integers(0, 100_000), st.integers(0, 50_000) | st.integers(0, 40)), max_size=12)


def expected(head: bytes, ranges: list[tuple[int, int]]) -> bytes:
    return head + b"".join(SOURCE[offset : offset + length] for offset, length in ranges)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    path = tmp_path_factory.mktemp("gather") / "source"
    path.write_bytes(SOURCE)
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


def code_of(error: pytest.ExceptionInfo[StreamGateError]) -> str:
    return error.value.code


@given(head=st.binary(max_size=40), ranges=RANGES, data=st.data())
def test_every_way_gives_the_same_bytes(
    source: int, head: bytes, ranges: list[tuple[int, int]], data: st.DataObject
) -> None:
    plan = Plan(head, ranges)
    whole = expected(head, ranges)
    assert plan.size == len(whole)
    assert plan.head == head
    assert plan.from_fd(source) == whole
    assert plan.from_buffer(SOURCE, 0) == whole
    assert plan.payload_from_fd(source) == whole[len(head) :]
    start = data.draw(st.integers(0, plan.size))
    length = data.draw(st.none() | st.integers(0, plan.size + 10))
    wanted = whole[start:] if length is None else whole[start : start + length]
    assert plan.from_fd(source, start, length) == wanted
    assert plan.from_buffer(SOURCE, 0, start, length) == wanted
    first, span = plan.span
    assert plan.from_buffer(SOURCE[first : first + span], first) == whole


def test_adjacent_ranges_are_merged_and_empty_ones_left_out() -> None:
    plan = Plan(b"head", [(10, 5), (15, 5), (15, 0), (20, 1), (30, 2), (0, 0), (3, 1)])
    assert plan.ranges.tolist() == [[10, 11], [30, 2], [3, 1]]
    assert plan.ranges.dtype == np.uint64
    assert plan.span == (3, 29)


def test_a_plan_without_ranges_is_its_head(source: int) -> None:
    plan = Plan(b"head", [])
    assert (plan.size, plan.span, plan.ranges.shape) == (4, (0, 0), (0, 2))
    assert plan.from_fd(source) == plan.from_buffer(b"", 0) == b"head"
    assert plan.payload_from_fd(source) == b""


def test_a_plan_cannot_be_changed() -> None:
    plan = Plan(b"", np.array([[0, 4]], np.uint64))
    with pytest.raises(StreamGateError) as error:
        plan.__init__(b"other", [])
    assert code_of(error) == "internal"
    with pytest.raises(ValueError, match="read-only"):
        plan.ranges[0, 0] = 1


def test_more_ranges_than_one_call_takes(source: int) -> None:
    ranges = [(4 * i, 3) for i in range(5_000)]
    plan = Plan(b"h" * 9, ranges)
    whole = expected(b"h" * 9, ranges)
    assert plan.from_fd(source) == whole
    assert plan.from_fd(source, 7_000, 6_000) == whole[7_000:13_000]


def test_the_file_offset_is_left_alone(source: int) -> None:
    os.lseek(source, 123, os.SEEK_SET)
    Plan(b"", [(5, 10), (20, 10)]).from_fd(source)
    assert os.lseek(source, 0, os.SEEK_CUR) == 123


def test_threads_share_a_source(source: int) -> None:
    plan = Plan(b"head", [(97 * i, 60) for i in range(1_500)])
    whole = plan.from_buffer(SOURCE, 0)
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: plan.from_fd(source), range(40))) == {whole}


def test_only_what_is_asked_of_a_huge_plan_is_held(tmp_path: Path) -> None:
    path = tmp_path / "huge"
    size = 1 << 36
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(size - 3)
        file.write(b"end")
    plan = Plan(b"head", [(0, size - 10), (size - 9, 9)])
    with path.open("rb") as file:
        tracemalloc.start()
        try:
            assert plan.from_fd(file.fileno(), 0, 8) == b"head\0\0\0\0"
            assert plan.from_fd(file.fileno(), plan.size - 10) == b"\0" * 7 + b"end"
            assert plan.from_fd(file.fileno(), 1 << 35, 4) == bytes(4)
            assert tracemalloc.get_traced_memory()[1] < 65536
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("ranges", [[(149_990, 20)], [(150_000, 1)], [(0, 10), (149_999, 2)], [(0, 10), (400_000, 5)]])
def test_a_source_that_ends_too_early(source: int, ranges: list[tuple[int, int]]) -> None:
    plan = Plan(b"head", ranges)
    with pytest.raises(StreamGateError) as error:
        plan.from_fd(source)
    assert code_of(error) == "source_truncated"
    with pytest.raises(StreamGateError) as error:
        plan.from_buffer(SOURCE, 0)
    assert code_of(error) == "source_truncated"
    assert plan.from_fd(source, 0, 4) == b"head"  # the missing bytes are not asked for


@pytest.mark.parametrize(("base", "held"), [(101, 99), (100, 99), (0, 100), (1 << 63, 10), (200, 0)])
def test_a_buffer_that_does_not_hold_the_ranges(base: int, held: int) -> None:
    plan = Plan(b"", [(100, 50), (150, 50)])
    with pytest.raises(StreamGateError) as error:
        plan.from_buffer(bytes(held), base)
    assert code_of(error) == "source_truncated"


def test_a_source_that_cannot_be_read(tmp_path: Path) -> None:
    plan = Plan(b"", [(0, 4)])
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(StreamGateError) as error:
        plan.from_fd(fd)  # a folder
    assert code_of(error) == "source_unreadable"
    os.close(fd)
    with pytest.raises(StreamGateError) as error:
        plan.from_fd(fd)
    assert code_of(error) == "source_unreadable"
    assert "Bad file descriptor" in error.value.detail


@pytest.mark.parametrize("bounds", [(-1, None), (15, None), (0, -1), (1 << 70, 1)])
def test_sub_ranges_outside_the_output(source: int, bounds: tuple[int, int | None]) -> None:
    plan = Plan(b"head", [(0, 10)])
    with pytest.raises(StreamGateError) as error:
        plan.from_fd(source, *bounds)
    assert code_of(error) == "range_not_satisfiable"
    with pytest.raises(StreamGateError) as error:
        plan.from_buffer(SOURCE, 0, *bounds)
    assert code_of(error) == "range_not_satisfiable"
    assert plan.from_fd(source, 14) == b""


@pytest.mark.parametrize("ranges", [[(1 << 63, 1)], [(1, (1 << 63) - 1)], [(0, 1 << 62)] * 2, [(0, (1 << 64) - 1)]])
def test_ranges_beyond_63_bits(ranges: list[tuple[int, int]]) -> None:
    with pytest.raises(StreamGateError) as error:
        Plan(b"", ranges)
    assert code_of(error) == "source_malformed"


@given(st.binary(max_size=60), RANGES, st.data())
def test_what_comes_piece_by_piece_goes_where_it_belongs(
    head: bytes, ranges: list[tuple[int, int]], choose: st.DataObject
) -> None:
    plan = Plan(head, ranges)
    whole = expected(head, ranges)
    start = choose.draw(st.integers(0, len(whole)))
    out = bytearray(choose.draw(st.integers(0, len(whole) - start)))
    first, length = plan.span
    at, end, done = first, first + length, start
    while True:
        upto = min(end, at + choose.draw(st.integers(1, 60_000)))
        before, done = done, plan.gather(SOURCE[at:upto], at, out, start, done)
        assert before <= done and out[: done - start] == whole[start:done]
        if (at := upto) == end:
            break
    if plan.ascending:
        assert done == start + len(out)


def test_plans_that_go_backwards_say_so() -> None:
    assert Plan(b"", []).ascending and Plan(b"h", [(5, 5), (10, 1), (20, 3)]).ascending
    assert not Plan(b"", [(5, 5), (9, 3)]).ascending and not Plan(b"", [(5, 5), (0, 2)]).ascending


@pytest.mark.parametrize(("start", "done"), [(2, 1), (-1, 0), (0, 2), (0, 9), (4, 4)])
def test_no_byte_goes_outside_of_what_is_filled(start: int, done: int) -> None:
    with pytest.raises(StreamGateError) as caught:
        Plan(b"abc", []).gather(b"", 0, bytearray(1), start, done)
    assert code_of(caught) == "range_not_satisfiable"
