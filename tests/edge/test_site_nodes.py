"""Two nodes that share a Redis: what is revoked at one is refused by the other within a second, whatever Redis does."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from streamgate.access import tokens
from tests.edge.nodes import RunningNode, until
from tests.edge.test_keyring import ONE, keep
from tests.services.redis import RedisServer

MAX_AGE_S = 2.0
SOON_S = 10.0
"""For what is expected within a second of an idle machine, where another second is not the point."""


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One for the tests of this file, which break it."""
    server = RedisServer(tmp_path_factory.mktemp("site-redis"))
    yield server
    server.kill()
    server.client.close()


@pytest.fixture(scope="module")
def settings(redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What nodes of the site have in common."""
    keys = tmp_path_factory.mktemp("keys")
    keep(keys, ONE)
    return {
        "redis": {"url": redis.url, "prefix": "site:"},
        "revocation": {"max_age": MAX_AGE_S},
        "edge": {"require_token": True, "disk_bytes": 0},
        "tokens": {"keys": str(keys)},
        "server": {"hang_timeout": 0},
        "drain": {"delay": 3.0},
    }


@pytest.fixture(scope="module")
def nodes(
    folder: Path, settings: dict[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RunningNode, RunningNode]]:
    """Both run, each with two workers."""
    base = tmp_path_factory.mktemp("site")
    with contextlib.ExitStack() as running, ThreadPoolExecutor(2) as threads:
        given: Any = settings

        def started(name: str) -> RunningNode:
            made = RunningNode(folder, base / name, **given)
            running.callback(end, made)
            return made

        one, other = threads.map(started, ("a", "b"))
        yield one, other


def end(running: RunningNode) -> None:
    if running.process.poll() is None:
        running.kill()


class Viewer:
    """Somebody with a token of its own, on a connection to each worker of a node."""

    def __init__(self) -> None:
        self.session = os.urandom(16)
        self.token = tokens.mint(ONE, asset="film", session=self.session, expires=int(time.time()) + 3600)

    def asks(self, running: RunningNode) -> list[int]:
        """What each of the two workers answers."""
        with running.each_worker() as both:
            return [status(each, self.token) for each in both]

    @contextlib.contextmanager
    def at(self, running: RunningNode) -> Iterator[list[HTTPConnection]]:
        """Connections to both workers, on which it plays."""
        with running.each_worker() as both:
            assert [status(each, self.token) for each in both] == [200, 200]
            yield both


def status(connection: HTTPConnection, token: str) -> int:
    connection.request("GET", f"/t/{token}/v/film/main.m3u8")
    answer = connection.getresponse()
    answer.read()
    return answer.status


def revoke(running: RunningNode, viewer: Viewer) -> float:
    """Revoke the viewer's session; how long that took until it was acknowledged (s)."""
    began = time.monotonic()
    assert running.admin("POST", "/revocations", {"session": viewer.session.hex(), "exp": None})[0] == 204
    return time.monotonic() - began


def details(running: RunningNode) -> list[str]:
    """What each worker says of the site's feed, if anything, beside that it is ready."""
    # What the tier has to say of Redis is another matter.
    return ["; ".join(note for note in notes if note.startswith("the site's feed")) for notes in all_details(running)]


def all_details(running: RunningNode) -> list[list[str]]:
    """Whatever each worker says beside that it is ready."""
    found = []
    with running.each_worker() as both:
        for each in both:
            each.request("GET", "/health/ready")
            answer = each.getresponse()
            told = json.loads(answer.read())
            assert (answer.status, told["status"]) == (200, "ready")
            found.append(list(filter(None, told.get("detail", "").removeprefix("degraded: ").split("; "))))
    return found


def well(running: RunningNode) -> bool:
    told = running.status()["site"], details(running), running.total("site_feed_stale")
    return told == ("followed", ["", ""], 0)


def is_stale(running: RunningNode) -> bool:
    return running.total("site_feed_stale") == 2


def test_within_a_second(nodes: tuple[RunningNode, RunningNode]) -> None:
    for here, there in (nodes, nodes[::-1]):
        viewer, other = Viewer(), Viewer()
        with viewer.at(there) as connections:
            revoke(here, viewer)
            began = time.monotonic()
            while [status(each, viewer.token) for each in connections] != [401, 401]:
                assert time.monotonic() - began < 1, "it is not refused everywhere"
        assert viewer.asks(here) == [401, 401]
        assert other.asks(here) == other.asks(there) == [200, 200]
    assert [each.status()["revocations"] for each in nodes] == [2, 2]
    assert all(well(each) for each in nodes)


def test_an_outage(nodes: tuple[RunningNode, RunningNode], redis: RedisServer) -> None:
    """Each goes on alone and says so; when Redis is back, empty, both know all, and a node that is new as well."""
    a, b = nodes
    held = a.status()["revocations"]
    redis.kill()
    one, other, third = Viewer(), Viewer(), Viewer()
    # Acknowledged by both, without waiting for what is away.
    assert revoke(a, one) < 2 and revoke(b, other) < 2
    assert one.asks(a) == other.asks(b) == [401, 401]
    assert a.admin("POST", "/purges", {"asset": "film"})[0] == 200
    assert (a.total("purges_total"), b.total("purges_total")) == (2, 0)
    assert one.asks(b) == other.asks(a) == [200, 200], "it cannot be known there"
    for each in nodes:
        until(partial(is_stale, each), "that all workers know it", SOON_S)
        assert all(
            "cannot be read, the circuit to it is" in told and "longer than allowed" in told for told in details(each)
        )
        assert "127.0.0.1" not in "".join(details(each)), "nobody outside need know where it is"
        assert "cannot be read" in each.status()["site"]
        assert each.total("site_feed_age_seconds") > MAX_AGE_S
        assert each.total("redis_left_alone", 'use="feed"') == 1
        said = [entry["event"] for entry in each.events()]
        assert "the site's feed cannot be read" in said and "the circuit to Redis changed" in said
        until(partial(logged, each, "older than allowed"), "a line about it", SOON_S)
    # The phase that decides on tokens reads the flag: this answer is not the native path's.
    before = a.total("stale_authorizations_total")
    assert a.get(f"/v/film/main.m3u8?CTA-Common-Access-Token={third.token}")[0] == 302
    until(lambda: a.total("stale_authorizations_total") == before + 1, "its count", SOON_S)
    redis.start()
    until(lambda: one.asks(b) == other.asks(a) == [401, 401], "what was revoked meanwhile", SOON_S)
    until(lambda: b.total("purges_total") == 2, "the purge", SOON_S)
    assert [each.status()["revocations"] for each in nodes] == [held + 2] * 2
    for each in nodes:
        until(partial(well, each), "that all is well", SOON_S)
        assert each.total("site_feed_age_seconds") < MAX_AGE_S
        # Nobody has asked for anything meanwhile that only Redis could have.
        until(partial(nothing_left_alone, each), "that Redis is asked again by itself", SOON_S)
        assert all_details(each) == [[], []]
        assert logged(each, "the site's feed is followed again") and logged(each, "the site's feed began anew")
    before = a.total("stale_authorizations_total")
    assert a.get(f"/v/film/main.m3u8?CTA-Common-Access-Token={third.token}")[0] == 302
    assert a.total("stale_authorizations_total") == before
    assert in_redis(redis) == held + 2, "each once"


def nothing_left_alone(running: RunningNode) -> bool:
    return running.total("redis_left_alone") == 0


def logged(running: RunningNode, text: str) -> bool:
    return any(text in entry["event"] for entry in running.events())


def in_redis(redis: RedisServer) -> int:
    """How many events the site's feed has."""
    members = redis.client.zrange("site:feed", 0, -1)
    return sum(b"revoke.session|" in member for member in members)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [False, True])
