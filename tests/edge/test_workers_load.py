"""Many connections, busy and idle: each one is served, and the idle ones cost little."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.load import Load, Target
from tests.edge.connections_of import clients_of
from tests.edge.nodes import RunningNode, node

_REQUEST = b"GET /v/film/main.m3u8 HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture
def running(folder: Path, tmp_path: Path) -> Iterator[RunningNode]:
    with node(folder, tmp_path / "data", server={"keepalive_timeout": 600.0, "max_connections": 30_000}) as started:
        yield started


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def all_are_served(running: RunningNode, number: int) -> list[int]:
    """Open so many connections, have each answered, let all be idle, have each answered again; the workers' memory meanwhile."""
    held: list[socket.socket] = []
    try:
        for _ in range(number):
            held.append(socket.create_connection(("127.0.0.1", running.port), timeout=30))
            answered(held[-1])
        workers = running.workers()
        assert sum(len(clients_of(pid, running.port)) for pid in workers) == number
        sizes = [resident(pid) for pid in workers]
        for sock in held:
            answered(sock)
        return sizes
    finally:
        for sock in held:
            sock.close()


def answered(sock: socket.socket) -> None:
    """Ask once and read the whole answer."""
    sock.sendall(_REQUEST)
    received = sock.recv(65536)
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    head, _, body = received.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    while len(body) < length:
        more = sock.recv(65536)
        assert more
        body += more


def test_a_thousand_idle_connections(running: RunningNode) -> None:
    assert max(all_are_served(running, 1000)) < 200e6


@pytest.mark.slow
def test_ten_thousand_idle_connections(running: RunningNode, capsys: pytest.CaptureFixture[str]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    number = min(10_000, hard - 500)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        sizes = all_are_served(running, number)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with capsys.disabled():
        print(f"\n{number} idle connections; workers of {', '.join(f'{size / 1e6:.0f} MB' for size in sizes)}")
    assert number == 10_000
    assert max(sizes) < 200e6


def test_a_thousand_busy_connections(running: RunningNode) -> None:
    report = Load(running.port, [Target("/v/film/main.m3u8")], seconds=4.0, connections=1000).run()
    assert report.failed == 0, report.first_error
    assert report.completions["min"] >= 1
    assert report.opened == 1000
