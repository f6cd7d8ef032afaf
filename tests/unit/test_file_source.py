"""A source that is a file: ranges, identity, and what can go wrong."""

import errno
import gc
import os
import time
from pathlib import Path

import pytest

from streamgate.errors import StreamGateError
from streamgate.storage.objects.file import FileSource
from tests.page_cache import evict, resident


def test_reads_ranges_and_stops_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(range(100)))
    source = FileSource(path)
    assert source.size == 100
    assert source.read(10, 5) == bytes(range(10, 15))
    assert source.read(95, 50) == bytes(range(95, 100))
    assert source.read(200, 5) == b""


def test_identity_is_of_the_bytes_not_of_the_name_or_time(tmp_path: Path) -> None:
    body = os.urandom(300_000)
    one, two, three = (tmp_path / name for name in "abc")
    one.write_bytes(body)
    two.write_bytes(body)
    os.utime(two, (1, 1))
    three.write_bytes(body[:4000] + bytes([body[4000] ^ 1]) + body[4001:])
    assert FileSource(one).identity(b"index") == FileSource(two).identity(b"index")
    assert FileSource(one).identity(b"index") != FileSource(one).identity(b"another")
    assert FileSource(one).identity(b"index") != FileSource(three).identity(b"index")


@pytest.mark.parametrize(
    ("name", "code"), [("absent", "source_not_found"), ("", "source_unreadable"), ("fifo", "source_unreadable")]
)
def test_what_is_no_file_is_named_and_does_not_hang(tmp_path: Path, name: str, code: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(StreamGateError) as e:
        FileSource(tmp_path / name)
    assert e.value.code == code


def test_the_descriptor_goes_with_the_object(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.touch()
    source = FileSource(path)
    fd = source.fd
    os.fstat(fd)
    del source
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_reads_ahead_what_is_not_in_the_page_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(6_000_000))
    source, start, length = FileSource(path), 1_234_567, 3_000_000
    evict(path)
    source.read_ahead(start, length)
    end = time.monotonic() + 20
    while resident(path, start, length) < 1:
        assert time.monotonic() < end
        time.sleep(0.01)
    asked: list[object] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda *given: asked.append(given))
    source.read_ahead(start, length)
    assert asked == [], "the kernel has it"


def test_a_wish_is_made_for_every_byte_and_may_be_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the most is that the kernel takes at once; a file system may know nothing of any of it."""
    asked: list[tuple[int, int]] = []

    def advise(fd: int, offset: int, length: int, advice: int) -> None:
        assert (fd, advice) == (source.fd, os.POSIX_FADV_WILLNEED)
        asked.append((offset, length))
        raise OSError(errno.ENOTSUP, "not supported")

    def read(*_: object) -> int:
        raise OSError(errno.EAGAIN, "it is not in the cache")

    (tmp_path / "a").write_bytes(bytes(100))
    source = FileSource(tmp_path / "a")
    monkeypatch.setattr(os, "preadv", read)
    monkeypatch.setattr(os, "posix_fadvise", advise)
    source.read_ahead(10, 0)
    assert asked == []
    source.read_ahead(10, 2_000_000)
    assert [at for at, _ in asked] == [10] + [at + length for at, length in asked[:-1]]
    assert sum(length for _, length in asked) == 2_000_000 and max(length for _, length in asked) <= 1280 * 1024
    assert source.read(0, 100) == bytes(100)
