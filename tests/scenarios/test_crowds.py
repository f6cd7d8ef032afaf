"""Many viewers at two workers: slow ones hold little, and all of a title's viewers together cost one fill per object."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from benchmarks import payloads
from benchmarks.load import Load, Target
from benchmarks.peers.certificate import self_signed
from benchmarks.peers.ours import Ours, ours
from streamgate.storage.assets import discover, open_asset
from tests.media_factory import Audio, Video, make

MB = 1 << 20
SLOW = 300
RATE = 10_000  # bytes/s
SECONDS = 15


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Payloads that go with the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def resident(server: Ours) -> int:
    """Bytes of memory that belong to the server's processes alone: not the files that they have mapped."""
    found = 0
    for pid in server.pids():
        status = Path(f"/proc/{pid}/status").read_text()
        found += 1024 * sum(map(int, re.findall(r"^Rss(?:Anon|Shmem):\s+(\d+) kB", status, re.M)))
    return found


def in_sockets() -> int:
    """Bytes that the kernel holds for TCP sockets of this machine (proc(5), /proc/net/sockstat)."""
    pages = re.search(r"^TCP:.* mem (\d+)", Path("/proc/net/sockstat").read_text(), re.M)
    assert pages is not None
    return int(pages[1]) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def most(server: Ours, seconds: float) -> Iterator[dict[str, int]]:
    """Watches memory while the block runs, for ``seconds`` at most: the most seen, of the processes and of the kernel."""
    import threading

    seen = {"processes": 0, "kernel": 0}
    ended = threading.Event()

    def watch() -> None:
        limit = time.monotonic() + seconds
        while not ended.wait(0.25) and time.monotonic() < limit:
            seen["processes"] = max(seen["processes"], resident(server))
            seen["kernel"] = max(seen["kernel"], in_sockets())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
def test_slow_readers_hold_little_and_disturb_nobody(
    encrypted: bool, cache: None, capsys: pytest.CaptureFixture[str]
) -> None:
    payload, small = payloads.exact(6 * MB, 8), payloads.exact(64 * 1024, 8)
    os.link(next(small.assets.iterdir()), payload.assets / next(small.assets.iterdir()).name)
    budget = 256 * MB
    settings = {"edge": {"buffered_bytes": budget // 2, "cache_bytes": budget // 2}}
    with contextlib.ExitStack() as stack:
        tls = stack.enter_context(self_signed()) if encrypted else None
        server = stack.enter_context(
            ours(payload.assets, None, asset=payload.asset, workers=2, settings=settings, tls=tls)
        )
        quick = [Target(f"/t/{server.mint(small.asset)}{path}", 64 * 1024) for path in small.paths]
        others = Load(server.port, quick, seconds=3, warmup=0.3, connections=8, tls=encrypted)
        large = [Target(server.path(path), 6 * MB) for path in payload.paths]
        # Both workers have all in memory or on disk before anything is compared.
        for _ in range(4):
            assert Load(server.port, large, requests=64, seconds=60, connections=16, tls=encrypted).run().failed == 0
        before = others.run()
        base, kernel = resident(server), in_sockets()
        crowd = Load(
            server.port, large, seconds=SECONDS, connections=SLOW, rate=RATE, receive_buffer=16384, tls=encrypted
        )
        with crowd.start() as running, most(server, SECONDS) as seen:
            during = others.run()
            told = running.report()
        after = others.run()
    used, buffers = seen["processes"] - base, seen["kernel"] - kernel
    with capsys.disabled():
        print(
            f"\n{SLOW} slow readers{' over TLS' * encrypted}: {used / MB:.1f} MB more in the processes, {buffers / MB:.1f} MB in the kernel"
        )
        print(f"others: {before.rate:.0f}, {during.rate:.0f}, {after.rate:.0f} requests/s before, meanwhile and after")
    assert told.failed == 0 and told.opened == SLOW
    assert 0.5 * SLOW * RATE * SECONDS < told.bytes <= 1.1 * SLOW * RATE * SECONDS
    assert used < budget and buffers < SLOW * MB
    for report in (before, during, after):
        assert report.failed == 0 and report.completions["min"] > 0
    assert during.rate > before.rate / 3 and during.latency["p99"] < 0.5


HLS_JS = "bl=21300,br=3200,cid=%22film%22,d=4004,mtp=25400,ot=v,sf=h,sid=%22{}%22,st=v,su,tb=3200"
DASH_JS = (
    "CMCD-Object: br=3200,d=4004,ot=v,tb=3200",
    "CMCD-Request: bl=21300,dl=21300,mtp=25400,nor=%221.m4s%22",
    'CMCD-Session: cid="film",sf=d,sid="ec2a0ab8-3c1c-4f3c-8d4e-9d5a8a6a1f5b",st=v',
    "CMCD-Status: su",
)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_two_hundred_viewers_cost_one_fill_per_object(tmp_path: Path) -> None:
    make(tmp_path / "film.mp4", Video(gop=25), Audio(), seconds=40)
    made = open_asset(discover(tmp_path / "film.mp4")[0]).presentation
    hls, dash, segments = ["main.m3u8"], ["main.mpd"], set()
    lengths = {"main.m3u8": -1, "main.mpd": -1}
    for rendition in (*made.video, *made.audio):
        hls.append(f"{rendition.name}/index.m3u8")
        lengths[hls[-1]] = -1
        both = [f"{rendition.name}/init.mp4", *(f"{rendition.name}/{n}.m4s" for n in range(rendition.segments))]
        lengths[both[0]] = len(rendition.init())
        lengths |= {name: rendition.segment(n).size for n, name in enumerate(both[1:])}
        hls += both
        dash += both
        segments |= {*both[1:]}
    with ours(tmp_path, None, asset="film", workers=2) as server:

        def viewers(names: list[str], count: int, query: str) -> list[Target]:
            return [
                Target(f"{prefix}/{name}{query.format(viewer)}", lengths[name])
                for viewer in range(count)
                for prefix in [f"/t/{server.mint('film')}/v/film"]
                for name in names
            ]

        one = Load(
            server.port, viewers(hls, 100, "?CMCD=" + quote(HLS_JS, safe="{}%")), connections=100, each=True, seconds=60
        )
        other = Load(server.port, viewers(dash, 100, ""), connections=100, each=True, seconds=60, headers=DASH_JS)
        with one.start() as first, other.start() as second:
            reports = first.report(), second.report()
        for report, names in zip(reports, (hls, dash), strict=True):
            assert report.first_error == "" and report.requests == 100 * len(names)
            assert set(report.completions.values()) == {len(names)}
        counted = json.loads(server.admin("GET", "/counters"))
    # Playlists and init segments take microseconds and are made by each worker for itself.
    assert counted['streamgate_fills_total{result="begun"}'] == len(segments)
    assert counted.get('streamgate_fills_total{result="failed"}', 0) == 0
