"""The disk tier when things go wrong: full, read-only, damaged, killed in the middle. Right bytes, or none that look right."""

from __future__ import annotations

import contextlib
import errno
import http.client
import os
import re
import resource
import shutil
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path

import pytest

from edge.tiers.objects import HEADER
from streamgate.media.presentation import Rendition
from streamgate.storage.assets import Asset, discover, open_asset
from tests.edge.connections_of import clients_of
from tests.edge.nodes import RunningNode, node, until
from tests.faults import mounted
from tests.faults.large_title import make_large
from tests.media_factory import Audio, Video, make

MIB = 1024 * 1024
EDGE = {"disk_bytes": 2**31, "memory_object": 0, "disk_retry": 0.5, "max_buffered_segment": 65536, "scrub_rate": 0}


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    folder = tmp_path / "assets"
    folder.mkdir()
    make(folder / "film.mp4", Video(gop=25, size=(640, 360)), Audio(), seconds=9)
    return folder


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    make_large(folder / "large.mp4")
    return folder


def opened(folder: Path) -> Asset:
    return open_asset(discover(folder)[0])


def segments(folder: Path) -> dict[str, bytes]:
    """Every video segment by its path."""
    asset = opened(folder)
    rendition = asset.presentation.video[0]
    fd = asset.sources[rendition.source].fd
    name = f"/v/{asset.id}/{rendition.name}"
    return {f"{name}/{n}.m4s": rendition.segment(n).from_fd(fd) for n in range(rendition.segments)}


def rendition_of(folder: Path) -> tuple[str, Rendition, int]:
    """The name under which it is served, the rendition, and its source's file."""
    asset = opened(folder)
    found = asset.presentation.video[0]
    return f"/v/{asset.id}/{found.name}", found, os.dup(asset.sources[found.source].fd)


_INDEX = re.compile(rb'"key":"/v/[^/"]+/index/')


def objects(data: Path, below: str = "/v/", *, index: bool = False) -> list[Path]:
    """The files of all objects whose key begins so and that are media or, else, indexes of sources."""
    files = sorted(path for path in (data / "cache/1/objects").rglob("*") if path.is_file())
    files = [path for path in files if f'"key":"{below}'.encode() in path.read_bytes()[:HEADER]]
    return [path for path in files if (_INDEX.search(path.read_bytes()[:HEADER]) is not None) is index]


def fills(data: Path) -> list[Path]:
    return list((data / "cache/1/fills").iterdir())


def check(running: RunningNode, wanted: dict[str, bytes], times: int = 1) -> list[str]:
    """All segments are right; the Cache-Status of each answer."""
    told = []
    for path, body in wanted.items():
        for _ in range(times):
            status, headers, got = running.get(path)
            assert (status, got == body) == (200, True), path
            told.append(headers["Cache-Status"])
    return told


def test_a_restart_is_warm_and_a_kill_loses_nothing(assets: Path, tmp_path: Path) -> None:
    data, wanted = tmp_path / "data", segments(assets)
    with node(assets, data, edge=EDGE) as running:
        check(running, wanted)
        assert len(objects(data)) == len(wanted)
        running.kill()
        running.start()
        assert set(check(running, wanted)) == {"streamgate;hit;detail=disk"}
        assert running.total("fills_total") == 0
        assert len(objects(data, index=True)) == 1


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_bit_flips_while_it_was_down(assets: Path, tmp_path: Path, end: str) -> None:
    """In a body, in a header, a file cut short, one that was swapped for another: all are misses, and thrown out."""
    data, wanted = tmp_path / "data", segments(assets)
    assert len(wanted) >= 2
    name, rendition, fd = rendition_of(assets)
    os.close(fd)
    keyframes = [f"{name}/k{n}.m4s" for n in range(rendition.keyframes)]
    with node(assets, data, edge=EDGE) as running:
        wanted |= {path: running.get(path)[2] for path in keyframes}
        check(running, wanted)
        (running.stop if end == "stop" else running.kill)()
        body, head, short, swapped, other = objects(data)[:5]
        for path, at in ((body, HEADER + 1000), (head, 20)):
            damaged = bytearray(path.read_bytes())
            damaged[at] ^= 0x10
            path.write_bytes(damaged)
        os.truncate(short, short.stat().st_size - 1)
        shutil.copyfile(other, swapped)
        for path in (body, head, short, swapped):
            os.utime(path, (1, 1))
        running.start()
        told = check(running, wanted)
        assert sum(status.startswith("streamgate;fwd=uri-miss;stored") for status in told) == 4
        assert running.total("disk_corrupt_total") == 4
        assert all(path.stat().st_mtime > 1 for path in (body, head, short, swapped)), "made anew"
        assert "streamgate;hit;detail=disk" in set(check(running, wanted))


