"""Redis killed, stalled, flushed, full, restarted, failed over: every call ends in time, and nobody believes what was lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from benchmarks.peers.certificate import self_signed
from streamgate.core.settings import RedisSettings
from streamgate.errors import StreamGateError
from streamgate.storage.kv.events import UID_BYTES, Event, EventType, Position
from streamgate.storage.kv.redis import RedisStore
from tests.services.redis import PATIENT, RedisCluster, RedisServer, User, wait_for

pytestmark = pytest.mark.needs("redis-server", "redis-cli", "openssl")

TIMEOUT = 0.5
SLACK = 2.0
"""s that a busy machine may take longer."""
HASTY: dict[str, Any] = {
    "timeout": TIMEOUT, "connect_timeout": TIMEOUT, "circuit_failures": 1000, "circuit_share": 1.0, "circuit_window": 10_000
}  # fmt: skip
"""A client whose circuit stays closed."""
NUMB = dict(PATIENT, circuit_failures=3, circuit_probe=0.05, circuit_probe_max=0.1)


@contextlib.asynccontextmanager
async def opened(settings: RedisSettings, on_change: Callable[[str], None] | None = None) -> AsyncIterator[RedisStore]:
    store = await RedisStore.open(settings, on_change)
    try:
        yield store
    finally:
        await store.close()


def every_call(store: RedisStore) -> list[Callable[[], Awaitable[Any]]]:
    event = Event(0, "purge", b"1", None, os.urandom(UID_BYTES))
    return [
        lambda: store.get("a"),
        lambda: store.get_many(["a", "b"]),
        lambda: store.put("a", b"1", 60),
        lambda: store.put_new("a", b"1", 60),
        lambda: store.take("a"),
        lambda: store.delete("a"),
        lambda: store.lease("a", b"me", 60),
        lambda: store.release("a", b"me"),
        lambda: store.append("purge", b"1", None),
        lambda: store.adopt([event]),
        lambda: store.events(),
        lambda: store.prune(),
    ]


async def unavailable(call: Callable[[], Awaitable[Any]]) -> str:
    """That it raises in time; what it says."""
    begun = time.monotonic()
    with pytest.raises(StreamGateError) as caught:
        await call()
    assert caught.value.code == "store_unavailable"
    assert time.monotonic() - begun < TIMEOUT + SLACK
    return caught.value.detail


async def available(call: Callable[[], Awaitable[Any]], limit: float = 30.0) -> Any:
    """What it gives as soon as it does."""
    async with asyncio.timeout(limit):
        while True:
            with contextlib.suppress(StreamGateError):
                return await call()
            await asyncio.sleep(0.02)


async def subjects(store: RedisStore, after: Position | None = None) -> tuple[list[bytes], Position]:
    events, position = await store.events(after)
    return [event.subject for event in events], position


async def test_it_was_never_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    async with opened(RedisSettings(url=f"redis://127.0.0.1:{port}", **HASTY)) as store:
        for call in every_call(store):
            assert f"127.0.0.1:{port}" in await unavailable(call)


async def test_it_takes_connections_and_says_nothing() -> None:
    """More calls than there may be connections: those that wait for one end in time, too."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        async with opened(RedisSettings(url=url, pool=2, **HASTY)) as store:
            await asyncio.gather(*(unavailable(call) for call in every_call(store)))


async def test_killed_and_started_again_empty(own_redis: RedisServer) -> None:
    async with opened(own_redis.settings(**HASTY)) as store:
        await store.put("a", b"1")
        await store.append("purge", b"1", None)
        told, position = await subjects(store)
        own_redis.kill()
        for call in every_call(store):
            await unavailable(call)
        own_redis.start()
        # Connections of before are not stumbled over.
        assert await store.get("a") is None
        told, anew = await subjects(store, position)
        assert told == [] and anew.incarnation != position.incarnation
        assert await store.append("purge", b"2", None) > position.id, "numbers go on though it knows nothing of them"
        assert (await subjects(store, position))[0] == [b"2"]


async def test_stalled(own_redis: RedisServer) -> None:
    async with opened(own_redis.settings(**HASTY)) as store:
        await store.put("a", b"1")
        _, position = await store.events()
        with own_redis.stalled():
            await asyncio.gather(*(unavailable(call) for call in every_call(store)))
        # An answer that came too late is not taken for the answer to another question.
        assert await available(lambda: store.get_many(["none", "nothing"])) == [None, None]
        await store.put("b", b"2")
        assert await store.get("b") == b"2"
        assert (await store.events(position))[1].incarnation == position.incarnation


