"""A site's feed: what one node writes down all others do, once, in order, whatever happens to them or to the feed between."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from edge.control import Message
from edge.feed import MAX_SUBJECT, Feed
from edge.freshness import Freshness
from edge.process import Process
from edge.site import joined
from streamgate.core.clock import steady
from streamgate.core.settings import RedisSettings, RevocationSettings, Settings
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError
from streamgate.storage.kv.events import Event, EventType, Position
from streamgate.storage.kv.sqlite import SqliteStore
from streamgate.storage.kv.store import KeyValueStore
from tests.edge.machines import Machine
from tests.edge.test_feed import Clock, Worker
from tests.services.redis import PATIENT, RedisCluster, RedisServer, fresh_prefix

Open = Callable[[], Awaitable[KeyValueStore]]
HOUR = 3600


Make = Callable[..., Awaitable[Machine]]


@pytest.fixture(params=["sqlite", "redis"])
def open_shared(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens the shared feed once more, as each node does."""
    if request.param == "sqlite":
        return lambda: SqliteStore.open(tmp_path / "site.sqlite")
    return redis_at(request.getfixturevalue("redis_server"), fresh_prefix())


def redis_at(server: RedisServer | RedisCluster, prefix: str) -> Open:
    from streamgate.storage.kv.redis import RedisStore

    return lambda: RedisStore.open(server.settings(prefix, **PATIENT))


@pytest.fixture
async def make(tmp_path: Path, open_shared: Open) -> AsyncIterator[Make]:
    """Makes a machine by its name; one that was ended can be made again, and finds its file."""
    made: list[Machine] = []

    async def machine(
        name: str, open: Open = open_shared, clock: Clock | None = None, passed: Clock | None = None
    ) -> Machine:
        folder, began = tmp_path / name, time.time() - (passed.now if passed else 0)
        clocks: tuple[Callable[[], float], Callable[[], float]] = time.time, steady
        if passed is not None:
            # Both pass alike, unless somebody sets the first.
            clocks = clock or (lambda: began + passed.now), passed
        made.append(Machine(folder, await SqliteStore.open(folder / "state.sqlite", *clocks), await open(), *clocks))
        return made[-1]

    yield machine
    for each in made:
        await each.end()


async def everything(open: Open) -> list[bytes]:
    store = await open()
    events, _ = await store.events()
    await store.close()
    return [event.subject for event in events]


async def begin_anew(open: Open, tmp_path: Path) -> None:
    """What is shared is lost."""
    store = await open()
    if isinstance(store, SqliteStore):
        for path in tmp_path.glob("site.sqlite*"):
            path.unlink()
    else:
        assert await cast(Any, store).client.delete(cast(Any, store)._feed) == 1
    await store.close()


async def test_what_one_writes_all_apply_once(make: Make, open_shared: Open) -> None:
    a, b, c = [await make(name) for name in "abc"]
    await a.feed.revoke("kid", b"from a", None)
    assert a.applied == [b"from a"], "in force before anybody else hears of it"
    await b.feed.announce("purge", b"from b", int(time.time()) + HOUR)
    for _ in range(3):
        for machine in (a, b, c):
            assert await machine.turn()
    assert a.applied == [b"from a", b"from b"]
    assert b.applied == [b"from b", b"from a"]
    assert c.applied == [b"from a", b"from b"]
    assert sorted(await everything(open_shared)) == [b"from a", b"from b"]
    assert [len(await each.written()) for each in (a, b, c)] == [2, 2, 2]
    events = {event.subject: event for event in c.worker.told}
    assert events[b"from a"].type == "revoke.key" and events[b"from a"].until is None
    assert events[b"from b"].type == "purge" and events[b"from b"].until


