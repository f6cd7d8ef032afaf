"""The feed of a machine's events: everybody hears of each, and a store that began anew is told what is in force."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from edge.control import Message, message_to_event
from edge.feed import GRACE_S, MAX_SUBJECT, Feed
from edge.process import Process
from edge.purges import Purge, decode
from streamgate.core.settings import PurgeSettings, RevocationSettings
from streamgate.errors import StreamGateError
from streamgate.storage.kv.events import Event
from streamgate.storage.kv.sqlite import SqliteStore

IN_FORCE = {("revoke.session", b"for ever"), ("revoke.session", b"for an hour"), ("revoke.key", b"site-1")}


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


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
    adopt, calls = store.adopt, 0

    async def fail(events: Any) -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise StreamGateError("store_unavailable", "the disk is full")
        return await adopt(events)

    monkeypatch.setattr(store, "adopt", fail)
    with pytest.raises(StreamGateError) as caught:
        await feed.catch_up()
    assert caught.value.code == "store_unavailable" and await in_the_store(store) == []
    await feed.catch_up()
    assert set(await in_the_store(store)) == IN_FORCE


async def test_a_store_that_was_put_back_from_a_backup(
    feed: Feed, store: SqliteStore, workers: list[Worker], tmp_path: Path
) -> None:
    """It keeps its incarnation, and lacks what came after the backup: that is written into it again."""
    with contextlib.closing(sqlite3.connect(tmp_path / "backup")) as backup:
        with contextlib.closing(sqlite3.connect(tmp_path / "state.sqlite")) as live:
            live.backup(backup)
        await feed.revoke("session", b"after the backup", None)
        await feed.announce("purge", b"a purge after the backup", int(time.time()) + 60)
        _, before = await store.events()
        with contextlib.closing(sqlite3.connect(tmp_path / "state.sqlite")) as live:
            backup.backup(live)
    assert set(await in_the_store(store)) == IN_FORCE
    await feed.catch_up()
    lost = {("revoke.session", b"after the backup"), ("purge", b"a purge after the backup")}
    found = await in_the_store(store)
    assert set(found) == IN_FORCE | lost and len(found) == 5
    assert (await store.events())[1].incarnation != before.incarnation, "whoever else reads it notices as well"
    for worker in workers:
        assert {event.subject for event in worker.told} >= {b"after the backup"}
        worker.told.clear()
    await feed.catch_up()
    assert [worker.told for worker in workers] == [[], []]


async def test_a_clock_that_leaps_ahead_and_back(tmp_path: Path) -> None:
    """What seemed to have ended is neither removed nor forgotten for good."""
    clock, passed = Clock(1_000_000.0), Clock(50.0)
    store = await SqliteStore.open(tmp_path / "state.sqlite", clock, passed)
    worker = Worker()
    feed = Feed(store, lambda: cast(list[Process], [worker]), clock, passed)
    await feed.announce("revoke.session", b"a", 1_000_600)
    clock.now += 86_400
    feed.held.forget()
    assert (await store.prune(), len(feed.held)) == (0, 0)
    await feed.catch_up()
    worker.told.clear()
    clock.now -= 86_400
    await feed.catch_up()
    assert [event.subject for event in worker.told] == [b"a"] and len(feed.held) == 1
    await feed.catch_up()
    assert len(worker.told) == 1, "once"
    clock.now += 601
    passed.now += 601
    assert await store.prune() == 1
    await store.close()


async def test_many_are_told_in_messages_of_bounded_length(store: SqliteStore) -> None:
    class Reader(Worker):
        def tell(self, message: Message) -> None:
            assert len(json.dumps(message)) < 1024 * 1024, "what the channel takes for a line"
            super().tell(message)

    reader = Reader()
    feed = Feed(store, lambda: cast(list[Process], [reader]))
    await store.adopt(
        Event(0, "purge", number.to_bytes(4, "big") * (MAX_SUBJECT // 4), None, os.urandom(16)) for number in range(40)
    )
    await feed.catch_up()
    assert [int.from_bytes(event.subject[:4], "big") for event in reader.told] == list(range(40))
    with pytest.raises(ValueError, match="65536 bytes"):
        await feed.announce("purge", bytes(MAX_SUBJECT + 1), None)


async def test_nothing_waits_for_a_purge_that_takes_long(store: SqliteStore) -> None:
    """A worker that is still throwing things out has applied a revocation that came later, and it is acknowledged."""
    done = asyncio.Event()

    class Purging(Worker):
        async def ask(self, message: Message) -> None:
            self.tell(message)
            if message["events"][0]["type"] == "purge":
                await done.wait()

    worker = Purging()
    feed = Feed(store, lambda: cast(list[Process], [worker]))
    running = asyncio.create_task(feed.run())
    purging = asyncio.ensure_future(feed.announce("purge", b"a lot", int(time.time()) + 60))
    async with asyncio.timeout(4):
        while not worker.told:
            await asyncio.sleep(0.01)
        await feed.revoke("session", b"later", None)
        await store.append("revoke.session", b"by another process", None)
        feed.look()
        while len(worker.told) < 3:
            await asyncio.sleep(0.01)
    assert not purging.done()
    assert [event.subject for event in worker.told] == [b"a lot", b"later", b"by another process"]
    done.set()
    await purging
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_an_event_that_another_has_passed_on_is_acknowledged_no_earlier(store: SqliteStore) -> None:
    answer = asyncio.Event()

    class Slow(Worker):
        async def ask(self, message: Message) -> None:
            self.tell(message)
            await answer.wait()

    worker = Slow()
    feed = Feed(store, lambda: cast(list[Process], [worker]))
    announcing = [asyncio.ensure_future(feed.announce("revoke.session", b"%d" % n, None)) for n in range(5)]
    async with asyncio.timeout(4):
        while len(worker.told) < 5:
            await asyncio.sleep(0.01)
    for _ in range(5):
        await store.events()
    assert not any(each.done() for each in announcing)
    answer.set()
    await asyncio.gather(*announcing)


async def test_whoever_publishes_it_need_not_wait_for_a_worker_that_hangs(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hanging(Worker):
        async def ask(self, message: Message) -> None:
            await asyncio.Event().wait()

    feed, heard = Feed(store, lambda: cast(list[Process], [Hanging()])), asyncio.Event()
    feed.on_events = heard.set
    monkeypatch.setattr("edge.feed._ANSWER_S", 0.2)
    announcing = asyncio.ensure_future(feed.announce("revoke.session", b"a", None))
    await asyncio.wait_for(heard.wait(), 5)
    assert not announcing.done()
    with pytest.raises(StreamGateError) as caught:
        await announcing
    assert caught.value.code == "not_acknowledged"


async def test_a_session_without_an_end_has_one_and_a_key_has_none(store: SqliteStore) -> None:
    feed = Feed(store, list)
    limits = RevocationSettings(keep=100_000)
    before = int(time.time())
    await feed.revoke("session", b"s", None, limits)
    await feed.revoke("kid", b"k", None, limits)
    events, _ = await store.events()
    assert [event.type for event in events] == ["revoke.session", "revoke.key"] and events[1].until is None
    assert events[0].until is not None and 0 <= events[0].until - before - 100_000 - GRACE_S < 60


async def test_there_is_a_limit_to_what_is_revoked(store: SqliteStore) -> None:
    """The operator hears that it is reached; what comes from elsewhere is in force all the same."""
    clock = Clock(time.time())
    feed, limits = Feed(store, list, clock), RevocationSettings(most=100)
    for number in range(100):
        await feed.revoke("session", b"%d" % number, int(clock.now) + 100, limits)
    with pytest.raises(StreamGateError) as caught:
        await feed.revoke("session", b"one more", None, limits)
    assert caught.value.code == "revocations_full"
    await store.append("revoke.session", b"from the site", None)
    await feed.catch_up()
    assert feed.held.revocations == 101
    clock.now += 1000
    feed.held.forget()
    await feed.revoke("session", b"one more", None, limits)
    assert feed.held.revocations == 2


async def test_beyond_a_limit_purges_become_one_of_everything(store: SqliteStore, workers: list[Worker]) -> None:
    """The older ones are gone, from memory and from the file; those of the last moments stay, for others may lack them."""
    feed, limits = Feed(store, lambda: cast(list[Process], workers)), PurgeSettings(most=16)
    needless: list[Event] = []
    feed.on_needless = needless.extend
    now = int(time.time())
    ages = [100] * 14 + [2] * 2
    for number, age in enumerate(ages):
        await feed.purge(Purge("asset", f"film{number}", number % 2 == 0, now - age, str(number)), limits)
    await feed.revoke("session", b"s", now + 100)
    assert feed.held.purges == 16 and not needless
    await feed.purge(Purge("asset", "film16", True, now, "16"), limits)
    events, position = await store.events()
    purges = [decode(event.subject) for event in events if event.type == "purge"]
    assert [purge.name for purge in purges[:-1]] == ["14", "15"] and len(needless) == 14
    assert (purges[-1].kind, purges[-1].subject, purges[-1].soft, purges[-1].at) == ("prefix", "/v/", False, now)
    assert feed.held.purges == 3 and feed.held.revocations == 1
    for worker in workers:
        assert decode(worker.told[-1].subject) == purges[-1], "who serves has heard of it"
    # Who had read all of it is believed still.
    assert (await store.events(position))[1] == position
