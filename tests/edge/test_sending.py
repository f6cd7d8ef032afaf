"""Bodies on their way: memory stays bounded, slow clients are waited for but not for ever, sources may fail."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge import compression, media
from edge.entries import Body, Entry
from edge.flights import Flights
from edge.routes import Target
from edge.threads import Pool
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError
from streamgate.media import presentation
from streamgate.media.presentation import TrackInput
from streamgate.native.samples import Track
from streamgate.storage.assets import Asset, AssetRef, open_asset
from streamgate.storage.objects.file import FileSource
from tests.edge.harness import Edge, Folder, running, settings

MIB = 1 << 20
FRAMES = 100


@pytest.fixture(autouse=True)
def cold(monkeypatch: pytest.MonkeyPatch) -> None:
    """No source is in the kernel's memory: each is read by a thread, as it is from a slow disk."""
    monkeypatch.setattr("edge.cutting.at_hand", lambda plan, source: None)


class Large(Folder):
    """One asset whose only segment is FRAMES MiB, in a file with holes."""

    def __init__(self, folder: Path, data: Path) -> None:
        super().__init__(folder)
        self.file = data / "large.mp4"
        with self.file.open("wb") as file:
            file.truncate(FRAMES * MIB)
            for n in range(FRAMES):
                file.seek(n * MIB)
                file.write(n.to_bytes(4, "big"))

    def open(self, ref: AssetRef) -> Asset:
        asset = open_asset(ref)
        small = asset.presentation.video[0]
        track = Track.from_samples(
            timescale=25,
            entries=small.track.entries,
            sizes=np.full(FRAMES, MIB, np.uint32),
            deltas=np.ones(FRAMES, np.uint32),
            syncs=[0],
            positions=np.arange(FRAMES, dtype=np.uint64) * MIB,
        )
        given = TrackInput(0, b"large", track, small.codec, "und", "", False, 25)
        return replace(asset, sources=(FileSource(self.file),), presentation=presentation.build([given]))


class Reads:
    """What was read of cuts, and what to do before each read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lengths: list[int] = []
        self.before: Callable[[], None] = lambda: None
        original = media.PlanCut.read

        def read(cut: Body, start: int, length: int) -> bytes:
            self.before()
            self.lengths.append(length)
            return original(cut, start, length)  # type: ignore[arg-type]

        monkeypatch.setattr(media.PlanCut, "read", read)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


async def segment_of(edge: Edge, asset: str = "film") -> str:
    """The path of the first segment of an asset's first video."""
    lines = (await edge.ask(f"/v/{asset}/main.m3u8")).body.decode().splitlines()
    return f"/v/{asset}/{next(line for line in lines if line.startswith('v')).partition('/')[0]}/0.m4s"


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until it holds; the test's time limit ends what never does."""
    while not condition():
        await asyncio.sleep(0.001)


async def test_a_large_segment_is_sent_in_blocks(folder: Path, tmp_path: Path, reads: Reads) -> None:
    async with running(Large(folder, tmp_path), settings(block=MIB)) as edge:
        path = await segment_of(edge)
        answer = await edge.ask(path)
        assert answer.status == 200
        body = answer.body[-FRAMES * MIB :]
        assert len(answer.body) == int(answer.headers["Content-Length"]) > FRAMES * MIB
        assert all(int.from_bytes(body[n * MIB : n * MIB + 4], "big") == n for n in range(FRAMES))
        assert max(reads.lengths) == MIB and len(reads.lengths) == FRAMES + 1
        head = len(answer.body) - FRAMES * MIB
        reads.lengths.clear()
        first, last = head + 3 * MIB, head + 40 * MIB
        part = await edge.ask(path, {"Range": f"bytes={first}-{last}"})
        assert part.status == 206
        assert part.body == body[3 * MIB : 40 * MIB + 1]
        assert sum(reads.lengths) == len(part.body) and max(reads.lengths) == MIB
        reads.lengths.clear()
        assert (await edge.ask(path, method="HEAD")).headers["Content-Length"] == str(len(answer.body))
        assert (await edge.ask(path, {"If-None-Match": answer.headers["ETag"]})).status == 304
        assert reads.lengths == []
        assert edge.node.budget.held == 0


