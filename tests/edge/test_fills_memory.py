"""Flights of what comes from afar: viewers are sent from memory, and the disk gets it beside."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edge.budget import Budget
from edge.entries import IMMUTABLE, Entry, Fetched
from edge.threads import Pool
from edge.tiers.claims import Claim
from edge.tiers.disk import DiskTier
from edge.tiers.fills import Fills
from edge.tiers.growing import Growing
from edge.tiers.negatives import Negatives
from edge.tiers.objects import FileBody
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError
from streamgate.native import slabs

KEY = "/v/film/v720/0.m4s"
SIZE = 1_500_000


class Afar(Fetched):
    """Comes as far as ``upto``, and on when that grows; ``failing``: what it then raises instead."""

    kind = "segment"

    def __init__(self, data: bytes, upto: int = SIZE) -> None:
        self.data = data
        self.upto = upto
        self.more = asyncio.Event()
        self.failing: StreamGateError | None = None

    @property
    def size(self) -> int:
        return len(self.data)

    async def fetch(self, start: int, length: int) -> bytes:
        return self.data[start : start + length]

    async def fill(self, out: memoryview, start: int, told: Callable[[int], None]) -> None:
        at, end = start, start + len(out)
        while at < end:
            if at >= self.upto:
                await self.more.wait()
                if self.failing is not None:
                    raise self.failing
                self.upto = self.size
            upto = min(end, self.upto)
            out[at - start : upto - start] = self.data[at:upto]
            told(upto)
            at = upto


@asynccontextmanager
async def process(tmp_path: Path, memory: int = 2**26) -> AsyncIterator[tuple[Fills, DiskTier]]:
    telemetry = Telemetry()
    pool = Pool("test", 2, 100, telemetry)
    disk = DiskTier(tmp_path, 2**30, pool, telemetry)
    fills = Fills(disk, pool, Negatives(1.0), telemetry, Budget(memory))
    await fills.start()
    await disk.start()
    try:
        yield fills, disk
    finally:
        await fills.close()
        disk.close()
        pool.close()


async def joined(fills: Fills, body: Fetched) -> Growing:
    found = await fills.join(KEY, Entry("video/mp4", "tag", IMMUTABLE, body), 10.0)
    assert found is not None and isinstance(found[0].body, Growing)
    return found[0].body


async def on_disk(disk: DiskTier) -> bytes | None:
    return await asyncio.to_thread(disk.get, KEY)


@pytest.fixture
def data() -> bytes:
    return os.urandom(SIZE)


async def test_viewers_do_not_wait_for_the_disk(tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    written, opened, calls = Claim.write, threading.Event(), []

    def write(claim: Claim, block: bytes, at: int, crc: int = 0) -> int:
        assert opened.wait(10)
        calls.append((at, len(block)))
        return written(claim, block, at, crc)

    monkeypatch.setattr(Claim, "write", write)
    async with process(tmp_path) as (fills, disk), asyncio.timeout(10):
        body = await joined(fills, Afar(data))
        await body.beyond(SIZE - 1)
        sent = body.at_hand(0, SIZE)
        assert sent is not None and bytes(sent) == data and body.stored == 0 and not body.settled
        held = await fills.settled(KEY)
        assert held is not None and held.body is body, "nor who looks it up"
        assert await joined(fills, Afar(b"")) is body, "who comes now has the same"
        opened.set()
        await body.beyond_stored(SIZE - 1)
        assert body.stored == SIZE and await on_disk(disk) == data and await fills.settled(KEY) is None
        assert calls == [(0, SIZE)], "in one go"
        assert not fills.under_way
        body.let_go()
        assert body.at_hand(0, 1) is None and await asyncio.to_thread(body.read, 5, 100) == data[5:105]


@pytest.mark.parametrize("able", [True, False])
async def test_it_is_stored_past_the_page_cache_where_that_can_be(
    tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch, able: bool
) -> None:
    """Who looks it up has it in the page cache: it is sent from the loop."""
    written, ways = slabs.write, []

    def write(fd: int, block: bytes, at: int, crc: int = 0, direct: int = -1) -> int:
        ways.append(direct >= 0)
        if direct >= 0 and not able:
            raise OSError(errno.EINVAL, "Invalid argument")
        return written(fd, block, at, crc, direct)

    monkeypatch.setattr(slabs, "write", write)
    async with process(tmp_path) as (fills, disk), asyncio.timeout(10):
        body = await joined(fills, Afar(data))
        await body.beyond_stored(SIZE - 1)
        assert body.lost is None and ways == ([True] if able else [True, False])
        found = await disk.lookup(KEY)
        assert found is not None and isinstance(found.body, FileBody)
        assert await asyncio.to_thread(found.body._loaded)
        assert await asyncio.to_thread(found.body.read, 0, SIZE) == data and disk.writable


async def test_a_disk_that_fails_is_no_viewers_business(
    tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(claim: Claim, block: bytes, at: int, crc: int = 0) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Claim, "write", write)
    async with process(tmp_path) as (fills, disk), asyncio.timeout(10):
        body = await joined(fills, Afar(data))
        await body.beyond_stored(SIZE - 1)
        assert body.lost is not None and body.lost.code == "cache_failed" and body.error is None
        body.let_go()
        assert await asyncio.to_thread(body.read, 0, SIZE) == data, "there is no file to read it from"
        assert await on_disk(disk) is None and not disk.writable
        await asyncio.gather(*fills._tasks)  # it gives its file up
        assert [path.name for path in (disk.folder / "fills").iterdir()] == []


async def test_another_process_reads_it_as_it_grows(tmp_path: Path, data: bytes) -> None:
    async with process(tmp_path) as (leads, disk), process(tmp_path) as (follows, _), asyncio.timeout(10):
        afar = Afar(data, 400_000)
        own = await joined(leads, afar)
        assert own.stored == 0, "nobody needs the file yet"
        other = await joined(follows, Afar(bytes(SIZE)))  # which is never asked
        await other.beyond(399_999)
        assert (
            not other.leads
            and other.written == 400_000
            and await asyncio.to_thread(other.read, 0, 400_000) == data[:400_000]
        )
        afar.more.set()
        await other.beyond(SIZE - 1)
        assert await asyncio.to_thread(other.read, 0, SIZE) == data and await on_disk(disk) == data


async def test_a_source_that_breaks_leaves_nothing(tmp_path: Path, data: bytes) -> None:
    async with process(tmp_path) as (fills, disk), asyncio.timeout(10):
        afar = Afar(data, 400_000)
        body = await joined(fills, afar)
        afar.failing = StreamGateError("origin_unavailable", "gone")
        afar.more.set()
        with pytest.raises(StreamGateError, match="gone"):
            await body.available(400_000)
        assert await asyncio.to_thread(body.read, 0, 400_000) == data[:400_000], "what came is right"
        await until(lambda: not fills.under_way)
        assert await on_disk(disk) is None and list((disk.folder / "fills").iterdir()) == []


async def test_who_follows_goes_on_where_the_disk_of_who_leads_fails(
    tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = Claim.write

    def write(claim: Claim, block: bytes, at: int, crc: int = 0) -> int:
        if at:
            raise OSError(28, "No space left on device")
        return written(claim, block, at, crc)

    monkeypatch.setattr(Claim, "write", write)
    async with process(tmp_path) as (leads, _), process(tmp_path) as (follows, _), asyncio.timeout(10):
        afar, again = Afar(data, 400_000), Afar(data)
        own, other = await joined(leads, afar), await joined(follows, again)
        await other.beyond(399_999)
        afar.more.set()
        await own.beyond(SIZE - 1)
        assert own.error is None, "its viewers read from memory"
        await other.beyond(400_000)
        # The sign for a viewer's answer to go on with this.
        assert other.error is not None and other.error.code == "fill_lost" and other.otherwise is again


async def test_what_failed_is_let_go_of_at_once(tmp_path: Path, data: bytes) -> None:
    """And not when the collector of cycles comes by: it is the memory of a segment."""
    gc.disable()
    try:
        async with process(tmp_path) as (fills, _), asyncio.timeout(10):
            afar = Afar(data, 400_000)
            body = weakref.ref(await joined(fills, afar))
            afar.failing = StreamGateError("origin_unavailable", "gone")
            afar.more.set()
            await until(lambda: not fills.under_way)
            afar.failing = None
            await until(lambda: body() is None)
    finally:
        gc.enable()


async def test_where_memory_is_short_it_is_written_in_pieces(tmp_path: Path, data: bytes) -> None:
    async with process(tmp_path, memory=SIZE) as (fills, disk), asyncio.timeout(10):
        body = await joined(fills, Afar(data))
        await body.beyond_stored(SIZE - 1)
        assert body.at_hand(0, SIZE) is None and await asyncio.to_thread(body.read, 0, SIZE) == data
        assert await on_disk(disk) == data


async def test_what_viewers_had_whole_is_kept_at_the_end(
    tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, opened = Claim.write, threading.Event()

    def write(claim: Claim, block: bytes, at: int, crc: int = 0) -> int:
        assert opened.wait(10)
        return written(claim, block, at, crc)

    monkeypatch.setattr(Claim, "write", write)
    async with process(tmp_path) as (fills, disk), asyncio.timeout(10):
        await (await joined(fills, Afar(data))).beyond(SIZE - 1)
        closing = asyncio.ensure_future(fills.close())
        opened.set()
        await closing
        assert await on_disk(disk) == data


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)
