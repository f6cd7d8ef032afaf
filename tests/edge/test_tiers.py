"""One suite for every cache tier: whatever keeps entries keeps these promises."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from edge.cors import Cors
from edge.entries import IMMUTABLE, Entry
from edge.threads import Pool
from edge.tiers.disk import DiskTier
from edge.tiers.memory import MemoryTier
from edge.tiers.objects import FileBody
from edge.tiers.tier import CacheTier, Terms
from streamgate.core.settings import EdgeSettings
from streamgate.core.telemetry import Telemetry

MIB = 1024 * 1024
TERMS = Terms("public", "segment")
Made = Callable[[int], Awaitable[CacheTier]]


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    pool = Pool("work", 2, 1000, Telemetry())
    yield pool
    pool.close()


@pytest.fixture(params=["memory", "disk"])
async def made(request: pytest.FixtureRequest, pool: Pool, tmp_path: Path) -> AsyncIterator[Made]:
    """Makes a tier of so many bytes."""
    disks: list[DiskTier] = []

    async def make(capacity: int) -> CacheTier:
        if request.param == "memory":
            settings = EdgeSettings(cache_bytes=capacity, memory_object=MIB)
            return MemoryTier(settings, Cors(settings), pool)
        disk = DiskTier(tmp_path, capacity, pool, Telemetry())
        await disk.start()
        disks.append(disk)
        return disk

    yield make
    for disk in disks:
        disk.close()


def entry(body: bytes = b"body", **fields: object) -> Entry:
    return Entry("video/mp4", "v540-0123456789abcdef/0.m4s", IMMUTABLE, body, **fields)  # type: ignore[arg-type]


async def body_of(pool: Pool, found: Entry | None) -> bytes | None:
    if found is None:
        return None
    if isinstance(found.body, bytes):
        return found.body
    assert isinstance(found.body, FileBody)
    return await pool.run(found.body.read, 0, found.size)


async def test_what_was_made_is_found(made: Made, pool: Pool) -> None:
    tier = await made(64 * MIB)
    given = entry(bytes(range(256)) * 100, compressible=True, headers={"X-A": "b"}, made=12345)
    assert await tier.lookup("/v/film/a") is None
    assert await tier.on_miss("/v/film/a", given, TERMS)
    found = await tier.lookup("/v/film/a")
    assert found is not None and await body_of(pool, found) == given.body
    for name in ("media_type", "tag", "etag", "cache_control", "compressible", "headers", "made", "size", "coding"):
        assert getattr(found, name) == getattr(given, name), name
    assert await tier.lookup("/v/film/A") is None


async def test_what_a_slower_tier_had_is_taken(made: Made, pool: Pool) -> None:
    tier = await made(64 * MIB)
    await tier.on_hit("/v/film/a", entry(b"from below"), TERMS)
    assert await body_of(pool, await tier.lookup("/v/film/a")) == b"from below"
    await tier.on_hit("/v/film/a", entry(b"from below"), TERMS)
    assert await body_of(pool, await tier.lookup("/v/film/a")) == b"from below"


async def test_what_was_removed_is_gone(made: Made) -> None:
    tier = await made(64 * MIB)
    assert not await tier.remove("/v/film/a")
    await tier.on_miss("/v/film/a", entry(), TERMS)
    assert await tier.remove("/v/film/a")
    assert await tier.lookup("/v/film/a") is None
    assert not await tier.remove("/v/film/a")


async def test_who_sends_it_may_go_on_when_it_is_removed(made: Made, pool: Pool) -> None:
    tier = await made(64 * MIB)
    await tier.on_miss("/v/film/a", entry(b"still here" * 1000), TERMS)
    found = await tier.lookup("/v/film/a")
    await tier.remove("/v/film/a")
    assert await body_of(pool, found) == b"still here" * 1000


async def test_the_budget_holds(made: Made, pool: Pool) -> None:
    tier = await made(2 * MIB)
    for number in range(200):
        await tier.on_miss(f"/v/film/{number}", entry(number.to_bytes(4, "big") * 10_000), TERMS)
    bodies = [await body_of(pool, await tier.lookup(f"/v/film/{number}")) for number in range(200)]
    kept = [number for number, body in enumerate(bodies) if body is not None]
    assert 30 < len(kept) and sum(len(body) for body in bodies if body is not None) <= 2 * MIB
    assert all(bodies[number] == number.to_bytes(4, "big") * 10_000 for number in kept)


async def test_favourites_outlive_a_scan(made: Made) -> None:
    tier = await made(2 * MIB)
    favourites = [f"/v/favourite/{number}" for number in range(10)]
    for _ in range(4):
        for key in favourites:
            if await tier.lookup(key) is None:
                await tier.on_miss(key, entry(bytes(40_000)), TERMS)
    for number in range(300):
        await tier.on_miss(f"/v/scan/{number}", entry(bytes(40_000)), TERMS)
    assert sum([await tier.lookup(key) is not None for key in favourites]) == len(favourites)


async def test_what_is_too_large_is_not_kept(made: Made) -> None:
    tier = await made(2 * MIB)
    await tier.on_miss("/v/film/small", entry(bytes(1000)), TERMS)
    assert not await tier.on_miss("/v/film/large", entry(bytes(MIB)), TERMS)
    assert await tier.lookup("/v/film/large") is None and await tier.lookup("/v/film/small") is not None


async def test_a_tier_of_nothing_keeps_nothing(made: Made) -> None:
    tier = await made(0)
    assert not await tier.on_miss("/v/film/a", entry(), TERMS)
    assert await tier.lookup("/v/film/a") is None and not await tier.remove("/v/film/a")


async def test_many_at_once(made: Made, pool: Pool) -> None:
    tier = await made(64 * MIB)

    async def one(number: int) -> bytes | None:
        key = f"/v/film/{number % 20}"
        found = await tier.lookup(key)
        if found is None:
            await tier.on_miss(key, entry(key.encode() * 100), TERMS)
            found = await tier.lookup(key)
        return await body_of(pool, found)

    bodies = await asyncio.gather(*(one(number) for number in range(200)))
    # Who comes while another one is writing may still find nothing; nobody finds anything else's bytes.
    assert all(body in (None, f"/v/film/{number % 20}".encode() * 100) for number, body in enumerate(bodies))
    assert all([await tier.lookup(f"/v/film/{number}") is not None for number in range(20)])


async def test_an_empty_body(made: Made, pool: Pool) -> None:
    tier = await made(64 * MIB)
    assert await tier.on_miss("/v/film/a", entry(b""), TERMS)
    assert await body_of(pool, await tier.lookup("/v/film/a")) == b""


async def test_keys_of_any_length_and_script(made: Made, pool: Pool) -> None:
    tier = await made(64 * MIB)
    for key in ("/v/a", "/v/" + "b" * 1021, "/v/film/%C3%A4;x=1"):
        assert await tier.on_miss(key, entry(key.encode()), TERMS)
        assert await body_of(pool, await tier.lookup(key)) == key.encode()


async def test_the_time_it_was_made_is_now() -> None:
    assert abs(entry().made - time.time()) < 5