def test_a_node_that_was_away(nodes: tuple[RunningNode, RunningNode], lost: bool) -> None:
    """From its very first answer on it refuses what was revoked meanwhile, though it may have lost its own data, too."""
    a, b = nodes
    b.kill()
    viewer = Viewer()
    revoke(a, viewer)
    if lost:
        for path in b.data.glob("state.sqlite*"):
            path.unlink()
    b.start()
    assert viewer.asks(b) == [401, 401]
    assert b.status()["revocations"] == a.status()["revocations"]


@pytest.mark.slow
def test_it_is_flushed(nodes: tuple[RunningNode, RunningNode], redis: RedisServer) -> None:
    a, b = nodes
    held = a.status()["revocations"]
    redis.flush()
    until(lambda: in_redis(redis) == held, "all of it, written again", SOON_S)
    viewer = Viewer()
    revoke(b, viewer)
    until(lambda: viewer.asks(a) == [401, 401], "what comes later", SOON_S)
    assert in_redis(redis) == held + 1 and all(well(each) for each in nodes)


@pytest.mark.slow
def test_it_stalls(nodes: tuple[RunningNode, RunningNode], redis: RedisServer) -> None:
    """It takes what is sent and says nothing: nobody who revokes waits for it."""
    a, b = nodes
    viewer = Viewer()
    with redis.stalled():
        until(lambda: "cannot be read" in a.status()["site"], "that it is noticed", SOON_S)
        assert revoke(a, viewer) < 2
        assert viewer.asks(a) == [401, 401]
    until(lambda: viewer.asks(b) == [401, 401], "its news", SOON_S)
    until(lambda: all(well(each) for each in nodes), "that all is well", SOON_S)