async def test_calls_that_were_given_up_leave_nothing_behind(redis_server: RedisServer) -> None:
    async with opened(redis_server.settings(**PATIENT, pool=3)) as store:
        for number in range(30):
            await store.put(str(number), b"%d" % number)
        for _ in range(20):
            calls = [asyncio.create_task(store.get(str(number))) for number in range(30)]
            await asyncio.sleep(0)
            for call in calls[::2]:
                call.cancel()
            told = await asyncio.gather(*calls, return_exceptions=True)
            assert [each for each in told if isinstance(each, bytes)] >= [b"%d" % number for number in range(1, 30, 2)]
        assert await store.get_many([str(number) for number in range(30)]) == [b"%d" % number for number in range(30)]
        assert redis_server.client.info("clients")["connected_clients"] < 100


async def test_flushed(own_redis: RedisServer) -> None:
    async with opened(own_redis.settings(**PATIENT)) as store:
        await store.append("purge", b"1", None)
        _, position = await store.events()
        own_redis.flush()
        assert await store.append("purge", b"2", None) > position.id
        told, anew = await subjects(store, position)
        assert told == [b"2"] and anew.incarnation != position.incarnation


async def test_full(own_redis: RedisServer) -> None:
    """What is there can be read, and removed."""
    async with opened(own_redis.settings(**HASTY)) as store:
        await store.put("a", b"1")
        await store.append("purge", b"1", None)
        _, position = await store.events()
        with own_redis.full():
            refused: list[Callable[[], Awaitable[Any]]] = [
                lambda: store.put("b", b"1"),
                lambda: store.put_new("b", b"1"),
                lambda: store.lease("b", b"me", 60),
                lambda: store.append("purge", b"2", None),
            ]
            for call in refused:
                assert "OOM" in await unavailable(call) or "maxmemory" in await unavailable(call)
            assert await store.get("a") == b"1"
            assert await store.events(position) == ([], position)
            assert (await subjects(store))[0] == [b"1"]
            assert await store.take("a") == b"1"
            assert await store.prune() == 0
        await store.append("purge", b"2", None)
        assert (await subjects(store, position))[0] == [b"2"]


async def test_full_and_begun_anew_is_not_taken_for_a_feed(own_redis: RedisServer) -> None:
    async with opened(own_redis.settings(**HASTY)) as store:
        await store.append("purge", b"1", None)
        _, position = await store.events()
        own_redis.kill()
        own_redis.start()
        with own_redis.full():
            await unavailable(lambda: store.events(position))
        told, anew = await subjects(store, position)
        assert told == [] and anew.incarnation != position.incarnation


async def test_what_a_replica_has_that_took_over(own_redis: RedisServer, tmp_path: Path) -> None:
    """It lacks the latest event and has another in its place, and its number is as high: that is noticed all the same."""
    replica = RedisServer(tmp_path / "replica")
    try:
        async with opened(own_redis.settings(**PATIENT)) as store:
            prefix = store.key("").removesuffix("kv:")
            await store.append("purge", b"both have it", None)
            replica.client.replicaof("127.0.0.1", own_redis.port)
            wait_for(lambda: replica.client.zcard(f"{prefix}feed") == 3)
            replica.client.replicaof("NO", "ONE")
            await store.append("purge", b"lost", None)
            _, position = await store.events()
        async with opened(replica.settings(prefix, **PATIENT)) as store:
            await store.append("purge", b"new", None)
            told, anew = await subjects(store, position)
            assert told == [b"both have it", b"new"]
            assert anew.incarnation != position.incarnation and anew.id > position.id
            assert await subjects(store, anew) == ([], anew)
    finally:
        replica.kill()


async def test_what_others_have_put_into_the_feed(redis_server: RedisServer) -> None:
    """It is left out, and what is behind it is found."""
    async with opened(redis_server.settings(**PATIENT)) as store:
        first = await store.append("purge", b"1", None)
        feed = store.key("").removesuffix("kv:") + "feed"
        uid = "0" * UID_BYTES
        alien = ["", "x", "~~", f"e{uid}", f"e{uid}purge", f"e{uid}purge|soon|x", f"e{uid}|1|x", f"{uid}purge||x"]
        redis_server.client.zadd(feed, dict.fromkeys(alien, first + 1))
        redis_server.client.zadd(feed, {f"e{uid}purge||x": first + 0.5})
        await store.append("purge", b"2", None)
        assert (await subjects(store))[0] == [b"1", b"2"]
        found, position = await store.events(limit=1)
        assert [event.subject for event in (await store.events(position, limit=1))[0]] == [b"2"]
        assert await store.prune() == 0


