"""The origin benchmark: its trace and its LRU, what lies in its bucket, its peers, and its smallest run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from aiohttp.test_utils import TestClient, TestServer

from benchmarks import footage, origin, payloads
from benchmarks.answers import ask
from benchmarks.load import Report
from benchmarks.origin import bench, bucket, cold, shared, site
from benchmarks.origin.site import Memory, Trace
from benchmarks.peers import passthrough, redis
from benchmarks.peers.process import Server, folder, stopped
from benchmarks.rounds import Contestant, Goals, contest
from streamgate.storage.assets import discover, open_asset
from tests.conftest import ROOT
from tests.media_factory import Audio, Video, make


def trace(asked: str, sizes: dict[str, int]) -> Trace:
    """Requests for objects that are letters."""
    names = sorted(sizes)
    return Trace(
        [names.index(name) for name in asked],
        [f"/{name}".encode() for name in names],
        [sizes[name] for name in names],
        sum(sizes.values()),
    )


def test_traces_are_by_zipf_with_churn() -> None:
    made = Trace.drawn(1, requests=50_000, objects=500, churn=0.01)
    assert (
        made == Trace.drawn(1, requests=50_000, objects=500, churn=0.01) != Trace.drawn(2, requests=50_000, objects=500)
    )
    assert len(set(made.paths)) == len(made.paths) == len(made.sizes) and set(made.sizes) == set(site.SIZES)
    assert 500 + 400 < len(made.paths) < 500 + 600, "one request of a hundred replaces an object"
    still = Trace.drawn(1, requests=50_000, objects=500, churn=0)
    counted = Counter(still.asked)
    assert counted[0] / 50_000 == pytest.approx(1 / sum(n**-0.9 for n in range(1, 501)), rel=0.05)
    assert counted[9] / counted[0] == pytest.approx(10**-0.9, rel=0.15)


def test_what_is_replaced_is_not_asked_for_again() -> None:
    ranks, which = np.array([0, 1, 0, 1, 0, 1, 0]), np.array([9, 9, 0, 9, 9, 1, 0])
    replaced = np.array([False, False, True, False, False, True, True])
    assert site.with_churn(ranks, replaced, which, 10) == [0, 1, 10, 1, 10, 11, 12]


@pytest.mark.parametrize(
    ("asked", "capacity", "hits"),
    [
        ("aaaa", 10, 3),
        ("abab", 10, 0),  # each throws the other out
        ("abab", 20, 2),
        ("abacab", 20, 2),  # b was the oldest when c came; then a is
        ("bigbig", 30, 3),
        ("xaxa", 10, 1),  # x is larger than the cache, and throws nobody out
    ],
)
def test_lru_by_hand(asked: str, capacity: int, hits: int) -> None:
    sizes = dict.fromkeys(asked, 10) | ({"x": 11} if "x" in asked else {})
    assert site.of_lru(trace(asked, sizes), capacity, warmup=0) == pytest.approx(hits / len(asked))
    assert site.of_lru(trace(asked, sizes), capacity, warmup=len(asked) - 1) in (0, 1)


def test_each_object_is_at_one_node_and_at_any_worker_of_it() -> None:
    made = Trace.drawn(3, requests=20_000, objects=200, churn=0)
    room = 10 * made.catalogue
    missed = len(set(made.asked)) / len(made.asked)
    assert site.of_site(made, room, warmup=0) == pytest.approx(1 - missed)
    apart = site.of_site(made, room, workers=2, warmup=0)
    assert 1 - 2 * missed <= apart < 1 - 1.5 * missed, "nearly all are fetched by both workers of their node"
    assert site.of_site(made, room // 20, warmup=10_000) < 1


@pytest.mark.parametrize(
    ("points", "held", "met"),
    [
        ([5.1, 5.5, 6.0, 6.2, 7.0, 7.1], True, True),
        ([4.9, 5.5, 6.0, 6.2, 7.0, 7.1], True, "undecided"),
        ([1.0, 1.1, 1.2, 1.3, 1.4, 4.9], True, False),
        ([7.0] * 5, True, "undecided"),
        ([1.0] * 6, False, None),
    ],
)
def test_points_are_held_against_the_whole_interval(points: list[float], held: bool, met: object) -> None:
    row = site.row(Memory(0.1, held=held), [(0.5 + n / 100, 0.5) for n in points])
    assert (row.met, row.goal) == (met, 5.0 if held else None)
    assert row.ours == pytest.approx(sorted(points)[len(points) // 2], abs=0.3) and "one LRU 50.0 %" in row.note


def test_the_sites_caches_are_the_edges_own() -> None:
    rows = site.run(runs=1)
    assert [row.case for row in rows] == [memory.case for memory in site.MEMORIES]


@pytest.fixture
def film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What every title of footage is."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = make(tmp_path / "film.mp4", Video(gop=25), Audio(), seconds=9)
    monkeypatch.setattr(footage, "title", lambda minutes: path)
    return path


def test_titles_in_the_bucket(film: Path) -> None:
    title = bucket.long(10)
    assert title.key == "film.mp4" and len(title.sizes) == len(title.spans) > 1
    rendition = open_asset(discover(film)[0]).presentation.video[0]
    with film.open("rb") as source:
        for n, (start, length) in enumerate(title.spans):
            plan = rendition.segment(n)
            assert title.segment(n) == plan.from_fd(source.fileno()) and len(title.segment(n)) == title.sizes[n]
            lowest, highest = min(at for at, _ in plan.ranges), max(at + size for at, size in plan.ranges)
            assert (start, start + length) == (lowest, highest)
            assert title.read(start, length) == film.read_bytes()[start : start + length]


@pytest.mark.needs("ffprobe")
def test_noise_cannot_be_compressed_and_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = payloads.exact(20_000, 3, noise=True)
    bodies = [(made.root / path.removeprefix("/")).read_bytes() for path in made.paths]
    assert [len(body) for body in bodies] == [20_000] * 3 and len(set(bodies)) == 3
    assert all(len(zlib.compress(body, 9)) > 18_000 for body in bodies)
    film = next(made.assets.iterdir())
    count = "-count_frames -show_entries stream=nb_read_frames -of csv=p=0".split()
    told = subprocess.run(["ffprobe", "-v", "error", *count, film], check=True, capture_output=True, text=True)
    assert (told.stdout.strip(), told.stderr) == ("3", "")


def test_cold_titles_differ_and_have_their_index_last(film: Path) -> None:
    made = [bucket.cold(number) for number in range(3)]
    assert len({title.file.read_bytes() for title in made}) == len({title.key for title in made}) == 3
    for title in made:
        start, length = bucket.moov(title.file)
        assert title.file.read_bytes()[start + 4 : start + 8] == b"moov"
        assert start + length == title.file.stat().st_size and start > max(sum(span) for span in title.spans[:-1])
        assert len(title.sizes) == len(made[0].sizes)
    before = made[1].file.stat().st_mtime_ns
    assert bucket.cold(1) == made[1] and made[1].file.stat().st_mtime_ns == before
    (film.parent / "empty.mp4").write_bytes(b"\0\0\0\x08free")
    with pytest.raises(RuntimeError, match="empty.mp4 has no moov"):
        bucket.moov(film.parent / "empty.mp4")


def report(requests: int, *, bytes: int = 10**9, cpu: float = 1.0, errors: int = 0) -> Report:
    """A run of two seconds."""
    return Report(
        requests, requests, bytes, 2.0, {"p50": 0.004, "p99": 0.01}, 32, 32, {"min": 1, "median": 2, "max": 3}, 30.0, 0.2,
        cpu, {"status": errors}, "status: 503",
    )  # fmt: skip


def test_throughput_and_cpu_are_by_bytes() -> None:
    theirs = Contestant("proxy", lambda: report(50, bytes=2 * 10**9, cpu=3.0), rival=True)
    rows = list(
        contest(
            "cold",
            lambda: report(100),
            [theirs],
            Goals(1.0),
            6,
            benchmark="origin",
            rate=cold.THROUGHPUT,
            cost=cold.COST,
        )
    )
    assert [(row.benchmark, row.metric, row.unit) for row in rows] == [
        ("origin", "throughput", "MB/s"),
        ("origin", "CPU", "s/GB"),
    ]
    assert [(row.ours, row.peer_value, row.ratio, row.met) for row in rows] == [
        (500.0, 1000.0, 0.5, False),
        (1.0, 1.5, 1.5, True),
    ]


def test_hits_elsewhere_are_void() -> None:
    theirs = Contestant("bare", lambda: report(50), rival=True)
    rows = list(contest("hit", lambda: report(100), [theirs], Goals(1.0), 6))
    assert [row.met for row in shared.judged(rows, 0.991)] == [True, True]
    void = list(shared.judged(rows, 0.989))
    assert [row.met for row in void] == ["void", "void"] and void[0].note.startswith("98.9 % of ours out of Redis; ")


BUSY = "import time\nwhile time.process_time() < float('{}'): pass\ntime.sleep(60)"


def test_a_server_is_waited_for_until_it_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    with folder() as own, stopped(Server("starting", 0, own)) as server:
        server.run([sys.executable, "-c", BUSY.format(0.5)], None)
        bench.rested(server)
        fields = Path(f"/proc/{server.processes[0].pid}/stat").read_text().rpartition(")")[2].split()
        assert int(fields[11]) + int(fields[12]) >= 45
    monkeypatch.setattr(bench, "_PATIENCE_S", 0.5)
    with folder() as own, stopped(Server("restless", 0, own)) as server:
        server.run([sys.executable, "-c", BUSY.format("inf")], None)
        with pytest.raises(RuntimeError, match="restless has not come to rest in 0 s"):
            bench.rested(server)


def test_what_goes_wrong_ends_it() -> None:
    with pytest.raises(RuntimeError, match="99 of 100 requests; 1 failed: status: 503"):
        cold.complete(report(99, errors=1), 100)
    assert cold.complete(report(100), 100).requests == 100
    with pytest.raises(RuntimeError, match="no playlist of a rendition"):
        cold.rendition(b"#EXTM3U\n#EXT-X-VERSION:7\n")
    assert cold.rendition(b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nv540-0a/index.m3u8\n") == "v540-0a"
    with pytest.raises(click.BadParameter, match="no nothing; there are segment, title, throughput, redis, site"):
        list(origin.run(runs=1, seconds=1, chosen=["nothing"]))


class Body:
    """The body of an answer of aioboto3."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.content = self

    async def __aenter__(self) -> Body:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        for at in range(0, len(self.data), size):
            yield self.data[at : at + size]


