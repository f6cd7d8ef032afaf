"""A revocation reaches every worker before it is acknowledged, and outlives them all."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamgate.native import cat
from streamgate.storage.kv.sqlite import SqliteStore
from tests.edge.nodes import RunningNode, node, until

GATED = {"require_token": True}


@pytest.fixture(scope="module")
def running(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """One node for all."""
    with node(folder, tmp_path_factory.mktemp("node") / "data", edge=GATED) as started:
        yield started


@pytest.fixture
def held(running: RunningNode) -> int:
    """How many revocations there were before."""
    found = running.status()["revocations"]
    assert isinstance(found, int)
    return found


def command(running: RunningNode, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``streamgate`` with the node's settings."""
    program = [sys.executable, "-W", "error", "-m", "streamgate.cli", *arguments]
    return subprocess.run(program, capture_output=True, text=True, timeout=30, check=False)


def admin(running: RunningNode, *arguments: str) -> subprocess.CompletedProcess[str]:
    return command(running, "admin", "--config", str(running.file), *arguments)


def minted(running: RunningNode) -> str:
    done = command(running, "token", "mint", "film", "--config", str(running.file))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def session(token: str) -> str:
    """The session of a token of ours, in hex."""
    cti = cat.decode(token)[3][cat.CLAIMS["cti"]]
    assert isinstance(cti, bytes)
    return cti[:16].hex()


def answers(running: RunningNode, token: str, times: int = 24) -> set[int]:
    """The statuses that so many new connections get, which come to both workers."""
    return {running.get(f"/t/{token}/v/film/main.m3u8")[0] for _ in range(times)}


def test_a_session(running: RunningNode) -> None:
    revoked, other = minted(running), minted(running)
    assert answers(running, revoked) == answers(running, other) == {200}
    done = admin(running, "revoke", "--session", session(revoked), "--exp", str(int(time.time()) + 14400))
    assert (done.returncode, done.stdout) == (0, "revoked in every worker\n"), done.stderr
    assert answers(running, revoked) == {401}
    assert answers(running, other) == {200}


def test_a_connection_that_was_let_in_before(running: RunningNode) -> None:
    import http.client

    token = minted(running)
    held = [http.client.HTTPConnection("127.0.0.1", running.port, timeout=20) for _ in range(12)]
    statuses = []
    for turn in range(2):
        for connection in held:
            connection.request("GET", f"/t/{token}/v/film/main.m3u8")
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
        if turn == 0:
            assert running.admin("POST", "/revocations", {"session": session(token), "exp": None})[0] == 204
    for connection in held:
        connection.close()
    assert statuses == [200] * 12 + [401] * 12


def test_it_survives_kill_9_of_all(running: RunningNode, held: int) -> None:
    revoked, other = minted(running), minted(running)
    assert running.admin("POST", "/revocations", {"session": session(revoked), "exp": None})[0] == 204
    running.kill()
    running.start()
    # From the very first request on.
    assert answers(running, revoked) == {401}
    assert answers(running, other) == {200}
    assert running.status()["revocations"] == held + 1


def test_successors_know_it(running: RunningNode) -> None:
    revoked = minted(running)
    assert running.admin("POST", "/revocations", {"session": session(revoked), "exp": None})[0] == 204
    for pid in running.workers():
        os.kill(pid, signal.SIGKILL)
    assert answers(running, revoked) == {401}
    running.reload()
    assert answers(running, revoked) == {401}


async def test_what_others_write_into_the_store_is_heard_of(running: RunningNode, held: int) -> None:
    token = await asyncio.to_thread(minted, running)
    store = await SqliteStore.open(running.data / "state.sqlite")
    await store.append("revoke.session", bytes.fromhex(session(token)), None)
    await store.close()
    await asyncio.to_thread(until, lambda: running.status()["revocations"] == held + 1, "the entry")
    assert await asyncio.to_thread(answers, running, token) == {401}


