"""One flight per object: two workers on one folder make what a thousand viewers want once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest

from edge import media
from edge.tiers.claims import Claim
from edge.tiers.disk import DiskTier
from streamgate.errors import StreamGateError
from tests.edge.harness import Edge, Folder, running, settings
from tests.edge.test_sending import Large

MIB = 1024 * 1024


class Source:
    """What was read of sources by all workers, and what happens before each read; reads are in threads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reads: list[tuple[int, int]] = []
        self.before: Callable[[int], None] = lambda start: None
        original = media.PlanCut.read

        def read(cut: media.PlanCut, start: int, length: int) -> bytes:
            self.before(start)
            self.reads.append((start, length))
            return original(cut, start, length)

        monkeypatch.setattr(media.PlanCut, "read", read)


class Gate:
    """Holds reads from ``start`` on back until it is opened."""

    def __init__(self, start: int) -> None:
        self._start = start
        self._opened = threading.Event()

    def __call__(self, start: int) -> None:
        if start >= self._start and not self._opened.wait(20):
            raise StreamGateError("internal", "the gate was never opened")

    def open(self) -> None:
        self._opened.set()


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Source:
    return Source(monkeypatch)


@pytest.fixture
async def workers(folder: Path, tmp_path: Path) -> AsyncIterator[tuple[Edge, Edge]]:
    """Two workers of a node: one folder, a segment of 40 MiB."""
    data = tmp_path / "large"
    data.mkdir()
    chosen = settings({"data": str(tmp_path / "data")}, disk_bytes=2**30, fill_timeout=10)
    async with running(Large(folder, data), chosen) as first, running(Large(folder, data), chosen) as second:
        yield first, second


async def segment(edge: Edge) -> str:
    name = (await edge.node.assets.open("film")).asset.presentation.video[0].name
    return f"/v/film/{name}/0.m4s"


def counted(edges: tuple[Edge, ...], name: str, **labels: str) -> float:
    return sum(edge.node.telemetry.value(name, **labels) for edge in edges)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_thousand_misses_in_two_workers_are_one_fill(folder: Path, tmp_path: Path, source: Source) -> None:
    chosen = settings({"data": str(tmp_path)}, disk_bytes=2**30)
    async with running(Folder(folder), chosen) as first, running(Folder(folder), chosen) as second:
        path = await segment(first)
        await segment(second)
        gate = source.before = Gate(0)
        asked = [asyncio.create_task((first, second)[n % 2].ask(path)) for n in range(1000)]
        await until(lambda: counted((first, second), "cache_lookups", result="miss") == 1000)
        await until(lambda: counted((first, second), "fills", result="followed") == 1)
        gate.open()
        answers = await asyncio.gather(*asked)
        assert {answer.status for answer in answers} == {200}
        assert len({answer.body for answer in answers}) == 1
        assert len(answers[0].body) == int(answers[0].headers["Content-Length"])
        assert source.reads == [(0, len(answers[0].body))]
        assert counted((first, second), "fills", result="begun") == 1
        assert counted((first, second), "fills", result="followed") == 1
        told = sorted(answer.headers["Cache-Status"] for answer in answers)
        assert told[0] == "streamgate;fwd=uri-miss;stored"
        assert set(told[1:]) == {"streamgate;fwd=uri-miss;stored;collapsed"}
        again = await second.ask(path)
        assert again.body == answers[0].body and again.headers["Cache-Status"] == "streamgate;hit;detail=disk"
        assert 0 <= int(again.headers["Age"]) < 60
        assert (await second.ask(path)).headers["Cache-Status"] == "streamgate;hit;detail=memory"


async def test_followers_stream_from_what_grows(workers: tuple[Edge, Edge], source: Source) -> None:
    leader, follower = workers
    path = await segment(leader)
    gate = source.before = Gate(5 * MIB)
    size = (await leader.ask(path, method="HEAD")).headers["Content-Length"]

    async def read(edge: Edge, first: asyncio.Event) -> bytes:
        async with edge.session.get(edge.url + path) as response:
            assert (response.status, response.headers["Content-Length"]) == (200, size)
            head = await response.content.readexactly(4 * MIB)
            first.set()
            return head + await response.content.read()

    arrived = [asyncio.Event() for _ in range(4)]
    reading = [asyncio.create_task(read((leader, follower)[n % 2], event)) for n, event in enumerate(arrived)]
    async with asyncio.timeout(10):
        # All have the first part while the source holds the rest back.
        await asyncio.gather(*(event.wait() for event in arrived))
    assert max(start for start, _ in source.reads) < 5 * MIB
    gate.open()
    bodies = await asyncio.gather(*reading)
    assert len(set(bodies)) == 1 and len(bodies[0]) == int(size)
    assert sum(length for _, length in source.reads) == int(size)


