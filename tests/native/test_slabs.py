"""Memory that is used again, and how it gets into a file."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgate.native import slabs
from streamgate.native.slabs import Slabs

KIB = 1024


@given(st.binary(max_size=1000), st.integers(0, 2**32 - 1))
def test_the_checksum_is_that_of_zlib(data: bytes, before: int) -> None:
    assert slabs.checksum(data, before) == zlib.crc32(data, before)


@pytest.mark.parametrize("size", [63, 64, 79, 80, 127, 128, 4095, 256 * KIB - 1, 256 * KIB, 256 * KIB + 1, 2_000_003])
def test_what_is_written_and_its_checksum(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    with (tmp_path / "file").open("w+b") as file:
        assert slabs.write(file.fileno(), data, 100, 17) == zlib.crc32(data, 17)
        file.seek(100)
        assert file.read() == data


def test_a_file_that_takes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="Bad file descriptor"):
            slabs.write(fd, b"some", 0)
        assert slabs.write(fd, b"", 0, 5) == 5
    finally:
        os.close(fd)


def test_memory_is_lent_again_when_nobody_sees_it_any_more() -> None:
    pool = Slabs(1024 * KIB)
    view = pool.take(100 * KIB)
    view[:5] = b"hello"
    part = view[2:4]
    del view
    assert pool.spare == 0 and bytes(part) == b"ll"
    part.release()
    del part
    assert pool.spare == 128 * KIB
    again = pool.take(128 * KIB)
    assert pool.spare == 0 and bytes(again[:5]) == b"hello"


def test_no_more_is_kept_than_the_limit_and_nothing_far_too_large_is_lent() -> None:
    pool = Slabs(256 * KIB)
    taken = [pool.take(64 * KIB) for _ in range(6)]
    assert [len(each) for each in taken] == [64 * KIB] * 6
    taken.clear()
    assert pool.spare == 256 * KIB
    large = pool.take(257 * KIB)
    del large
    assert pool.spare == 256 * KIB, "what is larger than all goes at once"
    wide = pool.take(256 * KIB)
    del wide
    assert pool.spare == 256 * KIB, "the oldest go"
    small = pool.take(1)
    assert pool.spare == 256 * KIB and len(small) == 1
    assert len(pool.take(0)) == 0


@pytest.mark.parametrize("size", [1, 4096, 300_000, 1_048_576])
@pytest.mark.parametrize("skipped", [0, 1])
def test_what_goes_past_the_page_cache_is_the_same(tmp_path: Path, size: int, skipped: int) -> None:
    """Whole pages go by the other descriptor; what is not aligned, and the rest, by the usual one."""
    path, data = tmp_path / "file", Slabs(2**22).take(size + skipped)[skipped:]
    data[:] = os.urandom(size)
    with path.open("wb") as file:
        direct = os.open(path, os.O_WRONLY | os.O_DIRECT)
        try:
            assert slabs.write(file.fileno(), data, 4096, 17, direct) == zlib.crc32(data, 17)
        finally:
            os.close(direct)
    assert path.read_bytes() == bytes(4096) + data
