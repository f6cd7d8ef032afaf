"""Opening assets: once for all who ask, looked at for changes, failures remembered, the least used forgotten."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Iterator, MutableMapping
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge.assets import Assets
from edge.library import FolderLibrary
from edge.remuxes import Remuxes
from edge.threads import Pool
from streamgate.core.settings import EdgeSettings, MediaSettings
from streamgate.core.telemetry import Telemetry
from streamgate.errors import Finding, StreamGateError
from streamgate.storage.assets import Asset, AssetRef
from tests.edge.harness import Folder, running, settings


class Shelf:
    """A library of assets that are nothing but names; counts, and fails or waits where it is told to."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)
        self.opened: list[str] = []
        self.discovered = 0
        self.failure: StreamGateError | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.changed = False

    def discover(self) -> list[AssetRef]:
        self.discovered += 1
        return [AssetRef(name, name.title(), Path(name)) for name in self.names]

    def open(self, ref: AssetRef) -> Any:
        assert self.gate.wait(5)
        self.opened.append(ref.id)
        if self.failure is not None:
            raise self.failure
        presentation = SimpleNamespace(duration=Fraction(3, 2))
        return SimpleNamespace(
            title=ref.title,
            presentation=presentation,
            findings=(Finding("x", "y", "z"),),
            changed=lambda: self.changed,
            remote=False,
        )


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pool(telemetry: Telemetry) -> Iterator[Pool]:
    made = Pool("open", 2, 8, telemetry)
    yield made
    made.close()


def assets(shelf: Shelf, pool: Pool, telemetry: Telemetry, clock: Clock, **given: Any) -> Assets:
    return Assets(shelf, pool, EdgeSettings(**given), telemetry, clock)


async def failing(work: Any) -> str:
    with pytest.raises(StreamGateError) as caught:
        await work
    return caught.value.code


async def test_one_attempt_for_all_who_ask(pool: Pool, telemetry: Telemetry, clock: Clock) -> None:
    shelf = Shelf("a")
    shelf.gate.clear()
    known = assets(shelf, pool, telemetry, clock)
    waiting = [asyncio.create_task(known.open("a")) for _ in range(50)]
    while not telemetry.value("tasks_queued", pool="open") and not pool._pending:
        await asyncio.sleep(0)
    waiting[0].cancel()
    shelf.gate.set()
    opened = await asyncio.gather(*waiting[1:])
    assert len({id(o) for o in opened}) == 1
    assert shelf.opened == ["a"]
    assert known.current("a") is opened[0]
    assert telemetry.value("assets_open") == 1


async def test_failures_are_remembered_for_a_while(pool: Pool, telemetry: Telemetry, clock: Clock) -> None:
    shelf = Shelf("a")
    shelf.failure = StreamGateError("source_malformed", "no moov")
    known = assets(shelf, pool, telemetry, clock, failure_ttl=5)
    assert [await failing(known.open("a")) for _ in range(3)] == ["source_malformed"] * 3
    assert shelf.opened == ["a"]
    assert telemetry.value("asset_opens", result="source_malformed") == 1
    clock.now += 5
    shelf.failure = None
    assert (await known.open("a")).asset.title == "A"


async def test_changes_are_looked_for_now_and_then(pool: Pool, telemetry: Telemetry, clock: Clock) -> None:
    shelf = Shelf("a")
    known = assets(shelf, pool, telemetry, clock, revalidate=2)
    first = await known.open("a")
    shelf.changed = True
    clock.now += 1.9
    assert await known.open("a") is first
    clock.now += 0.2
    assert known.current("a") is None
    second = await known.open("a")
    assert second is not first and second.generation > first.generation
    shelf.changed = False
    clock.now += 3
    assert await known.open("a") is second
    assert shelf.opened == ["a", "a"]


async def test_an_open_asset_is_good_while_it_is_looked_at(pool: Pool, telemetry: Telemetry, clock: Clock) -> None:
    shelf = Shelf("a")
    known = assets(shelf, pool, telemetry, clock)
    assert known.known("a") is None
    first = await known.open("a")
    shelf.changed = True
    clock.now += 2
    shelf.gate.clear()
    assert known.known("a") is first
    waiting = asyncio.create_task(known.open("a"))
    shelf.gate.set()
    second = await waiting
    assert second is not first
    assert known.known("a") is second
    assert shelf.opened == ["a", "a"]