async def test_a_leader_s_client_may_leave(workers: tuple[Edge, Edge], source: Source) -> None:
    leader, follower = workers
    path = await segment(leader)
    gate = source.before = Gate(3 * MIB)
    reader, writer = await asyncio.open_connection("127.0.0.1", leader.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    following = asyncio.create_task(follower.ask(path))
    await until(lambda: follower.node.telemetry.value("fills", result="followed") == 1)
    # By a reset: who only ends its own side may still be listening, and is found out by the next byte.
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    await until(lambda: leader.node.telemetry.value("requests_in_flight") == 0)
    gate.open()
    answer = await following
    assert answer.status == 200 and len(answer.body) == int(answer.headers["Content-Length"])
    assert sum(length for _, length in source.reads) == len(answer.body)
    assert (await leader.ask(path)).headers["Cache-Status"] == "streamgate;hit;detail=disk"


async def test_a_reader_at_its_own_pace_does_not_hold_the_flight(workers: tuple[Edge, Edge], source: Source) -> None:
    leader, follower = workers
    path = await segment(leader)
    reader, writer = await asyncio.open_connection("127.0.0.1", leader.port, limit=65536)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    answer = await follower.ask(path)  # whole, while the other one has read nothing
    assert answer.status == 200 and len(answer.body) == int(answer.headers["Content-Length"])
    writer.transport.abort()


async def test_ranges_of_what_grows(workers: tuple[Edge, Edge], source: Source) -> None:
    leader, follower = workers
    path = await segment(leader)
    gate = source.before = Gate(10 * MIB)
    early = await asyncio.gather(*(edge.ask(path, {"Range": "bytes=1000-1999"}) for edge in workers))
    assert {(answer.status, len(answer.body)) for answer in early} == {(206, 1000)}
    late = [asyncio.create_task(edge.ask(path, {"Range": "bytes=-1000"})) for edge in workers]
    gate.open()
    ends = await asyncio.gather(*late)
    whole = (await follower.ask(path)).body
    assert {answer.body for answer in early} == {whole[1000:2000]}
    assert {answer.body for answer in ends} == {whole[-1000:]}


async def test_a_failure_before_the_first_byte_is_an_error_for_all_and_remembered(
    folder: Path, tmp_path: Path, source: Source
) -> None:
    chosen = settings({"data": str(tmp_path)}, disk_bytes=2**30, failure_ttl=0.5)
    async with running(Folder(folder), chosen) as first, running(Folder(folder), chosen) as second:
        path = await segment(first)
        await segment(second)
        gate = Gate(0)

        def fail(start: int) -> None:
            gate(start)
            raise StreamGateError("source_unreadable", "the disk is gone")

        source.before = fail
        asked = [asyncio.create_task((first, second)[n % 2].ask(path)) for n in range(20)]
        await until(lambda: counted((first, second), "cache_lookups", result="miss") == 20)
        gate.open()
        answers = await asyncio.gather(*asked)
        assert {(answer.status, answer.code) for answer in answers} == {(502, "source_unreadable")}
        tried = counted((first, second), "fills", result="failed")

        def unexpected(start: int) -> None:
            raise AssertionError("it was tried again at once")

        source.before = unexpected
        assert (await first.ask(path)).code == "source_unreadable"
        assert counted((first, second), "fills", result="failed") == tried
        source.before = lambda start: None
        began = time.monotonic()
        async with asyncio.timeout(10):
            while (await first.ask(path)).status != 200:
                await asyncio.sleep(0.05)
        assert time.monotonic() - began < 5
        assert not list((tmp_path / "cache" / "1" / "fills").iterdir())


async def test_a_failure_in_the_middle_cuts_all_connections_and_stores_nothing(
    workers: tuple[Edge, Edge], source: Source, tmp_path: Path
) -> None:
    path = await segment(workers[0])
    gate = Gate(7 * MIB)

    def fail(start: int) -> None:
        gate(start)
        if start >= 7 * MIB:
            raise StreamGateError("source_unreadable", "the disk is gone")

    source.before = fail

    async def read(edge: Edge) -> tuple[int, int]:
        async with edge.connect() as (reader, writer):
            writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            began.append(head)
            return len(await reader.read()), int(head.partition("Content-Length: ")[2].split()[0])

    began: list[str] = []
    asked = [asyncio.create_task(read(edge)) for edge in workers]
    await until(lambda: len(began) == 2)
    gate.open()
    for got, promised in await asyncio.gather(*asked):
        assert got <= 7 * MIB < promised
    assert all(head.startswith("HTTP/1.1 200 ") for head in began)
    files = [file for file in (tmp_path / "data" / "cache").rglob("*") if file.is_file() and len(file.name) == 32]
    assert files == []


async def test_what_there_is_not_is_remembered(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    path = (await segment(edge)).replace("0.m4s", "9999.m4s")
    assert (await edge.ask(path)).code == "segment_not_found"
    built: list[object] = []
    monkeypatch.setattr(media, "build", lambda *given: built.append(given))
    for _ in range(3):
        answer = await edge.ask(path)
        assert (answer.status, answer.code) == (404, "segment_not_found")
    assert built == []


async def test_a_disk_that_takes_no_writes_is_no_failure(
    folder: Path, tmp_path: Path, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings({"data": str(tmp_path)}, disk_bytes=2**30, disk_retry=0.3, memory_object=0)
    async with running(Folder(folder), chosen) as edge:
        path = await segment(edge)

        def refuse(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("os.posix_fallocate", refuse)
            for _ in range(3):
                answer = await edge.ask(path)
                assert answer.status == 200 and len(answer.body) == int(answer.headers["Content-Length"])
                assert answer.headers["Cache-Status"] == "streamgate;fwd=uri-miss"
            assert edge.node.telemetry.value("disk_writes_off") == 1
            assert edge.node.telemetry.value("disk_failures") == 1
        await until(lambda: edge.node.telemetry.value("disk_writes_off") == 0)
        assert (await edge.ask(path)).headers["Cache-Status"] == "streamgate;fwd=uri-miss;stored"
        assert (await edge.ask(path)).headers["Cache-Status"] == "streamgate;hit;detail=disk"


async def test_a_disk_that_fails_in_the_middle(
    workers: tuple[Edge, Edge], source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room was reserved, and yet a write fails: what has begun is cut, nothing is stored, and the next one is served."""
    first, _ = workers
    path, written = await segment(first), Claim.write

    def write(claim: Claim, data: bytes, at: int, crc: int = 0) -> int:
        if at >= 5 * MIB:
            raise OSError(5, "Input/output error")
        return written(claim, data, at, crc)

    gate = source.before = Gate(5 * MIB)
    with monkeypatch.context() as patch:
        patch.setattr(Claim, "write", write)
        async with first.session.get(first.url + path) as response:
            assert response.status == 200
            await response.content.readexactly(MIB)
            gate.open()
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.content.read()
    assert first.node.telemetry.value("disk_writes_off") == 1
    assert [file for file in (tmp_path / "data" / "cache").rglob("*") if len(file.name) == 32] == []
    answer = await first.ask(path)
    assert (answer.status, len(answer.body)) == (200, int(answer.headers["Content-Length"]))
    assert answer.headers["Cache-Status"] == "streamgate;fwd=uri-miss"


async def test_a_crowd_before_one_worker(folder: Path, tmp_path: Path, source: Source) -> None:
    """More viewers than the threads' queue is long, on the disk's object and before there is one."""
    chosen = settings({"data": str(tmp_path)}, disk_bytes=2**30, max_queued=30, threads=2)
    async with running(Folder(folder), chosen) as edge:
        path = await segment(edge)
        for _ in range(2):
            answers = await asyncio.gather(*(edge.ask(path) for _ in range(200)))
            assert {answer.status for answer in answers} == {200}
            assert len({answer.body for answer in answers}) == 1
            await edge.node.tiers.memory.remove(path)
        assert len(source.reads) == 1


async def test_conditions_and_heads_make_nothing(workers: tuple[Edge, Edge], source: Source) -> None:
    leader, _ = workers
    path = await segment(leader)
    head = await leader.ask(path, method="HEAD")
    unchanged = await leader.ask(path, {"If-None-Match": head.headers["ETag"]})
    assert (head.status, unchanged.status) == (200, 304)
    assert source.reads == [] and isinstance(leader.node.tiers.disk, DiskTier)


async def test_no_file_stays_open_behind_a_flight(folder: Path, tmp_path: Path) -> None:
    chosen = settings({"data": str(tmp_path)}, disk_bytes=2**30)

    def held() -> list[str]:
        names = []
        for number in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):  # the listing's own
                names.append(os.readlink(f"/proc/self/fd/{number}"))
        return [
            name for name in names if name.startswith((f"{tmp_path}/cache/1/fills/", f"{tmp_path}/cache/1/objects/"))
        ]

    async with running(Folder(folder), chosen) as first, running(Folder(folder), chosen) as second:
        path = await segment(first)
        await segment(second)
        for number in range(4):
            each = path.replace("0.m4s", f"k{number}.m4s")
            answers = await asyncio.gather(*(edge.ask(each) for edge in (first, second) for _ in range(5)))
            assert {answer.status for answer in answers} == {200}
        # Small bodies are in memory: nobody needs their files.
        await until(lambda: held() == [])
