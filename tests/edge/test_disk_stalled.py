"""A disk that hangs is waited for once, and then left alone for a while: nobody else waits, and the event loop never does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from edge.threads import Pool
from edge.tiers.claims import Claim
from edge.tiers.disk import DiskTier
from edge.tiers.indexes import DiskIndexes
from edge.tiers.tier import Terms
from streamgate.core.telemetry import Telemetry
from tests.edge.test_tiers_disk import entry

TERMS = Terms("public", "segment")
PATIENCE_S = 0.1


@pytest.fixture
def hung(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Until this is set, no write comes back."""
    well = threading.Event()
    write = Claim.write

    def waits(self: Claim, data: bytes, at: int) -> None:
        assert well.wait(30)
        write(self, data, at)

    monkeypatch.setattr(Claim, "write", waits)
    yield well
    well.set()


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[DiskTier]:
    pool = Pool("disk", 2, 100, Telemetry())
    made = DiskTier(tmp_path, 2**26, pool, Telemetry(), retry=60.0, patience=PATIENCE_S)
    await made.start()
    yield made
    made.close()
    pool.close()


async def test_one_waits_and_nobody_after(disk: DiskTier, hung: threading.Event) -> None:
    assert not await disk.on_miss("/v/a", entry(b"body"), TERMS)
    assert disk.threads.stalled and not disk.writable
    # Each of these would need a thread: there is none that is free, and none is asked for.
    for number in range(10):
        assert not await disk.on_miss(f"/v/{number}", entry(b"body"), TERMS)
        assert await disk.lookup(f"/v/{number}") is None
        assert await disk.claimed(f"/v/{number}", 4) is None


async def test_it_is_asked_again(disk: DiskTier, hung: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the pause: one that hangs still is left alone again, one that is well is used."""
    now = 1000.0
    monkeypatch.setattr(disk, "_clock", lambda: now)
    monkeypatch.setattr(disk.threads, "_clock", lambda: now)
    for key in ("/v/1", "/v/2"):
        assert not await disk.on_miss(key, entry(b"body"), TERMS)
        assert disk.threads.stalled
        now += 61
        assert not disk.threads.stalled and disk.writable
    hung.set()
    async with asyncio.timeout(10):
        while not await disk.on_miss("/v/b", entry(b"body"), TERMS):
            now += 61
    found = await disk.lookup("/v/b")
    assert found is not None and found.size == 4


async def test_who_opens_assets_waits_no_longer(disk: DiskTier, hung: threading.Event) -> None:
    indexes = DiskIndexes(disk)
    async with asyncio.timeout(10):
        assert not await asyncio.to_thread(indexes.keep, "/index", b"index")
    assert disk.threads.stalled
    assert await asyncio.to_thread(indexes.get, "/index") is None