async def test_unknown_and_vanished_assets(pool: Pool, telemetry: Telemetry, clock: Clock) -> None:
    shelf = Shelf("a")
    known = assets(shelf, pool, telemetry, clock)
    for _ in range(20):
        assert await failing(known.open("b")) == "asset_not_found"
    assert shelf.discovered == 1
    clock.now += 2
    shelf.names.append("b")
    await known.open("b")
    shelf.names.remove("b")
    shelf.changed = True
    clock.now += 2
    assert await failing(known.open("b")) == "asset_not_found"
    assert [ref.id for ref, _ in await known.listing()] == ["a"]


async def test_the_least_used_is_forgotten(pool: Pool, telemetry: Telemetry, clock: Clock) -> None:
    shelf = Shelf("a", "b", "c")
    known = assets(shelf, pool, telemetry, clock, open_assets=2)
    for name in ("a", "b", "a", "c"):
        await known.open(name)
    assert known.current("b") is None
    assert known.current("a") is not None and known.current("c") is not None
    assert telemetry.value("assets_open") == 2


async def test_too_much_work_is_refused_and_not_remembered(telemetry: Telemetry, clock: Clock) -> None:
    pool = Pool("open", 1, 1, telemetry)
    shelf = Shelf(*"abcd")
    known = assets(shelf, pool, telemetry, clock)
    await known.refs()
    shelf.gate.clear()
    waiting = [asyncio.create_task(known.open(name)) for name in "abcd"]
    done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert {await failing(task) for task in done} == {"overloaded"}
    shelf.gate.set()
    await asyncio.wait(waiting)
    assert (await known.open("d")).asset.title == "D"
    pool.close()


async def test_listing(pool: Pool, telemetry: Telemetry, clock: Clock) -> None:
    shelf = Shelf("a", "b")
    known = assets(shelf, pool, telemetry, clock, failure_ttl=0)
    listed = {ref.id: summary for ref, summary in await known.listing()}
    assert listed["a"].state == "ready" and listed["a"].duration == 1.5
    assert [f.code for f in listed["a"].findings] == ["x"]
    await known.listing()
    assert sorted(shelf.opened) == ["a", "b"]
    shelf.names.append("c")
    clock.now += 2
    for code, state in (("asset_preparing", "preparing"), ("source_malformed", "failed")):
        shelf.failure = StreamGateError(code, "because")
        listed = {ref.id: summary for ref, summary in await known.listing()}
        assert (listed["a"].state, listed["c"].state) == ("ready", state)
    assert listed["c"].findings[-1].detail == "because"


async def test_broken_assets_do_not_hide_the_others(telemetry: Telemetry, clock: Clock) -> None:
    class Mixed(Shelf):
        def open(self, ref: AssetRef) -> Any:
            self.failure = StreamGateError("source_malformed") if ref.id.startswith("bad") else None
            return super().open(ref)

    shelf = Mixed(*(f"bad{n:02}" for n in range(40)), "good")
    pool = Pool("open", 1, 100, telemetry)
    known = assets(shelf, pool, telemetry, clock, failure_ttl=0)
    await known.listing()
    assert "good" not in shelf.opened
    listed = {ref.id: summary.state for ref, summary in await known.listing()}
    assert listed["good"] == "ready" and listed["bad39"] == "failed"
    pool.close()


