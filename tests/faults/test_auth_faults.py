"""The disk that sessions and revocations are kept on is full, cannot be written, or takes its time: who is revoked is out within a
lease, nobody new gets in, who plays goes on, and all is as before when it is well again.

Redis and the auth role itself: tests/scenarios/test_sessions_site.py and test_sessions.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from streamgate.storage.kv.sqlite import SqliteStore
from tests.edge.nodes import RunningNode, until
from tests.faults import mounted
from tests.faults.test_origin_disk import SlowDisk
from tests.scenarios import sessions
from tests.scenarios.sessions import LEASE_S, Player

LONGEST_S = 0.5  # of a look, and of an answer
PATIENCE_S = 10.0


@contextlib.contextmanager
def full(running: RunningNode, folder: Path) -> Iterator[None]:
    fill = mounted.seen_by(running, folder) / "fill"
    with fill.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    assert os.statvfs(mounted.seen_by(running, folder)).f_bavail == 0
    yield
    fill.unlink()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    policies = dict.fromkeys(("film", "other"), '[policy]\nkind = "allow"\n')
    return sessions.films(tmp_path_factory.mktemp("films"), policies)


def check(running: RunningNode, fault: contextlib.AbstractContextManager[None], refused: bool) -> list[str]:
    """What must hold; the paths of who began last and who stays, and of the two who do not.

    ``refused``: sooner or later nobody can begin, as what has room in the file is taken."""
    access = sessions.sign_in(running, "ada")["access_token"]
    before, during, stays = (sessions.start(running, "film", access) for _ in range(3))
    with contextlib.ExitStack() as stack:
        gone, going, staying = (stack.enter_context(Player(running, each["token"])) for each in (before, during, stays))
        for player in (gone, going, staying):
            sessions.played(player, 0.2)
        sessions.revoke(running, session=before["session"])
        with fault:
            begun = [stays]

            def begin() -> bool:
                status, _, told = sessions.call(running, "POST", "playback/film", {}, Authorization=f"Bearer {access}")
                if status == 201:
                    begun.append(told)
                    return not refused
                assert (status, told["code"]) == (503, "store_unavailable")
                return True

            until(begin, "that nobody new gets in")
            assert running.admin("POST", "/revocations", {"session": during["session"], "exp": None})[0] == 204
            # What is acknowledged is written, which takes its time.
            out = time.monotonic() + LEASE_S + LONGEST_S
            staying.goes_on_until(out + 1.5 * LEASE_S)
            for player in (gone, going):
                assert player.statuses(out) <= {401, 503}
            assert staying.statuses() == {200}
        back = time.monotonic()
        until(
            lambda: sessions.call(running, "POST", "playback/film", {}, Authorization=f"Bearer {access}")[0] == 201,
            "a start",
            PATIENCE_S,
        )
        staying.goes_on_until(back + LEASE_S)
        for player in (gone, going):
            player.until(401)
            assert player.statuses(out) <= {401, 503}
        assert staying.statuses() == {200}
        last = f"/t/{begun[-1]['token']}/v/film/main.m3u8"
        paths = [last, *(player.paths[0] for player in (staying, gone, going))]
    return paths


@pytest.mark.slow
@pytest.mark.parametrize("size", ["24m"] * mounted.available())
def test_a_full_disk(root: Path, tmp_path: Path, size: str) -> None:
    """There is room for what is revoked, and for nothing else."""
    small = tmp_path / "small"
    accounts = sessions.accounts(tmp_path / "accounts.toml", "ada")
    given: dict[str, Any] = {"server": {"data": str(small)}, "edge": {"disk_bytes": 0}}
    with sessions.with_auth(
        root, tmp_path / "node", accounts, through=mounted.limited(small, size), **given
    ) as running:
        check(running, full(running, small), True)


@pytest.mark.slow
@pytest.mark.needs("cc")
def test_a_slow_disk(root: Path, tmp_path: Path) -> None:
    """A tenth of a second for each write: a start takes its time, or is told to come again; leases wait for no disk."""
    data = tmp_path / "node"
    disk = SlowDisk(tmp_path, data)
    disk.environment["SLOW_DISK_FOLDER"] = str(data / "db")
    accounts = sessions.accounts(tmp_path / "accounts.toml", "ada")
    given: dict[str, Any] = {"server": {"data": str(data / "db")}, "edge": {"disk_bytes": 0}, "log": {"level": "info"}}

    @contextlib.contextmanager
    def slow() -> Iterator[None]:
        disk.take(writes=0.1)
        yield
        disk.take()

    with sessions.with_auth(root, data, accounts, environment=disk.environment, **given) as running:
        paths = check(running, slow(), False)
        running.kill()
        running.start()
        sessions.auth_role(running)
        assert [sessions.everywhere(running, [path]) for path in paths] == [{200}, {200}, {401}, {401}]


@contextlib.asynccontextmanager
async def opened(path: Path, count: int) -> AsyncIterator[list[SqliteStore]]:
    stores = [await SqliteStore.open(path) for _ in range(count)]
    try:
        yield stores
    finally:
        for each in stores:
            await each.close()


async def test_one_winner_of_each(tmp_path: Path) -> None:
    """What may be used once is taken by one of those who try at once, and by nobody after a restart."""
    path = tmp_path / "state.sqlite"
    async with opened(path, 4) as stores:
        for number in range(25):
            await stores[0].put(f"once/{number}", b"x", 1000)
        taken = await asyncio.gather(*(each.take(f"once/{number}") for number in range(25) for each in stores))
        made = await asyncio.gather(
            *(each.put_new(f"used/{number}", b"", 1000) for number in range(25) for each in stores)
        )
    assert [sum(each is not None for each in taken[at : at + 4]) for at in range(0, 100, 4)] == [1] * 25
    assert [sum(made[at : at + 4]) for at in range(0, 100, 4)] == [1] * 25
    async with opened(path, 1) as (again,):
        assert [await again.take(f"once/{number}") for number in range(25)] == [None] * 25
        assert not any([await again.put_new(f"used/{number}", b"", 1000) for number in range(25)])
