"""Purges at real nodes: acknowledged when both workers have applied them, for good, and for all nodes of a site.

The film's bytes are changed behind the node's back (same size, same times), as an origin does whose ETag tells nothing:
without a purge what is cached goes out for as long as it is cached.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.edge.nodes import RunningNode, node, until
from tests.media_factory import Audio, Video, make
from tests.services.redis import RedisServer

_MARK = b"version-%05d"
_BLOCK = 4096  # of what an index is known by, in 16 places of the file


class Film:
    """An asset with a tag, and a second of its video whose last bytes can be changed unnoticed."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "film"
        self.folder.mkdir(parents=True)
        self.file = make(self.folder / "film.mp4", Video(size=(320, 180), gop=25), Audio(), seconds=9)
        (self.folder / "asset.toml").write_text('tags = ["season-1"]\n[[source]]\nfile = "film.mp4"\n')
        make(root / "other.mp4", Video(size=(64, 36), gop=25), Audio(), seconds=3)
        self.path = ""
        self._at = 0
        self.version = 0

    def find(self, running: RunningNode) -> None:
        """Find out where a segment's last bytes lie."""
        data = self.file.read_bytes()
        step = max(_BLOCK, len(data) // 16)
        base = playlists(running, "film")[0]
        for number in (0, 1):
            body = running.get(f"{base}{number}.m4s")[2]
            at = data.find(body[-200:]) + 200 - len(_MARK % 0)
            if (at % step) > _BLOCK and (at % step) < step - 100:
                self.path, self._at = f"{base}{number}.m4s", at
        assert self.path

    def change(self) -> int:
        """Change the bytes; the new version."""
        self.version += 1
        before = self.file.stat()
        with self.file.open("r+b") as file:
            os.pwrite(file.fileno(), _MARK % self.version, self._at)
        os.utime(self.file, ns=(before.st_atime_ns, before.st_mtime_ns))
        return self.version


def playlists(running: RunningNode, asset: str) -> list[str]:
    """What the addresses of the asset's renditions begin with, the videos' first."""
    text = running.get(f"/v/{asset}/main.m3u8")[2].decode()
    names = [
        line.removesuffix("index.m3u8") for line in text.splitlines() if line.endswith("/index.m3u8") and line[0] == "v"
    ]
    return [f"/v/{asset}/{name}" for name in names]


def version(body: bytes) -> int:
    mark = body[-len(_MARK % 0) :]
    return int(mark[8:]) if mark.startswith(b"version-") else 0


def versions(running: RunningNode, path: str) -> set[int]:
    """What each of the two workers sends, twice."""
    with running.each_worker() as both:
        return {version(get(each, path)[1]) for each in both * 2}


def get(connection: HTTPConnection, path: str) -> tuple[str, bytes]:
    connection.request("GET", path)
    answer = connection.getresponse()
    assert answer.status == 200, answer.status
    return answer.headers["Cache-Status"], answer.read()


def purge(running: RunningNode, **what: Any) -> None:
    status, told = running.admin("POST", "/purges", what)
    assert status == 200, told
    assert told["soft"] == what.get("soft", False)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Film:
    return Film(tmp_path_factory.mktemp("assets"))


@pytest.fixture(scope="module")
def running(film: Film, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """One node for all."""
    with node(film.folder.parent, tmp_path_factory.mktemp("node") / "data", edge={"cache_tags": True}) as started:
        film.find(started)
        yield started


@pytest.mark.parametrize("by", ["url", "prefix", "asset", "tag", "kind"])
def test_both_workers_send_the_new_bytes(running: RunningNode, film: Film, by: str) -> None:
    subjects = {
        "url": {"url": f"https://cdn.example{film.path}?x=1"},
        "prefix": {"prefix": film.path.rpartition("/")[0]},
        "asset": {"asset": "film"},
        "tag": {"tag": "season-1"},
        "kind": {"tag": "kind:segment"},
    }
    before = versions(running, film.path)
    new = film.change()
    # Cached at both, and nothing tells them.
    assert versions(running, film.path) == before
    purge(running, **subjects[by])
    assert versions(running, film.path) == {new}


def test_others_are_not_touched(running: RunningNode, film: Film) -> None:
    other = f"{playlists(running, 'other')[0]}0.m4s"
    with running.each_worker() as both:
        for each in both * 2:
            get(each, other)
        for what in ({"tag": "season-1"}, {"asset": "film"}, {"prefix": "/v/film"}, {"url": film.path}):
            purge(running, **what)
        assert all("hit" in get(each, other)[0] for each in both)


@pytest.mark.slow
def test_not_acknowledged_while_a_worker_has_not_applied_it(running: RunningNode, film: Film) -> None:
    versions(running, film.path)
    new, stopped = film.change(), running.workers()[0]
    os.kill(stopped, signal.SIGSTOP)
    try:
        status, told = running.admin("POST", "/purges", {"asset": "film"})
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert (status, told["code"]) == (503, "not_acknowledged")
    # It is in force nevertheless, and as soon as the other one goes on there as well.
    until(lambda: versions(running, film.path) == {new}, "the purge")
    purge(running, asset="film")


def test_soft_sends_the_old_bytes_until_the_new_are_there(running: RunningNode, film: Film) -> None:
    purge(running, asset="film")
    old = versions(running, film.path)
    new = film.change()
    with running.each_worker() as both:
        purge(running, url=film.path, soft=True)
        # It need not wait for anything.
        assert all(get(each, film.path)[0].startswith("streamgate;hit") for each in both)
        assert old == {new - 1}
        until(lambda: {version(get(each, film.path)[1]) for each in both} == {new}, "the new bytes")
        assert all("hit" in get(each, film.path)[0] for each in both)


def test_nothing_comes_back_after_kill_9_of_all(running: RunningNode, film: Film) -> None:
    versions(running, film.path)
    new = film.change()
    purge(running, tag="season-1")
    running.kill()
    running.start()
    assert versions(running, film.path) == {new}


def test_a_workers_successor_knows_of_it(running: RunningNode, film: Film) -> None:
    versions(running, film.path)
    new = film.change()
    purge(running, asset="film")
    for pid in running.workers():
        os.kill(pid, signal.SIGKILL)
    assert version(running.get(film.path)[2]) == new
    until(lambda: len(running.workers()) == 2, "both workers")
    assert versions(running, film.path) == {new}


def test_under_load_nothing_older_goes_out_after_the_acknowledgement(running: RunningNode, film: Film) -> None:
    ended, seen = threading.Event(), []

    def watch(connection: HTTPConnection) -> None:
        while not ended.is_set():
            began = time.monotonic()
            seen.append((began, version(get(connection, film.path)[1])))

    with running.each_worker() as first, running.each_worker() as second, ThreadPoolExecutor(4) as threads:
        watching = [threads.submit(watch, each) for each in (*first, *second)]
        acknowledged = []
        try:
            for turn in range(12):
                new = film.change()
                purge(running, **({"asset": "film"}, {"url": film.path}, {"tag": "kind:segment"})[turn % 3])
                acknowledged.append((time.monotonic(), new))
                before = len(seen)
                until(lambda: len(seen) > before + 20)  # noqa: B023
        finally:
            ended.set()
        for each in watching:
            each.result()
    assert len(seen) > 200
    for at, new in acknowledged:
        assert not [found for began, found in seen if began > at and found < new]


def test_the_statistics(running: RunningNode, film: Film) -> None:
    for _ in range(3):
        versions(running, film.path)
    told = until(lambda: (now := running.admin("GET", "/cache")[1])["tiers"]["disk"]["objects"] and now, "the gauges")
    memory, disk = told["tiers"]["memory"], told["tiers"]["disk"]
    assert memory["hits"] > 0 and memory["purged"] > 0 and memory["objects"] > 0 and memory["bytes"] > 0
    assert disk["bytes"] > 4096 and told["misses"] > 0 and told["tiers"]["redis"] == {"hits": 0}


def test_tags_go_with_what_they_tell_of(running: RunningNode, film: Film) -> None:
    rendition = film.path.split("/")[3]
    for _ in range(3):
        assert running.get(film.path)[1]["Cache-Tag"] == f"asset:film,rendition:{rendition},kind:segment,season-1"
    assert running.get("/v/film/main.mpd")[1]["Cache-Tag"] == "asset:film,kind:mpd,season-1"
    assert running.get("/v/other/main.mpd")[1]["Cache-Tag"] == "asset:other,kind:mpd"
    assert all("Cache-Tag" not in running.get(path)[1] for path in ("/v/none/main.mpd", "/assets.json", "/v/film/x"))


def end(running: RunningNode) -> None:
    if running.process.poll() is None:
        running.kill()


@pytest.fixture
def site(redis_server: RedisServer, film: Film, tmp_path: Path) -> Iterator[tuple[RunningNode, RunningNode]]:
    """Two nodes with two workers each, which share what fits into Redis."""
    redis, edge = {"url": redis_server.url, "prefix": f"{tmp_path.name}:"}, {"disk_bytes": 0}
    with contextlib.ExitStack() as started, ThreadPoolExecutor(2) as threads:

        def start(name: str) -> RunningNode:
            made = RunningNode(film.folder.parent, tmp_path / name, redis=redis, edge=edge)
            started.callback(end, made)
            return made

        one, other = threads.map(start, ("a", "b"))
        if not film.path:
            film.find(one)
        yield one, other


@pytest.mark.slow
def test_every_node_of_a_site_hears_of_it(site: tuple[RunningNode, RunningNode], film: Film) -> None:
    here, there = site
    for each in site:
        versions(each, film.path)
    new = film.change()
    purge(here, asset="film")
    assert versions(here, film.path) == {new}
    until(lambda: versions(there, film.path) == {new}, "the purge at the other node")
    # Who was away hears of it when it is back.
    there.kill()
    new = film.change()
    purge(here, url=film.path)
    there.start()
    until(lambda: versions(there, film.path) == {new}, "the purge at the node that was away")
