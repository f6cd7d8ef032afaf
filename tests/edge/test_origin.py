"""One reader of a source on a machine: extents in memory, and processes that ask each other."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.origin import extents, sharing
from edge.origin.extents import Extent, Memory
from edge.origin.sharing import Origin
from edge.threads import Pool
from streamgate.core.settings.origin import S3Settings
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError
from streamgate.storage.objects.folder import FolderStore
from streamgate.storage.objects.remote import Bridge, RemoteSource
from streamgate.storage.objects.store import ObjectInfo
from tests.edge.counting_store import CountingStore

SIZE = 4_000_000


@pytest.fixture(scope="module")
def data() -> bytes:
    return os.urandom(SIZE)


@pytest.fixture
async def store(tmp_path: Path, data: bytes) -> AsyncIterator[CountingStore]:
    await asyncio.to_thread((tmp_path / "film.mp4").write_bytes, data)
    inner = FolderStore(tmp_path, S3Settings())
    yield CountingStore(inner)
    await inner.close()


class Machine:
    """Processes of one node, all in this one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.origins: list[Origin] = []
        self._telemetry = Telemetry()

    def process(self, memory: int = 64 * 2**20, silence: float = 3.0) -> Origin:
        pool = Pool(f"{self.name}{len(self.origins)}", 1, 10, self._telemetry)
        self.origins.append(Origin(self.name, Memory(memory), pool, self._telemetry, silence))
        return self.origins[-1]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(str(tmp_path))
    yield made
    for origin in made.origins:
        origin.close()
        origin.pool.close()


async def source_of(store: CountingStore) -> RemoteSource:
    return RemoteSource(store, await store.stat("film.mp4"), Bridge(asyncio.get_running_loop(), 10.0))


async def test_a_window_is_read_once_for_all_who_want_parts_of_it(
    store: CountingStore, machine: Machine, data: bytes
) -> None:
    origin, source = machine.process(), await source_of(store)
    window = (1_000_000, 1_000_000)
    wanted = [(1_000_000, 300_000), (1_500_000, 500_000), (1_200_000, 800_000), (1_999_999, 1)]
    found = await asyncio.gather(*(origin.read(source, offset, length, window) for offset, length in wanted))
    assert [bytes(each) for each in found] == [data[offset : offset + length] for offset, length in wanted]
    assert store.reads == [("film.mp4", 1_000_000, 1_000_000)]
    # A neighbour that overlaps reads what is missing.
    assert bytes(await origin.read(source, 1_900_000, 300_000, (1_900_000, 600_000))) == data[1_900_000:2_200_000]
    assert store.reads[1:] == [("film.mp4", 2_000_000, 500_000)]


async def test_processes_read_through_one(store: CountingStore, machine: Machine, data: bytes) -> None:
    one, other, third = machine.process(), machine.process(), machine.process()
    source = await source_of(store)
    spans = [(n * 400_000, 400_000) for n in range(10)]
    answers = await asyncio.gather(
        *(origin.read(source, *span, span) for origin in (one, other, third) for span in spans)
    )
    assert [bytes(answer) for answer in answers] == [data[o : o + n] for _ in range(3) for o, n in spans]
    assert len(store.reads) == 10 and store.twice("film.mp4") == []


async def test_errors_reach_those_who_ask_another_process(store: CountingStore, machine: Machine, data: bytes) -> None:
    one, other = machine.process(), machine.process()
    source = await source_of(store)
    await one.read(source, 0, 10, (0, 10))
    store.failing = StreamGateError("origin_unavailable", "away")
    for origin in (one, other):
        with pytest.raises(StreamGateError, match="away") as caught:
            await origin.read(source, 100, 10, (100, 10))
        assert caught.value.code == "origin_unavailable"
    store.failing = None
    # A failure is remembered by nobody, and the connection is good for more.
    assert bytes(await other.read(source, 100, 10, (100, 10))) == data[100:110]
    assert bytes(await other.read(source, 100, 20, (100, 20))) == data[100:120]


async def test_another_takes_over_where_the_reader_goes(store: CountingStore, machine: Machine, data: bytes) -> None:
    one, other = machine.process(), machine.process()
    source = await source_of(store)
    await one.read(source, 0, 10, (0, 10))
    assert bytes(await other.read(source, 0, 10, (0, 10))) == data[:10]
    assert len(store.reads) == 1
    one.close()
    assert bytes(await other.read(source, 0, 20, (0, 20))) == data[:20]
    assert len(store.reads) == 2


