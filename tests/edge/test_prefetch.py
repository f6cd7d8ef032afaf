"""Segments that will probably be asked for are in the tiers by then, and viewers never wait for that."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edge import library as libraries
from edge import media
from edge.ceilings import share
from edge.following import following, path_of, segment_target, ts_target
from edge.library import BucketLibrary
from edge.prefetch import Prefetch
from edge.prefetched import Prefetched, room
from streamgate.core.settings import MediaSettings, PrefetchSettings, S3Settings
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError
from streamgate.media.inputs import Limits
from streamgate.media.presentation import Presentation
from streamgate.storage.assets import Asset, AssetRef, open_asset
from streamgate.storage.objects.folder import FolderStore
from streamgate.storage.objects.store import ObjectInfo, Progress
from tests.edge.counting_store import CountingStore
from tests.edge.harness import Edge, Folder, running, settings
from tests.edge.nodes import node, until
from tests.media_factory import ladder

WAIT_S = 10.0


class Seconds(Folder):
    """Assets whose segments last a second."""

    def open(self, ref: AssetRef) -> Asset:
        return open_asset(ref, Limits(target=1.0))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film in three bitrates, with sound in two languages, of eight segments."""
    root = tmp_path_factory.mktemp("prefetch")
    rungs = ((64, 36, 40_000), (96, 54, 80_000), (128, 72, 160_000))
    ladder(root / "film", seconds=8, rungs=rungs, gop=25, subtitles=False)
    return root


@asynccontextmanager
async def fetching(root: Path, data: Path, **given: Any) -> AsyncIterator[tuple[Edge, Presentation]]:
    """An edge that fetches ahead, and what it shows."""
    chosen = settings({"data": str(data)}, disk_bytes=2**30, memory_object=0)
    chosen = chosen.model_copy(update={"prefetch": PrefetchSettings(**{"sources": "all", **given})})
    async with running(Seconds(root), chosen) as edge:
        yield edge, (await edge.node.assets.open("film")).asset.presentation


async def eventually(check: Callable[[], Any], what: str) -> Any:
    """What ``check`` gives as soon as that is true."""
    end = asyncio.get_running_loop().time() + WAIT_S
    while not (found := check()):
        assert asyncio.get_running_loop().time() < end, what
        await asyncio.sleep(0.01)
    return found


def count(edge: Edge, result: str) -> int:
    return int(edge.node.telemetry.value("prefetches", result=result))


def begun(edge: Edge) -> int:
    return int(edge.node.telemetry.value("fills", result="begun"))


def url(made: Presentation, rung: int, number: int) -> str:
    return path_of(segment_target("film", by_bitrate(made)[rung], number))


def by_bitrate(made: Presentation) -> list[Any]:
    return sorted(made.video, key=lambda each: each.bandwidth)


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], threading.Event]]:
    """Lets segments of that many bytes wait in their making until the event is set."""
    original = media.PlanCut.read
    held: list[tuple[int, threading.Event]] = []

    def hold(which: int) -> threading.Event:
        held.append((which, threading.Event()))
        return held[-1][1]

    def read(self: media.PlanCut, start: int, length: int) -> bytes:
        for size, event in held:
            if self.size == size:
                assert event.wait(WAIT_S)
        return original(self, start, length)

    monkeypatch.setattr(media.PlanCut, "read", read)
    yield hold
    for _, event in held:
        event.set()


async def test_what_follows_a_miss_is_there_when_it_is_asked_for(root: Path, tmp_path: Path) -> None:
    """The next segments of the same bitrate, the next one of its neighbours, and the sound; nothing beyond."""
    async with fetching(root, tmp_path) as (edge, made):
        assert (await edge.ask(url(made, 1, 0))).headers["Cache-Status"].endswith("stored")
        await eventually(lambda: count(edge, "fetched") == 5, "five segments")
        default = next(each for each in made.audio if each.default)
        there = [url(made, 1, 1), url(made, 1, 2), url(made, 0, 1), url(made, 2, 1)]
        there.append(path_of(segment_target("film", default, 1)))
        size = 0
        for path in there:
            answer = await edge.ask(path)
            assert answer.headers["Cache-Status"] == "streamgate;hit;detail=disk", path
            assert not edge.node.prefetched.has(path)
            size += len(answer.body)
        assert count(edge, "used") == 5
        assert edge.node.telemetry.value("prefetch_bytes", result="used") == size