async def test_those_of_an_outage_follow_it_in_order(make: Make, open_shared: Open) -> None:
    a, b = await make("a"), await make("b")
    assert await a.turn() and await b.turn()
    a.shared.away = True
    for number in range(5):
        await a.feed.revoke("session", b"%d" % number, None)
        assert not await a.turn()
    assert a.applied == [b"0", b"1", b"2", b"3", b"4"], "acknowledged all the same"
    await b.feed.revoke("session", b"meanwhile", None)
    assert await b.turn() and b.applied == [b"meanwhile"]
    a.shared.away = False
    assert await a.turn() and await b.turn()
    assert a.applied[5:] == [b"meanwhile"] and b.applied[1:] == [b"0", b"1", b"2", b"3", b"4"]
    assert a.telemetry.value("site_feed_failures", way="read") == 5
    assert a.telemetry.value("site_events", way="published") == 5
    assert b.telemetry.value("site_events", way="read") == 5


async def test_what_becomes_needless_meanwhile_is_removed_as_well(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = await make("a")
    first, second = (Event(number, "purge", b"", None, bytes([number]) * 16) for number in (1, 2))
    dropped: list[list[Event]] = []

    async def drop(events: list[Event]) -> int:
        if not dropped:
            machine.feed.on_needless([second])
        dropped.append([*events])
        return len(events)

    monkeypatch.setattr(machine.shared, "drop", drop)
    machine.feed.on_needless([first])
    assert await machine.turn() and await machine.turn() and await machine.turn()
    assert dropped == [[first], [second]]


async def test_one_that_starts_again_hears_what_it_missed_and_says_nothing_twice(make: Make, open_shared: Open) -> None:
    a, b = await make("a"), await make("b")
    a.shared.away = True
    await a.feed.revoke("session", b"before the end", None)
    await a.turn()
    await b.feed.revoke("session", b"missed", None)
    await b.turn()
    again = await make("a")
    assert await again.turn() and await b.turn()
    assert again.applied == [b"before the end", b"missed"]
    assert b.applied == [b"missed", b"before the end"]
    assert await everything(open_shared) == [b"missed", b"before the end"]


async def test_a_feed_that_began_anew_is_given_all_that_matters(make: Make, open_shared: Open, tmp_path: Path) -> None:
    """By whoever holds it: the node that wrote it may never come back."""
    a, b = await make("a"), await make("b")
    await a.feed.revoke("session", b"of a", None)
    ends = int(time.time()) + 1
    await a.feed.announce("revoke.session", b"ended", ends)
    await b.feed.announce("purge", b"of b", int(time.time()) + HOUR)
    for machine in (a, b, a):
        await machine.turn()
    b.shared.away = True
    await b.feed.revoke("session", b"of the outage", None)
    async with asyncio.timeout(20):
        while time.time() < ends:
            await asyncio.sleep(0.02)
    await begin_anew(open_shared, tmp_path)
    b.shared.away = False
    late = await make("late")
    await late.turn()
    for _ in range(2):
        assert await b.turn() and await late.turn()
    matters = [b"of a", b"of b", b"of the outage"]
    assert sorted(await everything(open_shared)) == matters, "each once, and nothing that has ended"
    assert sorted(late.applied) == matters
    assert b.telemetry.value("site_feed_renewals") == 1
    # The other one is back, too, and adds nothing.
    assert await a.turn() and await b.turn()
    assert sorted(await everything(open_shared)) == matters
    assert a.applied[-1] == b"of the outage" and len(b.applied) == 4


async def test_all_publish_again_at_the_same_time(make: Make, open_shared: Open, tmp_path: Path) -> None:
    nodes = [await make(f"node {number}") for number in range(4)]
    for number in range(450):
        await nodes[number % 4].local.append("revoke.session", b"%d" % number, None)
    for node in [*nodes, *nodes]:
        await node.turn()
    assert len(await everything(open_shared)) == 450
    await begin_anew(open_shared, tmp_path)
    await asyncio.gather(*(node.turn() for node in nodes))
    for node in nodes:
        await node.turn()
    found = await everything(open_shared)
    assert len(found) == len(set(found)) == 450
    assert [len(node.applied) for node in nodes] == [450] * 4


@pytest.mark.parametrize("open_shared", ["redis"], indirect=True)
async def test_a_feed_that_lost_its_last_entries(make: Make, open_shared: Open, redis_server: RedisServer) -> None:
    """As with a snapshot that is loaded; where another server takes over, its name tells as much."""
    a, b = await make("a"), await make("b")
    await a.feed.revoke("session", b"kept", None)
    await a.turn()
    await b.turn()
    key = cast(Any, a.shared.store)._feed
    saved = redis_server.client.dump(key)
    await a.feed.revoke("session", b"lost", None)
    for _ in range(2):
        await a.turn()
    redis_server.client.restore(key, 0, saved, replace=True)
    assert await everything(open_shared) == [b"kept"]
    await a.turn()
    await b.turn()
    assert b.applied == [b"kept", b"lost"] and await everything(open_shared) == [b"kept", b"lost"]


async def test_a_file_that_was_copied_to_another_machine(make: Make, open_shared: Open, tmp_path: Path) -> None:
    """Both go on from it, and are not taken for one another."""
    a, b = await make("a"), await make("b")
    await a.feed.revoke("session", b"in both", None)
    (tmp_path / "twin").mkdir()
    with contextlib.closing(sqlite3.connect(tmp_path / "a/state.sqlite")) as live:
        live.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(tmp_path / "a/state.sqlite", tmp_path / "twin/state.sqlite")
    twin = await make("twin")
    await a.feed.revoke("session", b"by a", None)
    await twin.feed.revoke("session", b"by its twin", None)
    for _ in range(2):
        for machine in (a, twin, b):
            await machine.turn()
    wanted = [b"by a", b"by its twin", b"in both"]
    assert sorted(await everything(open_shared)) == wanted
    for machine in (a, twin, b):
        assert sorted(machine.applied) == wanted


@pytest.mark.parametrize("running", [True, False])
async def test_a_file_that_was_put_back_from_a_backup(
    make: Make, open_shared: Open, tmp_path: Path, running: bool
) -> None:
    """What came after the backup comes back from the site, and what follows is not taken for it."""
    a, b = await make("a"), await make("b")
    await a.feed.revoke("session", b"old", None)
    with contextlib.closing(sqlite3.connect(tmp_path / "backup")) as backup:
        with contextlib.closing(sqlite3.connect(a.folder / "state.sqlite")) as live:
            live.backup(backup)
        await a.feed.revoke("session", b"after it", None)
        for machine in (a, b):
            await machine.turn()
        with contextlib.closing(sqlite3.connect(a.folder / "state.sqlite")) as live:
            backup.backup(live)
    assert await a.written() == [b"old"]
    if not running:
        a = await make("a")
    await a.feed.revoke("session", b"new", None)
    for machine in (a, b, a):
        await machine.turn()
    wanted = [b"after it", b"new", b"old"]
    assert sorted(await a.written()) == wanted
    assert sorted(await everything(open_shared)) == wanted and sorted(b.applied) == wanted


async def test_one_that_is_full_is_read_all_the_same(make: Make) -> None:
    passed = Clock(100.0)
    a, b = await make("a", passed=passed), await make("b")
    a.shared.full = True
    await a.feed.revoke("session", b"waits", None)
    assert not await a.turn()
    assert (a.freshness.failing, a.freshness.stale) == ("written", False)
    await b.feed.revoke("session", b"of b", None)
    await b.turn()
    passed.now += 0.5
    calls = a.shared.calls
    await a.turn()
    assert a.applied == [b"waits", b"of b"]
    assert a.shared.calls == calls + 2, "it is not asked again to take something so soon"
    assert a.freshness.failing == "written" and "cannot be written" in cast(str, a.freshness.problem())
    a.shared.full = False
    passed.now += 0.6
    assert await a.turn() and await b.turn()
    assert b.applied == [b"of b", b"waits"] and a.freshness.problem() is None


async def test_its_age_is_known_and_said(make: Make, logs: list[Any]) -> None:
    passed = Clock(100.0)
    a = await make("a", passed=passed)
    assert a.freshness.stale and a.freshness.age == 0, "it was never read"
    await a.turn()
    assert not a.freshness.stale and a.freshness.problem() is None
    worker = Freshness(None, passed)
    worker.hear(a.said[-1])
    passed.now += 29
    assert (worker.age, worker.stale) == (29, False)
    a.shared.away = True
    a.freshness.circuit = "open"
    await a.turn()
    passed.now += 2
    assert worker.stale, "though the parent says no more"
    await a.turn()
    worker.hear(a.said[-1])
    told = cast(str, worker.problem())
    assert "cannot be read, the circuit to it is open, it was last read 31 s ago, longer than allowed" in told
    a.shared.away = False
    a.freshness.circuit = "closed"
    await a.turn()
    worker.hear(a.said[-1])
    assert (worker.age, worker.stale, worker.problem()) == (0, False, None)
    passed.now -= 50
    assert worker.age == 0, "never negative"
    said = [entry["event"] for entry in logs if entry["log_level"] in ("warning", "error", "info")]
    assert said == [
        "the site's feed cannot be read",
        "the site's feed is older than allowed: perhaps not all that is revoked is known",
        "the site's feed is followed again",
        "the site's feed is young enough again",
    ]


def test_a_node_alone_is_never_too_old() -> None:
    passed = Clock(100.0)
    alone = Freshness(None, passed)
    passed.now += 10**9
    assert (alone.age, alone.stale, alone.problem()) == (0, False, None)


async def test_what_was_not_published_while_the_clock_was_ahead(make: Make, open_shared: Open) -> None:
    clock, passed = Clock(time.time()), Clock(100.0)
    a = await make("a", clock=clock, passed=passed)
    a.shared.away = True
    await a.feed.announce("revoke.session", b"for an hour", int(clock.now) + HOUR)
    await a.turn()
    a.shared.away = False
    clock.now += 2 * HOUR
    assert await a.turn() and await everything(open_shared) == []
    clock.now -= 2 * HOUR
    assert await a.turn() and await everything(open_shared) == [b"for an hour"]
    assert a.applied == [b"for an hour"] * 2, "and the workers, who may have forgotten it, are told again"


async def test_what_is_not_understood_is_left_where_it_is(make: Make, open_shared: Open) -> None:
    """A newer version's, or somebody else's: it keeps nothing else from being read."""
    a = await make("a")
    odd: tuple[EventType, bytes] = ("revoke.wallet", b"of a later version")  # type: ignore[assignment]

    async def events(after: Position | None = None, limit: int = 0) -> tuple[list[Event], Position]:
        if after is not None:
            return [], after
        known = Event(3, "revoke.session", b"known", None, os.urandom(16))
        long = Event(2, "purge", bytes(MAX_SUBJECT + 1), None, os.urandom(16))
        late = Event(2, "purge", b"late", 2**70, os.urandom(16))
        return [Event(1, *odd, None, os.urandom(16)), long, late, Event(2, "purge", b"", None), known], Position("x", 3)

    a.shared.events = events  # type: ignore[method-assign]
    assert await a.turn()
    assert a.applied == [b"known"] and await everything(open_shared) == []


async def test_any_failure_is_survived(make: Make) -> None:
    a = await make("a")

    async def broken(after: Position | None = None, limit: int = 0) -> tuple[list[Event], Position]:
        raise RuntimeError("a bug")

    working = a.shared.events
    a.shared.events = broken  # type: ignore[method-assign]
    assert not await a.turn() and a.freshness.failing == "read"
    a.shared.events = working  # type: ignore[method-assign]
    assert await a.turn() and not a.freshness.failing


async def test_it_is_published_at_once_and_soon_read(make: Make) -> None:
    a, b = await make("a"), await make("b")
    running = [asyncio.create_task(each) for m in (a, b) for each in (m.site.run(), m.feed.run())]
    try:
        await b.feed.catch_up()
        async with asyncio.timeout(20):
            while not (a.freshness.stale or b.freshness.stale):
                await asyncio.sleep(0.01)
        began = time.monotonic()
        await a.feed.revoke("session", b"quick", None)
        async with asyncio.timeout(20):
            while not b.applied:
                await asyncio.sleep(0.005)
        assert time.monotonic() - began < 1
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


@pytest.mark.slow
@pytest.mark.parametrize("open_shared", ["sqlite"], indirect=True)
async def test_a_primary_of_a_cluster_is_killed(make: Make, own_cluster: RedisCluster) -> None:
    """Its replica takes over, perhaps without the last entries; what was written before, meanwhile and later arrives once."""
    from streamgate.storage.kv.redis import RedisStore

    prefix = fresh_prefix()

    async def open() -> KeyValueStore:
        return await RedisStore.open(own_cluster.settings(prefix, timeout=2.0, circuit_slow=2.0))

    nodes = a, b = await make("a", open), await make("b", open)
    async with asyncio.timeout(60):
        await a.feed.revoke("session", b"before", None)
        while b.applied != [b"before"]:
            await asyncio.gather(*(node.turn() for node in nodes))
        await a.feed.revoke("session", b"just before", None)
        while not await a.turn():
            await asyncio.sleep(0.05)
        (await asyncio.to_thread(own_cluster.primary_of, cast(Any, a.shared.store)._feed)).kill()
        await a.feed.revoke("session", b"meanwhile", None)
        while len(b.applied) < 3:
            await asyncio.gather(*(node.turn() for node in nodes))
            await asyncio.sleep(0.05)
        await b.feed.revoke("session", b"later", None)
        while len(a.applied) < 4 or len(b.applied) < 4:
            await asyncio.gather(*(node.turn() for node in nodes))
    wanted = [b"before", b"just before", b"later", b"meanwhile"]
    assert sorted(a.applied) == sorted(b.applied) == sorted(await everything(open)) == wanted
    assert a.telemetry.value("site_feed_renewals") >= 1


async def test_a_site_without_its_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "streamgate.storage.kv.redis", None)
    local = await SqliteStore.open(tmp_path / "state.sqlite")
    told: list[Message] = []
    given = local, Feed(local, lambda: []), Telemetry(), told.append
    with pytest.raises(StreamGateError) as caught:
        async with joined(Settings(redis=RedisSettings(url="redis://127.0.0.1:1")), *given):
            pass
    assert caught.value.code == "config_invalid" and "pip install 'streamgate[redis]'" in caught.value.detail
    # And a node that has no use for it asks for nothing.
    async with joined(Settings(), *given) as freshness:
        assert freshness.max_age is None and not freshness.stale
    await local.close()


