"""Bodies that are cut from a file in memory: every byte, at any pace, and none of a file that is not the same any more."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from streamgate.errors import StreamGateError
from streamgate.native.gather import Plan
from streamgate.native.hotpath import Stored
from streamgate.native.mapped import Cut, Mapped
from tests.native.hot import CONTENT, HEAD, Node, answer, get, until
from tests.page_cache import evict

Run = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]
MIB = 1 << 20
FILE = os.urandom(12 * MIB)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    made = tmp_path / "source.mp4"
    made.write_bytes(FILE)
    return made


@pytest.fixture
def fd(source: Path) -> Iterator[int]:
    opened = os.open(source, os.O_RDONLY)
    yield opened
    os.close(opened)


@pytest.fixture
def run() -> Run:
    return lambda work: uvloop.run(work())


def scattered(size: int, count: int = 100) -> tuple[Plan, bytes]:
    """A plan of ``count`` ranges that lie apart, of ``size`` bytes together, and its output."""
    each = size // count
    ranges = [(n * (each + 5000) + 17, each) for n in range(count)]
    return Plan(b"head", ranges), b"head" + b"".join(FILE[at : at + length] for at, length in ranges)


def put(node: Node, cut: Cut) -> None:
    assert node.cache.put(b"/v/a/0", Stored(b'"t"', HEAD, CONTENT, cut, route="segment"), 1)


@pytest.mark.parametrize("count", [1, 100, 1010, 2000])  # more than one sendmsg takes, too
def test_a_cut_is_sent(fd: int, run: Run, count: int) -> None:
    async def work() -> None:
        node, (plan, whole) = Node(), scattered(1_000_000, count)
        put(node, Cut(plan, Mapped(fd)))
        async with node.listening() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(get("/v/a/0") * 3)
            for _ in range(3):
                status, fields, body = await answer(reader)
                assert (status, int(fields["Content-Length"])) == (200, len(whole)) and body == whole
            writer.write(get("/v/a/0", "Range: bytes=2-400000"))
            status, _, body = await answer(reader)
            assert status == 206 and body == whole[2:400001]
            writer.write(get("/v/a/0", method="HEAD"))
            assert (await answer(reader, "HEAD"))[1]["Content-Length"] == str(len(whole))
            writer.close()
        assert node.count("response_bytes/segment") == 3 * len(whole) + 399_999

    run(work)


def test_who_reads_slowly_gets_the_rest(fd: int, run: Run) -> None:
    async def work() -> None:
        node, (plan, whole) = Node(), scattered(7 * MIB)
        put(node, Cut(plan, Mapped(fd)))
        async with node.listening() as port:
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", port))
            sock.setblocking(False)
            reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
            writer.write(get("/v/a/0") + get("/v/a/0", "Connection: close"))
            for _ in range(2):
                status, _, body = await answer(reader)
                assert status == 200 and body == whole
            assert await reader.read() == b""
            writer.close()
        assert node.count("response_bytes/segment") == 2 * len(whole)

    run(work)


def rewritten(source: Path) -> None:
    with source.open("r+b") as file:
        file.write(b"other")
    os.utime(source, ns=(1, 1))


def shortened(source: Path) -> None:
    os.truncate(source, 5000)


@pytest.mark.parametrize("change", [rewritten, shortened])
def test_of_a_file_that_has_changed_nobody_gets_the_whole(
    source: Path, fd: int, run: Run, change: Callable[[Path], None]
) -> None:
    async def work() -> None:
        node, (plan, whole) = Node(), scattered(1_000_000)
        mapped = Mapped(fd)
        put(node, Cut(plan, mapped))
        assert mapped.unchanged and mapped.resident(plan)
        change(source)
        assert not mapped.unchanged and not mapped.resident(plan)
        async with node.listening() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(get("/v/a/0"))
            received = b""
            with pytest.raises(ConnectionResetError):
                while piece := await reader.read(1 << 20):
                    received += piece
                raise ConnectionResetError  # an orderly end would do as well: it comes too early
            assert len(received.partition(b"\r\n\r\n")[2]) < len(whole)
            writer.close()
            await until(lambda: node.count("requests_aborted/source") == 1)

    run(work)


def test_what_is_resident(source: Path, fd: int) -> None:
    mapped, (plan, whole) = Mapped(fd), scattered(1_000_000)
    assert mapped.resident(plan) and mapped.resident(Plan(b"head", []))
    assert plan.from_page_cache(fd) == whole
    evict(source)
    assert not mapped.resident(plan)
    assert plan.from_page_cache(fd) is None
    assert plan.from_fd(fd) == whole and mapped.resident(plan)
    assert not mapped.resident(Plan(b"", [(len(FILE) - 1, 2)]))


def test_what_is_no_cut(tmp_path: Path, fd: int) -> None:
    with pytest.raises(StreamGateError, match="source_truncated"):
        Cut(Plan(b"", [(len(FILE) - 1, 2)]), Mapped(fd))
    empty = tmp_path / "empty"
    empty.touch()
    for place in (empty, tmp_path):
        wrong = os.open(place, os.O_RDONLY)
        with pytest.raises(StreamGateError, match="source_unreadable"):
            Mapped(wrong)
        os.close(wrong)
    with pytest.raises(StreamGateError, match="source_unreadable"):
        Mapped(-1)