async def test_a_viewer_who_plays_on_finds_everything_and_nothing_is_made_twice(root: Path, tmp_path: Path) -> None:
    """What the disk had keeps the chain going: only the first segment is a miss."""
    async with fetching(root, tmp_path, neighbours=0) as (edge, made):
        for number in range(8):
            answer = await edge.ask(url(made, 0, number))
            assert answer.headers["Cache-Status"] == (
                "streamgate;hit;detail=disk" if number else "streamgate;fwd=uri-miss;stored"
            )
            # As a player does that has some seconds of buffer.
            last = url(made, 0, min(number + 2, 7))
            await eventually(lambda: edge.node.prefetched.has(last) or last.endswith("/7.m4s"), "the next two")  # noqa: B023
            await eventually(lambda: not edge.node.tiers.filling, "their end")
        assert count(edge, "used") == 7
        await eventually(lambda: count(edge, "fetched") == 7 + 7, "the sound beside it")
        assert begun(edge) == 1 + 7 + 7


async def test_a_viewer_who_comes_meanwhile_follows(
    root: Path, tmp_path: Path, stuck: Callable[[int], threading.Event]
) -> None:
    async with fetching(root, tmp_path, neighbours=0, ahead=1) as (edge, made):
        release = stuck(by_bitrate(made)[0].segment(1).size)
        await edge.ask(url(made, 0, 0))
        await eventually(lambda: edge.node.prefetched.has(url(made, 0, 1)), "the flight")
        viewer = asyncio.create_task(edge.ask(url(made, 0, 1)))
        await eventually(lambda: edge.node.telemetry.value("requests_in_flight") == 1, "the viewer")
        release.set()
        answer = await viewer
        assert answer.status == 200 and answer.headers["Cache-Status"].endswith("collapsed")
        assert await edge.node.pool.run(media.PlanCut.read, _cut(edge, made, 0, 1), 0, len(answer.body)) == answer.body
        await eventually(lambda: count(edge, "fetched") >= 2, "the segment and the sound")
        assert count(edge, "used") == 1


def _cut(edge: Edge, made: Presentation, rung: int, number: int) -> media.PlanCut:
    opened = edge.node.assets.known("film")
    assert opened is not None
    entry = media.build(segment_target("film", by_bitrate(made)[rung], number), opened, edge.node.settings.edge)
    assert isinstance(entry.body, media.PlanCut)
    return entry.body


async def test_local_folders_are_left_to_the_kernel(root: Path, tmp_path: Path) -> None:
    async with fetching(root, tmp_path, **PrefetchSettings().model_dump()) as (edge, made):
        await edge.ask(url(made, 1, 0))
        await edge.ask(url(made, 1, 1))
        assert begun(edge) == 2
        assert not any(count(edge, result) for result in ("fetched", "dropped", "present"))


async def test_viewers_come_first(root: Path, tmp_path: Path, stuck: Callable[[int], threading.Event]) -> None:
    """While they leave one thread only, nothing is fetched ahead, and what waited for too long is not fetched at all."""
    async with fetching(root, tmp_path, ahead=1, neighbours=0, patience=0.3) as (edge, made):
        releases = [stuck(by_bitrate(made)[2].segment(n).size) for n in (1, 3, 5)]
        viewers = [asyncio.create_task(edge.ask(url(made, 2, n))) for n in (1, 3, 5)]
        await eventually(lambda: begun(edge) == 3, "three viewers")
        await edge.ask(url(made, 0, 0))
        await eventually(lambda: count(edge, "dropped") == 2, "the end of patience")
        assert (begun(edge), count(edge, "fetched")) == (4, 0)
        for release in releases:
            release.set()
        assert [answer.status for answer in await asyncio.gather(*viewers)] == [200] * 3
        await eventually(lambda: count(edge, "fetched") >= 2, "what follows those")


async def test_one_at_a_time(root: Path, tmp_path: Path, stuck: Callable[[int], threading.Event]) -> None:
    """Neither more jobs nor more bytes than the settings have are under way."""
    async with fetching(root, tmp_path, jobs=1) as (edge, made):
        release = stuck(by_bitrate(made)[1].segment(1).size)
        await edge.ask(url(made, 1, 0))
        await eventually(lambda: edge.node.prefetched.has(url(made, 1, 1)), "the first")
        assert edge.node.tiers.filling == 1 and count(edge, "fetched") == 0
        release.set()
        await eventually(lambda: count(edge, "fetched") == 5, "all of them")


