"""Several nodes and one Redis: what one makes the others read, each thing is made once, and nobody depends on Redis."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from edge import media
from edge.entries import Entry
from edge.routes import match
from edge.tiers.indexes import DiskIndexes, SharedIndexes
from edge.tiers.redis import lease_of
from edge.tiers.sharing import Sharing
from edge.tiers.tier import Terms
from streamgate.core.settings import RedisSettings
from streamgate.errors import StreamGateError
from tests.edge.harness import Answer, Edge, Folder, running, settings
from tests.edge.nodes import RunningNode, until
from tests.services.redis import PATIENT, RedisServer, fresh_prefix

REDIS, STORED, COLLAPSED = (
    "streamgate;hit;detail=redis",
    "streamgate;fwd=uri-miss;stored",
    "streamgate;fwd=uri-miss;stored;collapsed",
)
DEADLINE_S = 20.0
LONG = 30.0
"""s; a lease that no test outlasts."""


@contextlib.asynccontextmanager
async def node(root: Path, shared: RedisSettings, **edge: Any) -> AsyncIterator[Edge]:
    """A node of a site."""
    data = {"data": str(edge.pop("data"))} if "data" in edge else None
    async with running(Folder(root), settings(data, **edge)) as started:
        await started.node.tiers.share(shared)
        yield started


@contextlib.asynccontextmanager
async def site(root: Path, shared: RedisSettings, nodes: int = 2, **edge: Any) -> AsyncIterator[list[Edge]]:
    """Nodes over the same assets and the same Redis."""
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(node(root, shared, **edge)) for _ in range(nodes)]


def sharing(edge: Edge) -> Sharing:
    found = edge.node.tiers.sharing
    assert found is not None
    return found


async def rendition(edge: Edge, asset: str = "film") -> str:
    name = (await edge.node.assets.open(asset)).asset.presentation.video[0].name
    return f"/v/{asset}/{name}"


async def written(edge: Edge, count: int) -> None:
    """Wait until so many values have been written by the node."""
    async with asyncio.timeout(DEADLINE_S):
        while edge.node.telemetry.value("redis_writes", result="stored") < count:
            await asyncio.sleep(0.005)


def told(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.headers["Cache-Status"]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The leaves of what was built, and where it is a body, read."""
    seen: list[str] = []
    build, read = media.build, media.PlanCut.read

    def building(target: Any, *rest: Any) -> Entry:
        entry = build(target, *rest)
        if isinstance(entry.body, bytes):
            seen.append(target.leaf)
        return entry

    def reading(cut: media.PlanCut, start: int, length: int) -> bytes:
        seen.append(f"cut {start}")
        return read(cut, start, length)

    monkeypatch.setattr(media, "build", building)
    monkeypatch.setattr(media.PlanCut, "read", reading)
    return seen


@pytest.mark.parametrize("leaf", ["main.m3u8", "main.mpd", "index.m3u8", "init.mp4", "0.m4s"])
@pytest.mark.parametrize("disk", [0, 2**30])
async def test_what_one_node_has_made_another_reads(
    folder: Path, tmp_path: Path, redis_server: RedisServer, made: list[str], leaf: str, disk: int
) -> None:
    given = redis_server.settings(**PATIENT)
    async with (
        node(folder, given, disk_bytes=disk, data=tmp_path / "a") as first,
        node(folder, given, disk_bytes=disk, data=tmp_path / "b") as second,
    ):
        base = await rendition(first) if leaf[:4] != "main" else "/v/film"
        answer = await first.ask(f"{base}/{leaf}")
        assert told(answer) == (200, STORED)
        await written(first, 1)
        if leaf != "main.m3u8":  # with the asset closed or open
            await second.node.assets.open("film")
        made.clear()
        again = await second.ask(f"{base}/{leaf}")
        assert told(again) == (200, REDIS) and again.body == answer.body and made == []
        for name in ("ETag", "Content-Type", "Cache-Control", "Vary", "Accept-Ranges"):
            assert again.headers.get(name) == answer.headers.get(name), name
        # A faster tier has taken it.
        assert told(await second.ask(f"{base}/{leaf}")) == (200, "streamgate;hit;detail=memory")
        assert second.node.telemetry.value("tier_hits", tier="redis") == 1


