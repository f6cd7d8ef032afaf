"""Redis is killed, stalled, flushed, full, or fails over, while two nodes of two workers each send a film from S3 through it.

No viewer notices beyond the latency of a miss, and what is purged or revoked meanwhile reaches the other node.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest

from streamgate.access import tokens
from tests.edge.nodes import RunningNode, until
from tests.edge.test_keyring import ONE, keep
from tests.faults.two_nodes import Origin, film_of, origin, statuses, two_nodes
from tests.services.redis import RedisCluster, RedisServer, fresh_prefix, wait_for
from tests.services.seaweed import SeaweedFS

pytestmark = [pytest.mark.needs("weed", "redis-server", "redis-cli"), pytest.mark.timeout(180)]

TIMEOUT_S = 0.25
"""Of a call to Redis: what a viewer may have to bear beside a miss."""
MISS_S = 3.0
"""A miss, on a machine that is busy with other things."""
SOON_S = 20.0
_PACE_S = 0.02
_EACH = 30
"""Answers that each viewer is to have seen: the film, three times."""


@dataclass
class Session:
    """Somebody with a token."""

    id: bytes = field(default_factory=lambda: os.urandom(16))

    @property
    def prefix(self) -> str:
        token = tokens.mint(ONE, asset="film", session=self.id, expires=int(time.time()) + 3600)
        return f"/t/{token}/v/film/"


class Viewer:
    """Plays the film over and over on a connection of its own, and remembers what was wrong."""

    def __init__(self, connection: HTTPConnection, expected: dict[str, bytes]) -> None:
        self.answers = 0
        self.slowest = 0.0
        self.wrong: list[str] = []
        self._connection = connection
        self._prefix = Session().prefix
        self._expected = expected

    def play(self, stop: threading.Event) -> None:
        while not stop.is_set():
            for path, body in self._expected.items():
                began = time.monotonic()
                try:
                    self._connection.request("GET", self._prefix + path)
                    answer = self._connection.getresponse()
                    got = answer.read()
                except (OSError, HTTPException) as error:
                    self.wrong.append(f"{path}: {error!r}")
                    return
                if answer.status != 200 or got != body:
                    self.wrong.append(f"{path}: {answer.status}, {len(got)} of {len(body)} bytes: {got[:200]!r}")
                self.slowest = max(self.slowest, time.monotonic() - began)
                self.answers += 1
                if stop.wait(_PACE_S):
                    return


class Site:
    """Two nodes that share a Redis, and the film that they send."""

    def __init__(self, one: RunningNode, two: RunningNode) -> None:
        self.one, self.two = self.nodes = (one, two)
        prefix = Session().prefix
        _, _, main = until(lambda: found if (found := one.get(f"{prefix}main.m3u8"))[0] == 200 else None)
        names = [re.search(rf"{kind}[a-z0-9]*-[0-9a-f]{{16}}", main.decode()) for kind in "va"]
        paths = ["main.m3u8", "main.mpd"]
        for name in [found[0] for found in names if found]:
            paths += [f"{name}/{file}" for file in ("index.m3u8", "init.mp4", "0.m4s", "1.m4s", "2.m4s")]
        assert len(paths) == 12
        self.film = {path: one.get(prefix + path)[2] for path in paths}
        for path, body in self.film.items():
            assert two.get(prefix + path)[2] == body and len(body) > 100

    @contextlib.contextmanager
    def watched(self) -> Iterator[list[Viewer]]:
        """While the block runs a viewer plays at each worker; then nobody may have noticed anything."""
        stop = threading.Event()
        with self.one.each_worker() as ones, self.two.each_worker() as twos, ThreadPoolExecutor(4) as threads:
            viewers = [Viewer(connection, self.film) for connection in (*ones, *twos)]
            playing = [threads.submit(viewer.play, stop) for viewer in viewers]
            try:
                yield viewers
            finally:
                stop.set()
            for each in playing:
                each.result(SOON_S)
        for viewer in viewers:
            assert viewer.wrong == []
            assert viewer.slowest < TIMEOUT_S + MISS_S

    def total(self, name: str, label: str = "") -> list[float]:
        return [node.total(name, label) for node in self.nodes]

    def left_alone(self, use: str) -> bool:
        """Whether no worker asks Redis for that any more."""
        return self.total("redis_left_alone", f'use="{use}"') == [2, 2]

    def well(self) -> bool:
        """Whether both follow the feed, and ask Redis again."""
        followed = [node.status()["site"] for node in self.nodes] == ["followed", "followed"]
        return followed and self.total("redis_left_alone") == [0, 0]

    def shares(self) -> bool:
        """Whether both have found something in Redis since this was asked last."""
        before, now = self._hits, self.total("tier_hits_total", 'tier="redis"')
        if all(one > other for one, other in zip(now, before, strict=True)):
            self._hits = now
            return True
        return False

    _hits = [0.0, 0.0]


def seen(viewers: list[Viewer], count: int = _EACH) -> None:
    """Wait until each has had so many answers more."""
    wanted = [(viewer, viewer.answers + count) for viewer in viewers]
    until(lambda: all(viewer.answers >= goal or viewer.wrong for viewer, goal in wanted), "that they go on playing", 60)


class Orders:
    """A purge at one node and a revocation at the other; how they arrive at where they were not given."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._thief = Session()
        self._purges = site.total("purges_total")
        assert statuses(site.one, self._path) == statuses(site.two, self._path) == [200, 200]
        began = time.monotonic()
        assert site.one.admin("POST", "/purges", {"asset": "film"})[0] == 200
        assert site.two.admin("POST", "/revocations", {"session": self._thief.id.hex(), "exp": None})[0] == 204
        assert time.monotonic() - began < SOON_S / 4, "nobody who gives orders waits for what is away"
        assert statuses(site.two, self._path) == [401, 401]

    @property
    def _path(self) -> str:
        return f"{self._thief.prefix}main.m3u8"

    def arrived(self) -> bool:
        """Whether every worker of both nodes has applied both."""
        purges = self._site.total("purges_total")
        applied = all(now >= before + 2 for now, before in zip(purges, self._purges, strict=True))
        return applied and statuses(self._site.one, self._path) == [401, 401]


