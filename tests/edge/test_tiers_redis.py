"""The tier that the nodes of a site share: what it gives back, and that nothing that happens to Redis is a viewer's business."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from edge.entries import IMMUTABLE, Entry
from edge.threads import Pool
from edge.tiers import redis as tiers_redis
from edge.tiers import values
from edge.tiers.redis import INDEX, RedisTier, open_tier
from edge.tiers.tier import Terms
from streamgate.core.settings import RedisSettings
from streamgate.core.telemetry import Telemetry
from tests.services.redis import PATIENT, RedisServer

MIB = 1024 * 1024
TERMS = Terms("public", "segment")
DEADLINE_S = 20.0


class Site:
    """A Redis and one node's tier in it."""

    def __init__(self, server: RedisServer, tier: RedisTier, telemetry: Telemetry, settings: RedisSettings) -> None:
        self.server = server
        self.tier = tier
        self.telemetry = telemetry
        self.settings = settings

    async def write(self, key: str, entry: Entry) -> bool:
        """Have it written and wait for what became of it."""
        assert isinstance(entry.body, bytes)
        done = asyncio.get_running_loop().create_future()
        if not self.tier.write(key, entry, entry.body, done.set_result):
            return False
        async with asyncio.timeout(DEADLINE_S):
            return bool(await done)

    async def redis(self, command: str, *words: Any) -> Any:
        """Something done behind the tier's back."""
        return await asyncio.to_thread(self.server.client.execute_command, command, *words)

    async def names(self) -> list[bytes]:
        """The names of all values of this site."""
        found: list[bytes] = await self.redis("KEYS", f"{self.settings.prefix}*tier:*")
        return found

    def count(self, name: str, result: str) -> float:
        return self.telemetry.value(name, result=result)


@contextlib.asynccontextmanager
async def site(server: RedisServer, **given: Any) -> AsyncIterator[Site]:
    telemetry = Telemetry()
    pool = Pool("work", 2, 1000, telemetry)
    settings = server.settings(**{**PATIENT, **given})
    tier = await open_tier(settings, pool, telemetry)
    try:
        yield Site(server, tier, telemetry, settings)
    finally:
        await tier.close()
        pool.close()


@pytest.fixture
async def shared(redis_server: RedisServer) -> AsyncIterator[Site]:
    async with site(redis_server) as made:
        yield made


def segment(body: bytes = b"body" * 100, **fields: Any) -> Entry:
    return Entry("video/mp4", "v540-0123456789abcdef/0.m4s", IMMUTABLE, body, **fields)


def playlist(body: bytes) -> Entry:
    return Entry("application/vnd.apple.mpegurl", "tag", "max-age=2", body, True, {"X-A": "b"}, made=12345)


async def until(check: Callable[[], bool]) -> None:
    """Wait for what goes on in the background."""
    async with asyncio.timeout(DEADLINE_S):
        while not check():
            await asyncio.sleep(0.005)


# --- values

TEXT = st.text("".join(map(chr, (*range(0x20, 0x7F), *range(0xA0, 0x100)))), max_size=40)
"""What the field of a head may hold."""
ENTRIES = st.builds(
    Entry,
    TEXT,
    TEXT,
    TEXT,
    st.binary(max_size=4000) | st.binary(max_size=8).map(lambda part: part * 5000),
    st.booleans(),
    st.dictionaries(TEXT, TEXT, max_size=4),
    made=st.integers(0, 2**40),
    coding=st.sampled_from(("identity", "br", "zstd", "gzip")),
)


@given(st.text(max_size=100), ENTRIES, st.booleans())
def test_what_comes_back_is_what_was_put(key: str, entry: Entry, compress: bool) -> None:
    assert isinstance(entry.body, bytes)
    assert values.unpack(key, values.pack(key, entry, entry.body, compress=compress), MIB) == entry


