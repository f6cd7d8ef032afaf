"""A source that is a file: ranges, identity, and what can go wrong."""

import gc
import os
from pathlib import Path

import pytest

from streamgate.errors import StreamGateError
from streamgate.storage.objects.file import FileSource


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
    three.write_bytes(body[:4000] + b"x" + body[4001:])
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