@pytest.fixture(scope="module")
def behind(seaweed: SeaweedFS) -> Iterator[Origin]:
    with origin(seaweed) as made:
        made.put(film_of().data, "film.mp4")
        yield made


@pytest.fixture(scope="module")
def common(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Settings of all nodes here: they keep nothing themselves, so that Redis is asked for everything."""
    keys = tmp_path_factory.mktemp("keys")
    keep(keys, ONE)
    return {
        "edge": {"disk_bytes": 0, "memory_object": 0, "require_token": True},
        "tokens": {"keys": str(keys)},
        "server": {"hang_timeout": 0},
        "redis": {"prefix": fresh_prefix(), "timeout": TIMEOUT_S, "object_limit": 4_000_000},
    }


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One for the tests of this file, which break it."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture(scope="module")
def site(
    behind: Origin, redis: RedisServer, common: dict[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    settings = {**common, "redis": {**common["redis"], "url": redis.url}}
    with two_nodes(behind, tmp_path_factory.mktemp("site"), **settings) as nodes:
        yield Site(*nodes)


def restored(site: Site, orders: Orders) -> None:
    """All is as it should be again, and what was ordered is in force everywhere."""
    until(orders.arrived, "what was ordered meanwhile", SOON_S)
    until(site.well, "that all is well", SOON_S)
    site.shares()
    until(site.shares, "that Redis is of use", SOON_S)
    # Nothing was raised where nobody saw it.
    assert [entry for node in site.nodes for entry in node.events() if entry["logger"] == "asyncio"] == []


@pytest.mark.slow
def test_it_is_killed(site: Site, redis: RedisServer) -> None:
    until(site.well, "the beginning", SOON_S)
    with site.watched() as viewers:
        seen(viewers)
        redis.kill()
        until(partial(site.left_alone, "read"), "that it is left alone", SOON_S)
        orders = Orders(site)
        seen(viewers)
        assert not orders.arrived()
        redis.start()
        restored(site, orders)
        seen(viewers)


@pytest.mark.slow
def test_it_stalls(site: Site, redis: RedisServer) -> None:
    """It takes what is sent and answers nothing: a call ends in time, and few are made."""
    until(site.well, "the beginning", SOON_S)
    with site.watched() as viewers:
        seen(viewers)
        with redis.stalled():
            until(partial(site.left_alone, "read"), "that it is left alone", SOON_S)
            orders = Orders(site)
            seen(viewers)
            assert not orders.arrived()
        restored(site, orders)
        seen(viewers)


@pytest.mark.slow
def test_it_is_flushed(site: Site, redis: RedisServer) -> None:
    """Everything in it is gone: what had been ordered before is written again, for a node that is not here yet."""
    until(site.well, "the beginning", SOON_S)
    with site.watched() as viewers:
        seen(viewers)
        before = Orders(site)
        until(before.arrived, "what was ordered before", SOON_S)
        held = events(redis)
        redis.flush()
        orders = Orders(site)
        restored(site, orders)
        until(lambda: events(redis) == held + 2, "all of it, written again", SOON_S)
        seen(viewers)


@pytest.mark.slow
def test_it_is_full(site: Site, redis: RedisServer) -> None:
    """``OOM command not allowed``: it goes on being read, and takes what it is told later."""
    until(site.well, "the beginning", SOON_S)
    with site.watched() as viewers:
        seen(viewers)
        with redis.full():
            orders = Orders(site)  # of which the purge has all made anew
            until(lambda: any(site.total("redis_left_alone", 'use="write"')), "that it is left alone", SOON_S)
            assert site.total("redis_left_alone", 'use="feed"') == [0, 0]
            seen(viewers)
            assert not orders.arrived()
        restored(site, orders)
        seen(viewers)


def events(redis: RedisServer) -> int:
    """How many events the site's feed has."""
    (feed,) = redis.client.keys("*feed")
    return sum(member.startswith(b"e") for member in redis.client.zrange(feed, 0, -1))


@pytest.mark.slow
def test_a_primary_of_a_cluster_is_killed(
    behind: Origin, own_cluster: RedisCluster, common: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    """The one that has the feed; orders given before its replica has taken over arrive, and so do those of later."""
    feed = f"{common['redis']['prefix']}feed"
    settings = {**common, "redis": {**common["redis"], "url": own_cluster.url, "cluster": True}}
    with two_nodes(behind, tmp_path / "site", **settings) as nodes:
        site = Site(*nodes)
        until(site.well, "the beginning", SOON_S)
        killed: Callable[[], RedisServer] = partial(own_cluster.primary_of, feed)
        with site.watched() as viewers:
            seen(viewers)
            wait_for(killed).kill()
            orders = Orders(site)
            seen(viewers)
            restored(site, orders)
            later = Orders(site)
            until(later.arrived, "what was ordered later", SOON_S)
            seen(viewers)
