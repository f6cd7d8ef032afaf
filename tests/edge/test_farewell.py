"""The end of a node with two workers: clients that do not say farewell hold it up for a moment only."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.peers.certificate import Certificate
from benchmarks.peers.process import free_port
from tests.edge.nodes import WAIT_S, RunningNode, node
from tests.media_factory import Video, make

ASK = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"
DEADLINE_S = 20.0
# 2 s for a farewell, and time for two processes to end on a busy machine; far less than the deadline.
SOON_S = 9.0


@pytest.fixture
def port() -> int:
    """Where the node speaks TLS."""
    return free_port()


@pytest.fixture
def running(tmp_path: Path, certificate: Certificate, port: int) -> Iterator[RunningNode]:
    """A node that gives answers under way much time."""
    media = tmp_path / "media"
    media.mkdir()
    make(media / "film.mp4", Video(gop=25), None, seconds=4)
    tls = {"listen": [f"127.0.0.1:{port}"], "certificate": str(certificate.chain), "key": str(certificate.key)}
    server = {"head_timeout": 15.0, "send_buffer": 16384}
    with node(media, tmp_path / "data", tls=tls, drain={"deadline": DEADLINE_S}, server=server) as made:
        yield made


def connect(port: int, certificate: Certificate) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(certificate.chain))
    plain = socket.create_connection(("127.0.0.1", port), WAIT_S)
    return context.wrap_socket(plain, server_hostname="localhost")


def test_an_idle_client_that_does_not_answer(running: RunningNode, port: int, certificate: Certificate) -> None:
    with contextlib.ExitStack() as opened:
        for _ in range(8):  # both workers have some
            client = opened.enter_context(connect(port, certificate))
            client.sendall(ASK)
            assert b" 200 OK" in client.recv(65536)
        begun = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - begun < SOON_S


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01"])
def test_half_a_handshake(running: RunningNode, port: int, said: bytes) -> None:
    with contextlib.ExitStack() as opened:
        for _ in range(8):
            opened.enter_context(socket.create_connection(("127.0.0.1", port), WAIT_S)).sendall(said)
        # They are accepted in the order in which they came.
        assert running.get("/health/live")[0] == 200
        begun = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - begun < SOON_S


@pytest.mark.slow
def test_a_slow_client_gets_its_whole_answer(running: RunningNode, port: int, certificate: Certificate) -> None:
    """It takes longer than a farewell may, and loses nothing."""
    path = first_segment(running)
    whole = running.get(path)[2]
    with connect(port, certificate) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        received = client.recv(4096)
        stopping = threading.Thread(target=running.stop)
        begun = time.monotonic()
        stopping.start()
        size = len(received.partition(b"\r\n\r\n")[2])
        while size < len(whole):
            # At a pace that takes five seconds for all of it.
            due = begun + 5.0 * size / len(whole)
            while time.monotonic() < due:
                threading.Event().wait(0.02)
            data = client.recv(4096)
            assert data, f"{size} of {len(whole)} bytes"
            size += len(data)
            received += data
        assert received.partition(b"\r\n\r\n")[2] == whole
        stopping.join(WAIT_S)
        assert running.process.returncode == 0


def first_segment(running: RunningNode) -> str:
    """The path of a segment of the film."""
    main = running.get("/v/film/main.m3u8")[2].decode()
    folder = next(line for line in main.splitlines() if line.endswith("index.m3u8")).removesuffix("index.m3u8")
    return f"/v/film/{folder}0.m4s"
