"""A bucket that is not as it should be: copies that go, descriptions that nobody understands, readers that die."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge import library as libraries
from edge.library import BucketLibrary
from edge.origin import sharing
from edge.origin.extents import Memory
from edge.origin.sharing import Origin
from edge.threads import Pool
from streamgate.core.settings.origin import S3Settings
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError
from streamgate.storage.objects.folder import FolderStore
from streamgate.storage.objects.remote import Bridge, RemoteSource
from tests.edge.counting_store import CountingStore
from tests.edge.harness import settings
from tests.media_factory import Video, make


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[CountingStore]:
    inner = FolderStore(tmp_path, S3Settings())
    yield CountingStore(inner)
    await inner.close()


@pytest.fixture
def origins(tmp_path: Path) -> Iterator[list[Origin]]:
    """Of two processes of a node."""
    telemetry = Telemetry()
    made = [Origin(str(tmp_path), Memory(2**26), Pool(f"hostile{n}", 1, 10, telemetry), telemetry) for n in range(2)]
    yield made
    for origin in made:
        origin.close()
        origin.pool.close()


async def source_of(store: CountingStore, name: str) -> RemoteSource:
    return RemoteSource(store, await store.stat(name), Bridge(asyncio.get_running_loop(), 10.0))


async def test_a_copy_is_read_where_the_other_one_is_gone(
    store: CountingStore, origins: list[Origin], tmp_path: Path
) -> None:
    """An S3 object and its copy have one ETag, as two hard links have one inode here."""
    (tmp_path / "old.mp4").write_bytes(os.urandom(2000))
    os.link(tmp_path / "old.mp4", tmp_path / "new.mp4")
    data = (tmp_path / "new.mp4").read_bytes()
    old, new = await source_of(store, "old.mp4"), await source_of(store, "new.mp4")
    assert old.info.etag == new.info.etag
    for origin in origins:
        assert await origin.read(old, 0, 1000, (0, 1000)) == data[:1000]
    (tmp_path / "old.mp4").unlink()
    for origin in origins:
        assert await origin.read(new, 0, 2000, (0, 2000)) == data
    assert store.reads_of("new.mp4") == [(0, 2000)]


async def test_a_reader_that_dies_leaves_no_connection_that_fails_a_request(
    store: CountingStore, origins: list[Origin], tmp_path: Path
) -> None:
    (tmp_path / "film.mp4").write_bytes(data := os.urandom(100_000))
    one, other = origins
    source = await source_of(store, "film.mp4")
    await one.read(source, 0, 10, (0, 10))
    spans = [(n * 1000, 1000) for n in range(2 * sharing._TRIES)]
    # At once, so that each has a connection of its own.
    assert (
        b"".join(await asyncio.gather(*(other.read(source, *span, span) for span in spans)))
        == data[: 1000 * len(spans)]
    )
    one.close()
    assert await other.read(source, 0, 100_000, (0, 100_000)) == data


async def test_a_description_that_nobody_understands_is_read_once(
    store: CountingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "film").mkdir()
    described = tmp_path / "film/asset.toml"
    described.write_bytes(b"\xff\xfe")

    async def opened(*_: object) -> CountingStore:
        return store

    monkeypatch.setattr(libraries, "open_store", opened)
    library = BucketLibrary("bucket", settings({"data": str(tmp_path / "data")}), Telemetry())
    await library.start()

    async def listed() -> list[Any]:
        return [(ref.id, ref.gated, ref.tags) for ref in await asyncio.to_thread(library.discover)]

    for _ in range(3):
        assert await listed() == [("film", True, ())]
    assert len(store.reads) == 1
    described.write_text('tags = ["news"]\n[[source]]\nfile = "film.mp4"\n')
    assert await listed() == [("film", False, ("news",))]
    assert len(store.reads) == 2


@pytest.mark.parametrize("name", ["film.mkv", "film.ts"])
async def test_what_would_have_to_be_converted_is_refused_by_its_beginning(
    store: CountingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A bucket is read by ranges, and such files have no index to find them by: nothing of them is pulled but that."""
    path = make(tmp_path / name, Video(gop=25, size=(64, 36)), seconds=4, flags="")
    with path.open("ab") as file:
        file.write(os.urandom(2**20))

    async def opened(*_: object) -> CountingStore:
        return store

    monkeypatch.setattr(libraries, "open_store", opened)
    library = BucketLibrary("bucket", settings({"data": str(tmp_path / "data")}), Telemetry())
    await library.start()
    (ref,) = await asyncio.to_thread(library.discover)
    with pytest.raises(StreamGateError) as caught:
        await asyncio.to_thread(library.open, ref)
    assert caught.value.code == "source_unsupported" and name in caught.value.detail
    assert len(store.reads) <= 1
    await library.stop()