async def test_slow_readers_hold_little_memory_and_are_cut(folder: Path, tmp_path: Path, reads: Reads) -> None:
    clients = 20
    chosen = settings(server={"send_timeout": 0.3})
    async with running(Large(folder, tmp_path), chosen) as edge:
        path = await segment_of(edge)
        stalled = []
        for _ in range(clients):
            sock = socket.create_connection(("127.0.0.1", edge.port))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            stalled.append(sock)
        await until(lambda: edge.node.telemetry.value("requests_aborted", cause="timeout") == clients)
        # What a client did not take: a block of ours, and what the kernel keeps for it.
        assert sum(reads.lengths) < clients * 16 * MIB
        assert edge.node.budget.held == 0
        for sock in stalled:
            sock.close()
        assert (await edge.ask("/health/live")).status == 200


async def test_while_they_wait_they_hold_one_block_each(folder: Path, tmp_path: Path) -> None:
    async with running(Large(folder, tmp_path), settings(block=MIB)) as edge:
        path = await segment_of(edge)
        stalled = []
        for _ in range(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", edge.port, limit=1024)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            stalled.append((reader, writer))
        for reader, _ in stalled:
            await reader.readuntil(b"\r\n\r\n")
        assert edge.node.telemetry.value("buffered_bytes") == 5 * MIB
        for _, writer in stalled:
            writer.close()
        await until(lambda: edge.node.telemetry.value("requests_in_flight") == 0)
        assert edge.node.telemetry.value("requests_aborted", cause="client") == 5
        assert edge.node.budget.held == 0


async def test_beyond_the_budget_is_a_503(folder: Path, tmp_path: Path) -> None:
    async with running(Large(folder, tmp_path), settings(buffered_bytes=2 * MIB, block=MIB)) as edge:
        path = await segment_of(edge)
        async with edge.connect() as first, edge.connect() as second:
            for reader, writer in (first, second):
                writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                await reader.readuntil(b"\r\n\r\n")
            answer = await edge.ask(path)
            assert (answer.status, answer.code) == (503, "overloaded")
            assert answer.headers["Retry-After"] == "2"
            assert (await edge.ask("/v/film/main.m3u8")).status == 200


async def test_too_many_tasks_is_a_503(folder: Path, reads: Reads) -> None:
    async with running(Folder(folder), settings(threads=1, max_queued=1, memory_object=0)) as edge:
        path = await segment_of(edge)
        import threading

        gate = threading.Event()
        reads.before = lambda: None if gate.wait(5) else pytest.fail("never opened")
        waiting = [asyncio.create_task(edge.ask(path)) for _ in range(2)]
        await until(lambda: edge.node.telemetry.value("tasks_queued", pool="work") == 1)
        answer = await edge.ask(path)
        assert (answer.status, answer.code) == (503, "overloaded")
        gate.set()
        assert [a.status for a in await asyncio.gather(*waiting)] == [200, 200]


async def test_a_source_that_fails_before_the_head_is_an_error(folder: Path, tmp_path: Path, reads: Reads) -> None:
    def fail() -> None:
        raise StreamGateError("source_unreadable", "the disk is gone")

    for library in (Folder(folder), Large(folder, tmp_path)):
        async with running(library) as edge:
            path = await segment_of(edge)
            reads.before = fail
            answer = await edge.ask(path)
            assert (answer.status, answer.code) == (502, "source_unreadable")
            assert edge.node.budget.held == 0
            reads.before = lambda: None
            assert (await edge.ask(path)).status == 200


async def test_a_source_that_fails_in_the_middle_cuts_the_connection(
    folder: Path, tmp_path: Path, reads: Reads
) -> None:
    def fail() -> None:
        if len(reads.lengths) == 3:
            raise StreamGateError("source_unreadable", "the disk is gone")

    reads.before = fail
    async with running(Large(folder, tmp_path), settings(block=MIB)) as edge:
        answer = await edge.raw(f"GET {await segment_of(edge)} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert answer.status == 200
        assert len(answer.body) == 3 * MIB < int(answer.headers["Content-Length"])
        assert edge.node.telemetry.value("requests_aborted", cause="source") == 1
        assert edge.node.budget.held == 0


async def test_a_file_that_is_written_to_never_goes_out_under_its_old_name(folder: Path, tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    shutil.copy(folder / "film.mp4", film)
    # Not looked at for changes meanwhile, and not kept: the check of what was read must find it.
    async with running(Folder(tmp_path), settings(revalidate=60, memory_object=0)) as edge:
        path = await segment_of(edge)
        ts = next(line for line in (await edge.ask("/v/film/main-ts.m3u8")).body.decode().splitlines() if "+" in line)
        paths = [path, path.replace("0.m4s", "k0.m4s"), f"/v/film/{ts.replace('index.m3u8', '0.ts')}"]
        for each in paths:
            assert (await edge.ask(each)).status == 200
        with film.open("r+b") as file:
            file.seek(film.stat().st_size // 2)
            file.write(b"\xff" * 1000)
        for each in paths:
            answer = await edge.ask(each)
            assert (answer.status, answer.code) == (503, "source_changed"), each
        os.truncate(film, 5000)
        for each in paths:
            assert (await edge.ask(each)).code == "source_changed"


async def test_a_ts_segment_beyond_the_limit_is_refused(folder: Path) -> None:
    async with running(Folder(folder), settings(max_ts_segment=65536)) as edge:
        lines = (await edge.ask("/v/film/main-ts.m3u8")).body.decode().splitlines()
        path = "/v/film/" + next(line for line in lines if "+" in line).replace("index.m3u8", "0.ts")
        answer = await edge.ask(path)
        assert (answer.status, answer.code) == (404, "ts_unavailable")
        assert "max_ts_segment" in answer.json()["detail"]


async def test_pipelined_requests_are_answered_in_order(edge: Edge) -> None:
    requests = b"".join(
        f"GET {path} HTTP/1.1\r\nHost: a\r\n{last}\r\n".encode()
        for path, last in (("/health/live", ""), ("/none", ""), ("/v/film/main.mpd", "Connection: close\r\n"))
    )
    async with edge.connect() as (reader, writer):
        writer.write(requests)
        received = await reader.read()
    at = [received.index(mark) for mark in (b'"live"', b"not_found", b"<MPD")]
    assert at == sorted(at)


async def test_where_memory_is_short_all_is_sent_in_blocks(folder: Path, tmp_path: Path, reads: Reads) -> None:
    """Many slow readers of segments that would be cut whole: nobody is turned away while blocks are left."""
    chosen = settings(max_buffered_segment=1 << 30, block=MIB, buffered_bytes=220 * MIB)
    async with running(Large(folder, tmp_path), chosen) as edge:
        path = await segment_of(edge)
        async with edge.connect() as first, edge.connect() as second:
            for reader, writer in (first, second):
                writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                await reader.readuntil(b"\r\n\r\n")
            whole, *others = reads.lengths
            assert whole > FRAMES * MIB and set(others) == {MIB}
            assert (await edge.ask(path, {"Range": f"bytes=0-{3 * MIB}"})).status == 206
            assert edge.node.budget.held == whole + MIB


async def test_one_flight_for_all_who_miss(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    build, encode = media.build, compression.encode

    def building(target: Target, *others: Any) -> Entry:
        made.append(target.leaf)
        return build(target, *others)

    def encoding(data: bytes, coding: str) -> bytes:
        made.append(coding)
        return encode(data, coding)

    async with running(Folder(folder), settings(compress_inline=0)) as edge:
        await edge.ask("/v/ladder/main.m3u8")
        monkeypatch.setattr(media, "build", building)
        monkeypatch.setattr(compression, "encode", encoding)
        answers = await asyncio.gather(*(edge.ask("/v/ladder/main.mpd", {"Accept-Encoding": "br"}) for _ in range(20)))
    assert {a.status for a in answers} == {200} and len({a.body for a in answers}) == 1
    assert sorted(made) == ["br", "main.mpd"]


async def test_flights() -> None:
    import threading

    telemetry = await asyncio.to_thread(Telemetry)
    pool = Pool("work", 2, 8, telemetry)
    flights, gate, calls = Flights(pool), threading.Event(), []

    def work(result: object) -> object:
        calls.append(result)
        assert gate.wait(5)
        if isinstance(result, Exception):
            raise result
        return result

    waiting = [asyncio.create_task(flights.join("a", work, 1)) for _ in range(5)]
    failing = [asyncio.create_task(flights.join("b", work, StreamGateError("overloaded"))) for _ in range(2)]
    await until(lambda: len(calls) == 2)
    # Who goes away leaves the others their flight.
    waiting[0].cancel()
    gate.set()
    assert await asyncio.gather(*waiting[1:]) == [1] * 4
    assert [type(e) for e in await asyncio.gather(*failing, return_exceptions=True)] == [StreamGateError] * 2
    assert len(calls) == 2
    assert await flights.join("a", work, 2) == 2
    pool.close()