async def test_a_node_that_drains_fetches_nothing_ahead(
    root: Path, tmp_path: Path, stuck: Callable[[int], threading.Event]
) -> None:
    async with fetching(root, tmp_path, jobs=1) as (edge, made):
        release = stuck(by_bitrate(made)[1].segment(1).size)
        await edge.ask(url(made, 1, 0))
        await eventually(lambda: edge.node.prefetched.has(url(made, 1, 1)), "the first")
        edge.node.health.state = "draining"
        release.set()
        await eventually(lambda: count(edge, "dropped") == 4, "the others")
        assert count(edge, "fetched") == 1
        await edge.ask(url(made, 0, 5))
        assert begun(edge) == 3


async def test_nothing_is_fetched_for_a_viewer_who_has_gone(
    root: Path, tmp_path: Path, stuck: Callable[[int], threading.Event]
) -> None:
    async with fetching(root, tmp_path) as (edge, made):
        release = stuck(by_bitrate(made)[1].segment(0).size)
        viewer = socket.create_connection(("127.0.0.1", edge.port))
        viewer.sendall(f"GET {url(made, 1, 0)} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        await eventually(lambda: begun(edge) == 1, "the viewer")
        # At once: a client that only says that it will send no more may still be there.
        viewer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        viewer.close()
        await eventually(lambda: not edge.node.telemetry.value("connections"), "the end of the connection")
        release.set()
        await eventually(lambda: not edge.node.telemetry.value("requests_in_flight"), "the end of the request")
        assert sum(edge.node.telemetry.value("requests_aborted", cause=cause) for cause in ("client", "stop")) == 1
        # What was begun for that viewer is kept; who asks for it now has it followed.
        await eventually(lambda: not edge.node.tiers.filling, "the flight")
        assert begun(edge) == 1
        assert (await edge.ask(url(made, 1, 0))).headers["Cache-Status"] == "streamgate;hit;detail=disk"
        await eventually(lambda: count(edge, "fetched") == 5, "what follows")


async def test_what_fails_ahead_fails_quietly(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with fetching(root, tmp_path, ahead=1, neighbours=0) as (edge, made):
        await edge.ask(url(made, 0, 0))
        await eventually(lambda: count(edge, "fetched") == 2, "two")

        def broken(self: media.PlanCut, start: int, length: int) -> bytes:
            raise StreamGateError("source_changed")

        await eventually(lambda: not edge.node.tiers.filling, "the end")
        monkeypatch.setattr(media.PlanCut, "read", broken)
        assert (await edge.ask(url(made, 0, 1))).status == 200
        await eventually(lambda: count(edge, "failed") == 2, "two failures")
        assert not edge.node.prefetched.has(url(made, 0, 2))


async def test_remote_sources_are_fetched_ahead_unasked(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the default settings: who plays on asks the store for nothing, and no byte of it is read twice."""
    store = CountingStore(FolderStore(root, S3Settings()))

    async def opened(*_: object) -> CountingStore:
        return store

    monkeypatch.setattr(libraries, "open_store", opened)
    chosen = settings({"data": str(tmp_path)}, disk_bytes=2**30, memory_object=0)
    chosen = chosen.model_copy(update={"media": MediaSettings(target=1.0)})
    library = BucketLibrary("bucket", chosen, Telemetry())
    await library.start()
    async with running(library, chosen, remote=True) as edge:
        asset = (await edge.node.assets.open("film")).asset
        assert asset.remote
        store.reads.clear()  # of the indexes
        rung = by_bitrate(asset.presentation)[0]
        file = asset.objects[rung.source].name.rpartition("/")[2]
        for number in range(rung.segments):
            asked = len(store.reads_of(file))
            answer = await edge.ask(path_of(segment_target("film", rung, number)))
            assert answer.status == 200
            if number:
                assert answer.headers["Cache-Status"] == "streamgate;hit;detail=disk"
                assert len(store.reads_of(file)) == asked
            ahead = [path_of(segment_target("film", rung, n)) for n in (number + 1, number + 2) if n < rung.segments]
            await eventually(lambda: all(map(edge.node.prefetched.has, ahead)), "the next two")  # noqa: B023
            await eventually(lambda: not edge.node.tiers.filling, "their end")
        assert count(edge, "used") == rung.segments - 1
        for each in asset.objects:
            assert not store.twice(each.name.rpartition("/")[2])
    await library.stop()


class HeldStore(CountingStore):
    """Reads after the first wait until they are ``free``; ``most`` of them waited at once, and ``began`` at these times."""

    def __init__(self, inner: FolderStore) -> None:
        super().__init__(inner)
        self.free = asyncio.Event()
        self.most = self._waiting = 0
        self.began: list[float] = []

    async def read_into(
        self, key: str, offset: int, buffer: memoryview, *, etag: str | None = None, progress: Progress | None = None
    ) -> ObjectInfo:
        self.began.append(asyncio.get_running_loop().time())
        if len(self.began) > 1:
            self._waiting += 1
            self.most = max(self.most, self._waiting)
            await self.free.wait()
            self._waiting -= 1
        return await super().read_into(key, offset, buffer, etag=etag, progress=progress)


@asynccontextmanager
async def fetching_afar(
    root: Path, data: Path, monkeypatch: pytest.MonkeyPatch, **given: Any
) -> AsyncIterator[tuple[Edge, HeldStore, list[str], list[int]]]:
    """An edge in front of a store: the paths of a rendition's segments, and their sizes. ``given`` may be less than settings allow."""
    store = HeldStore(FolderStore(root, S3Settings()))

    async def opened(*_: object) -> HeldStore:
        return store

    monkeypatch.setattr(libraries, "open_store", opened)
    chosen = settings({"data": str(data)}, disk_bytes=2**30, memory_object=0)
    prefetch = PrefetchSettings(neighbours=0, ahead=7, jobs=3, patience=60).model_copy(update=given)
    chosen = chosen.model_copy(update={"media": MediaSettings(target=1.0), "prefetch": prefetch})
    library = BucketLibrary("bucket", chosen, Telemetry())
    await library.start()
    async with running(library, chosen, remote=True) as edge:
        asset = (await edge.node.assets.open("film")).asset
        rung = by_bitrate(asset.presentation)[2]
        paths = [path_of(segment_target("film", rung, number)) for number in range(rung.segments)]
        store.reads.clear()
        store.began.clear()
        yield edge, store, paths, [rung.segment(number).size for number in range(rung.segments)]
        store.free.set()
    await library.stop()


@pytest.mark.parametrize(("limit", "at_once"), [(1, 1), (PrefetchSettings().bytes_in_flight, 3)])
async def test_bytes_in_flight_are_bounded(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, at_once: int
) -> None:
    """One segment may always be fetched; another beside it where both fit."""
    looks: list[int] = []
    may = Prefetch._may

    def looked(self: Prefetch, size: int, now: float) -> bool:
        looks.append(size)
        return may(self, size, now)

    monkeypatch.setattr(Prefetch, "_may", looked)
    async with fetching_afar(root, tmp_path, monkeypatch, bytes_in_flight=limit) as (edge, store, paths, _):
        assert (await edge.ask(paths[0])).status == 200
        await eventually(lambda: store.most == at_once, "as many as may be")
        if at_once == 1:
            looks.clear()
            await eventually(lambda: len(looks) >= 3, "what does not fit waits, however often it is looked")
            assert store.most == at_once
        store.free.set()
        await eventually(lambda: count(edge, "fetched") == 8, "all of them in the end")
        assert store.most == at_once


async def test_bytes_per_second_are_bounded(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On average, with what one second is worth at the beginning, and the segment that is begun when that is used up."""
    async with fetching_afar(root, tmp_path, monkeypatch, bytes_per_second=1) as (edge, store, paths, sizes):
        store.free.set()
        assert (await edge.ask(paths[0])).status == 200
        await eventually(lambda: count(edge, "fetched") == 1, "the first, on credit")
        read = len(store.began)
    rate = 3 * max(sizes)
    async with fetching_afar(root, tmp_path / "b", monkeypatch, bytes_per_second=rate) as (edge, store, paths, sizes):
        assert read == 2
        store.free.set()
        assert (await edge.ask(paths[0])).status == 200
        await eventually(lambda: count(edge, "fetched") == 8, "all of them")
        first, *ahead = store.began
        for number in range(len(ahead)):
            seconds = 1 + ahead[number] - first
            # A read holds a segment of both tracks; at least the video's share was paid for.
            assert sum(sizes[1 : number + 1]) <= rate * seconds + max(sizes)


async def test_what_a_player_may_ask_for_next(root: Path) -> None:
    async with running(Seconds(root)) as edge:
        made = (await edge.node.assets.open("film")).asset.presentation
    low, mid, high = by_bitrate(made)
    default, other = (next(each for each in made.audio if each.default is wanted) for wanted in (True, False))

    def names(asked: Any, ahead: int = 2, neighbours: int = 1) -> list[tuple[str, int]]:
        return [(t.rendition + t.audio, t.number) for t in following(made, asked, ahead, neighbours)]

    def names_of(*wanted: tuple[Any, int]) -> list[tuple[str, int]]:
        return [(each.name, n) for each, n in wanted]

    assert names(segment_target("film", mid, 3)) == names_of((mid, 4), (default, 4), (mid, 5), (low, 4), (high, 4))
    assert names(segment_target("film", low, 3), 1) == names_of((low, 4), (default, 4), (mid, 4))
    assert names(segment_target("film", low, 3), 1, 2) == names_of((low, 4), (default, 4), (mid, 4), (high, 4))
    assert names(segment_target("film", other, 0)) == names_of((other, 1), (other, 2))
    assert names(segment_target("film", mid, 6), 5, 0) == names_of((mid, 7), (default, 7))
    assert (high.name, 8) not in names(segment_target("film", high, 7))
    pair = ts_target("film", mid.name, default.name, 3)
    assert names(pair) == [(f"{rung.name}{default.name}", n) for rung, n in ((mid, 4), (mid, 5), (low, 4), (high, 4))]
    assert path_of(pair) == f"/v/film/{mid.name}+{default.name}/3.ts"


def test_all_workers_know_what_was_fetched_ahead() -> None:
    """By one piece of memory; who drives out another, or finds it old, counts it as wasted."""
    wasted: list[int] = []
    now = 1000.0
    memory = os.memfd_create("test")
    os.ftruncate(memory, 4096 + room(4))
    one, two = (Prefetched(4, memory, 4096, wasted=wasted.append, clock=lambda: now) for _ in range(2))
    one.add("/v/a/0", 1000)
    assert two.has("/v/a/0") and two.take("/v/a/0") and not one.take("/v/a/0")
    for n in range(40):
        two.add(f"/v/a/{n}", 2048)
    left = [n for n in range(40) if one.has(f"/v/a/{n}")]
    assert 0 < len(left) <= 4 and wasted == [2048] * (40 - len(left))
    now += 1000
    one.add("/v/b/0", 1)
    assert len(wasted) == 40
    os.close(memory)


def test_workers_share_the_budget() -> None:
    given = settings().model_copy(update={"prefetch": PrefetchSettings(jobs=4, bytes_per_second=2**20)})
    part = share(given, 3).prefetch
    assert (part.jobs, part.bytes_per_second) == (1, 2**20 // 3)


def test_a_node_counts_what_another_of_its_workers_used(root: Path, tmp_path: Path) -> None:
    chosen = {"prefetch": {"sources": "all"}, "media": {"target": 1.0}, "edge": {"memory_object": 0}}
    with node(root, tmp_path, **chosen) as running_node, running_node.each_worker() as workers:
        listed = running_node.get("/v/film/main.m3u8")[2].decode().splitlines()
        folder = next(line for line in listed if line.endswith("/index.m3u8")).partition("/")[0]
        for number in range(6):
            # Now here, now there.
            workers[number % 2].request("GET", f"/v/film/{folder}/{number}.m4s")
            assert workers[number % 2].getresponse().read()
            until(lambda: running_node.total("prefetches_total", "fetched") >= number, f"after {number}")  # noqa: B023
        until(lambda: running_node.total("prefetches_total", "used") >= 3, "use")
        fetched, used = (running_node.total("prefetches_total", f'"{result}"') for result in ("fetched", "used"))
        assert 0 < used <= fetched
        assert running_node.stop() == 0
