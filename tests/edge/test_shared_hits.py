"""Hits in Redis on the native path: a head waits, answers keep their order, and whatever Redis does not have goes the other way."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers.certificate import Certificate
from edge.entries import IMMUTABLE, Entry
from streamgate.access import tokens
from streamgate.access.keys import SharedKey
from streamgate.core.settings import RedisSettings, TlsSettings
from streamgate.native import hotpath
from streamgate.native.cat import Verifier
from tests.edge.harness import Edge, Folder, running, settings
from tests.native.hot import answer, get
from tests.services.redis import PATIENT, RedisServer
from tests.services.seaweed import free_ports

KEY = SharedKey(b"site-1", bytes(range(32)), "streamgate", ("local",), ("iss", "exp", "cti", "aud"))
NAME = "v540-0123456789abcdef"
BASE = f"/v/film/{NAME}"
BODY = bytes(range(256)) * 10
LARGE = bytes(range(256)) * 900
HIT = "streamgate;hit;detail=redis"
DEADLINE_S = 20.0


@contextlib.asynccontextmanager
async def node(
    root: Path, shared: RedisSettings, verifier: Verifier | None = None, tls: TlsSettings | None = None, **edge: Any
) -> AsyncIterator[Edge]:
    """A node of a site in whose Redis there are an init segment, a small and a large segment of a rendition."""
    chosen = settings(**{"cache_bytes": 0, **edge}).model_copy(update={"redis": shared, "tls": tls or TlsSettings()})
    async with running(Folder(root), chosen, verifier=verifier) as started:
        tier = (await started.node.tiers.share(shared)).tier
        for name, body in (("init.mp4", BODY), ("0.m4s", BODY + b"0"), ("1.m4s", LARGE)):
            assert tier.write(
                f"{BASE}/{name}",
                Entry("video/mp4", f"{NAME}/{name}", IMMUTABLE, body, made=int(time.time()) - 50),
                body,
            )
        async with asyncio.timeout(DEADLINE_S):
            while started.node.telemetry.value("redis_writes", result="stored") < 3:
                await asyncio.sleep(0.005)
        await started.node.assets.open("film")
        yield started


@pytest.fixture
async def edge(folder: Path, redis_server: RedisServer) -> AsyncIterator[Edge]:
    async with node(folder, redis_server.settings(**PATIENT)) as started:
        yield started


@pytest.fixture
async def broken(folder: Path, own_redis: RedisServer) -> AsyncIterator[tuple[Edge, RedisServer]]:
    """A node whose Redis may be held up for long."""
    async with node(folder, own_redis.settings(timeout=15.0, connect_timeout=15.0, circuit_slow=60.0)) as started:
        assert told(await ask(started, get(f"{BASE}/init.mp4")))[:2] == (200, HIT)
        yield started, own_redis


async def ask(edge: Edge, *heads: bytes) -> tuple[int, dict[str, str], bytes]:
    """The answer to the last of several heads on a connection of their own."""
    async with edge.connect() as (reader, writer), asyncio.timeout(DEADLINE_S):
        writer.write(b"".join(heads))
        for _ in heads:
            got = await answer(reader)
        return got


def told(got: tuple[int, dict[str, str], bytes]) -> tuple[int, str, bool]:
    """Status, Cache-Status, and whether the answer was native."""
    return got[0], got[1]["Cache-Status"], got[1]["Server-Timing"].startswith("native")


def natively(edge: Edge) -> int:
    return edge.node.telemetry.block(hotpath.COUNTERS)[hotpath.COUNTERS.index("native_answers")]


async def commands(server: RedisServer) -> int:
    """How many reads Redis has had."""
    stats = await asyncio.to_thread(server.client.info, "commandstats")
    return int(stats.get("cmdstat_mget", {"calls": 0})["calls"])


@pytest.mark.parametrize("leaf", ["init.mp4", "0.m4s", "1.m4s"])
async def test_a_hit_is_answered_natively_as_from_memory(folder: Path, redis_server: RedisServer, leaf: str) -> None:
    async with node(folder, redis_server.settings(**PATIENT), cache_bytes=2**26, memory_object=2**20) as edge:
        first, second = await ask(edge, get(f"{BASE}/{leaf}")), await ask(edge, get(f"{BASE}/{leaf}"))
        assert told(first) == (200, HIT, True)
        assert told(second) == (200, "streamgate;hit;detail=memory", True)
        assert first[2] == second[2] == {"init.mp4": BODY, "0.m4s": BODY + b"0", "1.m4s": LARGE}[leaf]
        varies = {"Cache-Status", "Server-Timing", "Date", "Age"}
        assert {k: v for k, v in first[1].items() if k not in varies} == {
            k: v for k, v in second[1].items() if k not in varies
        }
        assert 50 <= int(first[1]["Age"]) < 100
        assert edge.node.telemetry.value("tier_hits", tier="redis") == 1 and natively(edge) == 2


async def test_it_says_what_the_other_way_says(edge: Edge) -> None:
    native = await ask(edge, get(f"{BASE}/0.m4s"))
    # A second token of ours makes the native path leave it alone.
    other = await ask(edge, get(f"{BASE}/0.m4s", "Cookie: CTA-Common-Access-Token=x"))
    assert told(native) == (200, HIT, True) and told(other) == (200, HIT, False)
    varies = {"Server-Timing", "Date", "Age"}
    assert {k: v for k, v in native[1].items() if k not in varies} == {
        k: v for k, v in other[1].items() if k not in varies
    }
    assert native[2] == other[2]


async def test_what_redis_lacks_is_asked_for_once_and_goes_the_other_way(edge: Edge, redis_server: RedisServer) -> None:
    name = (await edge.node.assets.open("film")).asset.presentation.video[0].name
    sharing = edge.node.tiers.sharing
    assert sharing is not None
    # A segment of a file would be cut where it lies.
    for leaf in ("init.mp4", "k0.m4s"):
        before = await commands(redis_server)
        got = await ask(edge, get(f"/v/film/{name}/{leaf}"))
        assert told(got) == (200, "streamgate;fwd=uri-miss", False)
        assert await commands(redis_server) - before == 1
        # A second time it is there.
        async with asyncio.timeout(DEADLINE_S):
            while (await sharing.tier.lookup(f"/v/film/{name}/{leaf}")) is None:
                await asyncio.sleep(0.005)
        again = await ask(edge, get(f"/v/film/{name}/{leaf}"))
        assert told(again) == (200, HIT, True) and again[2] == got[2]


async def test_ranges_and_conditions_go_the_other_way(edge: Edge) -> None:
    part = await ask(edge, get(f"{BASE}/0.m4s", "Range: bytes=5-9"))
    assert told(part) == (206, HIT, False) and part[2] == BODY[5:10]
    tag = f'"{NAME}/0.m4s"'
    assert told(await ask(edge, get(f"{BASE}/0.m4s", f"If-None-Match: {tag}")))[:2] == (304, HIT)


async def test_answers_keep_their_order(edge: Edge) -> None:
    paths = [f"{BASE}/init.mp4", "/v/film/main.m3u8", f"{BASE}/1.m4s", f"{BASE}/0.m4s", "/nothing", f"{BASE}/init.mp4"]
    alone = [(await ask(edge, get(path)))[::2] for path in paths]
    async with edge.connect() as (reader, writer), asyncio.timeout(DEADLINE_S):
        writer.write(b"".join(get(path) for path in paths))
        assert [(await answer(reader))[::2] for _ in paths] == alone
        for path, wanted in zip(paths, alone, strict=True):  # one after another, on the same connection
            writer.write(get(path))
            assert (await answer(reader))[::2] == wanted


async def test_a_head_that_is_begun_meanwhile_is_not_mixed_up(broken: tuple[Edge, RedisServer]) -> None:
    edge, server = broken
    second = get(f"{BASE}/1.m4s")
    for cut in (1, 20, len(second) - 1):
        async with edge.connect() as (reader, writer), asyncio.timeout(DEADLINE_S):
            with server.stalled():
                writer.write(get(f"{BASE}/0.m4s") + second[:cut])
                await waiting(edge)
            assert (await answer(reader))[2] == BODY + b"0"
            writer.write(second[cut:])
            assert (await answer(reader))[2] == LARGE
            writer.write(get(f"{BASE}/init.mp4"))
            assert told(got := await answer(reader))[:2] == (200, HIT) and got[2] == BODY


async def waiting(edge: Edge, count: int = 1) -> None:
    """Wait until so many values are asked for."""
    sharing = edge.node.tiers.sharing
    assert sharing is not None
    async with asyncio.timeout(DEADLINE_S):
        while sharing.tier._wanted < count:
            await asyncio.sleep(0.002)


async def test_what_comes_behind_a_head_that_waits_is_answered_behind_it(broken: tuple[Edge, RedisServer]) -> None:
    edge, server = broken
    async with edge.connect() as (reader, writer), asyncio.timeout(DEADLINE_S):
        with server.stalled():
            writer.write(get(f"{BASE}/0.m4s"))
            await waiting(edge)
            writer.write(get("/v/film/main.m3u8") + get(f"{BASE}/1.m4s"))
            writer.write(get("/health/live"))
        assert (await answer(reader))[2] == BODY + b"0"
        assert (await answer(reader))[2].startswith(b"#EXTM3U")
        assert (await answer(reader))[2] == LARGE
        assert (await answer(reader))[0] == 200


async def test_a_connection_that_is_to_close_closes_behind_the_answer(edge: Edge) -> None:
    for head in (get(f"{BASE}/1.m4s", "Connection: close"), f"GET {BASE}/1.m4s HTTP/1.0\r\n\r\n".encode()):
        async with edge.connect() as (reader, writer), asyncio.timeout(DEADLINE_S):
            writer.write(head)
            assert (await answer(reader))[2] == LARGE and await reader.read() == b""


async def test_a_client_that_has_said_all_gets_its_answer(broken: tuple[Edge, RedisServer]) -> None:
    edge, server = broken
    async with edge.connect() as (reader, writer), asyncio.timeout(DEADLINE_S):
        with server.stalled():
            writer.write(get(f"{BASE}/1.m4s"))
            await waiting(edge)
            writer.write_eof()
            # Its answer is the last, and aiohttp's.
            while not edge.node.telemetry.value("requests_in_flight"):
                await asyncio.sleep(0.002)
        assert (await answer(reader))[2] == LARGE and await reader.read() == b""


async def test_a_client_that_leaves_is_forgotten(broken: tuple[Edge, RedisServer]) -> None:
    edge, server = broken
    with server.stalled():
        for _ in range(5):
            _, writer = await asyncio.open_connection("127.0.0.1", edge.port)
            writer.write(get(f"{BASE}/1.m4s"))
            await waiting(edge)
            writer.transport.abort()
    async with asyncio.timeout(DEADLINE_S):
        while edge.node.telemetry.value("connections"):
            await asyncio.sleep(0.005)
    assert told(await ask(edge, get(f"{BASE}/1.m4s")))[:2] == (200, HIT)


async def test_a_client_that_sends_too_much_meanwhile_waits_no_longer(broken: tuple[Edge, RedisServer]) -> None:
    edge, server = broken
    count = 2 * edge.node.settings.server.max_head // len(get("/health/live"))
    async with edge.connect() as (reader, writer), asyncio.timeout(DEADLINE_S):
        with server.stalled():
            writer.write(get(f"{BASE}/0.m4s"))
            await waiting(edge)
            writer.write(get("/health/live") * count)
            await writer.drain()
        assert (await answer(reader))[2] == BODY + b"0"
        assert {(await answer(reader))[0] for _ in range(count)} == {200}


async def test_a_node_that_stops_answers_what_waits(folder: Path, own_redis: RedisServer) -> None:
    async with node(folder, own_redis.settings(timeout=15.0, connect_timeout=15.0, circuit_slow=60.0)) as edge:
        assert (await ask(edge, get(f"{BASE}/init.mp4")))[0] == 200
        async with edge.connect() as (reader, writer), asyncio.timeout(DEADLINE_S):
            with own_redis.stalled():
                writer.write(get(f"{BASE}/1.m4s"))
                await waiting(edge)
                edge.asked.set()
                while edge.node.health.state == "ready":
                    await asyncio.sleep(0.002)
            assert (await answer(reader))[2] == LARGE and await reader.read() == b""


async def test_a_redis_that_does_not_answer_delays_and_no_more(folder: Path, own_redis: RedisServer) -> None:
    given = own_redis.settings(timeout=0.3, connect_timeout=0.3, circuit_probe=60.0, circuit_probe_max=60.0)
    async with node(folder, given) as edge:
        name = (await edge.node.assets.open("film")).asset.presentation.video[0].name
        with own_redis.stalled():
            began = time.monotonic()
            got = await asyncio.gather(*(ask(edge, get(f"/v/film/{name}/init.mp4")) for _ in range(10)))
            assert {told(each) for each in got} == {(200, "streamgate;fwd=uri-miss", False)}
            assert time.monotonic() - began < 5
            assert natively(edge) == 0


async def test_nothing_is_looked_up_for_who_may_not_have_it(folder: Path, redis_server: RedisServer) -> None:
    verifier = Verifier([KEY.verifying()])
    async with node(folder, redis_server.settings(**PATIENT), verifier, require_token=True) as edge:
        before = await commands(redis_server)
        assert (await ask(edge, get(f"{BASE}/0.m4s")))[0] == 401
        assert (await ask(edge, get(f"/t/{'x' * 60}{BASE}/0.m4s")))[0] == 401
        assert await commands(redis_server) == before
        token = tokens.mint(KEY, asset="film", session=bytes(16), expires=int(time.time()) + 1000)
        for path, fields in (
            (f"/t/{token}{BASE}/0.m4s", ()),
            (f"{BASE}/0.m4s", (f"CTA-Common-Access-Token: {token}",)),
        ):
            got = await ask(edge, get(path, *fields))
            assert told(got) == (200, HIT, True) and got[2] == BODY + b"0"
            assert got[1]["Cache-Control"].startswith("private")
        assert await commands(redis_server) == before + 2


async def test_under_tls_too(folder: Path, redis_server: RedisServer, certificate: Certificate) -> None:
    (port,) = free_ports(1)
    tls = TlsSettings(listen=(f"127.0.0.1:{port}",), certificate=str(certificate.chain), key=str(certificate.key))
    async with node(folder, redis_server.settings(**PATIENT), tls=tls):
        context = ssl.create_default_context(cafile=str(certificate.chain))
        context.check_hostname = False
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        async with asyncio.timeout(DEADLINE_S):
            for leaf, body in (("1.m4s", LARGE), ("init.mp4", BODY), ("1.m4s", LARGE)) * 3:
                writer.write(get(f"{BASE}/{leaf}"))
                got = await answer(reader)
                assert told(got) == (200, HIT, True) and got[2] == body
        writer.close()
