"""The disk tier's own promises: shared by workers, rebuilt from names and sizes, checked before it is believed."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.cors import Cors
from edge.entries import IMMUTABLE, Entry
from edge.threads import Pool
from edge.tiers import objects
from edge.tiers.claims import Claim, Claims
from edge.tiers.disk import DiskTier
from edge.tiers.indexes import DiskIndexes
from edge.tiers.ledger import _HEAD, Ledger
from edge.tiers.memory import MemoryTier
from edge.tiers.objects import FileBody
from edge.tiers.scrub import check
from edge.tiers.tier import Terms
from streamgate.core.settings import EdgeSettings
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError
from streamgate.native.index import Index
from streamgate.native.isobmff import read_index
from streamgate.storage import indexes
from streamgate.storage.objects.file import FileSource
from tests.media_factory import Video, make

MIB = 1024 * 1024
TERMS = Terms("public", "segment")
Made = Callable[..., Awaitable[DiskTier]]


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    pool = Pool("work", 2, 1000, Telemetry())
    yield pool
    pool.close()


@pytest.fixture
async def worker(tmp_path: Path, pool: Pool) -> AsyncIterator[Made]:
    """Makes one worker's disk tier on the folder of the test."""
    disks: list[DiskTier] = []

    async def make(budget: int = 64 * MIB, retry: float = 30.0) -> DiskTier:
        disk = DiskTier(tmp_path, budget, pool, Telemetry(), retry=retry)
        await disk.start()
        disks.append(disk)
        return disk

    yield make
    for disk in disks:
        disk.close()


def entry(body: bytes) -> Entry:
    return Entry("video/mp4", "tag", IMMUTABLE, body)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "cache/1/objects").rglob("*") if path.is_file())


async def held(disk: DiskTier) -> tuple[int, int]:
    """Objects and bytes, as the ledger has them."""
    ledger = disk._ledger
    assert ledger is not None
    return await asyncio.to_thread(lambda: (len(ledger), ledger.bytes))


async def test_two_workers_share_one_budget(worker: Made, tmp_path: Path) -> None:
    first, second = await worker(2 * MIB), await worker(2 * MIB)
    for number in range(60):
        await (first, second)[number % 2].on_miss(f"/v/{number}", entry(bytes(100_000)), TERMS)
    sizes = [path.stat().st_size for path in files(tmp_path)]
    assert 2 * MIB - 200_000 < sum(sizes) <= 2 * MIB
    for number in range(60):
        found = [await disk.lookup(f"/v/{number}") is not None for disk in (first, second)]
        assert found[0] == found[1]


