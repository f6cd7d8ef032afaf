"""The gather kernel: every way to get the output gives head plus ranges, and reads no more than it needs."""

import os
import random
import signal
import threading
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


def written(plan: Plan, data: bytes, base: int = 0) -> bytes:
    """What write() put into a file."""
    fd = os.memfd_create("out")
    try:
        assert plan.write(fd, data, base) == plan.size
        return os.pread(fd, plan.size + 1, 0)
    finally:
        os.close(fd)


def streamed(plan: Plan, fd: int) -> bytes:
    """What write_from_fd() put into a file."""
    out = os.memfd_create("out")
    try:
        assert plan.write_from_fd(out, fd) == plan.size
        return os.pread(out, plan.size + 1, 0)
    finally:
        os.close(out)


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
    assert streamed(plan, source) == whole
    assert plan.payload_from_fd(source) == whole[len(head) :]
    start = data.draw(st.integers(0, plan.size))
    length = data.draw(st.none() | st.integers(0, plan.size + 10))
    wanted = whole[start:] if length is None else whole[start : start + length]
    assert plan.from_fd(source, start, length) == wanted
    assert plan.from_buffer(SOURCE, 0, start, length) == wanted
    first, span = plan.span
    assert plan.from_buffer(SOURCE[first : first + span], first) == whole
    assert written(plan, SOURCE[first : first + span], first) == whole


@given(ranges=RANGES, gap=st.integers(0, 70_000))
def test_reads_cover_the_ranges_and_nothing_wider_than_the_gap(ranges: list[tuple[int, int]], gap: int) -> None:
    plan = Plan(b"", ranges)
    reads = plan.reads(gap)
    needed = np.zeros(len(SOURCE), bool)
    for offset, length in ranges:
        needed[offset : offset + length] = True
    covered = np.zeros(len(SOURCE), bool)
    for offset, length in reads:
        covered[offset : offset + length] = True
        unused = "".join("01"[int(used)] for used in needed[offset : offset + length]).split("1")
        assert max(map(len, unused)) <= gap
        assert needed[offset] and needed[offset + length - 1]
    assert not (needed & ~covered).any()
    assert all(after[0] - (before[0] + before[1]) > gap for before, after in zip(reads, reads[1:], strict=False))


def test_adjacent_ranges_are_merged_and_empty_ones_left_out() -> None:
    plan = Plan(b"head", [(10, 5), (15, 5), (15, 0), (20, 1), (30, 2), (0, 0), (3, 1)])
    assert plan.ranges.tolist() == [[10, 11], [30, 2], [3, 1]]
    assert plan.ranges.dtype == np.uint64
    assert plan.span == (3, 29)
    assert plan.reads(0) == [(3, 1), (10, 11), (30, 2)]
    assert plan.reads(8) == [(3, 18), (30, 2)]
    assert plan.reads() == [(3, 29)]


def test_a_plan_without_ranges_is_its_head(source: int) -> None:
    plan = Plan(b"head", [])
    assert (plan.size, plan.span, plan.reads(), plan.ranges.shape) == (4, (0, 0), [], (0, 2))
    assert plan.from_fd(source) == plan.from_buffer(b"", 0) == streamed(plan, source) == b"head"
    assert plan.payload_from_fd(source) == b""
    assert written(plan, b"") == b"head"


def test_long_outputs_are_streamed_in_blocks(source: int) -> None:
    ranges = [(n * 7, 140_001) for n in range(20)]
    assert streamed(Plan(b"head", ranges), source) == expected(b"head", ranges)
    exact = [(0, 131_072)] * 16  # two blocks to the byte
    assert streamed(Plan(b"", exact), source) == expected(b"", exact)


@pytest.mark.parametrize("length", [131_071, 131_072, 150_000])
def test_outputs_whose_place_is_reserved_end_where_they_end(source: int, length: int, tmp_path: Path) -> None:
    plan = Plan(b"", [(0, length)])
    path = tmp_path / "out"
    with path.open("wb", buffering=0) as file:
        file.write(b"before")
        plan.write_from_fd(file.fileno(), source)
    assert path.read_bytes() == b"before" + SOURCE[:length]


def test_a_pipe_has_no_place_to_reserve(source: int) -> None:
    read_end, write_end = os.pipe()
    with ThreadPoolExecutor(1) as pool, os.fdopen(read_end, "rb") as reader:
        got = pool.submit(reader.read)
        with os.fdopen(write_end, "wb", buffering=0) as writer:
            assert Plan(b"head", [(0, 140_000)]).write_from_fd(writer.fileno(), source) == 140_004
        assert got.result() == b"head" + SOURCE[:140_000]


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
    assert streamed(plan, source) == whole
    assert plan.from_fd(source, 7_000, 6_000) == whole[7_000:13_000]
    assert written(plan, SOURCE) == whole


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
def test_a_source_that_ends_too_early(source: int, ranges: list[tuple[int, int]], tmp_path: Path) -> None:
    plan = Plan(b"head", ranges)
    with pytest.raises(StreamGateError) as error:
        plan.from_fd(source)
    assert code_of(error) == "source_truncated"
    with pytest.raises(StreamGateError) as error:
        plan.from_buffer(SOURCE, 0)
    assert code_of(error) == "source_truncated"
    out = tmp_path / "out"
    with out.open("wb") as file, pytest.raises(StreamGateError) as error:
        plan.write(file.fileno(), SOURCE, 0)
    assert code_of(error) == "source_truncated"
    assert out.read_bytes() == b""
    with out.open("wb") as file, pytest.raises(StreamGateError) as error:
        plan.write_from_fd(file.fileno(), source)
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


def test_output_that_cannot_be_written(source: int) -> None:
    with pytest.raises(StreamGateError) as error:
        Plan(b"head", [(0, 10)]).write(source, SOURCE, 0)  # opened for reading
    assert code_of(error) == "output_failed"
    with pytest.raises(StreamGateError) as error:
        Plan(b"head", [(0, 10)]).write_from_fd(source, source)
    assert code_of(error) == "output_failed"


def test_interrupted_and_partial_writes_go_on() -> None:
    """A pipe takes 64 KiB and then blocks: signals cut writev short, then interrupt it with nothing written."""
    plan = Plan(b"head", [(0, 100_000), (20_000, 130_000), (7, 3)])
    reader, writer = os.pipe()
    interrupted = threading.Event()
    chunks: list[bytes] = []

    def drain() -> None:
        interrupted.wait()
        while chunk := os.read(reader, 1 << 20):
            chunks.append(chunk)

    thread = threading.Thread(target=drain)
    before = signal.signal(signal.SIGALRM, lambda *_: interrupted.set())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.005)
        thread.start()
        assert plan.write(writer, SOURCE, 0) == plan.size
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        os.close(writer)
        interrupted.set()
        thread.join()
        os.close(reader)
    assert b"".join(chunks) == plan.from_buffer(SOURCE, 0)


def test_a_signal_handler_may_end_a_write() -> None:
    class Enough(Exception):
        pass

    def stop(*_: object) -> None:
        raise Enough

    reader, writer = os.pipe()
    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.005)
        with pytest.raises(Enough):
            Plan(b"", [(0, 150_000)]).write(writer, SOURCE, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        os.close(writer)
        os.close(reader)
