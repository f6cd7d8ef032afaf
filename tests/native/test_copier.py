"""The copier: many outputs out of one source, each as its plan says."""

import os
import random
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgate.errors import StreamGateError
from streamgate.native.copier import MOST_OUTPUTS, Copier
from streamgate.native.gather import Plan

WINDOW = 2 << 20
SOURCE = random.Random(7).randbytes(5_000_000)  # more than two windows

# Mostly small pieces close together, as in interleaved files, and some far apart or backwards.
RANGES = st.lists(
    st.tuples(st.integers(0, 100_000) | st.integers(0, 3_000_000), st.integers(0, 2_000_000) | st.integers(0, 40)),
    max_size=8,
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    path = tmp_path_factory.mktemp("copier") / "source"
    path.write_bytes(SOURCE)
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.fixture(scope="module")
def copier(source: int) -> Copier:
    return Copier(source)


def expected(plan: Plan) -> bytes:
    return plan.from_buffer(SOURCE, 0)


def copied(copier: Copier, plans: list[Plan]) -> list[bytes]:
    """What is then in the files."""
    fds = [os.memfd_create("out") for _ in plans]
    try:
        assert copier.copy(zip(plans, fds, strict=True)) == sum(plan.size for plan in plans)
        return [os.pread(fd, plan.size + 1, 0) for plan, fd in zip(plans, fds, strict=True)]
    finally:
        for fd in fds:
            os.close(fd)


def code_of(error: pytest.ExceptionInfo[StreamGateError]) -> str:
    return error.value.code


@given(described=st.lists(st.tuples(st.binary(max_size=40), RANGES), max_size=4))
def test_each_output_is_as_its_plan_says(copier: Copier, described: list[tuple[bytes, list[tuple[int, int]]]]) -> None:
    plans = [Plan(head, ranges) for head, ranges in described]
    assert copied(copier, plans) == [expected(plan) for plan in plans]


def test_interleaved_tracks_of_more_pieces_than_one_call_takes(copier: Copier) -> None:
    plans = [
        Plan(b"video", [(at, 900) for at in range(0, 4_900_000, 1000)]),
        Plan(b"audio", [(at + 900, 70) for at in range(0, 4_900_000, 1000)]),
        Plan(b"both", [(0, 4_900_000)]),
        Plan(b"alone", []),
        Plan(b"", []),
    ]
    assert copied(copier, plans) == [expected(plan) for plan in plans]


@pytest.mark.parametrize("length", [WINDOW - 33, WINDOW - 32, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW])
def test_windows_that_are_full_to_the_byte(copier: Copier, length: int) -> None:
    """The first piece lies as far into the window as into the source's line of 64 bytes: 32."""
    plans = [Plan(b"", [(100_000, length)]), Plan(b"h", [(100_000 + length - 1, 2)])]
    assert copied(copier, plans) == [expected(plan) for plan in plans]


@pytest.mark.parametrize("left", [1, 2, 63, 64])
def test_a_piece_far_away_begins_at_the_end_of_the_window(copier: Copier, left: int) -> None:
    plan = Plan(b"", [(0, WINDOW - left), (WINDOW + 100_062, 300)])
    assert copied(copier, [plan]) == [expected(plan)]


def test_what_interleaved_tracks_need_is_read_once(source: int) -> None:
    """Counted by the kernel, which sees each byte that a read call gives."""
    plans = [Plan(b"", [(at + 500 * k, 500) for at in range(0, 1_500_000, 1000)]) for k in (0, 1)]
    copier = Copier(source)
    before = _bytes_read()
    out = [os.memfd_create("out") for _ in plans]
    copier.copy(zip(plans, out, strict=True))
    read = _bytes_read() - before
    for fd in out:
        os.close(fd)
    assert 1_500_000 <= read < 1_510_000  # and the file of the counts itself


def _bytes_read() -> int:
    return int(Path("/proc/thread-self/io").read_text().split()[1])


@pytest.mark.parametrize("length", [131_071, 131_072, 150_000])
def test_outputs_whose_place_is_reserved_end_where_they_end(copier: Copier, length: int, tmp_path: Path) -> None:
    path = tmp_path / "out"
    with path.open("wb", buffering=0) as file:
        file.write(b"before")
        copier.copy([(Plan(b"", [(0, length)]), file.fileno())])
    assert path.read_bytes() == b"before" + SOURCE[:length]


def test_a_pipe_has_no_place_to_reserve(copier: Copier) -> None:
    read_end, write_end = os.pipe()
    with ThreadPoolExecutor(1) as pool, os.fdopen(read_end, "rb") as reader:
        got = pool.submit(reader.read)
        with os.fdopen(write_end, "wb", buffering=0) as writer:
            assert copier.copy([(Plan(b"head", [(0, 140_000)]), writer.fileno())]) == 140_004
        assert got.result() == b"head" + SOURCE[:140_000]


def test_too_many_outputs(copier: Copier) -> None:
    with pytest.raises(StreamGateError) as error:
        copier.copy([(Plan(b"", []), 0)] * (MOST_OUTPUTS + 1))
    assert code_of(error) == "internal"
    many = [Plan(b"", [(7 * n, 100)]) for n in range(MOST_OUTPUTS)]
    assert copied(copier, many) == [expected(plan) for plan in many]


def test_what_is_no_plan(copier: Copier) -> None:
    for wrong in (None, b"head", 1):
        with pytest.raises(TypeError):
            copier.copy([(wrong, 1)])  # type: ignore[list-item]
    assert copied(copier, [Plan(b"head", [(1, 2)])]) == [b"head" + SOURCE[1:3]]


@pytest.mark.parametrize("ranges", [[(4_999_990, 20)], [(5_000_000, 1)], [(0, 10), (4_999_999, 2)], [(1 << 40, 5)]])
def test_a_source_that_ends_too_early(copier: Copier, ranges: list[tuple[int, int]], tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as file, pytest.raises(StreamGateError) as error:
        copier.copy([(Plan(b"head", ranges), file.fileno())])
    assert code_of(error) == "source_truncated"


def test_a_source_that_cannot_be_read(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with (tmp_path / "out").open("wb") as file, pytest.raises(StreamGateError) as error:
            Copier(fd).copy([(Plan(b"", [(0, 4)]), file.fileno())])  # a folder
        assert code_of(error) == "source_unreadable"
    finally:
        os.close(fd)


def test_output_that_cannot_be_written(copier: Copier, source: int) -> None:
    with pytest.raises(StreamGateError) as error:
        copier.copy([(Plan(b"head", [(0, 10)]), source)])  # opened for reading
    assert code_of(error) == "output_failed"


def test_interrupted_and_partial_writes_go_on(copier: Copier) -> None:
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
        assert copier.copy([(plan, writer)]) == plan.size
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        os.close(writer)
        interrupted.set()
        thread.join()
        os.close(reader)
    assert b"".join(chunks) == expected(plan)


def test_a_copier_serves_one_thread_at_a_time(source: int) -> None:
    copier = Copier(source)
    plan = Plan(b"", [(0, 150_000)])
    reader, writer = os.pipe()

    def refused() -> str:
        """Called while the copier waits: a byte has arrived, and the pipe does not take all of them."""
        os.read(reader, 1)
        try:
            with pytest.raises(StreamGateError) as error:
                copier.copy([(Plan(b"", []), writer)])
            return code_of(error)
        finally:
            left = plan.size - 1
            while left:
                left -= len(os.read(reader, left))

    with ThreadPoolExecutor(1) as pool:
        refusal = pool.submit(refused)
        assert copier.copy([(plan, writer)]) == plan.size
        assert refusal.result() == "internal"
    os.close(writer)
    os.close(reader)


def test_a_signal_handler_may_end_a_copy_and_the_copier_goes_on(source: int) -> None:
    class Enough(Exception):
        pass

    def stop(*_: object) -> None:
        raise Enough

    copier = Copier(source)
    reader, writer = os.pipe()
    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.005)
        with pytest.raises(Enough):
            copier.copy([(Plan(b"", [(0, 150_000)]), writer)])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        os.close(writer)
        os.close(reader)
    assert copied(copier, [Plan(b"head", [(1, 2)])]) == [b"head" + SOURCE[1:3]]


def test_the_file_offset_is_left_alone(copier: Copier, source: int) -> None:
    os.lseek(source, 123, os.SEEK_SET)
    assert copied(copier, [Plan(b"", [(5, 10), (20, 10)])]) == [SOURCE[5:15] + SOURCE[20:30]]
    assert os.lseek(source, 0, os.SEEK_CUR) == 123


def test_a_plan_of_numpy_ranges(copier: Copier) -> None:
    assert copied(copier, [Plan(b"", np.array([[3, 4], [1, 1]], np.uint64))]) == [SOURCE[3:7] + SOURCE[1:2]]
