"""The disk tier damaged while two workers serve from it: a cut object is sent once at most, and nobody dies."""

from __future__ import annotations

import http.client
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.tiers.ledger import Ledger
from edge.tiers.objects import HEADER
from tests.edge.connections_of import clients_of
from tests.edge.nodes import RunningNode, node, until
from tests.faults.test_tiers_faults import EDGE, check, objects, rendition_of, segments
from tests.media_factory import Audio, Video, make

# What is asked for in such a way goes through aiohttp.
WAYS = {"native": {}, "aiohttp": {"Cookie": "CTA-Common-Access-Token=none"}}


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assets")
    make(folder / "film.mp4", Video(gop=25, size=(640, 360)), Audio(), seconds=9)
    return folder


@pytest.fixture
def running(assets: Path, tmp_path: Path) -> Iterator[RunningNode]:
    # Writes are turned off for a minute by anything that a disk is blamed for.
    with node(assets, tmp_path / "data", edge={**EDGE, "disk_retry": 60.0, "block": 65536}) as started:
        yield started


def opened_by(pid: int, path: Path) -> bool:
    """Whether a process has an object open that is, or was, at ``path``."""
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
        except FileNotFoundError:
            continue
    return any(link.startswith(str(path)) for link in found)


def ask(connection: http.client.HTTPConnection, path: str, way: str) -> bytes:
    """The body, or as much of it as came."""
    connection.request("GET", path, headers=WAYS[way])
    answer = connection.getresponse()
    assert answer.status == 200 or (answer.status == 503 and b"cache_failed" in answer.read())
    try:
        return answer.read()
    except http.client.IncompleteRead as cut:
        connection.close()
        return cut.partial
    except ConnectionResetError:
        connection.close()
        return b""


@pytest.mark.parametrize(("way", "left"), [("native", "half"), ("native", "nothing"), ("aiohttp", "half")])
def test_an_object_that_is_cut_while_it_is_open(
    running: RunningNode, assets: Path, tmp_path: Path, way: str, left: str
) -> None:
    """The first answer that ends too early throws it out for both workers: the one that sent none of it closes it too, and
    what follows is right."""
    path, body = max(segments(assets).items(), key=lambda each: len(each[1]))
    assert len(body) > 4 * 65536
    with running.each_worker() as (one, two):
        for connection in (one, two, one, two):
            assert ask(connection, path, "native") == body
        (file,) = objects(tmp_path / "data")
        assert all(opened_by(pid, file) for pid in running.workers())
        dead = file.stat().st_ino
        (other,) = (pid for pid in running.workers() if two.sock.getsockname()[1] in clients_of(pid, running.port))
        os.truncate(file, HEADER + len(body) // 2 if left == "half" else 0)
        assert ask(one, path, way) != body
        until(lambda: not file.exists() or file.stat().st_ino != dead, "the end of the file", 2)
        until(lambda: not opened_by(other, Path(f"{file} (deleted)")), "it is let go", 4)
    with running.each_worker() as both:
        assert [ask(each, path, asked) == body for each in both for asked in WAYS] == [True] * 4
    assert running.total("disk_corrupt_total") == 1
    assert running.total("worker_deaths_total") == 0


def damage(ledger: Path, how: str) -> None:
    size = ledger.stat().st_size
    if how in ("empty", "half"):
        os.truncate(ledger, 0 if how == "empty" else size // 2)
    elif how == "gone":
        ledger.unlink()
    elif how == "all gone":
        shutil.rmtree(ledger.parent.parent)
    else:
        with ledger.open("r+b") as file:
            file.write(os.urandom(size) if how == "noise" else b"\xff" * size)


def test_the_ledger_is_damaged_while_it_is_in_use(running: RunningNode, assets: Path, tmp_path: Path) -> None:
    """Nobody dies or hangs, answers are right, and objects are stored again without a restart."""
    wanted, data = segments(assets), tmp_path / "data"
    name, rendition, fd = rendition_of(assets)
    os.close(fd)
    check(running, wanted, 4)
    workers, ledger = running.workers(), data / "cache/1/ledger"
    size = ledger.stat().st_size
    for number, how in enumerate(("empty", "half", "noise", "ones", "gone", "all gone")):
        damage(ledger, how)
        # What nobody has asked for before: it is stored, by the second or third time where the folder had to be made anew.
        fresh = f"{name}/k{number}.m4s"
        assert number < rendition.keyframes

        def stored(path: str = fresh) -> bool:
            assert running.get(path)[0] == 200
            return bool(objects(data, path))

        until(stored, f"an object on the disk: {how}", 10)
        check(running, wanted, 2)
    assert running.workers() == workers
    until(lambda: ledger.exists() and ledger.stat().st_size == size, "a whole ledger")
    running.kill()
    running.start()
    check(running, wanted)
    assert set(check(running, wanted)) == {"streamgate;hit;detail=disk"}


def test_a_worker_comes_to_a_ledger_without_records(tmp_path: Path) -> None:
    """Not the first of its node, and what the first has made is short, or of nobody's making."""
    (tmp_path / "objects/aa").mkdir(parents=True)
    (tmp_path / "objects/aa" / ("a" * 32)).write_bytes(bytes(1000))
    first = Ledger(tmp_path, 2**30)
    for size in (0, 5, 100_000, 3_000_001):
        os.truncate(tmp_path / "ledger", size)
        second = Ledger(tmp_path, 2**30)
        assert not second.first and (len(second), second.bytes) == (1, 1000)
        assert second.add("b" * 32, 500, lambda: None) and second.remove("b" * 32) is False
        assert first.add("c" * 32, 500, lambda: None) and first.bytes == second.bytes
        second.close()
    first.close()


def test_records_that_somebody_wrote_over(tmp_path: Path) -> None:
    """To make room ends, whatever the records say; the budget holds for what is added from then on."""
    (tmp_path / "objects").mkdir()
    ledger = Ledger(tmp_path, 2**20)

    def add(number: int) -> bool:
        return ledger.add(f"{number:032x}", 100_000, lambda: None)

    assert all(add(number) for number in range(8))
    size = (tmp_path / "ledger").stat().st_size
    for noise in (bytes(4000), b"\xff" * 4000, os.urandom(4000)):
        with (tmp_path / "ledger").open("r+b") as file:
            file.seek(200)
            file.write(noise)
        began = time.monotonic()
        assert all(add(number) for number in range(40))
        assert time.monotonic() - began < 5 and ledger.bytes <= 2**20
    assert (tmp_path / "ledger").stat().st_size == size
    ledger.close()


def test_two_budgets_agree_on_the_room_for_records(tmp_path: Path) -> None:
    """As around a reload: each goes by what is there, also where the other had to make it anew."""
    (tmp_path / "objects").mkdir()
    small, large = Ledger(tmp_path, 2**25), Ledger(tmp_path, 2**30)
    size = (tmp_path / "ledger").stat().st_size
    assert small.add("a" * 32, 500, lambda: None) and large.add("b" * 32, 500, lambda: None)
    assert (small.bytes, large.bytes, (tmp_path / "ledger").stat().st_size) == (1000, 1000, size)
    os.truncate(tmp_path / "ledger", 0)
    for number in range(4):
        ledger = (large, small)[number % 2]
        assert ledger.add(f"{number:032x}", 500, lambda: None) and ledger.bytes == 500 * (number + 1)
    small.close()
    large.close()