async def test_one_that_may_only_be_read(own_redis: RedisServer, redis_server: RedisServer) -> None:
    async with opened(own_redis.settings(**HASTY)) as store:
        await store.put("a", b"1")
        own_redis.client.replicaof("127.0.0.1", redis_server.port)
        wait_for(lambda: own_redis.client.info("replication")["role"] == "slave")
        assert "read only" in await unavailable(lambda: store.put("a", b"1"))
        own_redis.client.replicaof("NO", "ONE")
        await store.put("a", b"2")
        assert await store.get("a") == b"2"


async def test_a_user_who_may_not_ask_who_answers(own_redis: RedisServer) -> None:
    """Then a failover is noticed by a number that is not there yet."""
    user = User()
    own_redis.client.execute_command("ACL", "SETUSER", *user.rules, "-info")
    settings = own_redis.settings(username=user.name, password=SecretStr(user.password), **PATIENT)
    async with opened(settings) as store:
        await store.append("purge", b"1", None)
        _, position = await store.events()
        assert await store.events(position) == ([], position)
        told, anew = await subjects(store, Position(position.incarnation, position.id + 1))
        assert told == [b"1"] and anew.incarnation != position.incarnation
        # Beyond its prefix it may do nothing.
        assert "permission" in await unavailable(lambda: store.call(lambda: store.client.get("elsewhere")))


async def test_a_password_that_is_replaced(own_redis: RedisServer, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("old\n")
    own_redis.client.execute_command("ACL", "SETUSER", "node", "on", ">old", "~*", "+@all")
    settings = own_redis.settings(username="node", password_file=str(file), **PATIENT)
    async with opened(settings) as store:
        await store.put("a", b"1")
        own_redis.client.execute_command("ACL", "SETUSER", "node", "<old", ">new")
        own_redis.client.execute_command("CLIENT", "KILL", "USER", "node")
        assert "old" not in await unavailable(lambda: store.get("a"))
        file.write_text("new\n")
        assert await store.get("a") == b"1"
        file.unlink()
        own_redis.client.execute_command("CLIENT", "KILL", "USER", "node")
        await unavailable(lambda: store.get("a"))


async def test_another_authority(secure_redis: RedisServer) -> None:
    """Whom the certificate does not convince gets no password."""
    user = User()
    settings = secure_redis.settings(username=user.name, password=SecretStr(user.password), **PATIENT)
    settings = settings.model_copy(update={"ca": ""})
    async with opened(settings) as store:
        with pytest.raises(StreamGateError, match="certificate"):
            await store.get("a")
    plain = settings.model_copy(update={"url": settings.url.replace("rediss", "redis")})
    async with opened(plain) as store:
        with pytest.raises(StreamGateError) as caught:
            await store.get("a")
        assert caught.value.code == "store_unavailable"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"url": "rediss://h:1", "ca": "/none"}, "redis.ca"),
        ({"url": "redis://h:1,i:1"}, "several nodes"),
        ({"url": "redis://h:1/x"}, "database"),
        ({"url": "redis://h:1/3", "cluster": True}, "database 0"),
        ({"url": "unix:///s", "cluster": True}, "socket"),
    ],
)
async def test_what_cannot_be_meant(given: dict[str, Any], told: str) -> None:
    with pytest.raises(StreamGateError, match=told) as caught:
        await RedisStore.open(RedisSettings(**given))
    assert caught.value.code == "config_invalid"


async def test_a_certificate_of_ones_own(tmp_path: Path) -> None:
    """The server admits nobody who shows none."""
    with self_signed() as certificate:
        server = RedisServer(tmp_path / "redis", certificate, options=("--tls-auth-clients", "yes"))
        try:
            shown = {"certificate": str(certificate.chain), "key": str(certificate.key)}
            async with opened(server.settings(**PATIENT, **shown)) as store:
                await store.put("a", b"1")
                assert await store.get("a") == b"1"
            async with opened(server.settings(**PATIENT)) as store:
                with pytest.raises(StreamGateError) as caught:
                    await store.get("a")
                assert caught.value.code == "store_unavailable"
        finally:
            server.kill()