async def test_listing_does_not_wait_for_slow_ones(
    pool: Pool, telemetry: Telemetry, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.assets._LISTING_WAIT_S", 0.01)
    shelf = Shelf("a")
    known = assets(shelf, pool, telemetry, clock)
    shelf.gate.clear()
    assert [summary.state for _, summary in await known.listing()] == ["preparing"]
    shelf.gate.set()
    await known.open("a")
    assert [summary.state for _, summary in await known.listing()] == ["ready"]


async def test_an_asset_in_preparation_is_a_503(folder: Path) -> None:
    class Preparing(Folder):
        def open(self, ref: AssetRef) -> Asset:
            raise StreamGateError("asset_preparing", "the container is being converted")

    async with running(Preparing(folder), settings(retry_after=7)) as edge:
        answer = await edge.ask("/v/film/main.m3u8")
        assert (answer.status, answer.code) == (503, "asset_preparing")
        assert answer.headers["Retry-After"] == "7"
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert [a["state"] for a in (await edge.ask("/assets.json")).json()["assets"]] == ["preparing"] * 2


async def test_a_replaced_file_has_other_names(folder: Path, tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    shutil.copy(folder / "film.mp4", film)
    async with running(Folder(tmp_path), settings(revalidate=0)) as edge:
        first = (await edge.ask("/v/film/main.m3u8")).body.decode()
        old = [line for line in first.splitlines() if line.endswith(".m3u8")][0]
        playlist = await edge.ask(f"/v/film/{old}")
        # The look at the file that the playlist began must not be the one that the next request waits for.
        await edge.node.assets.open("film")
        shutil.copy(folder / "ladder" / "v90.mp4", tmp_path / "new")
        os.replace(tmp_path / "new", film)
        second = (await edge.ask("/v/film/main.m3u8")).body.decode()
        assert old not in second
        # What is in memory is served still; what must be made is gone.
        assert (await edge.ask(f"/v/film/{old}")).body == playlist.body
        gone = await edge.ask(f"/v/film/{old.replace('index.m3u8', 'init.mp4')}")
        assert (gone.status, gone.code) == (410, "rendition_gone")


class Remuxing:
    """A conversion that ends when it is told to."""

    def __init__(self, failure: StreamGateError | None = None) -> None:
        self.failure = failure
        self.calls = 0
        self.gate = threading.Event()
        self.done = threading.Event()

    def __call__(self, source: Path, target: Path) -> None:
        self.calls += 1
        assert self.gate.wait(5)
        self.done.set()
        if self.failure is not None:
            raise self.failure
        shutil.copy(source, target)


def test_conversions_happen_once(tmp_path: Path, telemetry: Telemetry) -> None:
    (tmp_path / "a.mkv").write_bytes(b"x")
    remux = Remuxing()
    remuxes = Remuxes(1, telemetry, remux)
    for _ in range(3):
        remuxes.submit(tmp_path / "a.mkv", tmp_path / "a.mp4")
    remux.gate.set()
    remuxes.wait()
    assert remux.calls == 1
    assert (tmp_path / "a.mp4").read_bytes() == b"x"
    assert telemetry.value("remuxes", result="ok") == 1
    remuxes.close()


def test_a_failed_conversion_is_final(tmp_path: Path, telemetry: Telemetry) -> None:
    remux = Remuxing(StreamGateError("remux_failed", "no streams"))
    remux.gate.set()
    remuxes = Remuxes(1, telemetry, remux)
    remuxes.submit(tmp_path / "a.mkv", tmp_path / "a.mp4")
    remuxes.wait()
    for _ in range(2):
        with pytest.raises(StreamGateError) as caught:
            remuxes.submit(tmp_path / "a.mkv", tmp_path / "a.mp4")
        assert (caught.value.code, caught.value.detail) == ("remux_failed", "no streams")
    assert remux.calls == 1
    assert telemetry.value("remuxes", result="remux_failed") == 1
    remuxes.close()


def test_a_failure_that_may_pass_is_tried_again(tmp_path: Path, telemetry: Telemetry) -> None:
    remux = Remuxing(StreamGateError("output_failed", "no space left"))
    remux.gate.set()
    remuxes = Remuxes(1, telemetry, remux)
    remuxes.submit(tmp_path / "a.mkv", tmp_path / "a.mp4")
    remuxes.wait()
    # Who asks next hears what kept it from being done.
    for _ in range(2):
        with pytest.raises(StreamGateError) as caught:
            remuxes.submit(tmp_path / "a.mkv", tmp_path / "a.mp4")
        assert (caught.value.code, caught.value.detail) == ("output_failed", "no space left")
        remuxes.wait()
    remux.failure = None
    (tmp_path / "a.mkv").write_bytes(b"x")
    with pytest.raises(StreamGateError):
        remuxes.submit(tmp_path / "a.mkv", tmp_path / "a.mp4")
    remuxes.wait()
    remuxes.submit(tmp_path / "a.mkv", tmp_path / "a.mp4")
    assert (tmp_path / "a.mp4").exists()
    remuxes.close()


def test_closing_ends_conversions_under_way(tmp_path: Path, telemetry: Telemetry) -> None:
    remux = Remuxing(StreamGateError("remux_failed", "killed"))
    remuxes = Remuxes(1, telemetry, remux, stop=remux.gate.set)
    remuxes.submit(tmp_path / "a.mkv", tmp_path / "a.mp4")
    remuxes.submit(tmp_path / "b.mkv", tmp_path / "b.mp4")
    remuxes.close()
    assert remux.done.wait(5)
    assert remux.calls == 1


def test_the_library_begins_conversions(tmp_path: Path, telemetry: Telemetry) -> None:
    (tmp_path / "clip.mkv").write_bytes(b"\x1a\x45\xdf\xa3" + bytes(2000))
    remux = Remuxing(StreamGateError("remux_failed", "no streams"))
    remux.gate.set()
    remuxes = Remuxes(1, telemetry, remux)
    library = FolderLibrary(tmp_path, MediaSettings(), tmp_path / "data", remuxes)
    ref = library.discover()[0]
    with pytest.raises(StreamGateError) as caught:
        library.open(ref)
    assert caught.value.code == "asset_preparing"
    remuxes.wait()
    with pytest.raises(StreamGateError) as caught:
        library.open(ref)
    assert caught.value.code == "remux_failed"
    remuxes.close()


def library_of(root: Path, telemetry: Telemetry, **media: Any) -> FolderLibrary:
    return FolderLibrary(root, MediaSettings(**media), root, Remuxes(1, telemetry, lambda *_: None, lambda: None))


async def test_viewers_are_not_told_where_the_folder_is(
    tmp_path: Path, telemetry: Telemetry, logs: list[MutableMapping[str, Any]]
) -> None:
    async with running(library_of(tmp_path / "gone", telemetry)) as edge:
        for path, told in (
            ("/assets.json", (502, "source_unreadable")),
            ("/v/film/main.m3u8", (401, "token_required")),
        ):
            answer = await edge.ask(path)
            assert (answer.status, answer.code) == told
            assert str(tmp_path).encode() not in answer.body
    assert any(str(tmp_path) in line.get("detail", "") for line in logs)


def test_the_limits_of_indexes_are_settings(folder: Path, telemetry: Telemetry) -> None:
    film = next(ref for ref in library_of(folder, telemetry).discover() if ref.id == "film")
    for limit in ({}, {"max_samples": 1000}):
        assert library_of(folder, telemetry, **limit).open(film).id == "film"
    library = library_of(folder, telemetry)
    for name in ("max_index_bytes", "max_samples", "max_boxes"):
        library._index_limits = {**MediaSettings().model_dump(include={name}), name: 5}
        with pytest.raises(StreamGateError) as caught:
            library.open(film)
        assert caught.value.code == "source_too_complex"


async def test_an_asset_goes_and_comes_and_breaks_and_is_mended(folder: Path, tmp_path: Path) -> None:
    ladder = tmp_path / "ladder"
    shutil.copytree(folder / "ladder", ladder)
    async with running(Folder(tmp_path), settings(revalidate=0, failure_ttl=0)) as edge:

        async def state(path: str = "/v/ladder/main.m3u8") -> tuple[int, str]:
            answer = await edge.ask(path)
            return answer.status, answer.code if answer.status >= 400 else ""

        assert await state() == (200, "")
        described = (ladder / "asset.toml").read_text()
        (ladder / "asset.toml").write_text("title = ")
        assert await state() == (422, "asset_description")
        (ladder / "asset.toml").write_text(described)
        assert await state() == (200, "")
        source = next(ladder.glob("v*.mp4"))
        source.rename(ladder / "away")
        assert await state() == (404, "source_not_found")
        os.mkfifo(source)
        assert await state() == (502, "source_unreadable")
        source.unlink()
        source.mkdir()
        assert await state() == (502, "source_unreadable")
        source.rmdir()
        (ladder / "away").rename(source)
        assert await state() == (200, "")
        ladder.rename(tmp_path / "other")
        await edge.node.assets.look()
        assert await state() == (401, "token_required")
        assert await state("/v/other/main.m3u8") == (200, "")