async def test_a_hit_on_a_segment_is_kept_on_the_disk(folder: Path, tmp_path: Path, redis_server: RedisServer) -> None:
    given = redis_server.settings(**PATIENT)
    async with node(folder, given) as first:
        path = f"{await rendition(first)}/0.m4s"
        body = (await first.ask(path)).body
        await written(first, 1)
        async with node(folder, given, disk_bytes=2**30, data=tmp_path) as second:
            assert told(await second.ask(path)) == (200, REDIS)
            async with asyncio.timeout(DEADLINE_S):
                while (kept := await second.node.pool.run(second.node.tiers.disk.get, path)) is None:
                    await asyncio.sleep(0.005)
            assert kept == body


async def test_a_crowd_on_two_nodes_has_each_thing_made_once(
    folder: Path, redis_server: RedisServer, made: list[str]
) -> None:
    async with site(folder, redis_server.settings(lease=LONG, **PATIENT)) as nodes:
        base = await rendition(nodes[0])
        await nodes[1].node.assets.open("film")
        made.clear()
        for path in ("/v/film/main.m3u8", f"{base}/index.m3u8", f"{base}/1.m4s", f"{base}/init.mp4"):
            answers = await asyncio.gather(*(nodes[n % 2].ask(path) for n in range(40)))
            assert {answer.status for answer in answers} == {200} and len({answer.body for answer in answers}) == 1
        # An init segment is ready before a second request of its node could wait for it.
        assert sorted(leaf for leaf in made if leaf != "init.mp4") == ["cut 0", "index.m3u8", "main.m3u8"]
        flights = [n.node.telemetry.value("shared_flights", result="led") for n in nodes]
        assert sum(flights) == 4


async def test_a_large_segment_is_each_node_s_own(folder: Path, redis_server: RedisServer, made: list[str]) -> None:
    async with site(folder, redis_server.settings(object_limit=1000, **PATIENT)) as nodes:
        path = f"{await rendition(nodes[0])}/0.m4s"
        await nodes[1].node.assets.open("film")
        for each in nodes:
            assert (await each.ask(path)).status == 200
            for name in ("led", "followed", "alone"):
                assert each.node.telemetry.value("shared_flights", result=name) == 0
        assert made == ["cut 0", "cut 0"]


async def test_what_nobody_has_asked_for_is_looked_for_first(
    folder: Path, redis_server: RedisServer, made: list[str]
) -> None:
    given = redis_server.settings(lease=0.05, **PATIENT)
    async with asyncio.timeout(DEADLINE_S), site(folder, given) as nodes:
        path = f"{await rendition(nodes[0])}/0.m4s"
        body = (await nodes[0].ask(path)).body
        await written(nodes[0], 1)
        tiers, opened = nodes[1].node.tiers, await nodes[1].node.assets.open("film")
        while await asyncio.to_thread(redis_server.client.keys, f"{given.prefix}*lease:*"):
            await asyncio.sleep(0.01)  # it ends by itself
        made.clear()
        entry = media.build(match(path), opened, nodes[1].node.settings.edge)
        found, stored, collapsed = await tiers.fill(path, entry, Terms("public", "segment"))
        assert found.body == body and stored and collapsed and made == []


class Maker:
    """Somebody else's node, which has begun to make something and does not end."""

    def __init__(self, edge: Edge) -> None:
        self.sharing = sharing(edge)

    async def begin(self, name: str, lease: float) -> None:
        assert await self.sharing.tier.writes.put_new(lease_of(name), b"somebody", lease)


