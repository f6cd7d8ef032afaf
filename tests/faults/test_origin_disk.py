"""The disk of a node is full, read-only, slow or damaged, and behind it is a bucket: the bytes come from there, and are right."""

from __future__ import annotations

import errno
import os
import resource
import shutil
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
