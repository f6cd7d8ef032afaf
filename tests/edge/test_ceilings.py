"""Ceilings are the node's; and nobody is promised a connection that there is no open file for."""

from __future__ import annotations

import resource
import select
import socket
from pathlib import Path

import pytest

from edge.ceilings import share
from streamgate.core.settings import EdgeSettings, ServerSettings, Settings
from streamgate.errors import StreamGateError
from streamgate.storage.assets import discover, open_asset
from tests.edge.nodes import RunningNode, node, until

FEWEST = 384


def test_ceilings_are_shared_out() -> None:
    whole = Settings()
    part = share(whole, 3)
    assert 3 * part.edge.cache_bytes <= whole.edge.cache_bytes
    assert 3 * part.edge.buffered_bytes <= whole.edge.buffered_bytes
    assert part.server.max_connections == 3334
    assert share(whole, 1) == whole


@pytest.mark.parametrize(("limit", "room"), [(FEWEST, 64), (512, 128), (4096, 2688), (65536, 10_000), (-1, 10_000)])
def test_connections_are_as_many_as_there_are_files_for(monkeypatch: pytest.MonkeyPatch, limit: int, room: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert share(Settings(), 1).server.max_connections == room
    few = Settings(server=ServerSettings(max_connections=10), edge=EdgeSettings(open_objects=16, open_assets=1))
    assert share(few, 1) == few


def test_too_few_files_for_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (FEWEST - 1, 4096))
    with pytest.raises(StreamGateError) as caught:
        share(Settings(), 1)
    assert caught.value.code == "files_too_few" and str(FEWEST) in caught.value.detail


def limits(pid: int) -> tuple[int, int]:
    return resource.prlimit(pid, resource.RLIMIT_NOFILE)


def test_a_low_hard_limit_lowers_the_ceiling(folder: Path, tmp_path: Path) -> None:
    """Of 400 clients of two workers with room for 128 each, 256 are served, from all tiers, and the others are turned away at once."""
    with node(folder, tmp_path / "data", files=(256, 512), edge={"memory_object": 0}) as running:
        assert {limits(pid) for pid in (running.process.pid, *running.workers())} == {(512, 512)}
        assert running.status()["max_connections"] == 256
        [said] = [event for event in running.events() if "too few files" in event["event"]]
        assert (said["level"], said["connections"], said["max_connections"], said["files"]) == (
            "warning",
            256,
            10_000,
            512,
        )
        video = next(open_asset(ref) for ref in discover(folder) if ref.id == "film").presentation.video[0].name
        held = [socket.create_connection(("127.0.0.1", running.port), timeout=20) for _ in range(400)]
        try:
            # Who is turned away hears of it before he says anything.
            until(lambda: len(spoken_to(held)) == 144, "144 who are refused")
            refused = spoken_to(held)
            lines = {sock.recv(65536).partition(b"\r\n")[0] for sock in refused}
            # In a burst those beyond twice the ceiling are not even told why.
            assert b"HTTP/1.1 503 Service Unavailable" in lines and lines <= {b"HTTP/1.1 503 Service Unavailable", b""}
            # With every place taken there are files left for what is asked for.
            served = [sock for sock in held if sock not in refused]
            assert [status(sock, f"/v/film/{video}/{n % 2}.m4s") for n, sock in enumerate(served)] == [200] * 256
            assert running.total("accept_pauses_total") == 0
        finally:
            for sock in held:
                sock.close()
        assert running.stop() == 0


def spoken_to(held: list[socket.socket]) -> set[socket.socket]:
    """Those that have something to read."""
    poll = select.poll()
    for sock in held:
        poll.register(sock, select.POLLIN)
    ready = {number for number, _ in poll.poll(0)}
    return {sock for sock in held if sock.fileno() in ready}


def status(sock: socket.socket, path: str) -> int:
    """Ask, read the whole answer, and tell its status."""
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    with sock.makefile("rb") as stream:
        code, length = int(stream.readline().split()[1]), 0
        while line := stream.readline().strip():
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        assert len(stream.read(length)) == length
    return code


def test_a_soft_limit_is_raised_to_what_is_needed(folder: Path, tmp_path: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with node(folder, tmp_path / "data", files=(64, hard), server={"max_connections": 1000}) as running:
        assert {limits(pid) for pid in (running.process.pid, *running.workers())} == {(hard, hard)}
        assert running.status()["max_connections"] == 1000
        assert not [event for event in running.events() if "files" in event["event"]]


def test_it_does_not_start_with_next_to_none(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"\[files_too_few\]") as caught:
        RunningNode(folder, tmp_path / "data", files=(64, FEWEST - 1))
    assert "LimitNOFILE" in str(caught.value) and "Traceback" not in str(caught.value)