async def test_the_proxy_sends_the_range_on(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = os.urandom(700_000)
    asked: list[dict[str, Any]] = []

    class Store:
        async def get_object(self, **request: Any) -> dict[str, Any]:
            asked.append(request)
            first, last = map(int, request["Range"].removeprefix("bytes=").split("-"))
            data = stored[first : last + 1]
            return {"ContentLength": len(data), "Body": Body(data)}

    @asynccontextmanager
    async def made(options: object) -> AsyncIterator[Store]:
        yield Store()

    monkeypatch.setattr(passthrough, "client", made)
    app = passthrough.application("http://127.0.0.1:1", "titles", {"X-Told": "by ours"})
    async with TestClient(TestServer(app)) as client:
        answer = await client.get(passthrough.path("a film.mp4", 17, 600_000))
        assert await answer.read() == stored[17:600_017]
        assert (answer.status, answer.content_length, answer.headers["X-Told"]) == (200, 600_000, "by ours")
    assert asked == [{"Bucket": "titles", "Key": "a film.mp4", "Range": "bytes=17-600016"}]


@pytest.mark.needs("redis-server")
def test_the_bare_reader_of_redis_sends_what_is_there() -> None:
    body = os.urandom(65_536)
    with redis.store(None) as store, redis.bare(store.port, None, headers={"X-Told": "by ours"}) as server:
        redis.put(store.port, {"/v/a/0.m4s": body})
        answer = ask(server.port, "/v/a/0.m4s")
        assert (answer.status, answer.body, answer.fields["X-Told"]) == (200, body, "by ours")
        assert ask(server.port, "/v/a/1.m4s").status == 404


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.needs("weed", "redis-server")
def test_the_smallest_run_prints_every_row() -> None:
    command = [sys.executable, "-m", "benchmarks", "origin", "--quick", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["metric"] for row in rows[:6]] == ["wall", "wall", "throughput", "CPU", "requests", "CPU a request"]
    assert [row["case"] for row in rows[6:]] == [memory.case for memory in site.MEMORIES]
    assert all(row["ours"] > 0 and row["peer_value"] > 0 for row in rows[:6])
    assert {row["goal"] for row in rows[:6]} == {1 / 1.15, 1 / 1.1, 1.0}
    assert {row["met"] for row in rows} == {"undecided", None}
    assert "Little's law" in done.stderr
