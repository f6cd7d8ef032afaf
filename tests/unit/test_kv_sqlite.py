"""The machine's store: values that expire, leases, one taker of many, and a feed that is read from where one stopped."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streamgate.errors import StreamGateError
from streamgate.storage.kv.events import Event
from streamgate.storage.kv.sqlite import SqliteStore


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(tmp_path: Path, clock: Clock) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(tmp_path / "state.sqlite", clock)
    yield opened
    await opened.close()


async def test_values_and_their_end(store: SqliteStore, clock: Clock) -> None:
    assert await store.get("a") is None
    await store.put("a", b"1")
    await store.put("b", b"2", ttl=10)
    assert (await store.get("a"), await store.get("b")) == (b"1", b"2")
    clock.now += 9.9
    assert await store.get("b") == b"2"
    clock.now += 0.1
    assert await store.get("b") is None
    await store.put("a", b"3")
    assert await store.get("a") == b"3"
    assert await store.delete("a") and not await store.delete("a")
    assert await store.prune() == 1


async def test_exactly_one_sets_and_exactly_one_takes(store: SqliteStore, tmp_path: Path, clock: Clock) -> None:
    others = [await SqliteStore.open(tmp_path / "state.sqlite", clock) for _ in range(4)]
    for turn in range(5):
        key = f"nonce {turn}"
        won = await asyncio.gather(*(each.put_new(key, b"x", ttl=60) for each in (store, *others)))
        assert sum(won) == 1
        taken = await asyncio.gather(*(each.take(key) for each in (store, *others)))
        assert sorted(taken, key=bool) == [None] * 4 + [b"x"]
    assert await store.put_new("again", b"1", ttl=5)
    assert not await store.put_new("again", b"2", ttl=5)
    clock.now += 5
    assert await store.put_new("again", b"3", ttl=5)
    for each in others:
        await each.close()


async def test_leases(store: SqliteStore, clock: Clock) -> None:
    assert await store.lease("remux", b"me", 10)
    assert not await store.lease("remux", b"you", 10)
    clock.now += 6
    assert await store.lease("remux", b"me", 10)
    clock.now += 6
    assert not await store.lease("remux", b"you", 10)
    assert not await store.release("remux", b"you")
    assert await store.release("remux", b"me")
    assert await store.lease("remux", b"you", 10)
    clock.now += 10
    assert await store.lease("remux", b"me", 10)


async def test_the_feed_is_read_from_where_one_stopped(store: SqliteStore, clock: Clock) -> None:
    first = await store.append("revoke.session", b"\x01", 2000)
    second = await store.append("purge", b"/v/film/", None)
    assert second > first
    events, position = await store.events()
    assert events == [Event(first, "revoke.session", b"\x01", 2000), Event(second, "purge", b"/v/film/", None)]
    assert await store.events(position) == ([], position)
    third = await store.append("revoke.key", b"k1", 3000)
    events, position = await store.events(position)
    assert [event.id for event in events] == [third]
    # What has ended is not told any more, and its number is never given again.
    clock.now = 3000
    assert [event.id for event in (await store.events())[0]] == [second]
    assert await store.prune() == 2
    assert await store.append("purge", b"", None) > third
    with pytest.raises(ValueError, match="event type"):
        await store.append("rumour", b"", None)  # type: ignore[arg-type]


async def test_the_feed_in_pieces(store: SqliteStore) -> None:
    for number in range(7):
        await store.append("purge", str(number).encode(), None)
    found, (events, position) = [], await store.events(limit=3)
    while events:
        assert len(events) <= 3
        found += [event.subject for event in events]
        events, position = await store.events(position, limit=3)
    assert found == [b"0", b"1", b"2", b"3", b"4", b"5", b"6"]


async def test_a_store_that_began_anew_is_noticed(store: SqliteStore, tmp_path: Path) -> None:
    await store.append("purge", b"old", None)
    _, before = await store.events()
    for name in ("state.sqlite", "state.sqlite-wal", "state.sqlite-shm"):
        (tmp_path / name).unlink()
    other = await SqliteStore.open(tmp_path / "state.sqlite")
    await other.append("purge", b"new", None)
    # The first goes over to the file that is there now, and reads it from the start.
    events, position = await store.events(before)
    assert [event.subject for event in events] == [b"new"]
    assert position.incarnation != before.incarnation
    await other.close()


async def test_who_may_read_it(store: SqliteStore, tmp_path: Path) -> None:
    await store.put("a", b"1")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {f"state.sqlite{end}": 0o600 for end in ("", "-wal", "-shm", "-reserve")}


async def test_what_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(os.urandom(8192))
    for path in (tmp_path / "noise", tmp_path):
        with pytest.raises(StreamGateError) as caught:
            await SqliteStore.open(path)
        assert caught.value.code == "store_unavailable"


async def test_a_failure_leaves_no_transaction_behind(store: SqliteStore, tmp_path: Path) -> None:
    blocker = sqlite3.connect(tmp_path / "state.sqlite", isolation_level=None)
    blocker.execute("DROP TABLE kv")
    with pytest.raises(StreamGateError) as caught:
        await store.put("a", b"1")
    assert caught.value.code == "store_unavailable"
    assert await store.append("purge", b"", None)
    blocker.close()


def test_what_was_written_survives_kill_9(tmp_path: Path) -> None:
    program = f"""
import asyncio, os, signal
from pathlib import Path
from streamgate.storage.kv.sqlite import SqliteStore
async def main():
    store = await SqliteStore.open(Path({str(tmp_path / "s")!r}))
    await store.append("revoke.session", b"abc", None)
    await store.put("a", b"1")
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9

    async def read() -> tuple[bytes | None, list[bytes]]:
        store = await SqliteStore.open(tmp_path / "s")
        found = await store.get("a"), [event.subject for event in (await store.events())[0]]
        await store.close()
        return found

    assert asyncio.run(read()) == (b"1", [b"abc"])
