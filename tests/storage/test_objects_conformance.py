"""What holds for every store of objects: a folder, and a bucket of S3."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streamgate.core.settings import S3Settings
from streamgate.errors import StreamGateError
from streamgate.storage.objects.store import ObjectStore, open_store
from tests.services.seaweed import SeaweedFS

MIB = 1024 * 1024
BYTES = secrets.token_bytes(3 * MIB + 17)


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.needs("weed"))])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """(address, endpoint) of a store with nothing in it."""
    if request.param == "folder":
        return str(tmp_path), ""
    seaweed: SeaweedFS = request.getfixturevalue("s3_environment")
    return f"s3://{request.getfixturevalue('prefix')}/all/ours", seaweed.endpoint


@pytest.fixture
async def store(place: tuple[str, str]) -> AsyncIterator[ObjectStore]:
    settings = S3Settings(endpoint=place[1], part_size=5 * MIB, list_limit=20, read_limit=8 * MIB)
    opened = await open_store(place[0], settings)
    yield opened
    await opened.close()


async def keys(store: ObjectStore, prefix: str = "") -> list[str]:
    return [info.key async for info in store.list(prefix)]


def fails(code: str) -> pytest.RaisesExc[StreamGateError]:
    return pytest.RaisesExc(StreamGateError, check=lambda error: error.code == code)


async def test_what_is_written_is_read(store: ObjectStore) -> None:
    written = await store.put("a/film.mp4", BYTES)
    assert written.key == "a/film.mp4" and written.size == len(BYTES) and written.etag
    found = await store.stat("a/film.mp4")
    assert (found.size, found.etag) == (written.size, written.etag)
    assert abs(found.modified - written.modified) < 5
    assert await store.read("a/film.mp4") == BYTES


@pytest.mark.parametrize(
    ("offset", "length"),
    [
        (0, 1),
        (0, None),
        (17, MIB),
        (MIB, None),
        (len(BYTES) - 1, 1),
        (len(BYTES) - 10, 100),
        (len(BYTES), 5),
        (10**12, 5),
    ],
)
async def test_ranges_are_exact_and_end_with_the_object(store: ObjectStore, offset: int, length: int | None) -> None:
    await store.put("film", BYTES)
    expected = BYTES[offset:] if length is None else BYTES[offset : offset + length]
    assert await store.read("film", offset, length) == expected
    async with store.reading("film", offset, length) as reading:
        assert reading.info.size == len(BYTES)
        assert b"".join([piece async for piece in reading]) == expected


@pytest.mark.parametrize(("offset", "length"), [(0, 1), (17, MIB), (len(BYTES) - 1, 1), (0, len(BYTES))])
async def test_a_buffer_is_filled(store: ObjectStore, offset: int, length: int) -> None:
    info = await store.put("film", BYTES)
    memory = bytearray(b"x" * (length + 2))
    told: list[int] = []

    def progress(count: int) -> None:
        assert memory[1 : count + 1] == BYTES[offset : offset + count]
        told.append(count)

    buffer = memoryview(memory)[1:-1]
    found = await store.read_into("film", offset, buffer, etag=info.etag, progress=progress)
    assert (found.key, found.size, found.etag) == ("film", len(BYTES), info.etag)
    assert memory == b"x" + BYTES[offset : offset + length] + b"x"
    assert told == sorted(set(told)) and told[-1] == length
    assert await store.read_into("film", offset, buffer) == found


async def test_a_buffer_that_cannot_be_filled(store: ObjectStore) -> None:
    info = await store.put("film", BYTES)
    buffer = memoryview(bytearray(100))
    for offset in (len(BYTES) - 99, len(BYTES), 10**12):
        with fails("source_changed"):
            await store.read_into("film", offset, buffer, etag=info.etag)
    with fails("source_changed"):
        await store.read_into("film", 0, buffer, etag="other")
    with fails("source_not_found"):
        await store.read_into("missing", 0, buffer)
    with fails("path_malformed"):
        await store.read_into("a//b", 0, buffer)


async def test_no_bytes_are_asked_for(store: ObjectStore) -> None:
    info = await store.put("film", BYTES)
    async with store.reading("film", 5, 0, etag=info.etag) as reading:
        assert reading.info.etag == info.etag
        assert [piece async for piece in reading] == []
    with fails("source_changed"):
        await store.read("film", 5, 0, etag="other")


async def test_an_empty_object(store: ObjectStore) -> None:
    info = await store.put("nothing", b"")
    assert info.size == 0
    assert await store.read("nothing") == b""
    assert await store.read("nothing", 0, 10, etag=info.etag) == b""


async def test_a_missing_object(store: ObjectStore) -> None:
    await store.put("folder/there", b"1")
    for key in ("missing", "folder", "folder/there/deeper"):
        with fails("source_not_found"):
            await store.stat(key)
        with fails("source_not_found"):
            await store.read(key, 0, 10)
        # By RFC 9110 a version that is not there is a condition that fails: S3 and its dialects do not agree.
        with pytest.RaisesExc(StreamGateError, check=lambda e: e.code in ("source_not_found", "source_changed")):
            await store.read(key, etag="any")


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/../../b", "./a", "a\0b", "k" * 1025])
async def test_what_is_no_key(store: ObjectStore, key: str) -> None:
    for call in (store.stat(key), store.read(key), store.read(key, 0, 0), store.put(key, b""), store.delete(key)):
        with fails("path_malformed"):
            await call


async def test_odd_keys(store: ObjectStore) -> None:
    odd = ["a b+c%20d", "ü/日本語.mp4", "a&b=c?d#e", "'quoted\"", "x~y(z)!*", "%2e%2e", ".hidden"]
    for key in odd:
        await store.put(key, key.encode())
    for key in odd:
        assert await store.read(key, 0, 100) == key.encode()
        assert (await store.stat(key)).size == len(key.encode())
    assert await keys(store) == sorted(odd, key=str.encode)


async def test_another_version(store: ObjectStore) -> None:
    old = await store.put("film", b"old bytes")
    assert await store.read("film", 0, 3, etag=old.etag) == b"old"
    new = await store.put("film", b"new bytes")
    assert new.etag != old.etag
    with fails("source_changed"):
        await store.read("film", 0, 3, etag=old.etag)
    with fails("source_changed"):
        async with store.reading("film", 100, 3, etag=old.etag):
            pass
    assert await store.read("film", 0, 3, etag=new.etag) == b"new"


async def test_replaced_while_it_is_read(store: ObjectStore) -> None:
    """All of the old one, or an error; never both."""
    await store.put("film", b"a" * len(BYTES))
    async with store.reading("film") as reading:
        iterator = aiter(reading)
        got = await anext(iterator)
        await store.put("film", b"b" * len(BYTES))
        try:
            async for piece in iterator:
                got += piece
        except StreamGateError as e:
            assert e.code == "source_changed"
        else:
            assert len(got) == len(BYTES)
    assert set(got) == {ord("a")}


async def test_listing(store: ObjectStore) -> None:
    names = ["a.txt", "a/b", "a/c/d", "a-b", "b", "aa/x", "é"]
    for name in names:
        await store.put(name, name.encode())
    listed = [info async for info in store.list()]
    assert [info.key for info in listed] == sorted(names, key=str.encode)
    for info in listed:
        there = await store.stat(info.key)
        assert (there.size, there.etag) == (info.size, info.etag) and abs(there.modified - info.modified) < 1
    assert await keys(store, "a/") == ["a/b", "a/c/d"]
    assert await keys(store, "a") == ["a-b", "a.txt", "a/b", "a/c/d", "aa/x"]
    assert await keys(store, "a/c") == ["a/c/d"]
    assert await keys(store, "zzz") == await keys(store, "a/b/c") == []


async def test_listing_is_bounded(store: ObjectStore) -> None:
    for number in range(21):
        await store.put(f"{number:02}", b"")
    assert len(await keys(store, "0")) == 10
    with fails("listing_too_long"):
        await keys(store)


async def test_only_one_of_many_makes_it(store: ObjectStore) -> None:
    async def make(number: int) -> bool:
        try:
            await store.put("lease", b"%d" % number, only_new=True)
        except StreamGateError as e:
            assert e.code == "precondition_failed"
            return False
        return True

    made = await asyncio.gather(*map(make, range(5)))
    assert sum(made) == 1
    assert await store.read("lease") == b"%d" % made.index(True)


async def test_only_in_place_of_a_version(store: ObjectStore) -> None:
    with fails("precondition_failed"):
        await store.put("film", b"1", etag="never")
    first = await store.put("film", b"1")
    second = await store.put("film", b"2", etag=first.etag)
    with fails("precondition_failed"):
        await store.put("film", b"3", etag=first.etag)
    assert await store.read("film", etag=second.etag) == b"2"


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


@pytest.mark.parametrize("size", [0, 1, 5 * MIB, 5 * MIB + 1, 6 * MIB + 3])
async def test_a_stream_is_written(store: ObjectStore, size: int) -> None:
    data = (BYTES * 3)[:size]
    info = await store.put("film", pieces(data, 1_000_003))
    assert info.size == size
    assert (await store.stat("film")).etag == info.etag
    assert await store.read("film") == data


async def test_a_large_one_with_a_condition(store: ObjectStore) -> None:
    data = (BYTES * 2)[: 6 * MIB]
    first = await store.put("film", data, only_new=True)
    with fails("precondition_failed"):
        await store.put("film", data, only_new=True)
    with fails("precondition_failed"):
        await store.put("film", pieces(data, MIB), etag="other")
    assert await store.read("film", etag=first.etag) == data


async def test_a_stream_that_breaks_leaves_nothing(store: ObjectStore) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield BYTES
        yield BYTES
        raise RuntimeError("the sender is gone")

    old = await store.put("film", b"old")
    with pytest.raises(RuntimeError):
        await store.put("film", broken())
    assert await store.read("film", etag=old.etag) == b"old"
    with pytest.raises(RuntimeError):
        await store.put("other", broken())
    assert await keys(store) == ["film"]


async def test_deleting(store: ObjectStore) -> None:
    await store.put("a/film", b"1")
    await store.delete("a/film")
    await store.delete("a/film")
    with fails("source_not_found"):
        await store.stat("a/film")
    assert await keys(store) == []


async def test_reading_in_one_piece_is_bounded(store: ObjectStore) -> None:
    await store.put("film", pieces(BYTES * 3, MIB))
    with fails("source_too_complex"):
        await store.read("film")
    assert len(await store.read("film", MIB, 8 * MIB)) == 8 * MIB
    assert await store.read("film", len(BYTES) * 3 - 5, 100 * MIB) == BYTES[-5:]


async def test_many_readers_at_once(store: ObjectStore) -> None:
    info = await store.put("film", BYTES)
    reads = (store.read("film", at, 40_000, etag=info.etag) for at in range(0, len(BYTES), 40_000))
    assert b"".join(await asyncio.gather(*reads)) == BYTES


async def test_a_reader_that_leaves(store: ObjectStore) -> None:
    await store.put("film", BYTES)
    for _ in range(100):
        async with store.reading("film") as reading:
            async for piece in reading:
                assert BYTES.startswith(piece)
                break
    reader = asyncio.create_task(store.read("film"))
    await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert await store.read("film") == BYTES