WRONG: tuple[dict[str, object], ...] = (
    {"headers": []},
    {"headers": None},
    {"headers": {"X": 5}},
    {"headers": {"X": "a\r\nSet-Cookie: b"}},
    {"headers": {"X: a\r\nY": "b"}},
    {"made": "x"},
    {"made": True},
    {"made": -1},
    {"type": None},
    {"type": "text/html\r\n\r\n"},
    {"tag": 5},
    {"cache": ["no-store"]},
    {"coding": "rot13"},
    {"compressible": 1},
    {"key": "/v/film/b"},
)


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_what_no_head_can_hold_is_damaged(wrong: dict[str, object]) -> None:
    entry = Entry("video/mp4", "a", "no-cache", b"body", headers={"X": "y"})
    whole = zstandard.ZstdDecompressor().decompress(values.pack("/v/film/a", entry, b"body", compress=False))
    (length,) = struct.unpack_from("<I", whole)
    front = json.dumps({**json.loads(whole[4 : 4 + length]), **wrong}).encode()
    forged = struct.pack("<I", len(front)) + front + b"body"
    value = zstandard.ZstdCompressor(write_checksum=True).compress(forged)
    with pytest.raises(values.Damaged):
        values.unpack("/v/film/a", value, MIB)


@given(ENTRIES, st.data())
def test_no_damaged_value_is_taken_for_another(entry: Entry, data: st.DataObject) -> None:
    assert isinstance(entry.body, bytes)
    value = values.pack("/v/film/a", entry, entry.body, compress=data.draw(st.booleans()))
    at = data.draw(st.integers(0, 8 * len(value) - 1))
    damaged = (int.from_bytes(value, "little") ^ 1 << at).to_bytes(len(value), "little")
    try:
        found = values.unpack("/v/film/a", damaged, MIB)
    except values.Damaged:
        found = entry
    # Some bits of a frame mean nothing.
    assert found == entry


@given(ENTRIES, st.data())
def test_no_part_of_a_value_is_believed(entry: Entry, data: st.DataObject) -> None:
    assert isinstance(entry.body, bytes)
    value = values.pack("/v/film/a", entry, entry.body, compress=True)
    with pytest.raises(values.Damaged):
        values.unpack("/v/film/a", value[: data.draw(st.integers(0, len(value) - 1))], MIB)
    with pytest.raises(values.Damaged):
        values.unpack("/v/film/a", value + b"\0", MIB)


@given(st.binary(max_size=200))
def test_no_other_bytes_are_believed(value: bytes) -> None:
    with pytest.raises(values.Damaged):
        values.unpack("/v/film/a", value, MIB)


def test_a_value_is_that_of_its_key_and_no_larger_than_asked_for() -> None:
    value = values.pack("/v/film/a", segment(bytes(MIB)), bytes(MIB), compress=True)
    assert len(value) < 1000
    assert values.unpack("/v/film/a", value, 2 * MIB).size == MIB
    for key, most in (("/v/film/b", 2 * MIB), ("/v/film/a", MIB)):
        with pytest.raises(values.Damaged):
            values.unpack(key, value, most)


# --- the tier


async def test_what_was_written_is_found_with_all_that_it_says(shared: Site) -> None:
    given = playlist(b"#EXTM3U\n" * 5000)
    assert await shared.tier.lookup("/v/film/main.m3u8") is None
    assert await shared.write("/v/film/main.m3u8", given)
    assert await shared.tier.lookup("/v/film/main.m3u8") == given
    assert await shared.tier.lookup("/v/film/main.mpd") is None
    # A text is compressed, and nothing is kept for ever.
    (name,) = await shared.names()
    assert await shared.redis("STRLEN", name) < 1000
    assert 0 < await shared.redis("TTL", name) <= shared.settings.ttl
    assert shared.telemetry.value("redis_bytes", direction="written") < 1000
    assert shared.telemetry.value("redis_bytes", direction="read") < 1000


async def test_media_is_not_compressed(shared: Site) -> None:
    given = segment(bytes(range(256)) * 100)
    assert await shared.write("/v/film/v/0.m4s", given)
    assert await shared.tier.lookup("/v/film/v/0.m4s") == given
    (name,) = await shared.names()
    value = await shared.redis("GET", name)
    assert isinstance(given.body, bytes) and given.body[:200] in value


async def test_what_was_removed_is_gone_and_so_is_the_lease_of_its_maker(shared: Site) -> None:
    assert not await shared.tier.remove("/v/film/a")
    assert await shared.write("/v/film/a", segment())
    await shared.tier.writes.put_new(tiers_redis.lease_of("/v/film/a"), b"somebody", 60)
    assert await shared.tier.remove("/v/film/a")
    assert await shared.tier.lookup("/v/film/a") is None
    assert await shared.redis("KEYS", f"{shared.settings.prefix}*") == []


