"""A node with two workers: real processes, from the sockets to the end."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import socket
import stat
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.edge.connections_of import clients_of
from tests.edge.nodes import RunningNode, node, until


@pytest.fixture(scope="module")
def running(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """One node for all tests that leave it as they found it."""
    with node(folder, tmp_path_factory.mktemp("node") / "data") as started:
        yield started
        assert started.stop() == 0


def connect(port: int, family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
    return socket.create_connection(("::1" if family == socket.AF_INET6 else "127.0.0.1", port), timeout=20)


def ask(sock: socket.socket, path: str = "/health/live") -> bytes:
    """Head and body of an answer whose body is short."""
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    received = b""
    while b"\r\n\r\n" not in received:
        received += sock.recv(65536) or pytest.fail(f"the connection ended after {received!r}")
    head, _, body = received.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    while len(body) < length:
        body += sock.recv(65536) or pytest.fail("the connection ended")
    return head + b"\r\n\r\n" + body


def test_both_serve_and_any_tells_the_sum(running: RunningNode) -> None:
    assert len(running.workers()) == 2
    before = counted(running)
    for _ in range(40):
        assert running.get("/v/film/main.m3u8")[0] == 200
    until(lambda: counted(running) == before + 40, "40 requests counted")
    # Each connection comes to one of the two, and both tell the same.
    for _ in range(10):
        text = running.get("/metrics")[2].decode()
        assert f'streamgate_requests_total{{route="multivariant",status="200"}} {before + 40}' in text
        assert "film" not in text
    resident = [v for k, v in running.counters().items() if k.startswith("streamgate_process_resident_bytes")]
    assert len(resident) == 3 and all(10e6 < size < 200e6 for size in resident)


def counted(running: RunningNode) -> float:
    """The requests for playlists that the node has counted."""
    return running.total("requests_total", 'route="multivariant"')


def test_both_take_connections(running: RunningNode) -> None:
    """The kernel spreads connections over the sockets: of 60 none at all came to one of them with a chance of 2**-59."""
    held = [connect(running.port) for _ in range(60)]
    try:
        assert all(b"200 OK" in ask(sock) for sock in held)
        until(lambda: sum(worker["connections"] for worker in running.status()["workers"]) == 60, "60 connections told")
        both = [clients_of(pid, running.port) for pid in running.workers()]
        assert all(both) and both[0] | both[1] == {sock.getsockname()[1] for sock in held}
    finally:
        for sock in held:
            sock.close()


def test_a_dead_worker_is_replaced_and_its_counts_stay(running: RunningNode) -> None:
    before, deaths = counted(running), running.total("worker_deaths_total")
    for _ in range(20):
        running.get("/v/film/main.m3u8")
    until(lambda: counted(running) == before + 20)
    victim = running.workers()[0]
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(running.workers()) == 2 and victim not in running.workers(), "a successor")
    assert counted(running) == before + 20
    assert running.total("worker_deaths_total") == deaths + 1
    for _ in range(20):
        assert running.get("/v/film/main.m3u8")[0] == 200
    until(lambda: counted(running) == before + 40)


def test_what_waits_in_the_queue_of_a_dead_worker_is_served(running: RunningNode) -> None:
    """Both are stopped, so that nobody accepts; then both die, and their successors serve those who waited."""
    for pid in running.workers():
        os.kill(pid, signal.SIGSTOP)
    waiting = [connect(running.port) for _ in range(50)]
    for pid in running.workers():
        os.kill(pid, signal.SIGKILL)
    for sock in waiting:
        assert b"200 OK" in ask(sock)
        sock.close()
    until(lambda: len(running.workers()) == 2, "their successors")


def test_reload_brings_new_settings(running: RunningNode) -> None:
    before = running.workers()
    with connect(running.port) as idle, connect(running.port) as never_spoke:
        assert b"200 OK" in ask(idle)
        running.write(edge={"manifest_max_age": 7}, drain={"deadline": 10.0, "idle": 5.0})
        running.reload()
        assert not set(before) & set(running.workers())
        # Those who were connected before get one more answer, and are told that it is the last.
        for sock in (idle, never_spoke):
            answer = ask(sock)
            assert b"200 OK" in answer and b"connection: close" in answer.lower()
            assert sock.recv(1) == b""
    assert running.get("/v/film/main.m3u8")[1]["Cache-Control"].startswith("public, max-age=7,")
    until(lambda: len(running.status()["workers"]) == 2, "the end of those who left")


def test_reload_with_wrong_settings_changes_nothing(running: RunningNode) -> None:
    before = running.workers()
    running.file.write_text("[server]\nport = 'eighty'\n")
    running.process.send_signal(signal.SIGHUP)
    until(lambda: running.total("reloads_total", "config_invalid") == 1, "the failure")
    assert running.workers() == before
    assert running.get("/health/ready")[0] == 200
    event = next(event for event in running.events() if "reload failed" in event["event"])
    assert event["code"] == "config_invalid" and "server.port" in event["detail"]


def test_reload_with_other_numbers_of_workers(running: RunningNode) -> None:
    for workers in (3, 1, 2):
        running.write(server={"workers": workers})
        running.process.send_signal(signal.SIGHUP)
        until(lambda workers=workers: len(running.workers()) == workers, f"{workers} workers")  # type: ignore[misc]
        # Every socket has somebody who accepts from it, also those that were made for more workers.
        assert all(running.get("/health/live")[0] == 200 for _ in range(30))


def test_drain(folder: Path, tmp_path: Path) -> None:
    with (
        node(folder, tmp_path / "data", drain={"delay": 1.0, "deadline": 10.0}) as running,
        connect(running.port) as held,
    ):
        assert b"200 OK" in ask(held, "/health/ready")
        began = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        until(lambda: running.get("/health/ready")[0] == 503, "not being ready")
        # It serves on as ever meanwhile.
        assert b"connection: close" not in ask(held, "/v/film/main.m3u8").lower()
        assert running.get("/v/film/main.m3u8")[0] == 200
        assert running.status()["state"] == "draining"
        assert held.recv(1) == b""
        assert time.monotonic() - began >= 1.0
        assert running.end() == 0
        assert not running.admin_path.exists()
    told = [event["event"] for event in running.events() if event["logger"] == "edge.parent"]
    assert told == ["listening", "stopping", "stopped"]
    with pytest.raises(ConnectionRefusedError):
        connect(running.port)


def test_a_second_signal_ends_all_at_once(folder: Path, tmp_path: Path) -> None:
    with node(folder, tmp_path / "data", drain={"delay": 300.0}) as running:
        workers = running.workers()
        running.process.send_signal(signal.SIGTERM)
        until(lambda: running.get("/health/ready")[0] == 503)
        running.process.send_signal(signal.SIGTERM)
        assert running.end() == 128 + signal.SIGTERM
        until(lambda: not any(Path(f"/proc/{pid}/fd/0").exists() for pid in workers), "the workers' end")


def test_workers_do_not_outlive_their_parent(folder: Path, tmp_path: Path) -> None:
    with node(folder, tmp_path / "data") as running:
        workers = running.workers()
        running.process.kill()
        running.end()
        until(lambda: not any(Path(f"/proc/{pid}/fd/0").exists() for pid in workers), "the workers' end")
        # The port is free again: another may listen there.
        with socket.create_server(("127.0.0.1", running.port)) as another:
            assert another.getsockname()[1] == running.port


def test_the_address_is_taken(running: RunningNode, folder: Path, tmp_path: Path) -> None:
    """SO_REUSEPORT would let a second server in; it is refused nevertheless."""
    variables = {**os.environ, "STREAMGATE__SERVER__DATA": str(tmp_path / "other")}
    command = [sys.executable, "-m", "streamgate.cli", "serve", str(folder), "--port", str(running.port)]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=30, check=False)
    assert done.returncode == 1
    assert "[listen_failed]" in done.stderr and "in use" in done.stderr


def test_what_keeps_a_worker_from_starting_is_told(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "data" / "state.sqlite").mkdir(parents=True)
    variables = {**os.environ, "STREAMGATE__SERVER__DATA": str(tmp_path / "data")}
    command = [sys.executable, "-m", "streamgate.cli", "serve", str(folder), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=30, check=False)
    assert done.returncode == 1
    assert "[store_unavailable]" in done.stderr and "Traceback" not in done.stderr


def test_other_addresses(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    with node(folder, tmp_path / "data", server={"host": "::", "listen": [f"unix:{path}"]}) as running:
        for family in (socket.AF_INET, socket.AF_INET6):
            with connect(running.port, family) as sock:
                assert b"200 OK" in ask(sock)
        for _ in range(10):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(20)
                sock.connect(str(path))
                assert b"200 OK" in ask(sock, "/v/film/main.m3u8")
        running.reload()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(20)
            sock.connect(str(path))
            assert b"200 OK" in ask(sock)
        assert running.stop() == 0
    assert not path.exists()


def test_the_operators_socket_is_the_users_own(running: RunningNode) -> None:
    mode = running.admin_path.stat().st_mode
    assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o600
    assert stat.S_IMODE((running.data / "state.sqlite").stat().st_mode) == 0o600


def test_sigusr1_ends_nothing(running: RunningNode) -> None:
    for pid in [*running.workers(), running.process.pid]:
        os.kill(pid, signal.SIGUSR1)
    assert running.get("/health/ready")[0] == 200
    assert running.status()["state"] == "ready"


def test_the_terminal_goes_away(folder: Path, tmp_path: Path) -> None:
    """Its SIGHUP is no wish to reload."""
    ours, theirs = pty.openpty()

    def own_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    variables = {**os.environ, "STREAMGATE__SERVER__DATA": str(tmp_path / "data"), "STREAMGATE__SERVER__WORKERS": "2"}
    command = [sys.executable, "-m", "streamgate.cli", "serve", str(folder), "--port", "0"]
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=variables,
        start_new_session=True,
        preexec_fn=own_terminal,
    )
    try:
        os.close(theirs)
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"Watch")
        os.close(ours)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()
