"""Segments cut by the hot path where no tier keeps them: the answers of the other way, and only from what is in memory."""

from __future__ import annotations

import asyncio
import http.client
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.cutting import Cutter
from streamgate.native.hotpath import COUNTERS
from streamgate.native.mapped import Cut
from streamgate.storage.assets import discover, open_asset
from tests.edge.harness import Edge, Folder, running, settings
from tests.edge.nodes import RunningNode
from tests.page_cache import evict

PASSING = ("Date", "Server-Timing")


@pytest.fixture
def film(folder: Path, tmp_path: Path) -> Path:
    """A folder with one film, whose file may be harmed."""
    made = tmp_path / "films"
    made.mkdir()
    shutil.copy(folder / "film.mp4", made)
    return made


def segments(place: Path) -> dict[str, bytes]:
    """Path and body of each segment."""
    found = {}
    for ref in discover(place):
        asset = open_asset(ref)
        for rendition in (*asset.presentation.video, *asset.presentation.audio):
            fd = asset.sources[rendition.source].fd
            for n in range(rendition.segments):
                found[f"/v/{ref.id}/{rendition.name}/{n}.m4s"] = rendition.segment(n).from_fd(fd)
    return found


def natively(edge: Edge) -> tuple[int, int]:
    """Answers by the hot path, and of them those that no tier had."""
    row = edge.node.telemetry.block(COUNTERS)
    return row[COUNTERS.index("native_answers")], row[COUNTERS.index("cache_lookups/miss")]


async def test_both_ways_answer_alike(folder: Path) -> None:
    wanted = await asyncio.to_thread(segments, folder)
    async with running(Folder(folder), settings(cache_bytes=0)) as edge:
        for path, body in wanted.items():
            slow = await edge.ask(path) if path.endswith("/0.m4s") else None  # which opens the asset, too
            before = natively(edge)
            fast = await edge.ask(path)
            assert natively(edge) == (before[0] + 1, before[1] + 1)
            assert (fast.status, fast.body) == (200, body)
            if slow is not None:
                assert slow.body == body
                assert {k: v for k, v in slow.headers.items() if k not in PASSING} == {
                    k: v for k, v in fast.headers.items() if k not in PASSING
                }
                assert fast.headers["Cache-Status"] == "streamgate;fwd=uri-miss"
        assert edge.node.budget.held == 0


async def test_what_asks_for_more_goes_the_other_way(folder: Path) -> None:
    (path, body), *_ = (await asyncio.to_thread(segments, folder)).items()
    async with running(Folder(folder), settings(cache_bytes=0)) as edge:
        await edge.ask(path)
        etag = (await edge.ask(path)).headers["ETag"]
        before = natively(edge)
        assert (await edge.ask(path, method="HEAD")).headers["Content-Length"] == str(len(body))
        assert (await edge.ask(path, headers={"Range": "bytes=5-9"})).body == body[5:10]
        assert (await edge.ask(path, headers={"If-None-Match": etag})).status == 304
        for missing in ("/v/film/v90-0123456789abcdef/0.m4s", f"{path.rpartition('/')[0]}/99.m4s", "/v/none/a.m4s"):
            assert (await edge.ask(missing)).status in (401, 404, 410)
        assert natively(edge) == before


async def test_who_may_not_see_it_gets_nothing(folder: Path) -> None:
    path = next(iter(await asyncio.to_thread(segments, folder)))
    async with running(Folder(folder), settings(cache_bytes=0, require_token=True)) as edge:
        assert (await edge.ask(path)).status == 401
        assert natively(edge) == (0, 0)


async def test_what_is_not_at_hand_is_left_to_others(film: Path) -> None:
    (path, body), *_ = (await asyncio.to_thread(segments, film)).items()
    async with running(Folder(film), settings(cache_bytes=0)) as edge:
        await edge.ask(path)
        cut = Cutter(edge.node)
        found = cut(path.encode(), True)
        assert found is not None and isinstance(found.cut, Cut) and found.gated and found.size == len(body)
        assert edge.node.budget.held == len(body)
        del found
        assert edge.node.budget.held == 0
        with edge.node.budget.hold(edge.node.settings.edge.buffered_bytes // 2):
            assert cut(path.encode(), False) is None
        await asyncio.to_thread(evict, film / "film.mp4")
        assert cut(path.encode(), False) is None
        answer = await edge.ask(path)
        assert (answer.status, answer.body) == (200, body)
        assert cut(path.encode(), False) is not None  # it was read
        os.utime(film / "film.mp4")
        assert cut(path.encode(), False) is None  # it may be another


async def test_where_the_kernel_does_not_tell_it_is_copied(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path, body), *_ = (await asyncio.to_thread(segments, folder)).items()
    # As for the file of another user (mincore(2)).
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr(os, "access", lambda *_: False)
    async with running(Folder(folder), settings(cache_bytes=0)) as edge:
        await edge.ask(path)
        found = Cutter(edge.node)(path.encode(), False)
        assert found is not None and found.cut is None and found.body == body
        assert (await edge.ask(path)).body == body
        assert natively(edge) == (1, 1)


@pytest.fixture
def node(folder: Path, tmp_path: Path) -> Iterator[RunningNode]:
    started = RunningNode(folder, tmp_path / "node", edge={"cache_bytes": 0, "disk_bytes": 0})
    try:
        yield started
    finally:
        started.stop()


def test_in_two_workers(node: RunningNode, folder: Path) -> None:
    wanted = segments(folder)
    connections = [http.client.HTTPConnection("127.0.0.1", node.port, timeout=10) for _ in range(8)]
    for _ in range(2):
        for connection in connections:
            for path, body in wanted.items():
                connection.request("GET", path)
                answer = connection.getresponse()
                assert (answer.status, answer.read()) == (200, body)
    for connection in connections:
        connection.close()
    asked = 2 * len(connections) * len(wanted)
    counted = node.counters()
    assert counted["streamgate_native_answers_total"] >= 0.9 * asked  # the first of a worker opens the asset
