"""Reads over one connection: the right value to each who asks, in bounded time, and a broken connection is nobody's for long."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from streamgate.core.settings import RedisSettings
from streamgate.errors import StreamGateError
from streamgate.storage.kv.redis import RedisStore
from streamgate.storage.kv.redis_reads import RedisReads
from tests.services.redis import PATIENT, RedisCluster, RedisServer, User

pytestmark = pytest.mark.needs("redis-server", "redis-cli", "openssl")
DEADLINE_S = 20.0


@contextlib.asynccontextmanager
async def opened(settings: RedisSettings) -> AsyncIterator[tuple[RedisReads, RedisStore]]:
    """What reads, and what writes."""
    reads, store = await RedisReads.open(settings), await RedisStore.open(settings)
    try:
        yield reads, store
    finally:
        await reads.close()
        await store.close()


async def test_values_come_in_the_order_of_the_keys(redis_server: RedisServer) -> None:
    async with opened(redis_server.settings(**PATIENT)) as (reads, store):
        await store.put("a", b"1")
        await store.put("b", b"")
        assert await reads.get_many(["b", "nothing", "a", "a"]) == [b"", None, b"1", b"1"]
        # What holds no value has none.
        await asyncio.to_thread(redis_server.client.hset, store.key("hash"), "a", "b")
        assert await reads.get_many(["hash"]) == [None]


async def test_many_at_once_get_their_own_over_one_connection(redis_server: RedisServer) -> None:
    async with opened(redis_server.settings(**PATIENT)) as (reads, store):
        bodies = {f"k{number}": bytes([number]) * (number * number * 20) for number in range(100)}
        for key, body in bodies.items():
            await store.put(key, body)
        before = len(await asyncio.to_thread(redis_server.client.client_list))
        found = await asyncio.gather(*(reads.get_many([key, f"no{key}"]) for key in list(bodies) * 3))
        assert found == [[body, None] for body in bodies.values()] * 3
        assert len(await asyncio.to_thread(redis_server.client.client_list)) <= before + 1


async def test_who_gives_up_shifts_no_answer(redis_server: RedisServer) -> None:
    async with opened(redis_server.settings(**PATIENT)) as (reads, store):
        for number in range(10):
            await store.put(str(number), str(number).encode())
        await reads.get_many(["0"])
        asked = [asyncio.ensure_future(reads.get_many([str(number)])) for number in range(10)]
        await asyncio.sleep(0)
        for task in asked[::3]:
            task.cancel()
        done = await asyncio.gather(*asked, return_exceptions=True)
        assert [each for each in done if isinstance(each, list)] == [[b"%d" % n] for n in range(10) if n % 3]


async def test_by_tls_with_a_user(secure_redis: RedisServer, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text(User().password)
    given: dict[str, Any] = {"username": User().name, "password_file": str(password)}
    async with opened(secure_redis.settings(**PATIENT, **given)) as (reads, store):
        await store.put("a", bytes(300_000))
        assert await reads.get_many(["a"]) == [bytes(300_000)]
    password.write_text("wrong")
    async with opened(secure_redis.settings(**PATIENT, **given)) as (reads, _):
        with pytest.raises(StreamGateError, match="store_unavailable") as raised:
            await reads.get_many(["a"])
        assert User().password not in str(raised.value)


async def test_a_stall_costs_its_time_and_what_comes_late_is_nobody_s(own_redis: RedisServer) -> None:
    given = own_redis.settings(timeout=0.3, connect_timeout=0.3, circuit_failures=1000, circuit_window=10_000)
    async with opened(given) as (reads, store):
        await store.put("a", b"1")
        await store.put("b", b"2")
        assert await reads.get_many(["a"]) == [b"1"]
        with own_redis.stalled():
            for _ in range(2):  # on the connection that is open, and on a new one
                began = time.monotonic()
                with pytest.raises(StreamGateError, match="store_unavailable"):
                    await reads.get_many(["a"])
                assert 0.2 < time.monotonic() - began < 5
        async with asyncio.timeout(DEADLINE_S):
            while True:
                with contextlib.suppress(StreamGateError):
                    assert await reads.get_many(["b"]) == [b"2"]
                    break


async def test_a_connection_that_is_cut_is_made_anew(own_redis: RedisServer) -> None:
    async with opened(own_redis.settings(circuit_failures=1000, circuit_window=10_000, **PATIENT)) as (reads, store):
        await store.put("a", b"1")
        assert await reads.get_many(["a"]) == [b"1"]
        await asyncio.to_thread(own_redis.client.execute_command, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        async with asyncio.timeout(DEADLINE_S):
            while True:
                with contextlib.suppress(StreamGateError):
                    assert await reads.get_many(["a"]) == [b"1"]
                    break
        own_redis.kill()
        with pytest.raises(StreamGateError, match="store_unavailable"):
            await reads.get_many(["a"])
        await asyncio.to_thread(own_redis.start)
        assert await reads.get_many(["a"]) == [None]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_connection_that_is_gone_and_has_not_said_so(redis_server: RedisServer, run: Callable[[Any], None]) -> None:
    """It is between its end and the loop's word of it that somebody asks."""

    async def ask() -> None:
        async with opened(redis_server.settings(**PATIENT)) as (reads, store):
            await store.put("a", b"1")
            for _ in range(5):
                assert await reads.get_many(["a"]) == [b"1"]
                assert reads._line is not None
                reads._line._transport.abort()
            assert (line := reads._line) is not None
            with pytest.raises(OSError):
                await asyncio.wait_for(line.ask(["a"], 0.5), 5)
            assert line.lost and await reads.get_many(["a"]) == [b"1"]

    run(ask())


async def test_what_redis_refuses_is_an_error_and_the_connection_stays(own_redis: RedisServer) -> None:
    async with opened(own_redis.settings(circuit_failures=1000, **PATIENT)) as (reads, store):
        await store.put("a", b"1")
        assert await reads.get_many(["a"]) == [b"1"]
        await asyncio.to_thread(own_redis.client.execute_command, "ACL", "SETUSER", "default", "-mget")
        with pytest.raises(StreamGateError, match="NOPERM"):
            await reads.get_many(["a"])
        await asyncio.to_thread(own_redis.client.execute_command, "ACL", "SETUSER", "default", "+mget")
        assert await reads.get_many(["a"]) == [b"1"]


async def test_the_circuit_is_asked_first(own_redis: RedisServer) -> None:
    own_redis.kill()
    async with opened(own_redis.settings(circuit_failures=1, circuit_probe=60, circuit_probe_max=60)) as (reads, _):
        for _ in range(2):
            with pytest.raises(StreamGateError, match="store_unavailable") as raised:
                await reads.get_many(["a"])
        assert reads.circuit.state == "open" and "left alone" in str(raised.value)


@pytest.mark.slow
async def test_of_a_cluster_the_client_reads(redis_cluster: RedisCluster) -> None:
    async with opened(redis_cluster.settings(**PATIENT)) as (reads, store):
        for number in range(20):
            await store.put(str(number), str(number).encode())
        assert await reads.get_many([str(number) for number in range(21)]) == [b"%d" % n for n in range(20)] + [None]