async def test_a_start_reads_no_object(worker: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = await worker()
    for number in range(20):
        await disk.on_miss(f"/v/{number}", entry(bytes(10_000)), TERMS)
    disk.close()
    (tmp_path / "cache/1/ledger").unlink()
    (tmp_path / "cache/1/objects/00").mkdir(exist_ok=True)
    (tmp_path / "cache/1/objects/00/stranger").write_bytes(b"?")
    (tmp_path / "cache/1/fills/leftover").write_bytes(b"?")
    read: list[object] = []
    monkeypatch.setattr(objects, "read", lambda *given: read.append(given))
    monkeypatch.setattr(objects, "read_exactly", lambda *given: read.append(given))
    again = await worker()
    assert read == [] and len(files(tmp_path)) == 20
    assert again._ledger is not None and again._ledger.first
    assert await held(again) == (20, sum(path.stat().st_size for path in files(tmp_path)))
    assert list((tmp_path / "cache/1/fills").iterdir()) == []


async def test_a_body_is_checked_once_after_a_start(
    worker: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = await worker()
    await disk.on_miss("/v/a", entry(b"body"), TERMS)
    checked: list[FileBody] = []
    original = FileBody.verify

    def verify(body: FileBody) -> None:
        checked.append(body)
        original(body)

    monkeypatch.setattr(FileBody, "verify", verify)
    assert await disk.lookup("/v/a") is not None and checked == [], "who wrote it knows it"
    disk.close()
    os.utime(files(tmp_path)[0], (1, 1))
    first, second = await worker(), await worker()
    for _ in range(3):
        assert await first.lookup("/v/a") is not None and await second.lookup("/v/a") is not None
    assert len(checked) == 1


@pytest.mark.parametrize("at", [0, 3, 9, 17, 30, 4000, objects.HEADER, objects.HEADER + 9_999])
async def test_one_flipped_bit_is_a_miss(worker: Made, tmp_path: Path, at: int) -> None:
    disk = await worker()
    await disk.on_miss("/v/a", entry(os.urandom(10_000)), TERMS)
    disk.close()
    path = files(tmp_path)[0]
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    os.utime(path, (1, 1))
    again = await worker()
    found = await again.lookup("/v/a")
    if at == 4000:  # between the fields and the body there is nothing to be damaged
        assert found is not None
    else:
        assert found is None and files(tmp_path) == []


async def test_a_start_on_a_full_disk_waits_for_nobody(
    worker: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither worker can make the ledger; what they held of it is let go, so that the next to try is the first."""
    allocate, full = os.posix_fallocate, True

    def refuse(fd: int, offset: int, length: int) -> None:
        if full:
            raise OSError(errno.ENOSPC, "no space")
        allocate(fd, offset, length)

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    before = len(os.listdir("/proc/self/fd"))
    one, two = await worker(retry=0.0), await worker(retry=0.0)
    for disk in (one, two, one):
        assert not await asyncio.to_thread(disk.keep, "a", entry(b"a"), b"a")
    assert len(os.listdir("/proc/self/fd")) == before and (tmp_path / "cache/1/ledger").stat().st_size == 0
    full = False
    assert await asyncio.to_thread(two.keep, "a", entry(b"a"), b"a")
    assert await asyncio.to_thread(one.keep, "b", entry(b"b"), b"b")
    assert await asyncio.to_thread(one.get, "a") == b"a"


async def test_a_folder_that_was_removed_is_made_anew(worker: Made, tmp_path: Path) -> None:
    first, second = await worker(retry=0), await worker(retry=0)
    await first.on_miss("/v/a", entry(b"body"), TERMS)
    shutil.rmtree(tmp_path / "cache")
    for disk in (first, second):
        assert await disk.lookup("/v/a") is None
        assert not await disk.on_miss("/v/b", entry(b"body"), TERMS)
    assert await first.on_miss("/v/b", entry(b"body"), TERMS)
    assert await second.on_miss("/v/c", entry(b"body"), TERMS)
    assert [await disk.lookup(key) is not None for disk in (first, second) for key in "/v/b /v/c".split()] == [True] * 4
    assert (await held(first))[0] == 2


async def test_a_link_is_no_object(worker: Made, tmp_path: Path) -> None:
    disk = await worker()
    await disk.on_miss("/v/a", entry(b"body"), TERMS)
    path = files(tmp_path)[0]
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert await disk.lookup("/v/a") is None


async def test_a_worker_killed_while_it_wrote_the_ledger(worker: Made, tmp_path: Path) -> None:
    disk = await worker()
    for number in range(10):
        await disk.on_miss(f"/v/{number}", entry(bytes(10_000)), TERMS)
    ledger = disk._ledger
    assert ledger is not None
    # As a kill between two of its steps leaves it.
    ledger._head["dirty"] = 1
    ledger._head["bytes"][0] = 2**40
    ledger._head["count"][1] = 7
    await asyncio.to_thread(ledger._put, 0, _HEAD, ledger._head)
    other = await worker()
    await other.on_miss("/v/more", entry(bytes(10_000)), TERMS)
    assert len(files(tmp_path)) == 11
    assert await held(other) == (11, sum(path.stat().st_size for path in files(tmp_path)))


async def test_files_that_were_thrown_out_are_let_go(worker: Made, pool: Pool) -> None:
    disk = await worker()
    settings = EdgeSettings(memory_object=0)
    memory = MemoryTier(settings, Cors(settings), pool)
    for key in ("/v/a", "/v/b"):
        await disk.on_miss(key, entry(bytes(10_000)), TERMS)
        found = await disk.lookup(key)
        assert found is not None
        await memory.on_hit(key, found, TERMS)
        del found
    await disk.remove("/v/a")
    assert memory.get("/v/a") is not None
    assert await pool.run(memory.sweep, disk.keep_hot) == 1
    assert memory.get("/v/a") is None and memory.get("/v/b") is not None


async def test_open_files_are_bounded(worker: Made, pool: Pool) -> None:
    disk = await worker()
    settings = EdgeSettings(memory_object=0, open_objects=16)
    memory = MemoryTier(settings, Cors(settings), pool)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(60):
        await disk.on_miss(f"/v/{number}", entry(bytes(1000)), TERMS)
        found = await disk.lookup(f"/v/{number}")
        assert found is not None
        await memory.on_hit(f"/v/{number}", found, TERMS)
        del found
    assert len(memory.index) == 16 and len(os.listdir("/proc/self/fd")) - before <= 17


async def test_fields_that_do_not_fit_are_not_stored(worker: Made, tmp_path: Path) -> None:
    disk = await worker()
    long = Entry("video/mp4", "t" * 5000, IMMUTABLE, b"body")
    assert not await disk.on_miss("/v/a", long, TERMS)
    assert files(tmp_path) == list((tmp_path / "cache/1/fills").iterdir()) == []


async def test_the_scrub_reads_and_throws_out(worker: Made, tmp_path: Path, pool: Pool) -> None:
    disk = await worker()
    for key in ("/v/a", "/v/b"):
        await disk.on_miss(key, entry(bytes(10_000)), TERMS)
    assert await pool.run(disk.keeper)
    damaged, whole = files(tmp_path)
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    assert [await pool.run(check, disk, path) for path in (str(damaged), str(whole))] == [objects.HEADER, 10_000]
    assert files(tmp_path) == [whole]
    assert await pool.run(check, disk, str(damaged)) == 0
    assert await pool.run(disk.files) == [str(whole)]
    other = await worker()
    assert not await pool.run(other.keeper), "one is enough"


def test_a_claim_is_one_s_until_it_ends(tmp_path: Path) -> None:
    mine, theirs = Claims(tmp_path, "@mine"), Claims(tmp_path, "@theirs")
    made = tmp_path / "made"
    first = mine.claim("d" * 32, made)
    second = theirs.claim("d" * 32, made)
    assert isinstance(first, Claim) and isinstance(second, Claim)
    assert (first.leads, second.leads, second.address) == (True, False, "@mine")
    first.write(b"part", 0)
    theirs.sweep()
    assert os.pread(second.fd, 4, objects.HEADER) == b"part", "a live one is let be"
    del first  # as a death does: the file stays, its lock goes
    third = theirs.claim("d" * 32, made)
    assert isinstance(third, Claim) and third.leads
    os.rename(third.path, made)
    third.give_up()
    assert made.exists() and mine.claim("d" * 32, made) is None
    fourth = mine.claim("e" * 32, tmp_path / "other")
    assert fourth is not None
    del fourth
    theirs.sweep()
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


SIZES = st.integers(1, 400_000)
STEPS = st.lists(st.tuples(st.sampled_from(["add", "add", "hit", "remove"]), st.integers(0, 40), SIZES), max_size=80)


@given(STEPS)
def test_the_ledger_tells_what_the_folder_holds(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    (folder / "objects").mkdir()
    ledgers = [Ledger(folder, MIB), Ledger(folder, MIB)]
    assert [ledger.first for ledger in ledgers] == [True, False]
    for number, (step, name, size) in enumerate(steps):
        ledger = ledgers[number % 2]
        digest = objects.digest_of(str(name))
        path = ledger.path(digest)

        def publish(path: Path = path, size: int = size) -> None:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"")
            os.truncate(path, size)

        if step == "add":
            assert ledger.add(digest, size, publish) == (size <= MIB // 8)
        elif step == "hit":
            ledger.hit(digest)
        else:
            before = path.exists()
            assert ledger.remove(digest) == before
        sizes = [file.stat().st_size for file in (folder / "objects").rglob("*") if file.is_file()]
        assert [other.bytes for other in ledgers] == [sum(sizes)] * 2 and sum(sizes) <= MIB
    for ledger in ledgers:
        ledger.close()


async def test_an_index_is_read_once(worker: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: Pool) -> None:
    film = tmp_path / "film.mp4"
    make(film, Video(gop=25), None, seconds=1)
    disk = await worker()
    store = DiskIndexes(disk)
    read: list[int] = []

    def count(read_at: Any, size: int, **limits: int) -> Index:
        read.append(size)
        return read_index(read_at, size, **limits)

    monkeypatch.setattr(indexes, "read_index", count)

    def look(**limits: int) -> bytes:
        return indexes.index_of(FileSource(film), limits, store).dumps()

    first = await pool.run(look)
    assert await pool.run(look) == first and len(read) == 1
    disk.close()
    store = DiskIndexes(await worker())
    assert await pool.run(look) == first and len(read) == 1, "as after a restart"
    with pytest.raises(StreamGateError):
        await pool.run(lambda: look(max_samples=1))
    assert len(read) == 2
    content = bytearray(film.read_bytes())
    times = film.stat().st_atime_ns, film.stat().st_mtime_ns
    content[10] ^= 1
    film.write_bytes(content)
    os.utime(film, ns=times)
    await pool.run(look)
    assert len(read) == 3, "a file of the same size and time, with other bytes"
