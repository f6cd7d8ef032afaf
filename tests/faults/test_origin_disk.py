"""The disk of a node is full, read-only, slow or damaged, and behind it is a bucket: the bytes come from there, and are right."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from edge.tiers.objects import HEADER
from tests.edge.nodes import RunningNode, until
from tests.faults import mounted
from tests.faults.test_tiers_faults import DISKS, limit_files
from tests.faults.two_nodes import (
    Film,
    Origin,
    file_of,
    film_of,
    first_answers,
    in_front_of,
    names,
    origin,
    statuses,
    stored,
    unfinished,
)
from tests.services.seaweed import SeaweedFS


@pytest.fixture(scope="module")
def film() -> Film:
    return film_of()


@pytest.fixture
def behind(seaweed: SeaweedFS, film: Film) -> Iterator[Origin]:
    with origin(seaweed) as made:
        made.put(film.another(), "film.mp4")
        yield made


def check(running: RunningNode, film: Film) -> dict[str, bytes]:
    """Every segment is right, whichever worker is asked; all of them by path."""
    assert first_answers(running, "film") == [200, 200]
    video, audio = names(running, "film")
    wanted = {f"{video}/{n}.m4s": body for n, body in enumerate(film.video)}
    wanted |= {f"{audio}/{n}.m4s": body for n, body in enumerate(film.audio)}
    with running.each_worker() as workers:
        for worker in workers:
            for path, body in wanted.items():
                worker.request("GET", path)
                answer = worker.getresponse()
                assert (answer.status, answer.read() == body) == (200, True), path
    return wanted


def why(running: RunningNode) -> set[str]:
    """Why the disk tier took no writes, as far as was told."""
    return {event["reason"] for event in running.events() if event["event"] == "the disk tier takes no writes"}


@pytest.mark.slow
@pytest.mark.parametrize("disk", DISKS)
def test_full(behind: Origin, film: Film, tmp_path: Path, disk: str) -> None:
    """Nothing is stored, and a byte that is in memory is not asked for again; when there is room, all is stored."""
    data = tmp_path / "data"
    through = mounted.limited(data / "cache", "128k") if disk == "mount" else ()
    with in_front_of(behind, data, through=through, edge={"disk_retry": 0.5}) as running:
        here = mounted.seen_by(running, data)
        if disk == "limit":
            limit_files(running, 8192)
        wanted = check(running, film)
        assert why(running) == {os.strerror(errno.EFBIG if disk == "limit" else errno.ENOSPC)}
        assert not unfinished(here) and not stored(here)
        reads = [read.range for read in behind.reads("film.mp4")]
        assert len(reads) == len(set(reads)) <= 2 + len(film.video)
        if disk == "limit":
            limit_files(running, resource.RLIM_INFINITY)
        else:
            mounted.remount(running, data / "cache", "size=64m")
        until(lambda: check(running, film) == stored(here), "all of it on the disk")
        assert stored(here) == wanted


@pytest.mark.slow
@pytest.mark.parametrize("disk", DISKS)
def test_read_only(behind: Origin, film: Film, tmp_path: Path, disk: str) -> None:
    """A disk that cannot be written, or no way to make the tier's folder: all comes from the bucket."""
    data = tmp_path / "data"
    through: Sequence[str] = ()
    if disk == "mount":
        through = mounted.read_only(data / "cache")
    else:
        data.mkdir()
        (data / "cache").write_text("in the way")
    with in_front_of(behind, data, through=through, edge={"disk_retry": 0.5}) as running:
        check(running, film)
        assert why(running) == {os.strerror(errno.EROFS if disk == "mount" else errno.ENOTDIR)}
        if disk == "mount":
            mounted.remount(running, data / "cache", "bind,rw")
        else:
            (data / "cache").unlink()
        until(lambda: check(running, film) and (data / "cache/1/objects").is_dir(), "a folder")
        until(lambda: check(running, film) == stored(data), "all of it on the disk")


