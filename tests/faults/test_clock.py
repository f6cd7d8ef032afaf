"""The clock of a node's machine is set ahead and back while it serves: no age is negative, and nothing lasts or ends for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamgate.access import tokens
from streamgate.storage.kv.sqlite import SqliteStore
from tests.edge.nodes import RunningNode, until
from tests.edge.test_keyring import ONE, keep
from tests.faults.two_nodes import Film, Origin, film_of, first_answers, in_front_of, names, origin, statuses
from tests.services.seaweed import SeaweedFS

pytestmark = pytest.mark.needs("faketime")

# As far as the store's signatures let a clock go wrong; beyond a quarter of an hour it refuses.
LEAP_S = 600
DAY_S = 86_400
SESSION = bytes(range(16))


class Clock:
    """What a node takes for the time since 1970, in all its processes; what only ever grows is left as it is."""

    def __init__(self, folder: Path) -> None:
        (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
        self._file = folder / "clock"
        self.set(0)
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def set(self, ahead: int) -> None:
        """So many seconds ahead of what it is."""
        aside = self._file.with_suffix(".new")
        aside.write_text(f"{ahead:+d}\n")
        aside.replace(self._file)


@pytest.fixture(scope="module")
def film() -> Film:
    return film_of(24, 200_000)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


@pytest.fixture
def behind(seaweed: SeaweedFS, film: Film) -> Iterator[Origin]:
    with origin(seaweed) as made:
        made.put(film.another(), "film.mp4")
        yield made


@pytest.fixture
def running(behind: Origin, clock: Clock, tmp_path: Path) -> Iterator[RunningNode]:
    keys = tmp_path / "keys"
    keys.mkdir()
    keep(keys, ONE)
    with in_front_of(
        behind,
        tmp_path / "data",
        edge={"disk_bytes": 2**28, "memory_object": 2**20},
        tokens={"keys": str(keys)},
        environment=clock.environment,
    ) as started:
        assert first_answers(started, "film") == [200, 200]
        yield started


def ages(running: RunningNode, paths: list[str]) -> list[int]:
    """What each worker says of how old its answers are."""
    told = []
    with running.each_worker() as workers:
        for worker in workers:
            for path in paths:
                worker.request("GET", path)
                answer = worker.getresponse()
                answer.read()
                assert answer.status == 200
                told.append(int(answer.headers.get("Age", "0")))
    return told


def served_at(running: RunningNode) -> float:
    """What the node takes for the time."""
    from email.utils import parsedate_to_datetime

    return parsedate_to_datetime(running.get("/v/film/main.m3u8")[1]["Date"]).timestamp()


@pytest.mark.slow
def test_leaps(running: RunningNode, clock: Clock, behind: Origin, film: Film) -> None:
    """Ages, numbers and what is fresh, under a clock that leaps ahead and back."""
    video, _ = names(running, "film")
    paths = ["/v/film/main.m3u8", "/v/film/main.mpd", f"{video}/index.m3u8", f"{video}/init.mp4", f"{video}/0.m4s"]
    ages(running, paths)
    for ahead in (LEAP_S, -LEAP_S):
        clock.set(ahead)
        until(lambda ahead=ahead: abs(served_at(running) - time.time() - ahead) < 5, "the node's clock leaps")  # type: ignore[misc]
        told = ages(running, paths) + ages(running, paths)
        assert all(0 <= age < 2 * LEAP_S for age in told), told
        assert all(worker["age"] >= 0 for worker in running.status()["workers"])
        negative = {name: value for name, value in running.counters().items() if value < 0}
        assert not negative
        # What is not stored yet can be had, and what is stored is found.
        assert running.get(f"{video}/k{ahead % 2}.m4s")[0] == 200

    # Freshness has no end that lies in a time which comes again: a film that is replaced after a leap back is noticed.
    behind.put(film.another(), "film.mp4")
    until(lambda: names(running, "film")[0] != video, "the new film", 10)


@pytest.mark.slow
def test_what_was_purged_before_a_leap_back(running: RunningNode, clock: Clock, film: Film) -> None:
    """It counts, whatever the time is; what is made meanwhile is right, and kept at once."""
    video, _ = names(running, "film")
    path = f"{video}/1.m4s"
    assert statuses(running, path) == [200, 200]
    assert "hit" in running.get(path)[1]["Cache-Status"]
    status, _ = running.admin("POST", "/purges", {"asset": "film", "soft": False})
    assert status == 200
    clock.set(-LEAP_S)
    until(lambda: abs(served_at(running) - time.time() + LEAP_S) < 5, "the node's clock leaps")
    assert "hit" not in running.get(path)[1]["Cache-Status"]
    assert [running.get(path)[2] == film.video[1] for _ in range(3)] == [True] * 3
    until(lambda: "hit" in running.get(path)[1]["Cache-Status"], "what is made is kept")


@pytest.mark.slow
def test_what_is_revoked(running: RunningNode, clock: Clock, behind: Origin, film: Film) -> None:
    """Set ahead by a day, past the end of a revocation, and put right again: the token is refused as before."""
    behind.put(film.another(), "secret/film.mp4")
    behind.put(b'gated = true\n[[source]]\nfile = "film.mp4"\n', "secret/asset.toml")
    ends = int(time.time()) + 3600
    path = f"/t/{tokens.mint(ONE, asset='secret', session=SESSION, expires=ends)}/v/secret/main.m3u8"
    until(lambda: statuses(running, path) == [200, 200], "the film is known")
    assert running.admin("POST", "/revocations", {"session": SESSION.hex(), "exp": ends})[0] == 204
    assert statuses(running, path) == [401, 401]
    clock.set(DAY_S)
    until(lambda: served_at(running) - time.time() > DAY_S / 2, "the node's clock leaps")
    until(lambda: running.status()["revocations"] == 0, "all seems to have ended")
    assert statuses(running, path) == [401, 401]
    clock.set(0)
    until(lambda: served_at(running) - time.time() < DAY_S / 2, "the node's clock leaps back")
    until(lambda: running.status()["revocations"] == 1, "it is in force again", 5)
    assert statuses(running, path) == [401, 401]


async def test_leases_go_by_the_time_that_passes(tmp_path: Path) -> None:
    """A lease neither ends because the clock is set ahead nor lasts because it is set back."""
    wall, passed = [1e9], [0.0]
    store = await SqliteStore.open(tmp_path / "state", lambda: wall[0], lambda: passed[0])
    try:
        assert await store.lease("film", b"one", 10.0)
        wall[0] += DAY_S
        assert not await store.lease("film", b"two", 10.0), "a day ahead, and it holds"
        wall[0] -= 2 * DAY_S
        passed[0] += 9.0
        assert not await store.lease("film", b"two", 10.0)
        passed[0] += 2.0
        assert await store.lease("film", b"two", 10.0), "a day back, and it has ended"
    finally:
        await store.close()