async def test_a_reader_that_says_nothing_holds_nobody(store: CountingStore, machine: Machine, data: bytes) -> None:
    """As a process that was stopped: its name is taken, and the kernel takes what is asked."""
    origin, source = machine.process(silence=0.1), await source_of(store)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stopped:
        stopped.bind(origin._address(source))
        stopped.listen()
        for _ in range(2):
            async with asyncio.timeout(5):
                assert bytes(await origin.read(source, 100, 5000, (0, 10_000))) == data[100:5100]
        stopped.setblocking(False)
        stopped.accept()[0].close()
        with pytest.raises(BlockingIOError):  # not asked again so soon
            stopped.accept()
        assert store.reads == [("film.mp4", 0, 10_000)]
        # Later it is: it may be back, or another one in its place.
        next(iter(origin._sources.values())).alone_until = 0.0
    other = machine.process()
    await other.read(source, 0, 10_000, (0, 10_000))
    assert bytes(await origin.read(source, 0, 10, (0, 10_000))) == data[:10]
    assert len(store.reads) == 2, "by the other"


async def test_a_reader_that_waits_for_the_store_says_that_it_lives(
    store: CountingStore, machine: Machine, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "_ALIVE_S", 0.02)
    one, other, source = machine.process(), machine.process(silence=0.2), await source_of(store)
    await one.read(source, 0, 10, (0, 10))
    held = asyncio.Event()
    given = type(store).read_into

    async def slow(self: CountingStore, *arguments: Any, **options: Any) -> ObjectInfo:
        await held.wait()
        return await given(self, *arguments, **options)

    monkeypatch.setattr(type(store), "read_into", slow)
    read = asyncio.ensure_future(other.read(source, 500, 1000, (500, 1000)))
    done, _ = await asyncio.wait([read], timeout=0.6)  # three times the silence
    assert not done
    held.set()
    assert bytes(await read) == data[500:1500] and len(store.reads) == 2


async def test_a_replaced_object_is_never_mixed(store: CountingStore, machine: Machine, tmp_path: Path) -> None:
    origin, source = machine.process(), await source_of(store)
    await origin.read(source, 0, 1000, (0, 1000))
    await asyncio.to_thread((tmp_path / "new").write_bytes, bytes(SIZE))
    await asyncio.to_thread(os.replace, tmp_path / "new", tmp_path / "film.mp4")
    with pytest.raises(StreamGateError) as caught:
        await origin.read(source, 500, 1000, (500, 1000))
    assert caught.value.code == "source_changed"
    assert await source.changed()


async def test_memory_is_bounded(store: CountingStore, machine: Machine, data: bytes) -> None:
    limit = 1_000_000
    memory = Memory(limit)
    telemetry = Telemetry()
    pool = Pool("bounded", 1, 10, telemetry)
    machine.origins.append(origin := Origin("bounded", memory, pool, telemetry))
    source = await source_of(store)
    for n in range(13):
        span = (n * 300_000, 300_000)
        assert bytes(await origin.read(source, *span, span)) == data[span[0] : sum(span)]
        assert memory.bytes <= limit
    assert len(store.reads) == 13
    await origin.read(source, 12 * 300_000, 10, (12 * 300_000, 10))
    assert len(store.reads) == 13, "the newest are there"
    await origin.read(source, 0, 10, (0, 10))
    assert len(store.reads) == 14, "the oldest went"


