"""Applying purges to what one process holds: memory, flights, open assets; and making anew what was purged softly."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from edge.clearing import Clearing
from edge.purges import asked
from streamgate.errors import StreamGateError
from streamgate.storage.assets import Asset, AssetRef
from streamgate.storage.kv.events import Event
from tests.edge.harness import Edge, Folder, running, settings


@pytest.fixture
async def cleared(folder: Path, tmp_path: Path) -> AsyncIterator[tuple[Edge, Clearing]]:
    """An edge without a disk, and what applies purges to it."""
    async with running(Folder(folder)) as edge:
        clearing = Clearing(edge.node)
        clearing.start()
        yield edge, clearing
        await clearing.close()


async def purge(clearing: Clearing, number: int, **what: Any) -> None:
    event = Event(number, "purge", asked(json.dumps(what), time.time()).encode(), None)
    await clearing.clear(clearing.mark([event]))


async def below(edge: Edge, asset: str, ending: str = "index.m3u8") -> str:
    """A path below a rendition of the asset."""
    told = (await edge.ask(f"/v/{asset}/main.m3u8")).body.decode()
    name = next(line for line in told.splitlines() if line.endswith("index.m3u8") and line[0] == "v")
    return f"/v/{asset}/{name.removesuffix('index.m3u8')}{ending}"


def tier(answer: Any) -> str:
    told: str = answer.headers["Cache-Status"]
    return told.rpartition("detail=")[2] if ";hit" in told else "miss"


async def test_hard_is_gone_at_once_in_every_coding(cleared: tuple[Edge, Clearing]) -> None:
    edge, clearing = cleared
    path = await below(edge, "ladder")
    for coding in ("identity", "br", "gzip"):
        await edge.ask(path, {"Accept-Encoding": coding})
        assert tier(await edge.ask(path, {"Accept-Encoding": coding})) == "memory"
    await purge(clearing, 1, url=path)
    assert edge.node.tiers.memory.index.keys(path.encode()) == []
    assert tier(await edge.ask(path, {"Accept-Encoding": "br"})) == "miss"
    assert tier(await edge.ask(path, {"Accept-Encoding": "br"})) == "memory"


async def test_many_at_once_are_one_look_at_everything(cleared: tuple[Edge, Clearing]) -> None:
    """A node that was away hears of all that was purged meanwhile."""
    edge, clearing = cleared
    paths = [await below(edge, asset) for asset in ("film", "ladder")]
    softly = "/v/ladder/main.mpd"
    for path in (*paths, softly):
        for coding in ("identity", "br"):
            await edge.ask(path, {"Accept-Encoding": coding})
    wanted: list[dict[str, Any]] = [{"asset": f"a{number}"} for number in range(30)]
    wanted += [{"asset": "film"}, {"url": softly, "soft": True}, {"tag": "rendition:v540-0123456789abcdef"}]
    events = [
        Event(number, "purge", asked(json.dumps(what), time.time()).encode(), None)
        for number, what in enumerate(wanted, 1)
    ]
    await clearing.clear(clearing.mark(events))
    memory = edge.node.tiers.memory
    assert memory.index.keys(b"/v/film/") == [] and edge.node.assets.known("film") is None
    kept, stale = memory.get(paths[1]), memory.get(softly)
    assert kept is not None and not kept.stale and stale is not None and stale.stale
    # What is made from now on is none of it.
    assert [tier(await edge.ask(path)) for path in paths * 2] == ["miss", "memory", "memory", "memory"]
    await clearing.clear(clearing.mark(events))
    assert tier(await edge.ask(paths[0])) == "memory"


async def test_an_asset_is_opened_anew(cleared: tuple[Edge, Clearing]) -> None:
    edge, clearing = cleared
    assert (await edge.ask("/v/film/main.m3u8")).status == 200
    before = edge.node.assets.current("film")
    await purge(clearing, 1, asset="film")
    assert edge.node.assets.known("film") is None
    assert (await edge.ask("/v/film/main.m3u8")).status == 200
    after = edge.node.assets.current("film")
    assert before is not None and after is not None and after.generation > before.generation


async def test_soft_serves_the_old_one_while_it_is_made_anew(cleared: tuple[Edge, Clearing]) -> None:
    edge, clearing = cleared
    path = await below(edge, "ladder")
    await edge.ask(path)
    assert tier(await edge.ask(path)) == "memory"
    await purge(clearing, 1, asset="ladder", soft=True)
    found = edge.node.tiers.memory.get(path)
    assert found is not None and found.stale
    assert tier(await edge.ask(path)) == "memory"

    async def renewed() -> None:
        while (now := edge.node.tiers.memory.get(path)) is None or now.stale:
            await asyncio.sleep(0.01)

    await asyncio.wait_for(renewed(), 10)
    answered = edge.node.telemetry.value("refreshes", result="ok")
    for _ in range(3):
        assert tier(await edge.ask(path)) == "memory"
    assert answered == edge.node.telemetry.value("refreshes", result="ok") == 1


class Broken(Folder):
    """One whose assets cannot be opened any more, from some moment on."""

    broken = False

    def open(self, ref: AssetRef) -> Asset:
        if self.broken:
            raise StreamGateError("source_unreadable")
        return super().open(ref)


async def test_what_cannot_be_made_anew_stays(folder: Path) -> None:
    library = Broken(folder)
    async with running(library, settings(failure_ttl=0.0)) as edge:
        clearing = Clearing(edge.node)
        path = await below(edge, "film")
        body = (await edge.ask(path)).body
        await purge(clearing, 1, tag="kind:media_playlist", soft=True)
        library.broken = True
        edge.node.assets.forget("film")
        for _ in range(3):
            answer = await edge.ask(path)
            assert (answer.status, answer.body) == (200, body)

        async def tried() -> None:
            while not edge.node.telemetry.value("refreshes", result="failed"):
                await edge.ask(path)

        await asyncio.wait_for(tried(), 10)
        assert (await edge.ask(path)).body == body
        await purge(clearing, 2, asset="film")
        assert (await edge.ask(path)).code == "source_unreadable"
        await clearing.close()


async def test_bytes_of_a_source_are_forgotten_with_the_mark(
    cleared: tuple[Edge, Clearing], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is made from then on counts as made after the purge."""
    edge, clearing = cleared
    origin = mock.Mock()
    monkeypatch.setattr(edge.node.assets, "origin", origin)

    def event(number: int, **what: Any) -> Event:
        return Event(number, "purge", asked(json.dumps(what), time.time()).encode(), None)

    clearing.mark([event(1, asset="film", soft=True)])
    origin.forget.assert_not_called()
    clearing.mark([event(2, asset="film", soft=True), event(3, asset="film")])
    origin.forget.assert_called_once_with()


async def test_a_failure_is_forgotten_as_well(cleared: tuple[Edge, Clearing]) -> None:
    edge, clearing = cleared
    path = await below(edge, "film", "999.m4s")
    assert (await edge.ask(path)).code == "segment_not_found"
    with pytest.raises(StreamGateError):
        edge.node.tiers.negatives.check(path)
    await purge(clearing, 1, url=path)
    edge.node.tiers.negatives.check(path)


async def test_whoever_comes_after_joins_no_flight_of_before(cleared: tuple[Edge, Clearing]) -> None:
    edge, clearing = cleared
    first, go = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def work(result: str, wait: bool) -> str:
        if wait:
            loop.call_soon_threadsafe(first.set)
            asyncio.run_coroutine_threadsafe(go.wait(), loop).result(10)
        return result

    old = asyncio.ensure_future(edge.node.flights.join("key", work, "old", True))
    await first.wait()
    await purge(clearing, 1, asset="film")
    assert await edge.node.flights.join("key", work, "new", False) == "new"
    go.set()
    assert await old == "old"