async def test_the_block_begins_with_what_the_site_knows(make: Make, redis_server: RedisServer, tmp_path: Path) -> None:
    prefix = fresh_prefix()
    a = await make("a", redis_at(redis_server, prefix))
    await a.feed.revoke("session", b"of a", None)
    await a.turn()
    local = await SqliteStore.open(tmp_path / "late" / "state.sqlite")
    told: list[Message] = []
    worker, telemetry = Worker(), Telemetry()
    feed = Feed(local, lambda: cast(list[Process], [worker]))
    settings = Settings(redis=redis_server.settings(prefix, **PATIENT), revocation=RevocationSettings(max_age=7.0))
    async with joined(settings, local, feed, telemetry, told.append) as freshness:
        assert not freshness.stale and freshness.age < 7 and told[-1]["max_age"] == 7.0
        await feed.catch_up()
        assert [event.subject for event in worker.told] == [b"of a"]
        assert telemetry.value("redis_left_alone", use="feed") == 0
        await feed.revoke("session", b"the last word", None)
    await a.turn()
    assert a.applied == [b"of a", b"the last word"]
    await local.close()


async def test_the_end_publishes_what_is_left(make: Make, open_shared: Open) -> None:
    a = await make("a")
    await a.turn()
    await a.feed.revoke("session", b"the last word", None)
    await a.site.close()
    assert await everything(open_shared) == [b"the last word"]
    a.shared.store = await open_shared()


async def test_what_has_ended_leaves_the_feed(make: Make, open_shared: Open) -> None:
    passed = Clock(100.0)
    a = await make("a", passed=passed)
    ends = int(time.time()) + 1
    await a.feed.announce("purge", b"soon over", ends)
    await a.feed.revoke("session", b"stays", None)
    await a.turn()
    async with asyncio.timeout(20):
        while time.time() < ends:
            await asyncio.sleep(0.02)
    passed.now += 61
    await a.turn()
    shared = await open_shared()
    assert await shared.prune() == 0, "it was done"
    await shared.close()
    assert await everything(open_shared) == [b"stays"]
    assert len(a.site._there) == 1, "nor is it remembered"
