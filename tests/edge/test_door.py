"""The ceiling of connections of a node with two workers: whoever is one too many is told so, and hears it."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.peers.certificate import Certificate
from benchmarks.peers.process import free_port
from tests.edge.nodes import WAIT_S, RunningNode, node, until

ASK = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"
CEILING = 20
# Each worker turns away so many at once (edge/door.py).
AT_ONCE = 64


@pytest.fixture(scope="module")
def port() -> int:
    """Where the node speaks TLS."""
    return free_port()


@pytest.fixture(scope="module")
def running(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, certificate: Certificate, port: int
) -> Iterator[RunningNode]:
    """A node that takes few connections."""
    tls = {"listen": [f"127.0.0.1:{port}"], "certificate": str(certificate.chain), "key": str(certificate.key)}
    data = tmp_path_factory.mktemp("data")
    with node(folder, data, server={"max_connections": CEILING, "head_timeout": 30.0}, tls=tls) as made:
        yield made


@pytest.fixture
def empty(running: RunningNode) -> RunningNode:
    """The node when all that came before have gone."""
    until(lambda: running.total("connections") == 0, "the end of all connections")
    return running


def read(client: socket.socket) -> bytes:
    """All that comes until the server closes; raises where it resets the connection."""
    received = b""
    while data := client.recv(65536):
        received += data
    return received


def refused(answer: bytes) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.startswith(b"HTTP/1.1 503 ") and b"Retry-After:" in head and b'"overloaded"' in body


@contextlib.contextmanager
def full(running: RunningNode) -> Iterator[None]:
    """Both workers have all the connections that they take."""
    with contextlib.ExitStack() as opened:
        inside = 0
        while inside < CEILING:
            client = opened.enter_context(socket.create_connection(("127.0.0.1", running.port), WAIT_S))
            client.sendall(ASK)
            if client.recv(65536).startswith(b"HTTP/1.1 200 "):
                inside += 1
            else:
                client.close()
        yield


def test_three_times_the_ceiling_at_once(empty: RunningNode) -> None:
    before = empty.total("connections_refused_total")
    with contextlib.ExitStack() as opened:
        clients = [
            opened.enter_context(socket.create_connection(("127.0.0.1", empty.port), WAIT_S))
            for _ in range(3 * CEILING)
        ]

        def told() -> list[socket.socket]:
            readable = select.select(clients, [], [], 0)[0]
            return readable if len(readable) == empty.total("connections_refused_total") - before else []

        until(lambda: len(told()) >= 2 * CEILING, "as many answers as find no room")
        answers = [read(client) for client in told()]
        # A worker takes no more than its half, and the kernel may give it more or less than half of the clients.
        assert 2 * CEILING <= len(answers) < 3 * CEILING
        assert all(refused(answer) for answer in answers)
    assert empty.total("connections_failed_total") == 0


def test_a_request_that_was_sent_already(empty: RunningNode) -> None:
    """The answer is read whole, whatever the client sends while it is told to go."""
    with full(empty):
        for size in (0, 1, 30_000):
            for _ in range(20):
                with socket.create_connection(("127.0.0.1", empty.port), WAIT_S) as client:
                    client.sendall(ASK + b"x" * size)
                    assert refused(read(client))


def test_over_tls(empty: RunningNode, port: int, certificate: Certificate) -> None:
    context = ssl.create_default_context(cafile=str(certificate.chain))
    with full(empty):
        for _ in range(10):
            with (
                socket.create_connection(("127.0.0.1", port), WAIT_S) as plain,
                context.wrap_socket(plain, server_hostname="localhost") as client,
            ):
                client.sendall(ASK)
                assert refused(read(client))


def test_who_does_not_go_is_cut(empty: RunningNode) -> None:
    """Refusals are bounded in time and number, and make room for others."""
    with full(empty), contextlib.ExitStack() as opened:
        staying = [
            opened.enter_context(socket.create_connection(("127.0.0.1", empty.port), WAIT_S))
            for _ in range(8 * AT_ONCE)
        ]
        answers = []
        for client in staying:
            with contextlib.suppress(ConnectionResetError):
                answers.append(read(client))
        told = [answer for answer in answers if answer]
        assert len(told) >= AT_ONCE and all(refused(answer) for answer in told)
        # They have heard it and do not close; a moment later nobody waits for them any more.
        until(lambda: is_reset(staying), "the end of those who stay")
        with socket.create_connection(("127.0.0.1", empty.port), WAIT_S) as late:
            late.sendall(ASK)
            assert refused(read(late))
    until(lambda: empty.get("/health/live")[0] == 200, "room again")


def is_reset(clients: list[socket.socket]) -> bool:
    """Whether the server has let go of all of them: what they send is refused."""
    gone = 0
    for client in clients:
        try:
            client.sendall(b"x")
        except OSError:
            gone += 1
    return gone == len(clients)