async def test_too_much_at_once_waits_and_is_refused_at_last(
    store: CountingStore, machine: Machine, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 300_000
    memory, telemetry = Memory(limit), Telemetry()
    machine.origins.append(
        origin := Origin(f"{machine.name} small", memory, Pool("small", 1, 10, telemetry), telemetry)
    )
    source = await source_of(store)
    spans = [(n * 200_000, 200_000) for n in range(16)]
    found = await asyncio.gather(*(origin.read(source, *span, span) for span in spans))
    assert b"".join(found) == data[:3_200_000]
    assert store.twice("film.mp4") == [] and memory.bytes <= limit
    # Where nothing ends in time they are told so.
    monkeypatch.setattr(extents, "_ROOM_S", 0.05)
    memory.begin(limit)
    with pytest.raises(StreamGateError, match="too much") as caught:
        await origin.read(source, 3_900_000, 1000, (3_900_000, 1000))
    assert caught.value.code == "overloaded"


async def test_idle_sources_are_let_go(
    store: CountingStore, machine: Machine, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = machine.process(), machine.process()
    source = await source_of(store)
    await one.read(source, 0, 10, (0, 10))
    monkeypatch.setattr(sharing, "_IDLE_S", -1.0)
    # The next question of any kind sweeps; the name is free then, and another process takes it.
    one._sweep()
    assert bytes(await other.read(source, 0, 10, (0, 10))) == data[:10]
    assert len(store.reads) == 2


async def test_another_users_answers_are_not_taken(
    store: CountingStore, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other, source = machine.process(), machine.process(), await source_of(store)
    await one.read(source, 0, 10, (0, 10))
    monkeypatch.setattr(sharing, "_ours", lambda _: False)
    with pytest.raises(StreamGateError, match="another user") as caught:
        await other.read(source, 0, 10, (0, 10))
    assert caught.value.code == "origin_unavailable"


async def test_the_error_of_what_was_begun_ahead_is_heard_once(
    store: CountingStore, machine: Machine, data: bytes
) -> None:
    """Who begins it reads it a moment later: that it failed meanwhile is no reason to ask again, but the next who comes may."""
    origin, source = machine.process(), await source_of(store)
    span = (0, 1000)
    await origin.read(source, *span, span)
    store.failing = StreamGateError("origin_unavailable", "away")
    origin.begin(source, 5000, 1000, (5000, 1000))
    async with asyncio.timeout(5):
        while len(store.reads) < 2:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
    with pytest.raises(StreamGateError, match="away"):
        await origin.read(source, 5000, 1000, (5000, 1000))
    assert len(store.reads) == 2
    store.failing = None
    assert bytes(await origin.read(source, 5000, 1000, (5000, 1000))) == data[5000:6000]
    assert len(store.reads) == 3


async def test_what_is_begun_ahead_is_read_once(store: CountingStore, machine: Machine, data: bytes) -> None:
    origin, source = machine.process(), await source_of(store)
    origin.begin(source, 5000, 1000, (5000, 1000))
    assert store.reads == [], "nobody reads it yet, and another process may"
    await origin.read(source, 0, 10, (0, 10))
    origin.begin(source, 5000, 1000, (4000, 4000))
    origin.begin(source, 5000, 1000, (4000, 4000))
    assert bytes(await origin.read(source, 5000, 1000, (4000, 4000))) == data[5000:6000]
    origin.begin(source, 5000, 1000, (5000, 90_000))
    assert store.reads_of("film.mp4") == [(0, 10), (4000, 4000)]


async def test_what_ends_too_early_is_not_asked_for_once_more(
    store: CountingStore, machine: Machine, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All attempts there are were made when it failed: who has what came is not kept waiting for as many again."""
    origin, source = machine.process(), await source_of(store)

    async def breaks(key: str, offset: int, buffer: memoryview, **told: Any) -> ObjectInfo:
        store.reads.append((key, offset, len(buffer)))
        buffer[:200_000] = data[offset : offset + 200_000]
        told["progress"](200_000)
        await asyncio.sleep(0)
        raise StreamGateError("origin_unavailable", "away")

    monkeypatch.setattr(store, "read_into", breaks)
    got = b""
    with pytest.raises(StreamGateError, match="away"):
        async for piece in origin.pieces(source, 1000, 1_000_000, (1000, 1_000_000)):
            got += piece
    assert got == data[1000:201_000] and store.reads == [("film.mp4", 1000, 1_000_000)]
    monkeypatch.undo()
    assert bytes(await origin.read(source, 1000, 10, (1000, 10))) == data[1000:1010], "who comes later asks anew"


async def test_a_source_that_is_begun_is_in_use(store: CountingStore, machine: Machine, data: bytes) -> None:
    origin, source = machine.process(), await source_of(store)
    await origin.read(source, 0, 10, (0, 10))
    (held,) = origin._sources.values()
    held.used = float("-inf")
    origin.begin(source, 5000, 1000, (5000, 1000))
    origin._sweep()
    assert [*origin._sources.values()] == [held]
    assert bytes(await origin.read(source, 5000, 1000, (5000, 1000))) == data[5000:6000]
    assert len(store.reads) == 2


async def test_what_is_let_go_before_it_begins_takes_no_room(store: CountingStore, machine: Machine) -> None:
    origin, source = machine.process(), await source_of(store)
    await origin.read(source, 0, 10, (0, 10))
    origin.begin(source, 5000, 1000, (5000, 1000))
    origin.close()
    async with asyncio.timeout(5):
        while origin._memory.bytes:
            await asyncio.sleep(0)
    assert origin._memory._coming == 0 and len(store.reads) == 1


def test_a_failure_keeps_nothing_of_who_raised_it() -> None:
    failed = Extent(0, 1, memoryview(bytearray(1)))
    try:
        raise StreamGateError("origin_unavailable", "away")
    except StreamGateError as error:
        failed.fail(error)
    assert failed.error is not None and failed.error.__traceback__ is None
    assert (failed.error.code, failed.error.detail) == ("origin_unavailable", "away")