def test_the_scrub_finds_damage_that_nobody_has_met(assets: Path, tmp_path: Path) -> None:
    data, wanted = tmp_path / "data", segments(assets)
    with node(assets, data, edge=EDGE) as running:
        check(running, wanted)
        running.stop()
        damaged = objects(data)[0]
        content = bytearray(damaged.read_bytes())
        content[-1] ^= 1
        damaged.write_bytes(content)
        running.write(edge={**EDGE, "scrub_rate": 2**30})
        running.start()
        until(lambda: not damaged.exists(), "the scrub")
        assert running.total("disk_corrupt_total") == 1 and len(objects(data)) == len(wanted) - 1
        check(running, wanted)


def limit_files(running: RunningNode, size: int) -> None:
    for pid in running.workers():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


# What stands for a disk everywhere, and a file system where there can be one for the node alone.
SILENCE_S = 2.0
DISKS = ["limit"] + ["mount"] * mounted.available()


@pytest.mark.parametrize("disk", ["limit"] + ["128k", "8500k"] * mounted.available())
def test_a_full_disk_turns_writes_off_and_on_again(assets: Path, tmp_path: Path, disk: str) -> None:
    """There is room for the ledger, which is made at the start, but for no object, or not even for that."""
    data, wanted = tmp_path / "data", segments(assets)
    through = mounted.limited(data / "cache", disk) if disk != "limit" else ()
    with node(assets, data, through=through, edge=EDGE) as running:
        here = mounted.seen_by(running, data)
        if disk == "limit":
            limit_files(running, 8192)
        assert set(check(running, wanted, 3)) == {"streamgate;fwd=uri-miss"}
        assert running.total("disk_failures_total") >= 1
        reasons = {event["reason"] for event in running.events() if event["event"] == "the disk tier takes no writes"}
        assert reasons == {os.strerror(errno.EFBIG if disk == "limit" else errno.ENOSPC)}
        assert objects(here) == fills(here) == []
        if disk == "limit":
            limit_files(running, resource.RLIM_INFINITY)
        else:
            mounted.remount(running, data / "cache", "size=64m")

        def stored() -> bool:
            check(running, wanted)
            return len(objects(here)) == len(wanted)

        until(stored, "objects on the disk")
        assert set(check(running, wanted, 3)) == {"streamgate;hit;detail=disk"}


@pytest.mark.parametrize("disk", DISKS)
def test_a_folder_that_cannot_be_written(assets: Path, tmp_path: Path, disk: str) -> None:
    """A read-only disk, or, much as there, no way to make the tier's folder; when that is over, all is stored."""
    data, wanted = tmp_path / "data", segments(assets)
    through: Sequence[str] = ()
    if disk == "mount":
        through = mounted.read_only(data / "cache")
    else:
        data.mkdir()
        (data / "cache").write_text("in the way")
    with node(assets, data, through=through, edge=EDGE) as running:
        assert set(check(running, wanted, 2)) == {"streamgate;fwd=uri-miss"}
        reasons = {event["reason"] for event in running.events() if event["event"] == "the disk tier takes no writes"}
        assert reasons == {os.strerror(errno.EROFS if disk == "mount" else errno.ENOTDIR)}
        if disk == "mount":
            assert not list((data / "cache").iterdir())
            mounted.remount(running, data / "cache", "bind,rw")
        else:
            (data / "cache").unlink()

        def stored() -> bool:
            check(running, wanted)
            return (data / "cache/1/objects").is_dir() and len(objects(data)) == len(wanted)

        until(stored, "objects on the disk")


