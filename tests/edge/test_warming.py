"""Warm-up of a title: everything of it is in the tiers before the first viewer, and whoever waits hears how far that is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest

from edge import library as libraries
from edge.library import BucketLibrary
from edge.titles import objects
from edge.warm_orders import Order
from edge.warming import Warming
from streamgate.core.settings import MediaSettings, S3Settings
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError
from streamgate.media.inputs import Limits
from streamgate.storage.assets import discover, open_asset
from streamgate.storage.objects.folder import FolderStore
from tests.edge.counting_store import CountingStore
from tests.edge.harness import running as running_edge
from tests.edge.harness import settings
from tests.edge.nodes import AdminConnection, RunningNode, node, until
from tests.media_factory import ladder

ASSET = "film"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film in two bitrates, with sound and subtitles in two languages, of eight segments."""
    root = tmp_path_factory.mktemp("warming")
    ladder(root / ASSET, seconds=8, rungs=((64, 36, 40_000), (128, 72, 160_000)), gop=25)
    return root


@pytest.fixture(scope="module")
def running(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    with node(root, tmp_path_factory.mktemp("data"), media={"target": 1.0}) as started:
        yield started


def warm(running: RunningNode, body: object) -> tuple[int, list[dict[str, Any]]]:
    """Status and lines of what the operator's socket answers."""
    with contextlib.closing(AdminConnection(running.admin_path)) as connection:
        connection.request("POST", "/cache/warm", json.dumps(body))
        answer = connection.getresponse()
        return answer.status, [json.loads(line) for line in answer.read().splitlines()]


def command(running: RunningNode, *arguments: str) -> subprocess.CompletedProcess[str]:
    given = [sys.executable, "-m", "streamgate.cli", "cache", "--socket", str(running.admin_path), "warm", *arguments]
    return subprocess.run(given, capture_output=True, text=True, timeout=60, check=False)


def paths(root: Path, order: Order) -> list[str]:
    [ref] = discover(root)
    made = open_asset(ref, Limits(target=1.0)).presentation
    return [f"{t.rendition}/{t.leaf}" if t.rendition else t.leaf for t in objects(made, *astuple(order))]


def test_a_part_first_and_then_everything(root: Path, running: RunningNode) -> None:
    """What is there already is not made again; after it every segment is a hit, in all workers."""
    rendition = next(path for path in paths(root, Order(ASSET)) if path.startswith("v")).partition("/")[0]
    status, lines = warm(running, {"asset": ASSET, "renditions": [rendition], "manifests": False, "limit": 3})
    last = lines[-1]
    assert (status, last["ended"], last["objects"], last["done"], last["fetched"]) == (200, "done", 4, 4, 4)
    before = running.total("fills_total", "begun")
    assert before == 3
    everything = paths(root, Order(ASSET))
    status, lines = warm(running, {"asset": ASSET})
    last = lines[-1]
    assert (status, last["ended"], last["done"], last["failed"]) == (200, "done", len(everything), {})
    # An init segment is kept by each worker for itself, and this may have been another one.
    assert last["fetched"] + last["present"] == len(everything) and 3 <= last["present"] <= 4
    assert all(one["done"] <= two["done"] for one, two in zip(lines, lines[1:], strict=False))
    size = 0
    with running.each_worker() as workers:
        for path in everything:
            for worker in workers:
                worker.request("GET", f"/v/{ASSET}/{path}")
                answer = worker.getresponse()
                body = answer.read()
                assert answer.status == 200
                if path.endswith(".m4s"):
                    assert answer.headers["Cache-Status"].startswith("streamgate;hit"), path
            size += len(body)
    assert last["bytes"] == size
    segments = sum(path.endswith(".m4s") for path in everything)
    assert running.total("fills_total", "begun") == segments
    assert running.total("warmed_total", "present") == last["present"]


def test_the_command_tells_what_became_of_it(root: Path, running: RunningNode) -> None:
    told = command(running, ASSET)
    assert told.returncode == 0, told.stderr
    found = re.match(r"(\d+) objects: (\d+) fetched, (\d+) there already; [0-9.]+ MB in [0-9.]+ s\n$", told.stdout)
    assert found and int(found[1]) == int(found[2]) + int(found[3]) == len(paths(root, Order(ASSET)))
    told = command(running, ASSET, "--rendition", "v72", "--limit", "2", "--no-manifests", "--json")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["objects"] == 3


def test_what_cannot_be_warmed_is_told(running: RunningNode) -> None:
    for body, status, code in (
        ({"asset": "nothing"}, 404, "asset_not_found"),
        ({"asset": ASSET, "renditions": ["v9999"]}, 410, "rendition_gone"),
        ({}, 400, "request_malformed"),
        ([], 400, "request_malformed"),
        ({"asset": ASSET, "limit": -1}, 400, "request_malformed"),
        ({"asset": ASSET, "more": 1}, 400, "request_malformed"),
        ({"asset": 5}, 400, "request_malformed"),
    ):
        told = warm(running, body)
        assert (told[0], told[1][0]["code"]) == (status, code), body
    failed = command(running, "nothing")
    assert failed.returncode != 0 and "asset_not_found" in failed.stderr


def test_order() -> None:
    given = {"asset": "a", "renditions": ["v540"], "manifests": False, "limit": 5}
    assert Order.of(given) == Order("a", ("v540",), False, 5)
    assert Order.of({"asset": "a", "renditions": None}) == Order("a")
    for wrong in (
        {"asset": "a", "renditions": [1]},
        {"asset": "a", "manifests": 1},
        {"asset": "a", "limit": True},
        None,
    ):
        with pytest.raises(StreamGateError, match="request_malformed"):
            Order.of(wrong)


def test_what_a_warm_up_makes(root: Path) -> None:
    """Manifests and init segments first, then segments number by number, as they lie in files of several tracks."""
    everything = paths(root, Order(ASSET))
    assert everything[:3] == ["main.m3u8", "main.mpd", "main-ts.m3u8"]
    assert len(everything) == len(set(everything))
    segments = [path for path in everything if re.search(r"/\d+\.", path)]
    assert everything[-len(segments) :] == segments
    numbers = [int(path.rpartition("/")[2].partition(".")[0]) for path in segments]
    assert numbers == sorted(numbers) and numbers.count(0) == 6 and max(numbers) >= 7
    some = paths(root, Order(ASSET, ("v36", "tfra"), False, 1))
    assert [path.rpartition("/")[2] for path in some] == ["init.mp4", "0.m4s", "0.vtt"]


async def test_a_title_in_a_store_is_read_once(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No byte of a source twice; what the store refuses is told by its code, and ends it before all is tried in vain."""
    store = CountingStore(FolderStore(root, S3Settings()))

    async def opened(*_: object) -> CountingStore:
        return store

    monkeypatch.setattr(libraries, "open_store", opened)
    chosen = settings({"data": str(tmp_path)}, disk_bytes=2**30)
    chosen = chosen.model_copy(update={"media": MediaSettings(target=1.0)})
    library = BucketLibrary("bucket", chosen, Telemetry())
    await library.start()
    async with running_edge(library, chosen, remote=True) as edge:
        told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        warming = Warming(edge.node, lambda _, message: told.put_nowait(message))

        async def end() -> dict[str, Any]:
            async with asyncio.timeout(30):
                while not (last := await told.get())["ended"]:
                    pass
                return last

        asset = (await edge.node.assets.open(ASSET)).asset
        store.failing = StreamGateError("origin_unavailable", "for a test")
        warming.begin(1, Order(ASSET, manifests=False))
        last = await end()
        assert (last["ended"], set(last["failed"])) == ("origin_unavailable", {"origin_unavailable"})
        assert last["failed"]["origin_unavailable"] < last["objects"]
        store.failing = None
        store.reads.clear()  # of the indexes, and in vain
        edge.node.tiers.negatives.forget(lambda _: True)
        warming.begin(2, Order(ASSET))
        last = await end()
        assert (last["ended"], last["failed"]) == ("done", {})
        assert store.reads and not any(store.twice(each.name.rpartition("/")[2]) for each in asset.objects)
        asked = len(store.reads)
        warming.begin(3, Order(ASSET))
        last = await end()
        assert (last["ended"], last["present"], last["fetched"]) == ("done", last["objects"], 0)
        assert len(store.reads) == asked
        await warming.close()
    await library.stop()


class Watched:
    """A warm-up that somebody waits for, in a thread."""

    def __init__(self, running: RunningNode, body: object) -> None:
        self.status = 0
        self.lines: list[dict[str, Any]] = []
        self._connection = AdminConnection(running.admin_path)
        self._thread = threading.Thread(target=self._run, args=(json.dumps(body),))
        self._thread.start()

    def _run(self, body: str) -> None:
        with contextlib.closing(self._connection):
            self._connection.request("POST", "/cache/warm", body)
            answer = self._connection.getresponse()
            self.status = answer.status
            while line := answer.readline():
                self.lines.append(json.loads(line))

    def end(self) -> dict[str, Any]:
        """The last line, when there will be no other."""
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.lines[-1]


@pytest.fixture
def slowly(tmp_path: Path) -> Path:
    """Code under which making a segment waits for a file, as a slow source would."""
    code = tmp_path / "code"
    code.mkdir()
    (code / "sitecustomize.py").write_text(
        "import os, sys, time\n"
        f"gate = {str(tmp_path / 'gate')!r}\n"
        "if 'edge.worker' in sys.orig_argv:\n"
        "    from edge import media\n"
        "    read = media.PlanCut.read\n"
        "    def slow(self, start, length):\n"
        "        while not os.path.exists(gate):\n"
        "            time.sleep(0.01)\n"
        "        return read(self, start, length)\n"
        "    media.PlanCut.read = slow\n"
    )
    return tmp_path


def test_a_second_one_joins_and_a_node_that_drains_ends_it(root: Path, slowly: Path) -> None:
    with node(root, slowly / "data", code=slowly / "code", media={"target": 1.0}, drain={"deadline": 2.0}) as running:
        one = Watched(running, {"asset": ASSET})
        until(lambda: one.lines, "news")
        two = Watched(running, {"asset": ASSET, "limit": 1})
        until(lambda: two.lines, "the same news")
        assert two.lines[-1]["objects"] == one.lines[-1]["objects"] > 20
        assert running.total("fills_total", "begun") <= 4
        running.process.terminate()
        for each in (one, two):
            last = each.end()
            assert (each.status, last["ended"]) == (200, "stopping")
        (slowly / "gate").touch()
        assert running.end() == 0


@pytest.mark.parametrize("how", ["dies", pytest.param("is replaced by a reload", marks=pytest.mark.slow)])
def test_another_worker_goes_on_where_one_ends(root: Path, slowly: Path, how: str) -> None:
    with node(root, slowly / "data", code=slowly / "code", media={"target": 1.0}) as running:
        watched = Watched(running, {"asset": ASSET, "manifests": False})
        until(lambda: watched.lines, "news")
        worker = watched.lines[-1]["worker"]
        if how == "dies":
            os.kill(worker, signal.SIGKILL)
        else:
            running.reload()
        until(lambda: watched.lines[-1]["worker"] != worker, "another worker")
        (slowly / "gate").touch()
        last = watched.end()
        assert (last["ended"], last["failed"]) == ("done", {}), last
        assert last["fetched"] + last["present"] == last["objects"]
