"""A gated film from start to end on embedded defaults: a session, its leases, and what ends them."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamgate.access.accounts import hash_password
from streamgate.storage.kv.events import EventType
from streamgate.storage.kv.sqlite import SqliteStore
from tests.edge.nodes import WAIT_S, RunningNode, node, until
from tests.media_factory import Audio, Video, make
from tests.scenarios.sessions import LEASE_S, PASSWORD, Player, auth_role, played

ALLOWED_S = 1.0  # until something that has ended is refused everywhere


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``film`` for whoever knows the password, ``member`` for those to whom an operator gave a token."""
    root = tmp_path_factory.mktemp("assets")
    film = make(root / "made.mp4", Video(size=(64, 36), gop=25), Audio(), seconds=9).read_bytes()
    policy = f'[policy]\nkind = "password"\npassword = "{hash_password(PASSWORD, bytes(16))}"\n'
    for name, more in (("film", policy), ("member", "")):
        (root / name).mkdir()
        (root / name / "film.mp4").write_bytes(film)
        gated = "" if more else "gated = true\n"
        (root / name / "asset.toml").write_text(f'{gated}[[source]]\nfile = "film.mp4"\n{more}')
    (root / "made.mp4").rename(root / "free.mp4")
    return root


@pytest.fixture(scope="module")
def running(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    # Every viewer of a test comes from one address.
    auth = {"enabled": True, "starts_per_account": 1000, "logins_per_address": 1000, "renewals_per_session": 1000}
    leases = {"duration": LEASE_S, "wait": 1.0}
    with node(root, tmp_path_factory.mktemp("data"), auth=auth, leases=leases, log={"level": "warning"}) as started:
        auth_role(started)
        yield started


def call(running: RunningNode, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any, Any]:
    """Status, fields and JSON."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", running.port, timeout=WAIT_S)) as connection:
        fields = {"Content-Type": "application/json", **headers}
        connection.request(method, f"/api/v1/playback/{path}", None if body is None else json.dumps(body), fields)
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, answer.headers, json.loads(text) if text else None


def start(running: RunningNode) -> dict[str, Any]:
    status, _, told = call(running, "POST", "film", {"password": PASSWORD})
    assert status == 201, told
    assert isinstance(told, dict)
    return told


def test_from_start_to_end(running: RunningNode) -> None:
    """It plays past five leases; when its session is ended there is not one more byte after a second."""
    told = start(running)
    assert told["urls"]["hls"] == f"/t/{told['token']}/v/film/main.m3u8"
    with Player(running, told["token"]) as player:
        played(player, 5.5 * LEASE_S)
        status, _, _ = call(running, "DELETE", "session", None, **{"CTA-Common-Access-Token": told["token"]})
        assert status == 204
        ended = time.monotonic()
        player.until(401)
        end = time.monotonic() + 2 * LEASE_S
        until(lambda: player.answers[-1][0] >= end, "no lease brings it back")
        assert player.statuses(ended + ALLOWED_S) == {401}
    assert call(running, "POST", "renew", {}, **{"CTA-Common-Access-Token": told["token"]})[0] == 401


def test_nobody_in_without(running: RunningNode) -> None:
    assert running.get("/v/film/main.m3u8")[0] == 401
    assert call(running, "POST", "film", {"password": "guessed"})[0] in (401, 403)
    assert call(running, "POST", "member", {})[0] in (401, 403)
    told = start(running)
    assert running.get(f"/t/{told['token']}/v/member/main.m3u8")[0] == 403


def test_the_auth_role_hangs(running: RunningNode) -> None:
    """Who is in stays until the end of a lease, nobody new gets in, and all go on when it does."""
    told, late = start(running), start(running)
    pid = auth_role(running)
    with Player(running, told["token"]) as player:
        played(player, 0.5)
        os.kill(pid, signal.SIGSTOP)
        try:
            stopped = time.monotonic()
            player.until(503)
            # A last extension may have been granted just before.
            assert 503 not in {status for began, _, status, _ in player.answers if began < stopped}
            assert player.statuses(stopped + LEASE_S + 0.2) == {503}
            status, headers, _ = running.get(f"/t/{late['token']}/v/film/main.m3u8")
            assert (status, int(headers["Retry-After"]) > 0) == (503, True)
            assert "auth role" in json.loads(running.get("/health/ready")[2])["detail"]
            assert running.get("/v/free/main.m3u8")[0] == 200
        finally:
            os.kill(pid, signal.SIGCONT)
        player.until(200)
    assert running.get(f"/t/{late['token']}/v/film/main.m3u8")[0] == 200


def test_the_auth_role_is_killed(running: RunningNode) -> None:
    """Another one takes its place, and knows the sessions of the first; what ended meanwhile stays so."""
    told, ended = start(running), start(running)
    pid = auth_role(running)
    assert call(running, "DELETE", "session", None, **{"CTA-Common-Access-Token": ended["token"]})[0] == 204
    with Player(running, told["token"]) as player:
        played(player, 0.5)
        os.kill(pid, signal.SIGKILL)
        until(lambda: auth_role(running) != pid, "another one")
        player.until(200)
        assert player.statuses() <= {200, 503}
    assert running.get(f"/t/{ended['token']}/v/film/main.m3u8")[0] == 401
    assert running.get(f"/t/{start(running)['token']}/v/film/main.m3u8")[0] == 200
    assert running.total("auth_deaths_total") == 1


def append(running: RunningNode, kind: EventType, subject: bytes) -> None:
    """Write an event into the machine's store, as another process of it does."""

    async def write() -> None:
        store = await SqliteStore.open(running.data / "state.sqlite")
        try:
            await store.append(kind, subject, int(time.time()) + 1000)
        finally:
            await store.close()

    asyncio.run(write())


@pytest.mark.slow
def test_revoked_by_whomever(running: RunningNode) -> None:
    """No byte in any worker, nor by a worker that takes the place of another."""
    told, other = start(running), start(running)
    with Player(running, other["token"]) as unconcerned, Player(running, told["token"]) as player:
        played(player, 0.5)
        played(unconcerned, 0.0)
        append(running, "revoke.grant", bytes.fromhex(told["grant"]))
        # Who only writes is heard of within a second.
        written = time.monotonic()
        player.until(401)
        end = written + 1.0 + ALLOWED_S + LEASE_S
        until(lambda: player.answers[-1][0] >= end, "nothing brings it back")
        assert player.statuses(written + 1.0 + ALLOWED_S) == {401}
        assert unconcerned.statuses() == {200}
    for pid in running.workers():
        os.kill(pid, signal.SIGKILL)
    until(lambda: len(running.workers()) == 2, "other workers")
    assert {running.get(player.paths[0])[0] for _ in range(12)} == {401}
    assert {running.get(unconcerned.paths[0])[0] for _ in range(12)} == {200}


def minted(running: RunningNode, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-W", "error", "-m", "streamgate.cli", "token", "mint", "member", *arguments]
    return subprocess.run(
        [*program, "--config", str(running.file)], capture_output=True, text=True, timeout=30, check=False
    )


def test_tokens_of_the_operator(running: RunningNode) -> None:
    """``token mint`` registers a session; a token made offline has none."""
    made = minted(running, "--port", str(running.port))
    assert made.returncode == 0, made.stderr
    assert running.get(f"/t/{made.stdout.strip()}/v/member/main.m3u8")[0] == 200
    urls = minted(running, "--url", running.url)
    assert urls.returncode == 0, urls.stderr
    assert running.get(urls.stdout.split()[1].removeprefix(running.url))[0] == 200
    offline = minted(running, "--offline")
    status, _, body = running.get(f"/t/{offline.stdout.strip()}/v/member/main.m3u8")
    assert (status, json.loads(body)["code"]) == (401, "session_unknown")
    until_then = int(time.time()) + 1000
    revoked = {"asset": b"member".hex(), "exp": until_then}
    assert running.admin("POST", "/revocations", revoked) == (204, None)
    assert {running.get(f"/t/{made.stdout.strip()}/v/member/main.m3u8")[0] for _ in range(12)} == {401}
    nowhere = minted(running, "--port", "1")
    assert (nowhere.returncode, "[auth_unavailable]" in nowhere.stderr) == (1, True)


@pytest.mark.slow
def test_a_reload_and_a_restart(running: RunningNode) -> None:
    """Sessions outlive both; the process of the auth role is another one afterwards."""
    told, pid = start(running), auth_role(running)
    path = f"/t/{told['token']}/v/film/main.m3u8"
    assert running.get(path)[0] == 200
    running.reload()
    until(lambda: auth_role(running) != pid, "another auth role")
    assert running.get(path)[0] == 200
    assert running.stop() == 0
    assert not list(running.data.glob("auth-*.sock"))
    running.start()
    auth_role(running)
    assert running.get(path)[0] == 200
    running.kill()
    running.start()
    auth_role(running)
    assert running.get(path)[0] == 200
