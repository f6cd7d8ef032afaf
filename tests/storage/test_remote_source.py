"""What opening a source reads of its object: as little as it can, and never without an end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streamgate.core.settings.origin import S3Settings
from streamgate.errors import StreamGateError
from streamgate.native.isobmff import read_index
from streamgate.storage.objects.folder import FolderStore
from streamgate.storage.objects.remote import Bridge, RemoteSource
from tests.edge.counting_store import CountingStore
from tests.media_factory import Audio, Video, make

MIB = 2**20


class Kept:
    """A store of indexes and looks."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}

    def get(self, key: str) -> bytes | None:
        return self.data.get(key)

    def keep(self, key: str, data: bytes) -> bool:
        self.data[key] = data
        return True


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[CountingStore]:
    inner = FolderStore(tmp_path, S3Settings())
    yield CountingStore(inner)
    await inner.close()


async def source_of(store: CountingStore, key: str, kept: Kept | None = None) -> RemoteSource:
    return RemoteSource(store, await store.stat(key), Bridge(asyncio.get_running_loop(), 10.0), kept)


async def test_what_follows_the_beginning_is_read_exactly(store: CountingStore, tmp_path: Path) -> None:
    data = os.urandom(3 * MIB)
    (tmp_path / "a").write_bytes(data)
    source = await source_of(store, "a")
    assert await asyncio.to_thread(source.read, 0, MIB) == data[:MIB]
    assert await asyncio.to_thread(source.read, 10, MIB) == data[10 : MIB + 10]
    assert await asyncio.to_thread(source.read, MIB - 5, 10) == data[MIB - 5 : MIB + 5]
    assert store.reads_of("a") == [(0, MIB), (MIB, 10)]


async def test_a_jump_brings_the_rest(store: CountingStore, tmp_path: Path) -> None:
    data = os.urandom(3 * MIB)
    (tmp_path / "a").write_bytes(data)
    source = await source_of(store, "a")
    await asyncio.to_thread(source.read, 0, 100)
    assert await asyncio.to_thread(source.read, 2 * MIB, 8) == data[2 * MIB : 2 * MIB + 8]
    assert await asyncio.to_thread(source.read, 2 * MIB + 500_000, 600_000) == data[2 * MIB + 500_000 :]
    assert store.reads_of("a") == [(0, 100), (2 * MIB, MIB)]


@pytest.mark.parametrize("flags", ("+faststart", "", "+frag_keyframe+empty_moov"), ids=("first", "last", "fragments"))
async def test_the_index_is_that_of_the_file(store: CountingStore, tmp_path: Path, flags: str) -> None:
    await asyncio.to_thread(make, tmp_path / "film.mp4", Video(bitrate=400_000), Audio(), seconds=8, flags=flags)
    source = await source_of(store, "film.mp4")
    made = await asyncio.to_thread(read_index, source.read, source.size)
    data = (tmp_path / "film.mp4").read_bytes()
    assert made.dumps() == read_index(lambda at, length: data[at : at + length], len(data)).dumps()
    assert source.requests <= 2


async def test_neighbouring_looks_share_a_request_and_are_kept(store: CountingStore, tmp_path: Path) -> None:
    data = os.urandom(8 * MIB)
    (tmp_path / "a").write_bytes(data)
    kept = Kept()
    ranges = [(5 * MIB, 40), (100, 20), (30_000, 50), (5 * MIB + 60_000, 10)]
    expected = [data[offset : offset + length] for offset, length in ranges]
    assert await asyncio.to_thread((await source_of(store, "a", kept)).look, ranges) == expected
    assert store.reads_of("a") == [(100, 29_950), (5 * MIB, 60_010)]
    assert await asyncio.to_thread((await source_of(store, "a", kept)).look, ranges[:2]) == expected[:2]
    assert len(store.reads_of("a")) == 2


async def test_looks_have_an_end(store: CountingStore, tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.truncate(300 * MIB)
    source = await source_of(store, "a")
    with pytest.raises(StreamGateError) as caught:
        await asyncio.to_thread(source.look, [(n * MIB, 4) for n in range(300)])
    assert caught.value.code == "source_too_complex"
    assert store.reads == []