@pytest.mark.parametrize("disk", DISKS)
def test_what_is_there_is_served_where_nothing_can_be_written(assets: Path, tmp_path: Path, disk: str) -> None:
    data, wanted = tmp_path / "data", segments(assets)
    first, *others = wanted
    with node(assets, data, edge=EDGE) as running:
        check(running, {first: wanted[first]})
        running.kill()
        if disk == "mount":
            running.through = mounted.read_only(data / "cache")
        else:
            # Neither a growing file nor the ledger can be made any more.
            shutil.rmtree(data / "cache/1/fills")
            (data / "cache/1/fills").write_text("")
        running.start()
        assert check(running, wanted, 2)[:2] == ["streamgate;hit;detail=disk"] * 2
        assert [path.name for path in objects(data)] == [blake2b(first.encode(), digest_size=16).hexdigest()]
        assert running.process.poll() is None and others


class Viewer:
    """A request whose answer is read when the test wants to."""

    def __init__(self, port: int, path: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.port = self.socket.getsockname()[1]
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())

    def read(self) -> tuple[int, int, bytes]:
        """Status, promised and received bytes; a connection that ends early gives what came."""
        answer = http.client.HTTPResponse(self.socket)
        body = b""
        with contextlib.closing(self.socket), contextlib.closing(answer):
            try:
                answer.begin()
                while piece := answer.read1(MIB):
                    body += piece
            except (http.client.BadStatusLine, http.client.IncompleteRead, ConnectionError):
                pass
        return (answer.status, int(answer.headers["Content-Length"]), body) if answer.headers else (0, 0, b"")


def caught_in_the_middle(running: RunningNode, data: Path, base: str, count: int) -> tuple[int, str, list[Viewer]]:
    """The worker that writes a segment, stopped while it does; the segment's path and its viewers in both workers."""
    workers = running.workers()
    for number in range(count):
        path = f"{base}/{number}.m4s"
        viewers = [Viewer(running.port, path) for _ in range(8)]
        with contextlib.suppress(AssertionError):
            growing = until(lambda: [file for file in fills(data) if len(file.name) == 32], limit=5)[0]
            for pid in workers:
                os.kill(pid, signal.SIGSTOP)
            if growing.exists():
                leader = next(pid for pid in workers if holds(pid, growing, os.O_RDWR))
                return leader, path, viewers
            for pid in workers:
                os.kill(pid, signal.SIGCONT)
        with ThreadPoolExecutor(len(viewers)) as pool:
            list(pool.map(Viewer.read, viewers))
    raise AssertionError("every segment was written before anybody could look")


def holds(pid: int, path: Path, mode: int) -> bool:
    """Whether a process has the file open in this mode."""
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            if os.path.samefile(f"/proc/{pid}/fd/{number}", path):
                flags = Path(f"/proc/{pid}/fdinfo/{number}").read_text().split()
                if int(flags[flags.index("flags:") + 1], 8) & os.O_ACCMODE == mode:
                    return True
    return False


@pytest.fixture
def whole(large: Path) -> Iterator[tuple[str, Rendition, int]]:
    base, rendition, fd = rendition_of(large)
    yield base, rendition, fd
    os.close(fd)


def judge(answers: list[tuple[int, int, bytes]], right: bytes) -> set[str]:
    """Every answer is whole and right, a clear 5xx, or cut short with what came being right."""
    kinds = set()
    for status, promised, got in answers:
        if status == 0 or status >= 500:
            kinds.add("refused")
        else:
            assert (status, promised) == (200, len(right))
            assert got == right[: len(got)]
            kinds.add("whole" if len(got) == promised else "cut")
    return kinds


def test_kill_9_of_the_leader_in_mid_write(large: Path, tmp_path: Path, whole: tuple[str, Rendition, int]) -> None:
    data, (base, rendition, fd) = tmp_path / "data", whole
    with node(large, data, edge=EDGE) as running:
        leader, path, viewers = caught_in_the_middle(running, data, base, rendition.segments)
        other = next(pid for pid in running.workers() if pid != leader)
        mine = clients_of(leader, running.port)
        os.kill(leader, signal.SIGKILL)
        os.kill(other, signal.SIGCONT)
        right = rendition.segment(int(path.rpartition("/")[2].removesuffix(".m4s"))).from_fd(fd)
        with ThreadPoolExecutor(len(viewers)) as pool:
            answers = list(pool.map(Viewer.read, viewers))
        lost = [answer for viewer, answer in zip(viewers, answers, strict=True) if viewer.port in mine]
        assert judge(lost, right) <= {"refused", "cut"}
        judge(answers, right)
        until(lambda: len(running.workers()) == 2 and leader not in running.workers(), "a successor")
        status, headers, got = running.get(path)
        assert (status, len(got), got == right) == (200, len(right), True), headers
        until(lambda: not fills(data), "an end of all leftovers")