async def test_many_reads_of_a_moment_are_few_commands(shared: Site) -> None:
    for number in range(40):
        assert await shared.write(f"/v/film/{number}", segment(str(number).encode()))

    async def commands() -> int:
        told = await shared.redis("INFO", "commandstats")
        return int(told.get("cmdstat_mget", {"calls": 0})["calls"])

    before = await commands()
    found = await asyncio.gather(*(shared.tier.lookup(f"/v/film/{number % 50}") for number in range(200)))
    assert await commands() - before == 2
    for number, entry in enumerate(found):
        assert (entry.body if entry is not None else None) == (str(number % 50).encode() if number % 50 < 40 else None)


async def test_who_gives_up_waiting_takes_nothing_from_the_others(shared: Site) -> None:
    assert await shared.write("/v/film/a", segment())
    first, second = (asyncio.ensure_future(shared.tier.lookup("/v/film/a")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == segment()


@pytest.mark.parametrize("how", ["flipped", "cut", "another key's", "nonsense", "another type"])
async def test_a_damaged_value_is_a_miss_and_goes(shared: Site, how: str) -> None:
    assert await shared.write("/v/film/a", segment())
    (name,) = await shared.names()
    value = bytearray(await shared.redis("GET", name))
    if how == "flipped":
        value[-20] ^= 1
    elif how == "cut":
        del value[-20:]
    elif how == "another key's":
        value = bytearray(values.pack("/v/film/b", segment(), b"other", compress=False))
    elif how == "nonsense":
        value = bytearray(b"nonsense")
    await shared.redis("SET", name, bytes(value))
    if how == "another type":
        await shared.redis("DEL", name)
        await shared.redis("HSET", name, "a", "b")
    assert await shared.tier.lookup("/v/film/a") is None
    if how == "another type":  # Redis itself gives nothing for it
        return
    assert shared.count("redis_reads", "damaged") == 1
    async with asyncio.timeout(DEADLINE_S):
        while await shared.redis("EXISTS", name):
            await asyncio.sleep(0.005)
    assert await shared.write("/v/film/a", segment())
    assert await shared.tier.lookup("/v/film/a") == segment()


async def test_another_format_is_another_key(shared: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await shared.write("/v/film/a", segment())
    monkeypatch.setattr(values, "FORMAT", values.FORMAT + 1)
    assert await shared.tier.lookup("/v/film/a") is None
    assert await shared.write("/v/film/a", segment(b"newer"))
    monkeypatch.undo()
    found = await shared.tier.lookup("/v/film/a")
    assert found == segment() and shared.count("redis_reads", "damaged") == 0


async def test_what_was_purged_elsewhere_is_refused(shared: Site) -> None:
    assert await shared.write("/v/film/a", segment(made=100)) and await shared.write("/v/film/b", segment(made=200))
    shared.tier.refuses = lambda key, entry: key.startswith("/v/film/") and entry.made <= 100
    assert await shared.tier.lookup("/v/film/a") is None
    assert await shared.tier.lookup("/v/film/b") is not None
    assert shared.count("redis_reads", "purged") == 1


async def test_whatever_comes_nobody_is_left_waiting(shared: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [f"/v/film/{name}" for name in "abc"]
    for key in keys:
        assert await shared.write(key, segment())

    def refuses(key: str, entry: Entry) -> bool:
        if key == keys[1]:
            raise MemoryError
        return False

    async def lookups() -> list[bool]:
        async with asyncio.timeout(DEADLINE_S):
            return [found is not None for found in await asyncio.gather(*(shared.tier.lookup(key) for key in keys))]

    shared.tier.refuses = refuses
    assert await lookups() == [True, False, True]

    async def fewer(names: Any) -> list[bytes | None]:
        return [b"value"]

    monkeypatch.setattr(shared.tier._reads, "get_many", fewer)
    assert await lookups() == [False] * 3


async def test_only_what_is_small_enough_is_taken(redis_server: RedisServer) -> None:
    async with site(redis_server, object_limit=1000) as shared:
        assert shared.tier.takes(1000) and not shared.tier.takes(1001)
        assert await shared.write("/v/film/a", segment(bytes(1000)))
        assert not await shared.write("/v/film/b", segment(bytes(1001)))
        # Texts and indexes are larger, and worth it.
        assert await shared.write("/v/film/main.mpd", playlist(b"text" * 1000))
        index = Entry("application/octet-stream", INDEX, "no-store", b"i" * 100_000)
        assert await shared.write("/index/1/abc", index)
        assert await shared.tier.lookup("/index/1/abc") == index
        assert not await shared.write("/index/1/abcd", replace(index, body=bytes(tiers_redis.TEXT_LIMIT + 1)))
        assert shared.count("redis_writes", "dropped") == 2 and shared.count("redis_writes", "stored") == 3


# --- what may happen to Redis


async def test_writes_are_not_waited_for_and_beyond_a_limit_left_out(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiers_redis, "_BUFFERED", 10_000)
    async with site(own_redis, timeout=0.5, circuit_slow=60.0) as shared:
        with own_redis.stalled():
            took = [shared.tier.write(f"/v/film/{number}", segment(bytes(1000)), bytes(1000)) for number in range(20)]
            assert took == [True] * 10 + [False] * 10
        assert shared.count("redis_writes", "dropped") == 10
        await until(lambda: shared.count("redis_writes", "failed") + shared.count("redis_writes", "stored") == 10)
        assert await shared.write("/v/film/a", segment()) or shared.count("redis_writes", "failed")


async def test_a_stalled_redis_costs_one_timeout_and_is_then_left_alone(own_redis: RedisServer) -> None:
    async with site(own_redis, timeout=0.5, connect_timeout=0.5, circuit_probe=60.0, circuit_probe_max=60.0) as shared:
        assert await shared.write("/v/film/a", segment()) and await shared.tier.lookup("/v/film/a") == segment()
        with own_redis.stalled():
            began = time.monotonic()
            found = await asyncio.gather(*(shared.tier.lookup("/v/film/a") for _ in range(20)))
            assert found == [None] * 20 and 0.4 < time.monotonic() - began < 5.0
            assert not shared.tier.readable and shared.telemetry.value("redis_left_alone", use="read") == 1
            failed = shared.count("redis_reads", "failed")
            began = time.process_time()
            for _ in range(100):
                assert await shared.tier.lookup("/v/film/a") is None
            # Nothing was waited for: all of it took as long as it took to compute.
            assert time.process_time() - began < 0.5
            assert shared.count("redis_reads", "failed") == failed + 100


async def test_a_redis_that_returns_is_used_again(own_redis: RedisServer) -> None:
    async with site(own_redis, timeout=0.5, connect_timeout=0.5, circuit_probe=0.01, circuit_probe_max=0.02) as shared:
        assert await shared.write("/v/film/a", segment())
        own_redis.kill()
        assert await shared.tier.lookup("/v/film/a") is None and not await shared.write("/v/film/a", segment())
        assert not shared.tier.readable
        assert shared.tier.problem() is not None
        await asyncio.to_thread(own_redis.start)
        # Nobody asks for anything meanwhile.
        await until(lambda: shared.tier.problem() is None)
        assert [shared.telemetry.value("redis_left_alone", use=use) for use in ("read", "write")] == [0, 0]
        # It came back empty; what is written now is found.
        assert await shared.tier.lookup("/v/film/a") is None and await shared.write("/v/film/a", segment())
        assert await shared.tier.lookup("/v/film/a") == segment()


async def test_a_redis_that_never_was_there_is_a_miss(own_redis: RedisServer) -> None:
    own_redis.kill()
    async with site(own_redis) as shared:
        assert await shared.tier.lookup("/v/film/a") is None
        assert not await shared.write("/v/film/a", segment()) and not await shared.tier.remove("/v/film/a")


async def test_a_full_redis_is_read_and_not_written(own_redis: RedisServer) -> None:
    async with site(own_redis, circuit_probe=0.01, circuit_probe_max=0.02) as shared:
        assert await shared.write("/v/film/a", segment())
        with own_redis.full():
            assert not await shared.write("/v/film/b", segment())
            assert shared.count("redis_writes", "failed") == 1
            assert shared.telemetry.value("redis_left_alone", use="write") == 1
            assert shared.tier.readable and await shared.tier.lookup("/v/film/a") == segment()
        await until(lambda: shared.tier.problem() is None)
        assert await shared.write("/v/film/b", segment())


async def test_what_waits_is_bounded(own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers_redis, "_BUFFERED", 64 * 1000)
    async with site(own_redis, object_limit=1000, timeout=0.5) as shared:
        with own_redis.stalled():
            waiting = [asyncio.ensure_future(shared.tier.lookup(f"/v/film/{number}")) for number in range(100)]
            await asyncio.sleep(0)
            assert sum(task.done() for task in waiting) == 36 and shared.count("redis_reads", "skipped") == 36
            assert await asyncio.gather(*waiting) == [None] * 100