def test_damaged_while_it_was_down(behind: Origin, film: Film, tmp_path: Path) -> None:
    """In a body, in a header, cut short, another's: what is damaged is thrown out and asked for again, and only that."""
    data = tmp_path / "data"
    with in_front_of(behind, data) as running:
        wanted = check(running, film)
        assert stored(data) == wanted
        running.kill()
        body, head, cut, swapped, *_, other = (file_of(data, path) for path in wanted)
        for file, at in ((body, HEADER + 1000), (head, 20)):
            content = bytearray(file.read_bytes())
            content[at] ^= 0x10
            file.write_bytes(content)
        os.truncate(cut, cut.stat().st_size // 2)
        shutil.copyfile(other, swapped)
        behind.proxy.forget()
        running.start()
        assert check(running, film) == wanted
        assert running.total("disk_corrupt_total") == 4
        reads = [read.range for read in behind.reads("film.mp4")]
        assert len(reads) == len(set(reads)) <= 4, "each range that was damaged, once"
        assert stored(data) == wanted


@pytest.mark.slow
def test_damaged_and_the_bucket_is_away(behind: Origin, film: Film, tmp_path: Path) -> None:
    """What is well is served; what is damaged is a clear 5xx, and right when the bucket is back."""
    data = tmp_path / "data"
    with in_front_of(behind, data) as running:
        wanted = check(running, film)
        damaged, well, *_ = wanted
        running.kill()
        with file_of(data, damaged).open("r+b") as file:
            file.seek(HEADER + 1000)
            file.write(b"damage")
        running.start()
        assert first_answers(running, "film") == [200, 200]
        behind.proxy.refuse()
        assert statuses(running, damaged) == [503, 503]
        assert statuses(running, well) == [200, 200] and running.get(well)[2] == wanted[well]
        assert stored(data).get(damaged) is None
        behind.proxy.heal()
        until(lambda: statuses(running, damaged) == [200, 200], "it is well")
        assert check(running, film) == wanted == stored(data)


class SlowDisk:
    """What a node's disk tier takes its time with; ``environment`` is that of the node."""

    def __init__(self, folder: Path, data: Path) -> None:
        library = folder / "slow_disk.so"
        source = Path(__file__).with_name("slow_disk.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source)], check=True)
        self._delays = folder / "delays"
        self.take()
        self.environment = {
            "LD_PRELOAD": str(library),
            "SLOW_DISK_FOLDER": str(data / "cache"),
            "SLOW_DISK_DELAYS": str(self._delays),
        }

    def take(self, reads: float = 0.0, writes: float = 0.0) -> None:
        """So many seconds for each call that reads, and for each that writes; those that wait already included."""
        aside = self._delays.with_suffix(".new")
        aside.write_text(f"{reads * 1000:.0f} {writes * 1000:.0f}")
        aside.replace(self._delays)


@pytest.mark.slow
@pytest.mark.needs("cc")
def test_slow(behind: Origin, film: Film, tmp_path: Path) -> None:
    """Each call takes a twentieth of a second: all that is asked for comes, is stored, and is found there."""
    data = tmp_path / "data"
    disk = SlowDisk(tmp_path, data)
    with in_front_of(behind, data, environment=disk.environment) as running:
        assert first_answers(running, "film") == [200, 200]
        disk.take(reads=0.05, writes=0.05)
        wanted = check(running, film)
        reads = [read.range for read in behind.reads("film.mp4")]
        assert len(reads) == len(set(reads)) <= 2 + len(film.video)
        assert not why(running) and stored(data) == wanted
        running.kill()
        behind.proxy.forget()
        running.start()
        assert check(running, film) == wanted
        assert not behind.reads("film.mp4"), "all of it is on the disk, and is waited for"


@pytest.mark.slow
@pytest.mark.needs("cc")
@pytest.mark.parametrize("hangs", ["writes", "all"])
def test_hangs(behind: Origin, film: Film, tmp_path: Path, hangs: str) -> None:
    """Nobody waits for it longer than edge.disk_patience, and hardly anybody at all: the bytes come from the bucket."""
    data, patience = tmp_path / "data", 0.5
    disk = SlowDisk(tmp_path, data)
    edge = {"disk_patience": patience, "disk_retry": 2.0}
    with in_front_of(behind, data, environment=disk.environment, edge=edge) as running:
        wanted: dict[str, bytes] = {}
        if hangs == "all":
            wanted = check(running, film)
            assert stored(data) == wanted
            running.kill()
            running.start()
        assert first_answers(running, "film") == [200, 200]
        disk.take(reads=3600.0 if hangs == "all" else 0.0, writes=3600.0)
        took = []
        for path, body in (wanted or check(running, film)).items():
            began = time.monotonic()
            status, _, got = running.get(path)
            took.append(time.monotonic() - began)
            assert (status, got == body) == (200, True), path
        assert max(took) < 2 * patience + 5
        assert why(running) == {"it takes too long"}
        assert hangs == "all" or not stored(data)
        disk.take()
        until(lambda: check(running, film) == stored(data), "all of it on the disk")
        hits = running.total("tier_hits_total", "disk")

        def found() -> bool:
            check(running, film)
            return bool(running.total("tier_hits_total", "disk") > hits or running.total("native_answers_total"))

        until(found, "it is asked again once edge.disk_retry is over")
