"""Seats of workers whose successor has a hard time: it starts without what it can do without, or the others cover for it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers.certificate import self_signed
from benchmarks.peers.process import free_port
from tests.edge.nodes import WAIT_S, RunningNode, node, until

REQUEST = b"GET /health/ready HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
# So many connections at once come to both of two sockets, but for a chance of 2 in 2 ** 40.
MANY = 40


def answers(port: int, context: ssl.SSLContext | None = None) -> list[bytes]:
    """What many clients get who are all there at the same time."""
    with contextlib.ExitStack() as opened:
        clients = []
        for _ in range(MANY):
            client = opened.enter_context(socket.create_connection(("127.0.0.1", port), WAIT_S))
            if context is not None:
                client = opened.enter_context(context.wrap_socket(client, server_hostname="localhost"))
            client.sendall(REQUEST)
            clients.append(client)
        return [b"".join(iter(lambda client=client: client.recv(65536), b"")) for client in clients]  # type: ignore[misc]


def lose_one(running: RunningNode) -> int:
    """Kill one of two workers, and wait until the parent knows; the other one."""
    victim, other = running.workers()
    os.kill(victim, signal.SIGKILL)
    until(lambda: victim not in running.workers(), "its end")
    return other


def replaced(running: RunningNode) -> None:
    """All seats are taken by workers that serve."""
    until(lambda: len(running.workers()) == 2 and running.status()["state"] == "ready", "a successor")


def test_a_successor_starts_without_the_access_log(folder: Path, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    log = {"access": True, "access_file": str(logs / "access.log"), "access_format": "combined"}
    with node(folder, tmp_path / "data", log=log) as running:
        shutil.rmtree(logs)
        other = lose_one(running)
        replaced(running)
        assert any(event["event"].startswith("the access log cannot be opened") for event in running.events())
        os.kill(other, signal.SIGKILL)
        until(lambda: other not in running.workers(), "the end of the other")
        replaced(running)
        assert all(b" 200 OK" in answer for answer in answers(running.port))
        until(lambda: running.total("log_lines_dropped_total") >= MANY, "the lines that are dropped")
        logs.mkdir()

        def written() -> bool:
            running.get("/health/live")
            file = logs / "access.log"
            return file.exists() and file.stat().st_size > 0

        until(written, "lines in a file that can be opened again")
        shutil.rmtree(logs)
        before = running.status()["generation"]
        running.process.send_signal(signal.SIGHUP)
        until(lambda: running.total("reloads_total", "config_invalid") == 1, "a reload that says what is wrong")
        assert running.status()["generation"] == before
        assert running.get("/health/live")[0] == 200


@pytest.mark.parametrize("damage", ["gone", "halved"])
def test_a_successor_starts_with_the_certificate_in_force(folder: Path, tmp_path: Path, damage: str) -> None:
    port = free_port()
    with self_signed() as certificate:
        context = ssl.create_default_context(cafile=str(certificate.chain))
        given = {"listen": [f"127.0.0.1:{port}"], "certificate": str(certificate.chain), "key": str(certificate.key)}
        with node(folder, tmp_path / "data", tls=given) as running:
            for path in (certificate.chain, certificate.key):
                if damage == "gone":
                    path.unlink()
                else:
                    os.truncate(path, path.stat().st_size // 2)
            other = lose_one(running)
            replaced(running)
            os.kill(other, signal.SIGKILL)
            until(lambda: other not in running.workers(), "the end of the other")
            replaced(running)
            assert all(b" 200 OK" in answer for answer in answers(port, context))
            # What a reload reads must be whole.
            running.process.send_signal(signal.SIGHUP)
            until(lambda: running.total("reloads_total", "config_invalid") == 1, "a reload that failed")
            assert all(b" 200 OK" in answer for answer in answers(port, context))


@pytest.fixture
def crippled(folder: Path, tmp_path: Path) -> Iterator[tuple[RunningNode, Path]]:
    """A node of which no further worker can start as long as others may read the key file, which is told, too."""
    unix = tmp_path / "s"
    with node(folder, tmp_path / "data", server={"listen": [f"unix:{unix}"]}) as running:
        key = next((tmp_path / "data/keys").glob("*.toml"))
        key.chmod(0o644)
        yield running, key


def test_those_who_are_left_cover_an_empty_seat(crippled: tuple[RunningNode, Path], tmp_path: Path) -> None:
    running, key = crippled
    lose_one(running)
    # Some of these come to the dead worker's socket before anybody covers for it.
    begun = time.monotonic()
    assert all(b" 200 OK" in answer for answer in answers(running.port))
    assert time.monotonic() - begun < 10

    # It is empty at first, and then the attempt to fill it fails.
    def empty() -> dict[str, Any] | None:
        status = running.status()
        return status if any(seat["code"] for seat in status["empty_seats"]) else None

    status = until(empty, "an empty seat")
    assert status["state"] == "degraded"
    (seat,) = status["empty_seats"]
    assert seat["code"] == "config_invalid" and "others may read it" in seat["detail"]
    assert running.total("worker_seats_empty") == 1
    told = answers(running.port)
    assert all(
        b" 200 OK" in answer and b'"status":"ready","detail":"degraded: 1 of 2 workers' in answer for answer in told
    )
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(WAIT_S)
        client.connect(str(tmp_path / "s"))
        client.sendall(REQUEST)
        assert b" 200 OK" in client.recv(65536)
    key.chmod(0o600)
    replaced(running)
    assert running.status()["empty_seats"] == []
    assert running.total("worker_seats_empty") == 0
    until(lambda: all(b"degraded" not in answer for answer in answers(running.port)), "an answer without a word of it")
    # The successor accepts from its own socket again.
    with running.each_worker() as connections:
        assert len(connections) == 2


def test_a_degraded_node_stops_and_reloads_as_any(crippled: tuple[RunningNode, Path]) -> None:
    running, key = crippled
    lose_one(running)
    until(lambda: running.status()["state"] == "degraded", "an empty seat")
    running.process.send_signal(signal.SIGHUP)
    until(lambda: running.total("reloads_total", "config_invalid") == 1, "a reload that failed")
    assert all(b" 200 OK" in answer for answer in answers(running.port))
    key.chmod(0o600)
    running.reload()
    assert (running.status()["state"], running.total("worker_seats_empty")) == ("ready", 0)
    assert all(b" 200 OK" in answer for answer in answers(running.port))
    key.chmod(0o644)
    lose_one(running)
    until(lambda: running.status()["state"] == "degraded", "an empty seat")
    begun = time.monotonic()
    assert running.stop() == 0
    assert time.monotonic() - begun < 8
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", running.port), WAIT_S)
