"""Two nodes that share a Redis: what is revoked at one is refused by the other, whatever fails meanwhile, and by nobody new."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from streamgate.core.settings import Settings, TokenSettings
from streamgate.storage import keys
from tests.edge.nodes import RunningNode, until
from tests.faults.two_nodes import film_of
from tests.scenarios import sessions
from tests.scenarios.sessions import LEASE_S, Player
from tests.scenarios.test_sessions_revoked import HERE_S, NAMES, Viewers, assets, refused
from tests.services.fault_proxy import FaultProxy, fault_proxy
from tests.services.redis import RedisServer

pytestmark = pytest.mark.slow

THERE_S = 2.0  # until no worker of the other node gives a byte
LONGEST_S = 0.3  # from the end of a lease until an answer under way is cut, and until a clock of ours is looked at
BACK_S = 15.0


class Site:
    """Nodes ``a`` and ``b``, each with two workers, the Redis behind them and the proxy between."""

    def __init__(self, a: RunningNode, b: RunningNode, redis: RedisServer, proxy: FaultProxy) -> None:
        self.a, self.b, self.redis, self.proxy = a, b, redis, proxy

    @property
    def nodes(self) -> tuple[RunningNode, RunningNode]:
        return self.a, self.b


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    base = tmp_path_factory.mktemp("site")
    root = assets(tmp_path_factory.mktemp("films"))
    (root / "large").mkdir()
    (root / "large" / "film.mp4").write_bytes(film_of().data)
    (root / "large" / "asset.toml").write_text('[[source]]\nfile = "film.mp4"\n[policy]\nkind = "allow"\n')
    (base / "keys").mkdir(mode=0o700)
    tokens: dict[str, Any] = {"keys": str(base / "keys"), "root": str(base / "root")}
    keys.workshop(Settings(tokens=TokenSettings(**tokens))).first()
    accounts = sessions.accounts(base / "accounts.toml", *NAMES)
    # What it confirmed it has still when it is started again.
    redis = RedisServer(base / "redis", options=("--appendonly", "yes", "--appendfsync", "always"))
    with contextlib.ExitStack() as stack:
        stack.callback(redis.kill)
        proxy = stack.enter_context(fault_proxy(redis.port))
        given: dict[str, Any] = {
            "redis": {
                "url": f"redis://127.0.0.1:{proxy.port}",
                "prefix": "site:",
                "circuit_probe_max": 0.5,
                # A busy machine is no outage.
                **dict.fromkeys(("timeout", "connect_timeout", "circuit_slow"), 0.7),
            },
            "revocation": {"max_age": 2.0},
            "tokens": tokens,
            # So that an answer under way is under way, and not in the kernel.
            "server": {"send_buffer": 65_536, "hang_timeout": 0},
        }

        def started(name: str) -> RunningNode:
            return stack.enter_context(sessions.with_auth(root, base / name, accounts, **given))

        with ThreadPoolExecutor(2) as threads:
            a, b = threads.map(started, ("a", "b"))
        yield Site(a, b, redis, proxy)


def test_within_two_seconds(site: Site) -> None:
    """Of each kind; in the node itself within one."""
    viewers = Viewers(site.a)
    with viewers.playing(*site.nodes) as (gone, stay):
        for player in (*gone[0], *gone[1], *stay):
            sessions.played(player, 0.2)
        done = viewers.revoke(site.a)
        refused(gone[0], done + HERE_S)
        refused(gone[1], done + THERE_S)
        assert [player.statuses() for player in stay] == [{200}, {200}]


class Slow:
    """Whoever reads a large segment a little at a time; ``ended`` is when it was cut (monotonic s), None while it is not."""

    def __init__(self, running: RunningNode, path: str) -> None:
        self.ended: float | None = None
        self.read = 0
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        self._socket.settimeout(20)
        self._socket.connect(("127.0.0.1", running.port))
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head = self._socket.recv(4096)
        assert head.startswith(b"HTTP/1.1 200 "), head
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(ConnectionError):
            while part := self._socket.recv(4096):
                self.read += len(part)
                time.sleep(0.02)
        self.ended = time.monotonic()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()


def test_answers_under_way(site: Site) -> None:
    """They are cut as well, whoever sends them: the first of a segment is not the native path's, the second is."""
    access = sessions.sign_in(site.a, "guy")["access_token"]
    told, other = (sessions.start(site.a, "large", access) for _ in range(2))
    names = sessions.objects(site.a, "large", f"/t/{told['token']}")
    with contextlib.ExitStack() as stack:

        def slow(running: RunningNode, whose: dict[str, Any]) -> Slow:
            made = Slow(running, f"/t/{whose['token']}/v/large/{names[2]}")
            stack.callback(made.close)
            return made

        here, there = ([slow(each, told) for _ in range(2)] for each in site.nodes)
        stay = [slow(each, other) for each in site.nodes]
        until(lambda: all(each.read > 10_000 for each in (*here, *there, *stay)), "that they read")
        # While they go on they are extended.
        moment = time.monotonic() + 1.5 * LEASE_S
        until(lambda: time.monotonic() > moment)
        assert all(each.ended is None for each in (*here, *there, *stay))
        sessions.revoke(site.a, session=told["session"])
        done = time.monotonic()
        until(lambda: all(each.ended is not None for each in (*here, *there)), "that they are cut", 5)
        assert max(each.ended or 0 for each in here) < done + HERE_S
        assert max(each.ended or 0 for each in there) < done + THERE_S
        assert all(each.ended is None for each in stay)


