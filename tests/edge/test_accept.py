"""Accepting: options that connections inherit, addresses of all kinds, and a system that has no files left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.accept import Acceptor
from edge.listeners import listen_all, open_unix
from streamgate.core.settings import ServerSettings, Settings
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError


class Echo(asyncio.Protocol):
    """Says a word to whoever comes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(b"hello")  # type: ignore[attr-defined]
        transport.close()


def settings(**server: Any) -> Settings:
    return Settings(server=ServerSettings(**{"port": 0, **server}))


@contextlib.contextmanager
def few_files() -> Iterator[None]:
    """No further file can be opened by this process."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_without_files_it_waits_and_does_not_spin() -> None:
    listeners = await asyncio.to_thread(listen_all, settings(), 1)
    telemetry = await asyncio.to_thread(Telemetry)
    acceptor = Acceptor(listeners.rows[0], lambda *_: Echo(), telemetry)
    client = socket.socket()
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, listeners.rows[0][0].getsockname())
    answer = asyncio.create_task(loop.sock_recv(client, 10))
    acceptor.start()
    with few_files():
        before, began = time.process_time(), loop.time()
        while telemetry.value("accept_pauses") < 4:
            await asyncio.sleep(0.01)
        assert loop.time() - began >= 0.25
        assert time.process_time() - before < 0.2
        assert not answer.done()
    assert await asyncio.wait_for(answer, 10) == b"hello"
    acceptor.stop()
    listeners.close()
    client.close()


async def test_a_burst_is_taken_in_one_go() -> None:
    """300 who come at once have their protocols after a few turns of a busy loop, and each is served."""
    listeners = await asyncio.to_thread(listen_all, settings(), 1)
    telemetry = await asyncio.to_thread(Telemetry)
    made: list[Echo] = []

    def make(*_: object) -> Echo:
        made.append(Echo())
        return made[-1]

    acceptor = Acceptor(listeners.rows[0], make, telemetry)
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        address = listeners.rows[0][0].getsockname()
        clients = [stack.enter_context(socket.create_connection(address)) for _ in range(300)]
        acceptor.start()
        turns = 0
        while len(made) < 300:
            turns += 1
            assert turns < 100, "about one connection a turn"
            await asyncio.sleep(0)
        for client in clients:
            client.setblocking(False)
            assert await asyncio.wait_for(loop.sock_recv(client, 10), 10) == b"hello"
    acceptor.stop()
    listeners.close()


async def test_connections_inherit_the_options() -> None:
    given = settings(unsent=100_000, send_buffer=50_000, send_timeout=7.0)
    listeners = await asyncio.to_thread(listen_all, given, 2)
    with socket.create_connection(listeners.rows[0][0].getsockname()):
        taken = None
        while taken is None:
            for row in listeners.rows:
                with contextlib.suppress(BlockingIOError):
                    taken = row[0].accept()[0]
            await asyncio.sleep(0)
        with taken:
            assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == 100_000
            assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 14_000
            # The kernel doubles it for its own use (socket(7)).
            assert taken.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 100_000
    listeners.close()


def test_each_worker_has_its_own_socket_at_the_same_address(tmp_path: Path) -> None:
    listeners = listen_all(settings(listen=(f"unix:{tmp_path}/s", "127.0.0.1:0")), 3)
    first, *others = listeners.rows
    for row in others:
        assert [sock.getsockname() for sock in row] == [sock.getsockname() for sock in first]
        assert row[0] is not first[0] and row[1] is first[1] and row[2] is not first[2]
    listeners.extend(4, ServerSettings())
    assert listeners.rows[3][0].getsockname() == first[0].getsockname()
    listeners.close()
    assert not (tmp_path / "s").exists()


def test_unix_sockets_that_are_there_already(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with open_unix(path, 1):
        with pytest.raises(OSError, match="in use"):
            open_unix(path, 1)
    # Nobody listens there any more: the file of a server that was killed.
    assert os.path.exists(path)
    open_unix(path, 1).close()
    (tmp_path / "file").write_text("something of somebody")
    with pytest.raises(StreamGateError) as caught:
        listen_all(settings(listen=(f"unix:{tmp_path}/file",)), 1)
    assert caught.value.code == "listen_failed"
    assert (tmp_path / "file").read_text() == "something of somebody"


@pytest.mark.parametrize("text", ["8080", "localhost", "::1:8080", "[::1]", "127.0.0.1:99999", "unix:", "127.0.0.1:x"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(StreamGateError) as caught:
        listen_all(settings(listen=(text,)), 1)
    assert caught.value.code == "config_invalid" and text in caught.value.detail


def test_nothing_stays_open_where_one_address_fails() -> None:
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(StreamGateError):
        listen_all(settings(listen=("192.0.2.1:0",)), 2)
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(("pace", "kept"), [(0, -1), (250_000, 250_000)])
async def test_how_fast_a_connection_is_served(pace: int, kept: int) -> None:
    listeners = await asyncio.to_thread(listen_all, settings(), 1)
    telemetry = await asyncio.to_thread(Telemetry)
    made: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    class Asking(Echo):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.set_result(transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, 47))
            super().connection_made(transport)

    acceptor = Acceptor(listeners.rows[0], lambda *_: Asking(), telemetry, pace=pace)
    acceptor.start()
    reader, writer = await asyncio.open_connection(*listeners.rows[0][0].getsockname())
    assert await reader.read() == b"hello"
    assert await made == kept
    writer.close()
    await writer.wait_closed()
    acceptor.stop()
    listeners.close()
