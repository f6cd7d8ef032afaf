"""Packaging from a store: the same bytes as from a folder, and no request more than is needed."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edge import library as libraries
from edge.library import BucketLibrary
from edge.tiers.indexes import DiskIndexes
from streamgate.core.settings.origin import S3Settings
from streamgate.core.settings.prefetch import PrefetchSettings
from streamgate.core.settings.remote import OriginSettings
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError
from streamgate.media.presentation import Rendition
from streamgate.storage.assets import Asset, discover, open_asset
from streamgate.storage.objects.folder import FolderStore
from tests.edge.counting_store import CountingStore
from tests.edge.harness import Edge, running, settings
from tests.media_factory import Audio, Video, ladder, make, write_vtt


@dataclass
class Remote:
    """An edge over a store in a folder."""

    edge: Edge
    store: CountingStore
    root: Path

    async def asset(self, name: str) -> Asset:
        return (await self.edge.node.assets.open(name)).asset


Start = Callable[..., AbstractAsyncContextManager[Remote]]


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """moov first, moov last, a ladder with subtitles; all with enough in them that an index is a small part."""
    root = tmp_path_factory.mktemp("bucket")
    video, audio = Video(size=(320, 180), gop=25, bitrate=1_500_000), Audio(bitrate=96_000)
    make(root / "first.mp4", video, audio, seconds=24)
    make(root / "last.mp4", video, audio, seconds=24, flags="")
    write_vtt(root / "last.fr.vtt", "fra", 24)
    ladder(root / "ladder", seconds=9, rungs=((160, 90, 60_000), (320, 180, 160_000)), title="A ladder", gop=25)
    return root


@pytest.fixture
def start(media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    root = tmp_path / "bucket"
    shutil.copytree(media, root)

    @asynccontextmanager
    async def started(disk: int = 0, origin: dict[str, Any] | None = None, **edge: Any) -> AsyncIterator[Remote]:
        store = CountingStore(FolderStore(root, S3Settings()))

        async def opened(*_: object) -> CountingStore:
            return store

        monkeypatch.setattr(libraries, "open_store", opened)
        chosen = settings({"data": str(tmp_path / "data")}, disk_bytes=disk, **edge).model_copy(
            update={"origin": OriginSettings(**(origin or {})), "prefetch": PrefetchSettings(sources="none")}
        )
        library = BucketLibrary("bucket", chosen, Telemetry())
        await library.start()
        async with running(library, chosen, remote=True) as served:
            library.indexes = DiskIndexes(served.node.tiers.disk)
            yield Remote(served, store, root)
        await library.stop()

    return started


def local(root: Path, name: str) -> Asset:
    return open_asset(next(ref for ref in discover(root) if ref.id == name))


def bodies(asset: Asset, rendition: Rendition) -> list[bytes]:
    fd = asset.sources[rendition.source].fd
    return [rendition.segment(n).from_fd(fd) for n in range(rendition.segments)]


@pytest.mark.parametrize("disk", (0, 2**26), ids=("without a disk tier", "with a disk tier"))
@pytest.mark.parametrize("name", ("first", "last", "ladder"))
async def test_the_bytes_are_those_of_the_folder(start: Start, name: str, disk: int) -> None:
    async with start(disk) as remote:
        asset, expected = await remote.asset(name), await asyncio.to_thread(local, remote.root, name)
        ours, theirs = asset.presentation, expected.presentation
        pairs = list(zip((*ours.video, *ours.audio), (*theirs.video, *theirs.audio), strict=True))
        for own, other in pairs:
            for n, body in enumerate(bodies(expected, other)):
                answer = await remote.edge.ask(f"/v/{name}/{own.name}/{n}.m4s")
                assert (answer.status, answer.body) == (200, body)
            part = await remote.edge.ask(f"/v/{name}/{own.name}/0.m4s", {"Range": "bytes=100-5000"})
            assert (part.status, part.body) == (206, bodies(expected, other)[0][100:5001])
        video, other = pairs[0]
        key = await remote.edge.ask(f"/v/{name}/{video.name}/k1.m4s")
        assert key.body == other.keyframe(1).from_fd(expected.sources[other.source].fd)
        variant, (half, sound) = next(iter(theirs.ts_variants.items()))
        muxed = await remote.edge.ask(f"/v/{name}/{next(iter(ours.ts_variants))}/1.ts")
        assert muxed.status == 200
        halves = [r.ts_payload(1).from_fd(expected.sources[r.source].fd) if r else b"" for r in (half, sound)]
        assert muxed.body == theirs.ts_muxer(*variant.split("+")).segment(1, *halves)
        subtitles = [text.whole() for text in theirs.text]
        assert [(await remote.edge.ask(f"/v/{name}/{t.name}/all.vtt")).body for t in ours.text] == subtitles


@pytest.mark.parametrize("name", ("first", "last"))
async def test_a_cold_source_opens_in_two_requests(start: Start, name: str) -> None:
    async with start() as remote:
        await remote.asset(name)
        reads = remote.store.reads_of(f"{name}.mp4")
        assert 1 <= len(reads) <= 2, reads
        assert sum(length for _, length in reads) < os.path.getsize(remote.root / f"{name}.mp4") // 2
        assert remote.store.stats == []


async def test_a_description_costs_one_request_more(start: Start) -> None:
    async with start() as remote:
        await remote.edge.node.assets.refs()
        assert len(remote.store.reads_of("asset.toml")) == 1, "to know whether it is gated"
        await remote.asset("ladder")
        assert len(remote.store.reads_of("asset.toml")) == 2
        for source in {key for key, _, _ in remote.store.reads if key.endswith(".mp4")}:
            assert len(remote.store.reads_of(source)) <= 3, "index, and one look into samples"


async def test_a_warm_index_costs_no_request(start: Start) -> None:
    async with start(2**26) as remote:
        await remote.asset("ladder")
        await remote.asset("last")
    async with start(2**26) as remote:
        await remote.asset("ladder")
        await remote.asset("last")
        assert {key.rpartition("/")[2] for key, _, _ in remote.store.reads} <= {"asset.toml", "last.fr.vtt"} | {
            key.rpartition("/")[2] for key, _, _ in remote.store.reads if key.endswith((".vtt", ".srt"))
        }


@pytest.mark.parametrize("disk", (0, 2**26), ids=("without a disk tier", "with a disk tier"))
async def test_a_miss_costs_one_request_for_both_tracks(start: Start, disk: int) -> None:
    async with start(disk) as remote:
        made = (await remote.asset("first")).presentation
        (video,), (audio,) = made.video, made.audio
        remote.store.reads.clear()
        assert (await remote.edge.ask(f"/v/first/{video.name}/2.m4s")).status == 200
        assert len(remote.store.reads) == 1
        assert (await remote.edge.ask(f"/v/first/{audio.name}/2.m4s")).status == 200
        assert (await remote.edge.ask(f"/v/first/{video.name}+{audio.name}/2.ts")).status == 200
        assert len(remote.store.reads) == 1


async def test_no_byte_is_read_twice(start: Start) -> None:
    async with start(2**26) as remote:
        made = (await remote.asset("first")).presentation
        remote.store.reads.clear()
        for rendition in (*made.audio, *made.video):
            for n in range(rendition.segments):
                assert (await remote.edge.ask(f"/v/first/{rendition.name}/{n}.m4s")).status == 200
        assert remote.store.twice("first.mp4") == []
        assert len(remote.store.reads) <= max(r.segments for r in (*made.audio, *made.video))


async def test_a_replaced_source_gets_new_names(start: Start) -> None:
    async with start(origin={"revalidate": 0.1, "stale": 0}) as remote:
        asset = await remote.asset("first")
        old = asset.presentation.video[0].name
        os.replace(remote.root / "last.mp4", remote.root / "first.mp4")
        # Nothing of the new bytes goes out under an old name.
        answer = await remote.edge.ask(f"/v/first/{old}/3.m4s")
        assert (answer.status, answer.code) in ((503, "source_changed"), (410, "rendition_gone"))
        async with asyncio.timeout(10):
            while old.encode() in (await remote.edge.ask("/v/first/main.m3u8")).body:
                pass
        new = (await remote.asset("first")).presentation.video[0].name
        assert (await remote.edge.ask(f"/v/first/{new}/3.m4s")).status == 200
        assert (await remote.edge.ask(f"/v/first/{old}/3.m4s")).status == 410


async def test_a_failure_by_a_replaced_source_makes_it_looked_at(start: Start) -> None:
    async with start(origin={"revalidate": 3600, "list_interval": 3600}) as remote:
        old = (await remote.asset("first")).presentation.video[0].name
        os.replace(remote.root / "last.mp4", remote.root / "first.mp4")
        assert (await remote.edge.ask(f"/v/first/{old}/3.m4s")).code == "source_changed"
        async with asyncio.timeout(10):
            while (await remote.edge.ask(f"/v/first/{old}/4.m4s")).code != "rendition_gone":
                pass


async def test_a_store_that_is_away_leaves_what_is_open(start: Start) -> None:
    async with start(origin={"revalidate": 0.1, "stale": 0}, failure_ttl=0) as remote:
        first = await remote.edge.ask("/v/first/main.m3u8")
        assert first.status == 200
        opened = remote.edge.node.assets.known("first")
        assert opened is not None
        remote.store.failing = StreamGateError("origin_unavailable", "away")
        opened.checked = float("-inf")
        assert (await remote.edge.ask("/v/first/main.m3u8")).body == first.body
        cold = await remote.edge.ask("/v/last/main.m3u8")
        assert (cold.status, cold.code) == (503, "origin_unavailable")
        assert "Retry-After" in cold.headers
        segment = await remote.edge.ask(f"/v/first/{opened.asset.presentation.video[0].name}/1.m4s")
        assert (segment.status, segment.code) == (503, "origin_unavailable")
        remote.store.failing = None
        assert (await remote.edge.ask("/v/last/main.m3u8")).status == 200


async def test_new_objects_are_found(start: Start) -> None:
    async with start() as remote:
        assert "later" not in await remote.edge.node.assets.refs()
        await asyncio.to_thread(shutil.copy, remote.root / "first.mp4", remote.root / "later.mp4")
        await remote.edge.node.assets.look()
        assert (await remote.edge.ask("/v/later/main.m3u8")).status == 200