@contextlib.contextmanager
def killed(site: Site) -> Iterator[None]:
    site.redis.kill()
    yield
    site.redis.start()


@contextlib.contextmanager
def stopped(site: Site) -> Iterator[None]:
    with site.redis.stalled():
        yield


@contextlib.contextmanager
def slow(site: Site) -> Iterator[None]:
    site.proxy.network.latency = 2.0
    yield
    site.proxy.network.latency = 0.0


@contextlib.contextmanager
def full(site: Site) -> Iterator[None]:
    with site.redis.full():
        yield


@pytest.mark.parametrize("fault", [killed, stopped, slow, full])
def test_redis_fails(site: Site, fault: Callable[[Site], contextlib.AbstractContextManager[None]]) -> None:
    """Who was revoked before or during it is out within a lease, nobody new gets in, and all others play on when it is back."""
    signed = {name: sessions.sign_in(site.a, name)["access_token"] for name in ("ada", "bob", "guy")}
    before, during, stays, late = (
        sessions.start(site.a, "film", signed[name]) for name in ("ada", "bob", "guy", "guy")
    )
    with contextlib.ExitStack() as stack:
        play = [
            [stack.enter_context(Player(each, told["token"])) for each in site.nodes]
            for told in (before, during, stays)
        ]
        for player in (each for row in play for each in row):
            sessions.played(player, 0.2)
        # Whoever is told last of it hears of it by the feed, or does not get a lease.
        sessions.revoke(site.a, session=before["session"])
        with fault(site):
            began = time.monotonic()
            sessions.revoke(site.a, session=during["session"])
            out = began + LEASE_S + LONGEST_S
            for player in play[1]:
                player.goes_on_until(out + 0.5)
            for player in (*play[0], *play[1]):
                late_ones = [each for each in player.answers if each[0] >= out and each[2] == 200]
                assert not late_ones, (
                    out - began,
                    [(round(at - began, 2), who, size) for at, who, _, size in late_ones],
                )
            status, _, told = sessions.call(
                site.a, "POST", "playback/film", {}, Authorization=f"Bearer {signed['guy']}"
            )
            assert status == 503, told
            for each in site.nodes:
                assert set(statuses(each, late)) == {503}
        for player in play[2]:
            player.until(200, limit=BACK_S)
            assert player.statuses() <= {0, 200, 503}
        back = time.monotonic()
        for player in (*play[0], *play[1]):
            player.until(401, limit=BACK_S)
            player.goes_on_until(back + 1.5 * LEASE_S)
            assert player.statuses(out) <= {401, 503}
    until(lambda: all(set(statuses(each, late)) == {200} for each in site.nodes), "new ones", BACK_S)


def statuses(running: RunningNode, told: dict[str, Any]) -> set[int]:
    return sessions.everywhere(running, [f"/t/{told['token']}/v/film/main.m3u8"])


def test_everything_of_a_node_is_killed(site: Site) -> None:
    """What is revoked while a node is down, or its auth role is, it knows when it serves again."""
    access = sessions.sign_in(site.a, "guy")["access_token"]
    first, second, third = (sessions.start(site.a, "film", access) for _ in range(3))
    for each in site.nodes:
        assert statuses(each, first) == statuses(each, second) == statuses(each, third) == {200}
    pid = sessions.auth_role(site.b)
    os.kill(pid, signal.SIGSTOP)
    try:
        sessions.revoke(site.a, session=first["session"])
        until(lambda: statuses(site.b, first) == {401}, "the feed needs no auth role", THERE_S)
    finally:
        os.kill(pid, signal.SIGCONT)
    site.b.kill()
    assert sessions.end(site.a, second) == 204
    site.b.start()
    assert statuses(site.b, first) | statuses(site.b, second) <= {401, 503}
    sessions.auth_role(site.b)
    assert statuses(site.b, first) == statuses(site.b, second) == {401}
    assert statuses(site.b, third) == {200}


def test_one_winner(site: Site) -> None:
    """A refresh token that many processes are sent at once, of both nodes, has one successor; what was used stays used."""
    told = sessions.sign_in(site.a, "fay")["refresh_token"]

    def refresh(running: RunningNode, token: str) -> tuple[int, Any]:
        status, _, answer = sessions.call(running, "POST", "auth/refresh", {"refresh_token": token})
        return status, answer.get("refresh_token")

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda n: refresh(site.nodes[n % 2], told), range(8)))
    assert {status for status, _ in found} == {200} and len({token for _, token in found}) == 1
    newer = found[0][1]
    status, newest = refresh(site.b, newer)
    assert status == 200
    site.redis.kill()
    site.redis.start()
    until(lambda: sessions.call(site.a, "GET", "playback/session")[0] != 503, "that it is back", BACK_S)
    until(lambda: refresh(site.a, told)[0] == 401, "it was used", BACK_S)
    until(partial(lambda: refresh(site.b, newest)[0] == 401), "with it all that came of it has ended", BACK_S)


def test_a_key(site: Site) -> None:
    """The last one, for nobody's token is good afterwards."""
    told = sessions.start(site.a, "film", sessions.sign_in(site.a, "guy")["access_token"])
    with contextlib.ExitStack() as stack:
        players = [stack.enter_context(Player(each, told["token"])) for each in site.nodes]
        for player in players:
            sessions.played(player, 0.2)
        sessions.revoke(site.a, kid=sessions.kid(told).hex())
        done = time.monotonic()
        refused(players[:1], done + HERE_S)
        refused(players[1:], done + THERE_S)
