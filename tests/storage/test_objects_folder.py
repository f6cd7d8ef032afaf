"""A folder as a store: what is its own beside the suite that all stores pass."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from streamgate.core.settings import S3Settings
from streamgate.errors import StreamGateError
from streamgate.storage.objects.folder import FolderStore

BYTES = bytes(range(256)) * 4096


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FolderStore]:
    opened = FolderStore(tmp_path, S3Settings())
    yield opened
    await opened.close()


def fails(code: str) -> pytest.RaisesExc[StreamGateError]:
    return pytest.RaisesExc(StreamGateError, check=lambda error: error.code == code)


async def keys(store: FolderStore) -> list[str]:
    return [info.key async for info in store.list()]


async def test_what_is_no_file_is_no_object(store: FolderStore, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "round").symlink_to(tmp_path)
    (tmp_path / "folder" / "film").write_bytes(BYTES)
    (tmp_path / "link").symlink_to("folder/film")
    (tmp_path / os.fsdecode(b"not-utf8-\xff")).write_bytes(b"")
    for key in ("folder", "pipe", "gone"):
        for call in (store.stat(key), store.read(key, 0, 10)):
            with fails("source_not_found"):
                await call
    listed = await keys(store)
    assert {"folder/film", "link"} <= set(listed)
    assert not {"folder", "pipe", "gone"} & set(listed)
    assert all(key.isascii() for key in listed)
    assert await store.read("link") == BYTES


async def test_no_folder(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "missing", S3Settings())
    with fails("source_not_found"):
        await keys(store)
    with fails("source_not_found"):
        await store.stat("film")
    with fails("output_failed"):
        await store.put("film", b"")
    await store.close()


@pytest.mark.parametrize("how", ["written to", "cut", "touched"])
async def test_a_file_that_changes_in_place(store: FolderStore, tmp_path: Path, how: str) -> None:
    path = tmp_path / "film"
    path.write_bytes(BYTES)
    got = b""
    with fails("source_changed"):
        async with store.reading("film") as reading:
            async for piece in reading:
                if not got:
                    if how == "written to":
                        path.write_bytes(b"x" * len(BYTES))
                    elif how == "cut":
                        os.truncate(path, 300_000)
                    os.utime(path, ns=(1, 1))
                got += piece
    assert BYTES.startswith(got) and len(got) < len(BYTES)


async def test_a_file_that_is_replaced_is_read_to_its_end(store: FolderStore) -> None:
    await store.put("film", BYTES)
    got = b""
    async with store.reading("film") as reading:
        async for piece in reading:
            if not got:
                await store.put("film", b"other")
            got += piece
    assert got == BYTES
    assert await store.read("film") == b"other"


async def test_what_is_unfinished_is_not_seen(store: FolderStore, tmp_path: Path) -> None:
    seen: list[list[str]] = []

    async def slowly() -> AsyncIterator[bytes]:
        yield BYTES
        assert len(list(tmp_path.iterdir())) == 1
        seen.append(await keys(store))
        yield BYTES

    await store.put("film", slowly())
    assert seen == [[]]
    assert [path.name for path in tmp_path.iterdir()] == ["film"]


async def test_a_write_that_is_cancelled_leaves_nothing(store: FolderStore, tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def never() -> AsyncIterator[bytes]:
        yield BYTES
        begun.set()
        await asyncio.Event().wait()

    writing = asyncio.create_task(store.put("film", never()))
    await begun.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert list(tmp_path.iterdir()) == []


async def test_where_nothing_can_be_written(store: FolderStore) -> None:
    await store.put("film", b"1")
    await store.put("folder/film", b"1")
    for key in ("film/below", "folder"):
        with fails("output_failed"):
            await store.put(key, b"2")
    with fails("output_failed"):
        await store.delete("folder")
    assert await keys(store) == ["film", "folder/film"]


async def test_two_stores_of_one_folder(store: FolderStore, tmp_path: Path) -> None:
    """As two processes have them: a condition holds between them."""
    other = FolderStore(tmp_path, S3Settings())

    async def make(each: FolderStore, number: int) -> int:
        try:
            await each.put("lease", b"%d" % number, only_new=True)
        except StreamGateError as e:
            assert e.code == "precondition_failed"
            return 0
        return 1

    assert sum(await asyncio.gather(*(make((store, other)[n % 2], n) for n in range(20)))) == 1
    await other.close()


async def test_who_gives_up_while_a_file_is_opened_leaves_none_open(
    store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "film").write_bytes(BYTES)
    begun, go_on, fstat, close = threading.Event(), threading.Event(), os.fstat, os.close
    opened, closed, over = list[int](), list[int](), threading.Event()

    def slow(fd: int) -> os.stat_result:
        opened.append(fd)
        begun.set()
        assert go_on.wait(10)
        return fstat(fd)

    def noted(fd: int) -> None:
        closed.append(fd)
        close(fd)
        over.set()

    monkeypatch.setattr(os, "fstat", slow)
    reading = asyncio.ensure_future(store.read("film"))
    assert await asyncio.to_thread(begun.wait, 10)
    monkeypatch.setattr(os, "close", noted)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    go_on.set()
    assert await asyncio.to_thread(over.wait, 10)
    assert closed == opened


async def test_who_gives_up_has_his_memory_back(
    store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that is in the middle of reading is waited for."""
    (tmp_path / "film").write_bytes(BYTES)
    begun, go_on, preadv = threading.Event(), threading.Event(), os.preadv

    def slow(*given: Any) -> int:
        begun.set()
        assert go_on.wait(10)
        return preadv(*given)

    monkeypatch.setattr(os, "preadv", slow)
    buffer = bytearray(len(BYTES))
    reading = asyncio.ensure_future(store.read_into("film", 0, memoryview(buffer)))
    assert await asyncio.to_thread(begun.wait, 10)
    for _ in range(2):
        reading.cancel()
        await asyncio.sleep(0)
        assert not reading.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await reading
    read = buffer.rstrip(b"\0")
    assert read and BYTES.startswith(read) and len(read) < len(BYTES)