async def test_by_a_socket(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis", options=("--unixsocket", str(tmp_path / "s")))
    try:
        async with opened(RedisSettings(url=f"unix://{tmp_path / 's'}", **PATIENT)) as store:
            await store.put("a", b"1")
            assert await store.get("a") == b"1"
    finally:
        server.kill()


async def test_the_circuit(own_redis: RedisServer) -> None:
    """It opens when Redis is gone, costs nothing while it is, and closes when it is back."""
    states: list[str] = []
    async with opened(own_redis.settings(**NUMB), states.append) as store:
        await store.put("a", b"1")
        own_redis.kill()
        for _ in range(3):
            await unavailable(lambda: store.get("a"))
        assert states == ["open"] and store.circuit.state == "open"
        assert await unavailable(lambda: store.get("a")) == "left alone after failures"
        own_redis.start()
        assert await available(lambda: store.get("a")) is None
        assert states[-2:] == ["half-open", "closed"]


async def write(store: RedisStore, kind: EventType, number: int) -> bool:
    """Add an event; whether it was confirmed."""
    with contextlib.suppress(StreamGateError):
        await store.append(kind, b"%d" % number, None)
        return True
    return False


@pytest.mark.slow
async def test_a_primary_of_a_cluster_is_killed(own_cluster: RedisCluster) -> None:
    """Calls end in time, it goes on within seconds, and a reader of before begins anew, without a restart of anything."""
    # Not by running out of places for connections is it to find out.
    many = own_cluster.settings(**HASTY, pool=10_000)
    async with opened(many) as store, opened(many) as reader:
        feed = store.key("").removesuffix("kv:") + "feed"
        keys = [f"key {number}" for number in range(50)]
        for key in keys:
            await store.put(key, key.encode())
        await store.append("purge", b"0", None)
        _, position = await store.events()
        assert await reader.get_many(keys) == [key.encode() for key in keys]
        wait_for(own_cluster.whole)
        killed = own_cluster.primary_of(feed)
        killed.kill()
        begun = time.monotonic()
        while not await write(store, "purge", 1):
            assert time.monotonic() - begun < 30
        told, anew = await subjects(store, position)
        assert told[-1] == b"1" and anew.incarnation != position.incarnation
        assert await subjects(store, anew) == ([], anew)
        # Whoever only reads, and much at once, goes on, too.
        assert await available(lambda: reader.get_many(keys)) == [key.encode() for key in keys]
        # The dead one comes back as a replica, and takes over again when the other dies.
        killed.start()
        wait_for(own_cluster.whole)
        wait_for(lambda: own_cluster.primary_of(feed)).kill()
        begun = time.monotonic()
        while not await write(store, "purge", 2):
            assert time.monotonic() - begun < 30
        assert (await subjects(store))[0][-1] == b"2"
        assert await available(lambda: reader.get_many(keys)) == [key.encode() for key in keys]


@pytest.mark.slow
async def test_a_primary_of_a_cluster_is_stalled(own_cluster: RedisCluster) -> None:
    """Nobody refuses anything, and yet it is learnt that another has taken over."""
    async with opened(own_cluster.settings(**HASTY)) as store:
        feed = store.key("").removesuffix("kv:") + "feed"
        await store.append("purge", b"0", None)
        _, position = await store.events()
        wait_for(own_cluster.whole)
        with own_cluster.primary_of(feed).stalled():
            begun = time.monotonic()
            while not await write(store, "purge", 1):
                assert time.monotonic() - begun < 30
            assert (await store.events(position))[1].incarnation != position.incarnation


@pytest.mark.slow
async def test_a_cluster_that_refuses_for_long(own_cluster: RedisCluster) -> None:
    """The client loses a place with each connection that it cannot make; they are found again."""
    async with opened(own_cluster.settings(**HASTY, pool=4)) as store:
        await store.put("a", b"1")
        for server in own_cluster.servers:
            server.kill()
        for _ in range(20):
            await unavailable(lambda: store.get("a"))
        for server in own_cluster.servers:
            server.start()
        wait_for(own_cluster.whole)
        assert await available(lambda: store.put_new("b", b"1"))
        told = await asyncio.gather(*(store.get(str(number)) for number in range(20)))
        assert told == [None] * 20
