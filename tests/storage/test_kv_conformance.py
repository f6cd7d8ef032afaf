"""What every key-value store promises, of SQLite, of Redis, of Redis behind TLS and a user's rights, and of a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from streamgate.errors import StreamGateError
from streamgate.storage.kv.events import UID_BYTES, Event, Position
from streamgate.storage.kv.redis import RedisStore
from streamgate.storage.kv.sqlite import SqliteStore
from streamgate.storage.kv.store import KeyValueStore
from tests.services.redis import PATIENT, RedisCluster, RedisServer, User, fresh_prefix

Open = Callable[[], Awaitable[KeyValueStore]]
NEEDED = pytest.mark.needs("redis-server", "redis-cli", "openssl")
LONG = 1e6
"""s; a time to live that no test outlasts."""
SHORT = 0.05
"""s; one that is waited for."""


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("redis_server", marks=NEEDED),
        pytest.param("secure_redis", marks=NEEDED),
        pytest.param("redis_cluster", marks=[NEEDED, pytest.mark.slow]),
        pytest.param("secure_cluster", marks=[NEEDED, pytest.mark.slow]),
    ]
)
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Open]:
    """Opens stores that see the same."""
    async with contextlib.AsyncExitStack() as stack:
        prefix = fresh_prefix()
        password = tmp_path / "password"
        password.write_text(f"{User().password}\n")

        given = dict(PATIENT)
        if request.param.startswith("secure"):
            given |= {"username": User().name, "password_file": str(password)}

        async def open_one() -> KeyValueStore:
            made: KeyValueStore
            if request.param == "sqlite":
                made = await SqliteStore.open(tmp_path / "state.sqlite")
            else:
                server: RedisServer | RedisCluster = request.getfixturevalue(request.param)
                made = await RedisStore.open(server.settings(prefix, **given))
            stack.push_async_callback(made.close)
            return made

        yield open_one


@pytest.fixture
async def store(opened: Open) -> KeyValueStore:
    return await opened()


async def eventually(check: Callable[[], Awaitable[bool]]) -> None:
    """Return as soon as ``check`` says so."""
    async with asyncio.timeout(30):
        while not await check():
            await asyncio.sleep(0.01)


async def test_values(store: KeyValueStore) -> None:
    assert await store.get("a") is None
    every_byte = bytes(range(256)) * 100
    for value in (b"", b"1", every_byte):
        await store.put("a", value)
        assert await store.get("a") == value
    await store.put("ä {weird} * \n key", b"2", ttl=LONG)
    assert await store.get("ä {weird} * \n key") == b"2"
    assert await store.get("a") == every_byte
    assert await store.delete("a") and not await store.delete("a")
    assert await store.get("a") is None


async def test_values_end(store: KeyValueStore) -> None:
    await store.put("short", b"1", ttl=SHORT)
    await store.put("long", b"2", ttl=LONG)
    await store.put("was short", b"1", ttl=SHORT)
    await store.put("was short", b"3")

    async def gone() -> bool:
        return await store.get("short") is None

    await eventually(gone)
    assert await store.get("long") == b"2"
    assert await store.get("was short") == b"3"
    assert not await store.delete("short")
    assert await store.take("short") is None
    assert await store.put_new("short", b"4")


async def test_a_time_to_live_that_is_over_already(store: KeyValueStore) -> None:
    await store.put("a", b"1", ttl=0)

    async def gone() -> bool:
        return await store.get("a") is None

    await eventually(gone)


async def test_exactly_one_sets_and_exactly_one_takes(opened: Open) -> None:
    stores = [await opened() for _ in range(5)]
    for turn in range(5):
        key = f"nonce {turn}"
        won = await asyncio.gather(*(each.put_new(key, b"%d" % n, ttl=LONG) for n, each in enumerate(stores)))
        assert sum(won) == 1
        taken = await asyncio.gather(*(each.take(key) for each in stores))
        assert sorted(taken, key=bool) == [None] * 4 + [b"%d" % won.index(True)]


async def test_a_value_that_has_ended_is_none(store: KeyValueStore) -> None:
    assert await store.put_new("again", b"1", ttl=SHORT)

    async def again() -> bool:
        return await store.put_new("again", b"2")

    await eventually(again)
    assert await store.get("again") == b"2"
    assert not await store.put_new("again", b"3")


async def test_leases(opened: Open) -> None:
    mine, yours = await opened(), await opened()
    assert await mine.lease("remux", b"me", LONG)
    assert not await yours.lease("remux", b"you", LONG)
    assert await mine.lease("remux", b"me", LONG), "extended"
    assert await yours.lease("another", b"you", LONG)
    assert not await yours.release("remux", b"you")
    assert not await yours.lease("remux", b"you", LONG)
    assert await mine.release("remux", b"me")
    assert not await mine.release("remux", b"me")
    assert await yours.lease("remux", b"you", LONG)


async def test_leases_end(opened: Open) -> None:
    mine, yours = await opened(), await opened()
    assert await mine.lease("remux", b"me", SHORT)

    async def yours_now() -> bool:
        return await yours.lease("remux", b"you", LONG)

    await eventually(yours_now)
    assert not await mine.lease("remux", b"me", LONG)
    assert not await mine.release("remux", b"me")


async def test_one_lease_of_many_at_once(opened: Open) -> None:
    stores = [await opened() for _ in range(5)]
    won = await asyncio.gather(*(each.lease("remux", b"%d" % n, LONG) for n, each in enumerate(stores)))
    assert sum(won) == 1


async def test_the_feed_is_read_from_where_one_stopped(opened: Open) -> None:
    writer, reader = await opened(), await opened()
    until = int(time.time()) + 1000
    first = await writer.append("revoke.session", b"\x00|\xff", until)
    second = await writer.append("purge", b"", None)
    assert second > first
    events, position = await reader.events()
    assert events == [Event(first, "revoke.session", b"\x00|\xff", until), Event(second, "purge", b"", None)]
    assert {len(event.uid) for event in events} == {UID_BYTES} and events[0].uid != events[1].uid
    assert position.id == second
    assert (await reader.events(position))[0] == []
    third = await reader.append("revoke.key", b"k1", until)
    events, after = await writer.events(position)
    assert [event.id for event in events] == [third]
    assert (after.incarnation, after.id) == (position.incarnation, third)
    with pytest.raises(ValueError, match="event type"):
        await writer.append("rumour", b"", None)  # type: ignore[arg-type]


async def test_an_empty_feed(opened: Open) -> None:
    one, other = await opened(), await opened()
    events, position = await one.events()
    assert events == [] and position.id == 0
    assert await other.events() == ([], position)
    assert await other.events(position) == ([], position)
    # A reader of another store begins at the start of this one.
    assert await other.events(Position("another", 10**15)) == ([], position)
    number = await one.append("purge", b"1", None)
    events, end = await other.events(Position("another", 2**53 - 1))
    assert [event.id for event in events] == [number]
    assert (end.incarnation, end.id) == (position.incarnation, number)


async def test_what_has_ended_is_not_told_and_its_number_not_given_again(store: KeyValueStore) -> None:
    past, later = int(time.time()) - 10, int(time.time()) + 1000
    numbers = [await store.append("purge", b"%d" % n, (past, later, None)[n % 3]) for n in range(9)]
    events, position = await store.events()
    assert [event.id for event in events] == [number for n, number in enumerate(numbers) if n % 3]
    assert await store.prune() == 3
    assert await store.prune() == 0
    assert (await store.events())[0] == events
    ended = await store.append("purge", b"", past)
    told, after = await store.events(position)
    assert told == [] and after.incarnation == position.incarnation and after.id >= position.id
    assert await store.prune() == 1
    assert (await store.events(after))[0] == []
    assert await store.append("purge", b"", None) > ended > max(numbers)


async def test_many_that_have_ended_between_those_that_have_not(store: KeyValueStore) -> None:
    past = int(time.time()) - 10
    made = [Event(0, "purge", b"%d" % n, None if n % 100 == 99 else past, os.urandom(UID_BYTES)) for n in range(2500)]
    assert await store.adopt(made) == 2500
    events, position = await store.events(limit=7)
    assert [event.subject for event in events] == [b"%d" % n for n in range(99, 700, 100)]
    assert [event.subject for event in (await store.events(position))[0]] == [b"%d" % n for n in range(799, 2500, 100)]
    assert await store.prune() == 2475
    assert len((await store.events())[0]) == 25


async def test_the_feed_in_pieces(store: KeyValueStore) -> None:
    for number in range(7):
        await store.append("purge", b"%d" % number, None)
    found, (events, position) = [], await store.events(limit=3)
    while events:
        assert len(events) <= 3
        found += [event.subject for event in events]
        events, position = await store.events(position, limit=3)
    assert found == [b"%d" % number for number in range(7)]


async def test_numbers_rise_whoever_writes(opened: Open) -> None:
    stores = [await opened() for _ in range(4)]
    numbers = await asyncio.gather(
        *(each.append("purge", b"%d" % n, None) for n, each in enumerate(stores) for _ in range(10))
    )
    assert len(set(numbers)) == 40
    events, _ = await stores[0].events()
    assert [event.id for event in events] == sorted(numbers)


async def test_adopted_once_whoever_brings_them(opened: Open) -> None:
    one, other = await opened(), await opened()
    await one.append("purge", b"own", None)
    until = int(time.time()) + 1000
    brought = [Event(7, "revoke.key", b"%d" % n, until, os.urandom(UID_BYTES)) for n in range(4)]
    assert sum(await asyncio.gather(one.adopt(brought), other.adopt(brought))) == 4
    (own, *adopted), position = await one.events()
    assert own.subject == b"own"
    assert [(event.uid, event.type, event.subject, event.until) for event in adopted] == [
        (event.uid, event.type, event.subject, event.until) for event in brought
    ]
    assert await one.adopt([own, *adopted]) == 0 == await one.adopt([])
    more = Event(1, "purge", b"new", None, os.urandom(UID_BYTES))
    assert await other.adopt([*brought, more]) == 1
    assert [event.uid for event in (await one.events(position))[0]] == [more.uid]
    with pytest.raises(ValueError, match="event type"):
        await one.adopt([Event(0, "rumour", b"", None, os.urandom(UID_BYTES))])  # type: ignore[arg-type]


async def test_a_reader_beyond_the_end_reads_anew(opened: Open) -> None:
    """The store was put back, or a replica took over that lacked the latest: nobody may go on as if nothing was."""
    one, other = await opened(), await opened()
    await one.append("purge", b"kept", None)
    _, position = await one.events()
    ahead = Position(position.incarnation, position.id + 1)
    events, anew = await one.events(ahead)
    assert [event.subject for event in events] == [b"kept"]
    assert anew.incarnation != position.incarnation and anew.id == position.id
    # The others hear of it, and only once.
    assert (await other.events(position))[1] == anew == (await one.events())[1] == (await other.events(anew))[1]


async def test_values_and_feed_do_not_meet(store: KeyValueStore) -> None:
    await store.append("purge", b"1", None)
    for name in ("feed", "events", "~", ""):
        await store.put(name, b"2")
        assert await store.lease(name, b"me", LONG)
        assert await store.get(name) == b"2"
    assert len((await store.events())[0]) == 1


async def test_secrets_stay_inside(secure_redis: RedisServer) -> None:
    store = await RedisStore.open(
        secure_redis.settings(username=User().name, password=SecretStr("wrong-horse"), **PATIENT)
    )
    with pytest.raises(StreamGateError) as caught:
        await store.get("a")
    assert caught.value.code == "store_unavailable" and "invalid username-password" in caught.value.detail
    assert "wrong-horse" not in repr(caught.value)
    await store.close()


async def test_what_is_dropped_is_told_to_nobody(store: KeyValueStore) -> None:
    """Who had read it is believed still, and what came later is there."""
    for subject in (b"a", b"b", b"c"):
        await store.append("purge", subject, None)
    events, position = await store.events()
    assert await store.drop(events[:2]) == 2 and await store.drop(events[:2]) == 0 and await store.drop([]) == 0
    assert [event.subject for event in (await store.events())[0]] == [b"c"]
    assert await store.events(position) == ([], position)
    await store.append("purge", b"d", None)
    assert [event.subject for event in (await store.events(position))[0]] == [b"d"]
