"""The feed in the machine's store: events of others, files of before, backups that were put back, and clocks that leap."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streamgate.errors import StreamGateError
from streamgate.storage.kv.events import UID_BYTES, Event, Position
from streamgate.storage.kv.sqlite import SqliteStore
from tests.unit.test_clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


@pytest.fixture
def steady() -> Clock:
    return Clock(10.0)


@pytest.fixture
async def store(tmp_path: Path, clock: Clock, steady: Clock) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(tmp_path / "state.sqlite", clock, steady)
    yield opened
    await opened.close()


def event(subject: bytes, until: int | None = None) -> Event:
    return Event(0, "purge", subject, until, os.urandom(UID_BYTES))


async def subjects(store: SqliteStore, after: Position | None = None) -> list[bytes]:
    return [each.subject for each in (await store.events(after))[0]]


async def test_events_of_others_are_taken_once(store: SqliteStore, tmp_path: Path) -> None:
    await store.append("revoke.session", b"mine", None)
    others = [event(b"1"), event(b"2", 2000), event(b"3")]
    assert await store.adopt(others[:2]) == 2
    assert await store.adopt([others[0], others[2], others[2]]) == 1
    found, _ = await store.events()
    assert [each.subject for each in found] == [b"mine", b"1", b"2", b"3"]
    assert [each.uid for each in found[1:]] == [each.uid for each in others]
    assert found[2].until == 2000 and len(found[0].uid) == UID_BYTES
    # What was read here is known elsewhere by the same name.
    other = await SqliteStore.open(tmp_path / "other.sqlite")
    assert await other.adopt(found) == 4 and await store.adopt((await other.events())[0]) == 0
    await other.close()


async def test_all_or_nothing(store: SqliteStore) -> None:
    odd = Event(0, "rumour", b"", None, os.urandom(UID_BYTES))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="event type"):
        await store.adopt([event(b"good"), odd])
    assert await subjects(store) == []


async def test_a_file_of_before_there_were_uids(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "old")) as old:
        old.executescript(
            "CREATE TABLE events (id INTEGER PRIMARY KEY AUTOINCREMENT, type TEXT NOT NULL, subject BLOB NOT NULL,"
            " until INTEGER);"
            "INSERT INTO events (type, subject, until) VALUES ('revoke.session', x'01', NULL), ('purge', x'02', NULL);"
        )
    for _ in range(2):
        store = await SqliteStore.open(tmp_path / "old")
        found, _ = await store.events()
        assert [each.subject for each in found] == [b"\x01", b"\x02"]
        assert len({each.uid for each in found}) == 2 and all(len(each.uid) == UID_BYTES for each in found)
        await store.close()


@pytest.mark.parametrize("later", [0, 1, 2, 3, 7])
async def test_a_backup_that_was_put_back(store: SqliteStore, tmp_path: Path, later: int) -> None:
    """However much was written into it before anybody looked."""
    await store.append("revoke.session", b"old", None)
    with contextlib.closing(sqlite3.connect(tmp_path / "backup")) as backup:
        with contextlib.closing(sqlite3.connect(tmp_path / "state.sqlite")) as live:
            live.backup(backup)
        for number in range(3):
            await store.append("revoke.session", b"lost %d" % number, None)
        _, before = await store.events()
        with contextlib.closing(sqlite3.connect(tmp_path / "state.sqlite")) as live:
            backup.backup(live)
    for number in range(later):
        await store.append("revoke.session", b"later %d" % number, None)
    events, position = await store.events(before)
    assert position.incarnation != before.incarnation
    assert [each.subject for each in events] == [b"old", *(b"later %d" % number for number in range(later))]
    assert await store.events(position) == ([], position), "once"


async def test_what_was_removed_makes_it_no_other_store(store: SqliteStore, clock: Clock, steady: Clock) -> None:
    await store.append("purge", b"stays", None)
    await store.append("purge", b"goes", 2000)
    _, position = await store.events()
    clock.now += 1000
    steady.now += 1000
    assert await store.prune() == 1
    assert await store.events(position) == ([], position)
    await store.append("purge", b"goes unread", 2001)
    clock.now += 1
    steady.now += 1
    assert await store.events(position) == (
        [],
        Position(position.incarnation, position.id + 1, (await store.events())[1].uid),
    )
    _, position = await store.events(position)
    assert await store.prune() == 1
    await store.append("purge", b"new", None)
    events, after = await store.events(position)
    assert [each.subject for each in events] == [b"new"] and after.incarnation == position.incarnation
    _, anew = await store.events()
    assert anew == after


async def test_a_clock_that_is_ahead_for_a_while_removes_nothing(
    store: SqliteStore, clock: Clock, steady: Clock
) -> None:
    await store.append("revoke.session", b"a", 2000)
    await store.put("b", b"1", ttl=100)
    clock.now += 10**6
    assert await store.prune() == 0 and await subjects(store) == [] and await store.get("b") is None
    clock.now -= 10**6
    assert await subjects(store) == [b"a"] and await store.get("b") == b"1"
    clock.now += 10**6
    assert await store.prune() == 0
    steady.now += 3600
    clock.now += 3600
    assert await store.prune() == 2, "it was right after all"


async def test_no_lease_outlives_a_clock_that_leaps_back(store: SqliteStore, clock: Clock, steady: Clock) -> None:
    clock.now += 10**6
    assert await store.lease("work", b"me", 10)
    clock.now -= 10**6
    assert not await store.lease("work", b"you", 10)
    steady.now += 9.9
    assert not await store.lease("work", b"you", 10)
    steady.now += 0.1
    assert await store.lease("work", b"you", 10)
    # Nor does one that leaps ahead end it.
    clock.now += 10**6
    assert not await store.lease("work", b"me", 10) and await store.release("work", b"you")


async def test_no_lease_outlives_the_machine(store: SqliteStore, tmp_path: Path, steady: Clock) -> None:
    """Its clock begins anew with it."""
    steady.now = 10**6
    assert await store.lease("work", b"me", 10)
    store._boot = "the next one"
    steady.now = 1
    assert await store.lease("work", b"you", 10) and not await store.release("work", b"me")


async def test_a_store_that_could_not_be_opened_anew_is_tried_again(store: SqliteStore, tmp_path: Path) -> None:
    await store.append("purge", b"old", None)
    for path in tmp_path.glob("state.sqlite*"):
        path.unlink()
    (tmp_path / "state.sqlite").write_bytes(b"no database, but something else" * 100)
    for _ in range(2):
        with pytest.raises(StreamGateError) as caught:
            await store.append("purge", b"nowhere", None)
        assert caught.value.code == "store_unavailable"
    (tmp_path / "state.sqlite").unlink()
    await store.append("purge", b"new", None)
    assert await subjects(store) == [b"new"]
