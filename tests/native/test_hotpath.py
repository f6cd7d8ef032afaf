"""The hot path by itself: answers, order, slow readers, files, limits, and what it leaves to others."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from streamgate.native.accesslog import AccessLog
from streamgate.native.hotpath import COUNTERS, LATENCIES, ROUTES, STATUSES, Protocol, Stored
from tests.native.hot import CONTENT, HEAD, Node, answer, get, hot, stored, until

BODY = bytes(range(256)) * 4
Run = Callable[[Callable[[], Awaitable[None]]], None]


@pytest.fixture(params=[uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine on each kind of loop; a failure inside of a callback fails the test."""

    def on_loop(work: Callable[[], Awaitable[None]]) -> None:
        failures: list[dict[str, Any]] = []

        async def watched() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
            try:
                await work()
            finally:
                while clients:
                    clients.pop().close()
                await asyncio.sleep(0)

        try:
            with asyncio.Runner(loop_factory=request.param) as runner:
                runner.run(watched())
        finally:
            assert not failures

    return on_loop


clients: list[Any] = []


async def opened(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    clients.append(writer)
    return reader, writer


def lazy(port: int) -> socket.socket:
    """A client whose kernel takes little for it."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", port))
    sock.setblocking(False)
    clients.append(sock)
    return sock


async def rest_of(sock: socket.socket) -> bytes:
    """All that comes until the connection ends."""
    loop, received = asyncio.get_running_loop(), bytearray()
    while chunk := await loop.sock_recv(sock, 1 << 20):
        received += chunk
    return bytes(received)


def test_names_of_counters() -> None:
    assert len(set(COUNTERS)) == len(COUNTERS)
    assert {f"requests/{r}/{s}" for r in ROUTES for s in STATUSES} < set(COUNTERS)
    assert f"request_seconds/segment/{LATENCIES[0]}" in COUNTERS and "request_seconds/segment/inf" in COUNTERS


def test_objects_are_checked() -> None:
    good: dict[str, Any] = {"route": "segment"}
    assert Stored(b'"t"', HEAD, CONTENT, BODY, **good).size == 1024
    assert Stored(b'"t"', HEAD, CONTENT, (5, 10, 20), **good).fd == 5
    for head, content in ((b"A: b", b""), (b"", b"A: b\r\n\r\n"), (b"\r\nA: b\r\n", b"")):
        with pytest.raises(ValueError):
            Stored(b'"t"', head, content, BODY, **good)
    for part in ((-1, 0, 1), (5, -1, 1), (5, 0, -1)):
        with pytest.raises(ValueError):
            Stored(b'"t"', HEAD, CONTENT, part, **good)
    with pytest.raises(ValueError):
        Stored(b'"t"', HEAD, CONTENT, BODY, route="page")


def test_answers(run: Run) -> None:
    async def work() -> None:
        node = Node()
        node.put("/v/a/0", BODY, made=1, negotiable=True)
        node.put("/v/a/0;br", b"coded")
        async with node.listening() as port:
            reader, writer = await opened(port)

            async def ask(*fields: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
                writer.write(get("/v/a/0?CMCD=a", *fields, method=method))
                return await answer(reader, method)

            status, fields, body = await ask()
            assert (status, body) == (200, BODY)
            assert fields["ETag"] == '"t"' and fields["Content-Type"] == "video/mp4" and int(fields["Age"]) > 10**9
            assert fields["Date"].endswith(" GMT") and fields["Server-Timing"].startswith("native;dur=")
            status, fields, body = await ask(method="HEAD")
            assert (status, fields["Content-Length"], body) == (200, "1024", b"")
            status, fields, _ = await ask('If-None-Match: W/"t"', "Range: bytes=0-0")
            assert status == 304 and "Content-Type" not in fields and "Content-Length" not in fields
            status, fields, body = await ask("Range: bytes=-3")
            assert (status, fields["Content-Range"], body) == (206, "bytes 1021-1023/1024", BODY[-3:])
            assert (await ask("Range: bytes=0-0", 'If-Range: "other"'))[0] == 200
            status, fields, body = await ask("Range: bytes=1024-")
            assert (status, fields["Content-Range"], body) == (416, "bytes */1024", b"no")
            assert (await ask("Accept-Encoding: gzip, br"))[2] == b"coded"
            assert (await ask("Accept-Encoding: br", "Range: bytes=0-1"))[2] == BODY[:2]
            status, fields, _ = await ask("Connection: close")
            assert fields["Connection"] == "close" and await reader.read() == b""
            assert not node.handlers
            assert [node.count(f"requests/segment/{status}") for status in STATUSES] == [5, 2, 1, 1]
            assert node.count("native_answers") == 9
            assert sum(node.count(f"request_seconds/segment/{bound}") for bound in (*LATENCIES, "inf")) == 9

    run(work)


def test_pipelined_requests_leave_in_order(run: Run) -> None:
    async def work() -> None:
        node = Node()
        bodies = [os.urandom(300_000 if n % 7 == 3 else n) for n in range(40)]
        for n, body in enumerate(bodies):
            if n % 10:
                node.put(f"/v/a/{n}", body)
        async with node.listening() as port:
            reader, writer = await opened(port)
            writer.write(b"\r\n".join(get(f"/v/a/{n}") for n in range(40)))
            for n, body in enumerate(bodies):
                # Every tenth is somebody else's.
                assert (await answer(reader))[2] == (body if n % 10 else b"handled"), n

    run(work)


def large(node: Node, kind: str, folder: Path) -> bytes:
    """20 MB in memory or in a file, as /v/a/0."""
    body = os.urandom(1 << 20) * 20
    if kind == "memory":
        node.put("/v/a/0", body)
    else:
        (folder / "large").write_bytes(b"before" + body + b"behind")
        file = (folder / "large").open("rb")
        clients.append(file)
        node.put("/v/a/0", (file.fileno(), 6, len(body)), owner=file)
    return body


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_slow_readers_get_all_and_hold_up_nobody(run: Run, kind: str, tmp_path: Path) -> None:
    async def work() -> None:
        node = Node()
        body = large(node, kind, tmp_path)
        node.put("/v/a/1", BODY)
        async with node.listening() as port:
            slow = lazy(port)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(slow, get("/v/a/0", "Range: bytes=5-") + get("/v/a/1", "Connection: close"))
            begun = await loop.sock_recv(slow, 1000)
            reader, writer = await opened(port)
            for _ in range(50):
                writer.write(get("/v/a/1"))
                assert (await answer(reader))[2] == BODY
            received = begun + await rest_of(slow)
            head, _, rest = received.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 206 ")
            assert rest[: len(body) - 5] == body[5:]
            # What was pipelined behind it comes last.
            assert rest[len(body) - 5 :].startswith(b"HTTP/1.1 200 ") and rest.endswith(BODY)
            assert node.count("response_bytes/segment") == len(body) - 5 + 51 * len(BODY)

    run(work)


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_who_takes_nothing_is_cut(run: Run, kind: str, tmp_path: Path) -> None:
    async def work() -> None:
        node = Node(send_timeout=0.2)
        body = large(node, kind, tmp_path)
        async with node.listening() as port:
            slow = lazy(port)
            await asyncio.get_running_loop().sock_sendall(slow, get("/v/a/0"))
            await until(lambda: node.count("requests_aborted/timeout") == 1)
            await until(lambda: not node.factory.connections)
            assert node.count("response_bytes/segment") < len(body)

    run(work)


def test_who_goes_away_is_noticed(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        node = Node()
        body = large(node, "memory", tmp_path)
        async with node.listening() as port:
            slow = lazy(port)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(slow, get("/v/a/0"))
            await loop.sock_recv(slow, 10)
            slow.close()
            await until(lambda: node.count("requests_aborted/client") == 1)
            await until(lambda: not node.factory.connections)
            assert 0 < node.count("response_bytes/segment") < len(body)

    run(work)


def test_who_asks_for_too_much_behind_a_slow_answer_is_let_go(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        node = Node(head=4096)
        body = large(node, "memory", tmp_path)
        node.put("/v/a/1", BODY)
        async with node.listening() as port:
            slow = lazy(port)
            await asyncio.get_running_loop().sock_sendall(slow, get("/v/a/0") + get("/v/a/1") * 500)
            received = await rest_of(slow)
            assert received.startswith(b"HTTP/1.1 200 ") and received.endswith(body)
            assert node.count("native_answers") == 1

    run(work)


def test_a_client_that_says_no_more_still_listens(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        node = Node()
        body = large(node, "memory", tmp_path)
        async with node.listening() as port:
            slow = lazy(port)
            await asyncio.get_running_loop().sock_sendall(slow, get("/v/a/0"))
            slow.shutdown(socket.SHUT_WR)
            assert (await rest_of(slow)).endswith(body)

    run(work)


def test_a_file_that_ends_too_early_is_cut_short(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        node = Node()
        (tmp_path / "short").write_bytes(BODY)
        with (tmp_path / "short").open("rb") as file:
            node.put("/v/a/0", (file.fileno(), 0, 2000))
            async with node.listening() as port:
                reader, writer = await opened(port)
                writer.write(get("/v/a/0"))
                head = await reader.readuntil(b"\r\n\r\n")
                assert b"Content-Length: 2000" in head
                with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
                    await reader.readexactly(2000)
                assert node.count("requests_aborted/source") == 1

    run(work)


def test_others_get_whole_heads_one_at_a_time(run: Run) -> None:
    async def work() -> None:
        node = Node()
        node.put("/v/a/0", BODY)
        hot.waits = True
        try:
            async with node.listening() as port:
                reader, writer = await opened(port)
                # The second is at hand, but must wait for its turn behind the first.
                asked = [get("/other"), get("/v/a/0"), get("/third", method="OPTIONS")]
                for byte in b"".join(asked):
                    writer.write(bytes([byte]))
                    await asyncio.sleep(0)
                await until(lambda: node.handlers and len(node.handlers[0].given) == 3)
                [handler] = node.handlers
                assert handler.given == asked and handler.peer == bytes([127, 0, 0, 1])
                assert node.count("native_answers") == 0 and node.count("native_handed_on") == 3
                handler.answer()
                assert (await answer(reader))[2] == b"handled"
                writer.write(get("/v/a/0"))
                assert (await answer(reader))[2] == BODY
                assert len(handler.given) == 3
        finally:
            hot.waits = False

    run(work)


@pytest.mark.parametrize("field", ["Content-Length: 3", "Transfer-Encoding: chunked", "Upgrade: x"])
def test_what_follows_a_body_is_not_ours(run: Run, field: str) -> None:
    async def work() -> None:
        node = Node()
        node.put("/v/a/0", BODY)
        async with node.listening() as port:
            reader, writer = await opened(port)
            sent = get("/x", field, method="POST") + b"abc" + get("/v/a/0")
            writer.write(sent)
            assert (await answer(reader))[2] == b"handled"
            assert node.handlers[0].given == [sent]
            writer.write(get("/v/a/0"))
            assert (await answer(reader))[2] == b"handled"
            assert node.count("native_answers") == 0

    run(work)


def test_what_is_wrong_waits_for_the_answer_before_it(run: Run) -> None:
    async def work() -> None:
        node = Node(head_timeout=0.2)
        hot.waits = True
        try:
            async with node.listening() as port:
                reader, writer = await opened(port)
                writer.write(get("/other") + b"GET / HTTP/1.1\nX")
                await until(lambda: node.handlers and node.handlers[0].given)
                assert node.handlers[0].given == [get("/other")]
                node.handlers[0].answer()
                assert (await answer(reader))[2] == b"handled"
                assert (await reader.read()).startswith(b"HTTP/1.1 400 request_malformed\r\n")
        finally:
            hot.waits = False

    run(work)


def test_timeouts_and_limits(run: Run) -> None:
    async def work() -> None:
        node = Node(head_timeout=0.1, keepalive_timeout=0.3, head=100, connections=2)
        node.put("/v/a/0", BODY)
        async with node.listening() as port:
            # One that never says a word gets none.
            reader, _ = await opened(port)
            assert await reader.read() == b""
            reader, writer = await opened(port)
            writer.write(b"GET / HT")
            assert (await reader.read()).startswith(b"HTTP/1.1 400 head_timeout\r\n")
            reader, writer = await opened(port)
            writer.write(b"GET / HTTP/1.1\r\nX: " + b"a" * 100)
            assert (await reader.read()).startswith(b"HTTP/1.1 400 head_too_large\r\n")
            reader, writer = await opened(port)
            writer.write(get("/v/a/0"))
            await answer(reader)
            # Idle for longer than a head may take, and then for too long.
            assert await reader.read() == b""
            for _ in range(2):
                await opened(port)
            await until(lambda: len(node.factory.connections) == 2)
            reader, _ = await opened(port)
            assert (await reader.read()).startswith(b"HTTP/1.1 400 overloaded\r\n")
            assert node.count("connections_refused") == 1

    run(work)


def test_the_end(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        node = Node()
        body = large(node, "memory", tmp_path)
        node.put("/v/a/1", BODY)
        async with node.listening() as port:
            slow = lazy(port)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(slow, get("/v/a/0"))
            await loop.sock_recv(slow, 1)
            idle, _ = await opened(port)
            await until(lambda: len(node.factory.connections) == 2)
            done = asyncio.Event()
            node.factory.emptied = done.set
            for connection in list(node.factory.connections):
                connection.end()
            assert await idle.read() == b""
            assert (await rest_of(slow)).endswith(body)
            await done.wait()
            node.health.state = "stopping"
            reader, writer = await opened(port)
            writer.write(get("/v/a/1"))
            assert (await answer(reader))[1]["Connection"] == "close" and await reader.read() == b""

    run(work)


def test_only_known_transports_have_their_socket_written_to(run: Run) -> None:
    """Whatever encrypts is another type, however it is made, and its socket is never even asked for."""

    class Wrapped:
        def __init__(self) -> None:
            self.written: list[bytes] = []

        def get_extra_info(self, name: str) -> Any:
            assert name in ("peername", "sslcontext")

        def write(self, data: bytes) -> None:
            self.written.append(bytes(data))

        def set_write_buffer_limits(self, high: int, low: int) -> None:
            assert (high, low) == (1, 0)

        def get_write_buffer_size(self) -> int:
            return 0

        def close(self) -> None: ...

    async def work() -> None:
        node = Node()
        body = os.urandom(300_000)
        node.put("/v/a/0", body)
        protocol, transport = node.factory(), Wrapped()
        assert isinstance(protocol, Protocol)
        protocol.connection_made(transport)
        assert not protocol.direct
        protocol.data_received(get("/v/a/0"))
        assert b"".join(transport.written).endswith(body)
        # No more than a piece at a time, and while it takes none, nothing.
        assert max(map(len, transport.written)) < 80_000
        transport.written.clear()
        protocol.pause_writing()
        protocol.data_received(get("/v/a/0"))
        assert not transport.written
        protocol.resume_writing()
        assert b"".join(transport.written).endswith(body)
        protocol.connection_lost(None)

    run(work)


def test_the_log_sees_every_answer(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        lines: list[bytes] = []
        node = Node(log=AccessLog(lines.append, format="combined"), send_timeout=0.2)
        large(node, "memory", tmp_path)
        node.put("/v/a/1", BODY)
        async with node.listening() as port:
            reader, writer = await opened(port)
            writer.write(get("/v/a/1?secret", "User-Agent: x") + get("/v/a/1", "Range: bytes=0-1", "Connection: close"))
            await reader.read()
            slow = lazy(port)
            await asyncio.get_running_loop().sock_sendall(slow, get("/v/a/0", "User-Agent: slow"))
            await until(lambda: node.count("requests_aborted/timeout") == 1)
        await until(lambda: len(b"".join(lines).splitlines()) == 3)
        first, second, third = b"".join(lines).decode().splitlines()
        assert first.startswith("127.0.0.0 - - [") and first.endswith('"GET /v/a/1 HTTP/1.1" 200 1024 "-" "x"')
        assert second.endswith('"GET /v/a/1 HTTP/1.1" 206 2 "-" "-"')
        assert '"GET /v/a/0 HTTP/1.1" 200 ' in third and third.endswith('"slow"')

    run(work)


def test_an_object_past_its_time_is_somebody_elses(run: Run) -> None:
    async def work() -> None:
        node = Node(open_assets={b"a"})
        node.put("/v/a/0", BODY, until=1)
        node.put("/v/a/1", BODY, until=1 << 40)
        node.put("/v/a/2", BODY, gated=True)
        node.put("/v/b/0", BODY)
        async with node.listening() as port:
            reader, writer = await opened(port)
            for path, native in (
                ("/v/a/0", False),
                ("/v/a/1", True),
                ("/v/a/2", False),
                ("/v/b/0", False),
                ("/t/x/v/a/1", True),
            ):
                writer.write(get(path))
                assert ((await answer(reader))[2] == BODY) == native, path

    run(work)


def test_objects_are_whole_however_they_are_compared() -> None:
    one = stored(BODY)
    assert (
        one.body is BODY
        and one.tag == b'"t"'
        and one.head == HEAD
        and one.content == CONTENT
        and one.route == "segment"
    )
    assert not one.gated and not one.negotiable and one.owner is None and one.made == 0 and one.until == 2**63 - 1