@pytest.mark.slow
def test_a_leader_that_is_stopped_in_mid_write(large: Path, tmp_path: Path, whole: tuple[str, Rendition, int]) -> None:
    """It lives and says nothing: who follows goes on without it, and what it writes when it goes on is right."""
    data, (base, rendition, fd) = tmp_path / "data", whole
    settings = {**EDGE, "leader_silence": SILENCE_S, "fill_timeout": 60.0}
    with node(large, data, edge=settings, server={"hang_timeout": 0}) as running:
        leader, path, viewers = caught_in_the_middle(running, data, base, rendition.segments)
        right = rendition.segment(int(path.rpartition("/")[2].removesuffix(".m4s"))).from_fd(fd)
        with ThreadPoolExecutor(len(viewers)) as pool:
            (other,) = (pid for pid in running.workers() if pid != leader)
            os.kill(other, signal.SIGCONT)
            answers = {viewer.port: pool.submit(viewer.read) for viewer in viewers}
            until(lambda: answers.keys() - clients_of(leader, running.port), "somebody at the other worker")
            began = time.monotonic()
            followers = answers.keys() - clients_of(leader, running.port)
            assert judge([answers[port].result(30) for port in followers], right) == {"whole"}
            took = time.monotonic() - began
            assert took < 60.0 / 2, "nobody waits for as long as an object may take to grow"
            os.kill(leader, signal.SIGCONT)
            led = answers.keys() - followers
            assert judge([answers[port].result(60) for port in led], right) in ({"whole"}, set())
        until(lambda: not fills(data), "the end of what the leader writes")
        with running.each_worker() as workers:
            for worker in workers:
                worker.request("GET", path)
                answer = worker.getresponse()
                assert (answer.status, answer.read() == right, "hit" in answer.headers["Cache-Status"]) == (
                    200,
                    True,
                    True,
                )
        assert running.total("fills_total", 'result="silent"') >= 1


def test_kill_9_of_all_in_mid_write(large: Path, tmp_path: Path, whole: tuple[str, Rendition, int]) -> None:
    data, (base, rendition, fd) = tmp_path / "data", whole
    with node(large, data, edge=EDGE) as running:
        _, path, viewers = caught_in_the_middle(running, data, base, rendition.segments)
        unfinished = fills(data)
        stored = {file.name for file in objects(data)}
        running.kill()
        right = rendition.segment(int(path.rpartition("/")[2].removesuffix(".m4s"))).from_fd(fd)
        with ThreadPoolExecutor(len(viewers)) as pool:
            assert judge(list(pool.map(Viewer.read, viewers)), right) <= {"refused", "cut"}
        assert {file.name for file in objects(data)} == stored and unfinished
        running.start()
        assert fills(data) == []
        status, headers, got = running.get(path)
        assert (status, got == right, headers["Cache-Status"]) == (200, True, "streamgate;fwd=uri-miss;stored")


def test_a_thousand_misses_are_one_fill(assets: Path, tmp_path: Path) -> None:
    wanted = segments(assets)
    path, right = next(iter(wanted.items()))
    with node(assets, tmp_path / "data", edge=EDGE) as running:
        began = time.monotonic()
        viewers = [Viewer(running.port, path) for _ in range(1000)]
        until(lambda: sum(len(clients_of(pid, running.port)) for pid in running.workers()) == 1000, "all accepted")
        assert all(len(clients_of(pid, running.port)) > 100 for pid in running.workers())
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(Viewer.read, viewers))
        assert judge(answers, right) == {"whole"} and time.monotonic() - began < 50
        assert running.total("fills_total", "begun") == 1
        assert running.total("requests_total", 'route="segment"') == 1000