async def test_a_store_that_is_lost_is_written_anew(running: RunningNode, held: int) -> None:
    """The workers refuse as before, the new store learns within seconds what is in force, and kill -9 of all changes nothing."""
    token = await asyncio.to_thread(minted, running)
    exp = int(time.time()) + 600
    entry = {"session": session(token), "exp": exp}
    assert (await asyncio.to_thread(running.admin, "POST", "/revocations", entry))[0] == 204
    before = await in_the_store(running)
    for path in running.data.glob("state.sqlite*"):
        path.unlink()
    # The node makes the new one; to look must not.
    await asyncio.to_thread(until, (running.data / "state.sqlite").exists, "a new store")
    async with asyncio.timeout(20):
        while await in_the_store(running) != before:
            await asyncio.sleep(0.02)
    assert len(before) == held + 1 and ("revoke.session", bytes.fromhex(session(token)), exp + 30) in before
    assert await asyncio.to_thread(answers, running, token) == {401}
    await asyncio.to_thread(running.kill)
    await asyncio.to_thread(running.start)
    assert await asyncio.to_thread(answers, running, token) == {401}


async def in_the_store(running: RunningNode) -> set[tuple[str, bytes, int | None]]:
    """What the node's store tells whoever begins to read."""
    store = await SqliteStore.open(running.data / "state.sqlite")
    try:
        events, _ = await store.events()
        return {(event.type, event.subject, event.until) for event in events}
    finally:
        await store.close()


def test_it_ends_with_the_last_token(running: RunningNode, held: int) -> None:
    """30 s of grace: of a token that expired 29 s ago it holds a second longer."""
    exp = int(time.time()) - 27
    assert running.admin("POST", "/revocations", {"session": "00" * 16, "exp": exp})[0] == 204
    assert running.status()["revocations"] == held + 1
    until(lambda: running.status()["revocations"] == held, "the end of a revocation")
    assert time.time() >= exp + 30


@pytest.mark.slow
def test_a_worker_that_does_not_answer(running: RunningNode) -> None:
    """It is written down and in force elsewhere, but nobody is told that all is done."""
    stopped = running.workers()[0]
    os.kill(stopped, signal.SIGSTOP)
    done = admin(running, "revoke", "--session", "ab" * 16)
    assert done.returncode == 1 and "[not_acknowledged]" in done.stderr
    os.kill(stopped, signal.SIGCONT)
    assert admin(running, "revoke", "--session", "ab" * 16).returncode == 0


@pytest.mark.parametrize(
    "asked",
    [{}, {"session": ""}, {"session": "xyz"}, {"session": "00", "kid": "00"}, {"viewer": "00"}, {"kid": "00" * 65}, [],
     {"session": "00", "exp": "soon"}, {"session": "00", "exp": -1}, {"session": "00", "exp": True}, {"session": 1}],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_revoked(asked: object) -> None:
    import json

    from edge.admin import parse
    from streamgate.errors import StreamGateError

    with pytest.raises(StreamGateError) as caught:
        parse(json.dumps(asked), 0.0)
    assert caught.value.code == "request_malformed"


def test_a_kid(running: RunningNode) -> None:
    """The last but one, for no token of this node is good afterwards."""
    token = minted(running)
    assert answers(running, token) == {200}
    kid = cat.decode(token)[2][4]  # the key's id, in the unprotected header (RFC 9052 section 3.1)
    assert isinstance(kid, bytes)
    assert admin(running, "revoke", "--kid", kid.decode()).returncode == 0
    assert answers(running, token) == {401}


def test_the_command_line(running: RunningNode, tmp_path: Path) -> None:
    assert '"state": "ready"' in admin(running, "status").stdout
    assert "streamgate_requests_in_flight 0" in admin(running, "counters").stdout
    assert admin(running, "revoke").returncode == 2
    done = command(running, "admin", "--socket", str(tmp_path / "none"), "status")
    assert done.returncode == 1 and "[admin_unreachable]" in done.stderr and "Traceback" not in done.stderr
    assert running.admin("GET", "/nothing")[0] == 404
    before = running.status()["generation"]
    assert admin(running, "reload").returncode == 0
    until(lambda: running.status()["generation"] > before)
    assert admin(running, "drain").returncode == 0
    assert running.end() == 0
