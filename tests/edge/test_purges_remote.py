"""Purges of what comes from a store: what they cost there, and what is left while it is away."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edge.clearing import Clearing
from streamgate.errors import StreamGateError
from tests.edge.test_clearing import purge
from tests.edge.test_remote import Remote, Start, start
from tests.media_factory import Audio, Video, ladder, make

__all__ = ["start"]

DISK = 2**28
AWAY = StreamGateError("origin_unavailable", "away")


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film and a ladder."""
    root = tmp_path_factory.mktemp("bucket")
    make(root / "first.mp4", Video(size=(160, 90), gop=25), Audio(), seconds=9)
    ladder(root / "ladder", seconds=9, rungs=((160, 90, 60_000),), title="A ladder", gop=25)
    return root


async def segment(remote: Remote, asset: str = "first") -> str:
    return f"/v/{asset}/{(await remote.asset(asset)).presentation.video[0].name}/1.m4s"


async def test_hard_asks_the_store_anew(start: Start) -> None:
    async with start(DISK) as remote:
        clearing = Clearing(remote.edge.node)
        path = await segment(remote)
        body = (await remote.edge.ask(path)).body
        reads, lists = len(remote.store.reads), remote.store.lists
        for _ in range(3):
            assert (await remote.edge.ask(path)).body == body
        assert (len(remote.store.reads), remote.store.lists) == (reads, lists)
        await purge(clearing, 1, asset="first")
        before = await remote.edge.ask("/v/first/main.m3u8")
        assert before.status == 200 and remote.store.lists > lists
        reads = len(remote.store.reads)
        again = await remote.edge.ask(path)
        assert again.body == body and "fwd=uri-miss" in again.headers["Cache-Status"]
        await clearing.close()


@pytest.mark.parametrize("disk", [0, DISK])
async def test_soft_leaves_everything_while_the_store_is_away(start: Start, disk: int) -> None:
    async with start(disk, origin={"revalidate": 0.1}, failure_ttl=0, memory_object=2**20) as remote:
        clearing = Clearing(remote.edge.node)
        paths = ["/v/first/main.m3u8", "/v/first/main.mpd"]
        name = (await remote.asset("first")).presentation.video[0].name
        paths += [f"/v/first/{name}/{leaf}" for leaf in ("index.m3u8", "init.mp4", *(["1.m4s"] if disk else []))]
        bodies = [(await remote.edge.ask(path)).body for path in paths]
        remote.store.failing = AWAY
        await purge(clearing, 1, asset="first", soft=True)
        for _ in range(3):
            for path, body in zip(paths, bodies, strict=True):
                answer = await remote.edge.ask(path)
                assert (answer.status, answer.body) == (200, body), path
        # When it is back, what was asked for is made anew.
        remote.store.failing = None

        async def renewed() -> None:
            while any((found := memory.get(path)) is not None and found.stale for path in paths):
                for path, body in zip(paths, bodies, strict=True):
                    assert (await remote.edge.ask(path)).body == body
                await asyncio.sleep(0.02)

        memory = remote.edge.node.tiers.memory
        await asyncio.wait_for(renewed(), 20)
        # Hard does not wait for it.
        remote.store.failing = AWAY
        await purge(clearing, 2, asset="first")
        assert {(await remote.edge.ask(path)).status for path in paths} == {503}
        await clearing.close()


async def test_a_refresh_that_fails_hides_nothing(start: Start) -> None:
    """Although the path failed a moment ago, what there is of it is served."""
    async with start(DISK) as remote:
        node, path = remote.edge.node, await segment(remote)
        clearing = Clearing(node)
        body = (await remote.edge.ask(path)).body
        assert (await remote.edge.ask(path)).body == body, "it is stored by now"
        remote.store.failing = AWAY
        assert node.assets.origin is not None
        node.assets.origin.forget()
        await purge(clearing, 1, url=path, soft=True)
        async with asyncio.timeout(10):
            while not node.telemetry.value("refreshes", result="failed"):
                answer = await remote.edge.ask(path)
                assert (answer.status, answer.body == body) == (200, True)
        with pytest.raises(StreamGateError):
            node.tiers.negatives.check(path)
        answer = await remote.edge.ask(path)
        assert (answer.status, answer.body == body) == (200, True)
        await clearing.close()


async def test_a_tag_of_a_description_in_the_store(start: Start) -> None:
    async with start(DISK, cache_tags=True) as remote:
        clearing = Clearing(remote.edge.node)
        description = remote.root / "ladder/asset.toml"
        text = await asyncio.to_thread(description.read_text)
        await asyncio.to_thread(description.write_text, f'tags = ["season-1"]\n{text}')
        await remote.edge.node.assets.look()
        paths = [await segment(remote, name) for name in ("ladder", "first")]
        for path in paths:
            assert (await remote.edge.ask(path)).status == 200
        answers = [await remote.edge.ask(path) for path in paths]
        assert [answer.headers["Cache-Tag"].endswith(",season-1") for answer in answers] == [True, False]
        await purge(clearing, 1, tag="season-1")
        hits = ["hit" in (await remote.edge.ask(path)).headers["Cache-Status"] for path in paths]
        assert hits == [False, True]
        await clearing.close()
