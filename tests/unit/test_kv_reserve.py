"""The store's reserve: on a full disk what is written down next has room, and where even that is gone it is said."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streamgate.errors import StreamGateError
from streamgate.storage.kv.reserve import SIZE, STEP, Reserve
from streamgate.storage.kv.sqlite import SqliteStore

LARGE = bytes(20_000)  # needs pages of its own


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(tmp_path / "state.sqlite")
    yield opened
    await opened.close()


async def pages(store: SqliteStore, most: int) -> None:
    """Let the file grow to so many pages at most: SQLite tells of the next one as of a full disk."""

    def limit() -> None:
        assert store._connection is not None
        store._connection.execute(f"PRAGMA max_page_count = {most}")

    await store._run(limit)


async def test_a_full_disk_has_room_for_a_revocation(
    store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve = tmp_path / "state.sqlite-reserve"
    assert reserve.stat().st_size == SIZE and reserve.stat().st_blocks * 512 >= SIZE
    await pages(store, 1)
    give_up = store._reserve.give_up

    def room() -> bool:
        given = give_up()
        if reserve.stat().st_size == SIZE - 2 * STEP:
            assert store._connection is not None
            store._connection.execute("PRAGMA max_page_count = 1000000")
        return given

    monkeypatch.setattr(store._reserve, "give_up", room)
    await store.append("revoke.session", LARGE, None)
    assert reserve.stat().st_size == SIZE - 2 * STEP, "no more than was needed"
    events, _ = await store.events()
    assert [(event.type, event.subject) for event in events] == [("revoke.session", LARGE)], "once"
    await store.prune()
    assert reserve.stat().st_size == SIZE, "restored as soon as there is room"


async def test_a_disk_that_is_full_in_spite_of_it(store: SqliteStore, tmp_path: Path) -> None:
    await pages(store, 1)
    with pytest.raises(StreamGateError, match="database or disk is full") as caught:
        await store.append("revoke.session", LARGE, None)
    assert caught.value.code == "store_unavailable" and isinstance(caught.value.__cause__, sqlite3.OperationalError)
    assert (tmp_path / "state.sqlite-reserve").stat().st_size == 0
    assert (await store.events())[0] == []
    await pages(store, 1000)
    assert await store.append("revoke.session", LARGE, None)


def test_as_much_as_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reserve that cannot be made whole is what fits, and one that cannot be made at all is none."""
    allocate, room = os.posix_fallocate, 3 * STEP

    def tight(fd: int, at: int, size: int) -> None:
        nonlocal room
        if room < size:
            raise OSError(28, "no space")
        room -= size
        allocate(fd, at, size)

    monkeypatch.setattr(os, "posix_fallocate", tight)
    reserve = Reserve(tmp_path / "reserve")
    reserve.fill()
    assert (tmp_path / "reserve").stat().st_size == 3 * STEP
    assert [reserve.give_up() for _ in range(4)] == [True, True, True, False]
    none = Reserve(tmp_path / "no folder" / "reserve")
    none.fill()
    assert not none.give_up()
