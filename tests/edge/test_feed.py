"""The feed of a machine's events: everybody hears of each, and a store that began anew is told what is in force."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from edge.control import Message, message_to_event
from edge.feed import Feed
from edge.process import Process
from streamgate.errors import StreamGateError
from streamgate.storage.kv.events import Event
from streamgate.storage.kv.sqlite import SqliteStore

IN_FORCE = {("revoke.session", b"for ever"), ("revoke.session", b"for an hour"), ("revoke.key", b"site-1")}


class Worker:
    """A worker that applies what it is told, and remembers it."""

    def __init__(self, state: str = "serving") -> None:
        self.state = state
        self.told: list[Event] = []

    def tell(self, message: Message) -> None:
        self.told += [message_to_event(event) for event in message["events"]]

    async def ask(self, message: Message) -> None:
        self.tell(message)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(tmp_path / "state.sqlite")
    yield store
    await store.close()


@pytest.fixture
def workers() -> list[Worker]:
    return [Worker(), Worker("starting")]


@pytest.fixture
async def feed(store: SqliteStore, workers: list[Worker]) -> Feed:
    """One that has three entries in force, and had one that has ended."""
    feed = Feed(store, lambda: cast(list[Process], workers))
    await feed.catch_up()
    for kind, subject, exp in (
        ("session", b"for ever", None),
        ("session", b"for an hour", int(time.time()) + 3600),
        ("kid", b"site-1", None),
    ):
        await feed.revoke(kind, subject, exp)
    feed.held.apply(Event(0, "revoke.session", b"over", int(time.time()) - 1))
    for worker in workers:
        assert {(event.type, event.subject) for event in worker.told} == IN_FORCE
        worker.told.clear()
    return feed


def begin_anew(folder: Path) -> None:
    """What an operator does who removes the store, or a disk that comes back empty."""
    for path in folder.glob("state.sqlite*"):
        path.unlink()


async def in_the_store(store: SqliteStore) -> list[tuple[str, bytes]]:
    events, _ = await store.events()
    return [(event.type, event.subject) for event in events]


async def test_a_store_that_began_anew_is_told_what_is_in_force(
    feed: Feed, store: SqliteStore, workers: list[Worker], tmp_path: Path
) -> None:
    ends: dict[tuple[str, bytes], int | None] = {
        (event.type, event.subject): event.until for event in feed.held.events()
    }
    begin_anew(tmp_path)
    another = await SqliteStore.open(tmp_path / "state.sqlite")
    await another.append("revoke.session", b"by somebody else", None)
    await another.close()
    await feed.catch_up()
    events, _ = await store.events()
    published: dict[tuple[str, bytes], int | None] = {(event.type, event.subject): event.until for event in events}
    assert published.keys() == IN_FORCE | {("revoke.session", b"by somebody else")}
    assert all(published[what] == ends[what] for what in IN_FORCE)
    for worker in workers:
        assert {(event.type, event.subject) for event in worker.told} == published.keys()
        worker.told.clear()
    # Once, and from then on it goes on from where it is.
    await feed.catch_up()
    assert len(await in_the_store(store)) == 4
    await feed.revoke("session", b"later", None)
    assert [[event.subject for event in worker.told] for worker in workers] == [[b"later"]] * 2


async def test_who_revokes_first_in_a_new_store_is_not_alone_in_it(
    feed: Feed, store: SqliteStore, workers: list[Worker], tmp_path: Path
) -> None:
    begin_anew(tmp_path)
    await feed.revoke("session", b"the first", None)
    assert set(await in_the_store(store)) == IN_FORCE | {("revoke.session", b"the first")}
    assert all(b"the first" in [event.subject for event in worker.told] for worker in workers)


async def test_what_failed_in_the_middle_is_done_again(
    feed: Feed, store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_anew(tmp_path)
    append, calls = store.append, 0

    async def fail(*event: Any) -> int:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise StreamGateError("store_unavailable", "the disk is full")
        return await append(*event)

    monkeypatch.setattr(store, "append", fail)
    with pytest.raises(StreamGateError) as caught:
        await feed.catch_up()
    assert caught.value.code == "store_unavailable" and len(await in_the_store(store)) == 1
    await feed.catch_up()
    assert set(await in_the_store(store)) == IN_FORCE