async def test_a_maker_that_dies_is_waited_for_as_long_as_its_lease_lasts(
    folder: Path, redis_server: RedisServer
) -> None:
    lease = 0.4
    async with node(folder, redis_server.settings(lease=lease, **PATIENT)) as edge:
        base = await rendition(edge)
        for leaf in ("index.m3u8", "0.m4s"):
            began = time.monotonic()
            await Maker(edge).begin(f"{base}/{leaf}", lease)
            answers = await asyncio.gather(*(edge.ask(f"{base}/{leaf}") for _ in range(5)))
            assert {answer.status for answer in answers} == {200}
            assert lease * 0.8 < time.monotonic() - began < DEADLINE_S


async def test_nobody_waits_longer_than_a_lease_of_ours(folder: Path, redis_server: RedisServer) -> None:
    async with node(folder, redis_server.settings(lease=0.2, **PATIENT)) as edge:
        path = f"{await rendition(edge)}/init.mp4"
        await Maker(edge).begin(path, LONG)
        began = time.monotonic()
        assert told(await edge.ask(path)) == (200, STORED)
        assert 0.15 < time.monotonic() - began < LONG / 2
        assert edge.node.telemetry.value("shared_flights", result="alone") == 1


async def test_who_fails_gives_the_lease_back(
    folder: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site(folder, redis_server.settings(lease=LONG, **PATIENT), failure_ttl=0) as nodes:
        base = await rendition(nodes[0])
        await nodes[1].node.assets.open("film")

        def broken(*_: object) -> bytes:
            raise StreamGateError("source_changed")

        with monkeypatch.context() as patched:
            patched.setattr(media.PlanCut, "read", broken)
            assert (await nodes[0].ask(f"{base}/0.m4s")).code == "source_changed"
            patched.setattr("streamgate.media.hls.media_playlist", broken)
            assert (await nodes[0].ask(f"{base}/index.m3u8")).code == "source_changed"
        for leaf in ("0.m4s", "index.m3u8"):
            async with asyncio.timeout(LONG / 2):
                assert told(await nodes[1].ask(f"{base}/{leaf}")) == (200, STORED)


async def test_who_cannot_write_it_gives_the_lease_back(folder: Path, redis_server: RedisServer) -> None:
    async with site(folder, redis_server.settings(lease=LONG, **PATIENT)) as nodes:
        path = f"{await rendition(nodes[0])}/init.mp4"
        sharing(nodes[0]).tier.write = lambda *_: False  # type: ignore[method-assign]
        assert told(await nodes[0].ask(path)) == (200, STORED)
        async with asyncio.timeout(LONG / 2):
            assert told(await nodes[1].ask(path)) == (200, STORED)


async def test_what_does_not_exist_is_no_matter_of_other_nodes(folder: Path, redis_server: RedisServer) -> None:
    given = redis_server.settings(lease=LONG, **PATIENT)
    async with site(folder, given) as nodes:
        for each in nodes:
            assert (await each.ask("/v/film/v540-0123456789abcdef/init.mp4")).code == "rendition_gone"
            assert (await each.ask("/v/film/v540-0123456789abcdef/0.m4s")).code == "rendition_gone"
            assert (await each.ask("/v/nobody/main.m3u8")).status == 401
    names = await asyncio.to_thread(redis_server.client.keys, f"{given.prefix}*")
    assert names == []


# --- manifests


async def test_a_manifest_of_another_state_of_the_asset_is_not_served(
    folder: Path, tmp_path: Path, redis_server: RedisServer
) -> None:
    root = tmp_path / "assets"
    shutil.copytree(folder / "ladder", root / "ladder")
    async with site(root, redis_server.settings(**PATIENT), revalidate=0) as nodes:
        old = await nodes[0].ask("/v/ladder/main.m3u8")
        await written(nodes[0], 1)
        assert told(await nodes[1].ask("/v/ladder/main.m3u8")) == (200, REDIS)
        # Only what is said of a rendition changes: not one name does.
        description = root / "ladder" / "asset.toml"
        before = list((await nodes[0].node.assets.open("ladder")).asset.presentation.renditions)
        changed = description.read_text().replace('language = "', 'label = "Renamed"\nlanguage = "', 1)
        assert changed != description.read_text()
        description.write_text(changed)
        new = await nodes[1].ask("/v/ladder/main.m3u8")
        assert told(new) == (200, STORED) and new.body != old.body and b"Renamed" in new.body
        await written(nodes[1], 1)
        assert list((await nodes[1].node.assets.open("ladder")).asset.presentation.renditions) == before
        again = await nodes[0].ask("/v/ladder/main.m3u8")
        assert told(again) == (200, REDIS) and again.body == new.body
        # Back as it was, it is what it was.
        description.write_text(changed.replace('label = "Renamed"\n', ""))
        assert (await nodes[1].ask("/v/ladder/main.m3u8")).body == old.body


async def test_a_manifest_of_other_settings_is_not_served(folder: Path, redis_server: RedisServer) -> None:
    given = redis_server.settings(**PATIENT)
    async with node(folder, given, manifest_max_age=2) as first, node(folder, given, manifest_max_age=7) as second:
        assert "max-age=2" in (await first.ask("/v/film/main.mpd")).headers["Cache-Control"]
        await written(first, 1)
        answer = await second.ask("/v/film/main.mpd")
        assert told(answer) == (200, STORED) and "max-age=7" in answer.headers["Cache-Control"]


# --- indexes


class Nothing:
    """A disk tier that keeps nothing."""

    def get(self, key: str) -> bytes | None:
        return None

    def keep(self, key: str, data: bytes) -> bool:
        return False


async def test_an_index_is_read_once_and_kept_by_who_finds_it(
    folder: Path, tmp_path: Path, redis_server: RedisServer
) -> None:
    given = redis_server.settings(lease=LONG, **PATIENT)
    async with (
        node(folder, given) as first,
        node(folder, given, disk_bytes=2**30, data=tmp_path) as second,
    ):
        theirs = SharedIndexes(Nothing(), sharing(first), given)
        disk = DiskIndexes(second.node.tiers.disk)
        ours = SharedIndexes(disk, sharing(second), given)
        index = bytes(range(256)) * 2000
        assert await asyncio.to_thread(theirs.get, "/index/1/abc") is None
        waiting = asyncio.create_task(asyncio.to_thread(ours.get, "/index/1/abc"))
        # It is being read, and no second time.
        async with asyncio.timeout(DEADLINE_S):
            while "/index/1/abc" not in sharing(second)._flights._turns:
                await asyncio.sleep(0.005)
        assert not await asyncio.to_thread(theirs.keep, "/index/1/abc", index)
        async with asyncio.timeout(LONG / 2):
            assert await waiting == index
        assert await asyncio.to_thread(disk.get, "/index/1/abc") == index


async def test_an_index_is_not_waited_for_where_there_is_no_redis(folder: Path, own_redis: RedisServer) -> None:
    given = own_redis.settings(lease=LONG)
    own_redis.kill()
    async with node(folder, given) as edge:
        indexes = SharedIndexes(Nothing(), sharing(edge), given)
        async with asyncio.timeout(LONG / 2):
            assert await asyncio.to_thread(indexes.get, "/index/1/abc") is None
            assert not await asyncio.to_thread(indexes.keep, "/index/1/abc", b"index")


# --- without Redis


def paths(base: str) -> Sequence[str]:
    return ("/v/film/main.m3u8", "/v/film/main.mpd", f"{base}/index.m3u8", f"{base}/init.mp4", f"{base}/0.m4s")


def broken(server: RedisServer, how: str) -> contextlib.AbstractContextManager[None]:
    """What is to be entered while Redis is in that state."""
    if how == "dead":
        server.kill()
    elif how == "flushed":
        server.flush()
    states = {"stalled": server.stalled, "full": server.full}
    return states[how]() if how in states else contextlib.nullcontext()


@pytest.mark.parametrize("how", ["dead", "stalled", "full", "flushed"])
async def test_no_viewer_notices_what_happens_to_redis(folder: Path, own_redis: RedisServer, how: str) -> None:
    given = own_redis.settings(lease=LONG, timeout=0.3, connect_timeout=0.3, circuit_probe=LONG, circuit_probe_max=LONG)
    async with node(folder, given) as edge:
        base = await rendition(edge)
        assert told(await edge.ask("/v/film/main-ts.m3u8")) == (200, STORED)
        with await asyncio.to_thread(broken, own_redis, how):
            began = time.monotonic()
            for path in paths(base):
                answer = await edge.ask(path)
                assert told(answer) == (200, STORED), path
            # A stall costs one timeout, not one a request; nobody waits for a lease of nobody.
            assert time.monotonic() - began < LONG / 2
        assert edge.node.telemetry.value("errors", code="store_unavailable") == 0


async def test_two_sites_share_nothing(folder: Path, redis_server: RedisServer) -> None:
    async with (
        node(folder, redis_server.settings(fresh_prefix(), **PATIENT)) as first,
        node(folder, redis_server.settings(fresh_prefix(), **PATIENT)) as second,
    ):
        for each in (first, second):
            assert told(await each.ask("/v/film/main.m3u8")) == (200, STORED)
            await written(each, 1)


# --- whole nodes


def fetch(running: RunningNode, path: str) -> tuple[int, str, bytes]:
    """Status, Cache-Status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=DEADLINE_S)
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Cache-Status", ""), answer.read()


@pytest.mark.slow
def test_two_nodes_as_they_run(folder: Path, tmp_path: Path, own_redis: RedisServer) -> None:
    shared: dict[str, Any] = {"url": own_redis.url, "prefix": fresh_prefix(), "timeout": 2.0, "circuit_probe": 0.05}
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(2) as threads:

        def start(name: str) -> RunningNode:
            return RunningNode(folder, tmp_path / name, redis=shared, server={"workers": 1, "hang_timeout": 0})

        first, second = threads.map(start, ("a", "b"))
        for each in (first, second):
            stack.callback(stopped, each)
        stack.callback(own_redis.client.close)
        status, told_first, playlist = fetch(first, "/v/film/main.m3u8")
        assert (status, told_first) == (200, STORED)
        # The playlist, and the index of the file.
        until(lambda: len(own_redis.client.keys(f"{shared['prefix']}*tier:*")) == 2)
        assert fetch(second, "/v/film/main.m3u8") == (200, REDIS, playlist)
        name = next(line for line in playlist.decode().splitlines() if line.startswith("v")).partition("/")[0]
        for count, leaf in enumerate(("index.m3u8", "init.mp4", "0.m4s"), 3):
            body = fetch(first, f"/v/film/{name}/{leaf}")[2]
            until(partial(has_written, first, count))
            assert fetch(second, f"/v/film/{name}/{leaf}") == (200, REDIS, body)
        assert fetch_metric(second, "stored") == 0
        own_redis.kill()
        for each in (first, second):
            assert fetch(each, "/v/film/main.mpd")[:2] == (200, STORED)
            status, _, ready = fetch(each, "/health/ready")
            assert status == 200 and b"Redis" in ready
        own_redis.start()
        for each in (first, second):
            until(partial(recovered, each))


def has_written(running: RunningNode, count: int) -> bool:
    """Whether so many values have got to Redis."""
    return fetch_metric(running, "stored") >= count


def recovered(running: RunningNode) -> bool:
    """Ask for something that no tier has; whether all is well by then."""
    fetch(running, f"/v/film/v540-{secrets.token_hex(8)}/init.mp4")
    return b"Redis" not in fetch(running, "/health/ready")[2]


def fetch_metric(running: RunningNode, result: str) -> float:
    """Writes to Redis that ended so."""
    for line in fetch(running, "/metrics")[2].decode().splitlines():
        if line.startswith("streamgate_redis_writes_total") and f'result="{result}"' in line:
            return float(line.split()[-1])
    return 0.0


def stopped(running: RunningNode) -> None:
    if running.process.poll() is None:
        running.process.kill()
        running.end()