@pytest.mark.slow
def test_it_is_full(nodes: tuple[RunningNode, RunningNode], redis: RedisServer) -> None:
    """It can be read, so its age is known and the circuit stays closed; what it did not take it gets later."""
    a, b = nodes
    viewer = Viewer()
    with redis.full():
        revoke(a, viewer)
        until(lambda: "cannot be written, the circuit to it is closed" in a.status()["site"], "that it is said", SOON_S)
        end = time.monotonic() + MAX_AGE_S + 1
        while time.monotonic() < end:
            told = details(a)
            assert all("cannot be written" in each and "longer than allowed" not in each for each in told), told
        assert viewer.asks(b) == [200, 200]
    until(lambda: viewer.asks(b) == [401, 401], "its news", SOON_S)
    until(lambda: all(well(each) for each in nodes), "that all is well", SOON_S)


@pytest.mark.slow
def test_a_parent_that_hangs(nodes: tuple[RunningNode, RunningNode]) -> None:
    """Its workers know by themselves how old what they know is."""
    a, _ = nodes
    with a.each_worker() as both:
        os.kill(a.process.pid, signal.SIGSTOP)
        try:
            for each in both:

                def told(each: HTTPConnection = each) -> bool:
                    each.request("GET", "/health/ready")
                    return b"longer than allowed" in each.getresponse().read()

                until(told, "that it is too old", SOON_S)
        finally:
            os.kill(a.process.pid, signal.SIGCONT)
    until(lambda: well(a), "that all is well", SOON_S)


@pytest.mark.slow
def test_it_is_away_at_the_start(nodes: tuple[RunningNode, RunningNode], redis: RedisServer) -> None:
    """The node serves with what it has, and says from the first that it has heard nothing."""
    a, b = nodes
    viewer, later = Viewer(), Viewer()
    revoke(a, viewer)
    until(lambda: viewer.asks(b) == [401, 401], "its news", SOON_S)
    redis.kill()
    b.kill()
    revoke(a, later)
    b.start()
    assert viewer.asks(b) == [401, 401]
    assert all("it was never read, longer than allowed" in told for told in details(b))
    redis.start()
    until(lambda: later.asks(b) == [401, 401], "its news", SOON_S)
    until(lambda: all(well(each) for each in nodes), "that all is well", SOON_S)


@pytest.mark.slow
def test_what_is_revoked_last_is_heard_of(nodes: tuple[RunningNode, RunningNode]) -> None:
    """And while a node drains it goes on hearing of others."""
    a, b = nodes
    last, playing = Viewer(), Viewer()
    with playing.at(a) as connections:
        a.process.send_signal(signal.SIGTERM)
        until(lambda: a.status()["state"] == "draining", "the drain")
        revoke(b, playing)
        until(lambda: [status(each, playing.token) for each in connections] == [401, 401], "its news", SOON_S)
    revoke(a, last)
    assert a.end() == 0
    until(lambda: last.asks(b) == [401, 401], "its news", SOON_S)
    a.start()
    assert last.asks(a) == playing.asks(a) == [401, 401] and well(a)


@pytest.mark.slow
def test_a_reload_keeps_it(nodes: tuple[RunningNode, RunningNode]) -> None:
    a, b = nodes
    a.reload()
    assert details(a) == ["", ""]
    viewer = Viewer()
    revoke(b, viewer)
    until(lambda: viewer.asks(a) == [401, 401], "its news", SOON_S)
