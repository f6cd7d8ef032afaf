"""Bodies received in place: the same bytes as ever, whatever the other side does, and memory that is the reader's own again."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any
from unittest.mock import Mock

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler
from aiohttp.streams import StreamReader

from benchmarks.peers.certificate import Certificate, self_signed
from streamgate.core.settings import S3Settings
from streamgate.errors import StreamGateError
from streamgate.storage.objects.s3 import S3Store, bucket, open_s3, receiving
from tests.storage.conftest import QUICK
from tests.storage.ranges import BYTES, ETAG, MIB, Ask, Ranges, cut, pieces, rising

PRIVATE = {"_drop_timeout", "_parser", "_payload", "_should_close"}
OpenStore = Callable[..., Awaitable[S3Store]]


def fails(code: str) -> pytest.RaisesExc[StreamGateError]:
    return pytest.RaisesExc(StreamGateError, check=lambda error: error.code == code)


@pytest.fixture(scope="module")
def certificate() -> Iterator[Certificate]:
    with self_signed() as made:
        yield made


@pytest.fixture(params=["http", "https"])
async def ranges(
    request: pytest.FixtureRequest, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Ranges]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate.chain))
    secure = None
    if request.param == "https":
        secure = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        secure.load_cert_chain(certificate.chain, certificate.key)
    async with Ranges().listening(secure) as listening:
        yield listening


@pytest.fixture
async def open_store(ranges: Ranges) -> AsyncIterator[OpenStore]:
    """Opens the store with quick settings, and others as they are given."""
    opened: list[S3Store] = []

    async def open_with(**settings: Any) -> S3Store:
        settings = {"endpoint": ranges.endpoint, "region": "us-east-1", **QUICK, **settings}
        opened.append(await open_s3("s3://films", S3Settings(**settings)))
        return opened[-1]

    yield open_with
    for store in opened:
        await store.close()


@pytest.fixture
async def store(open_store: OpenStore) -> S3Store:
    return await open_store()


class Memory:
    """A buffer with something before and behind it, and what was told of it."""

    def __init__(self, size: int) -> None:
        self.whole = bytearray(b"x" * (size + 2))
        self.buffer = memoryview(self.whole)[1:-1]
        self.told: list[int] = []
        self.grew = asyncio.Event()

    def progress(self, count: int) -> None:
        self.told.append(count)
        self.grew.set()

    async def beyond(self, count: int) -> None:
        """Wait until more than so many bytes are there."""
        async with asyncio.timeout(10):
            while not self.told or self.told[-1] <= count:
                self.grew.clear()
                await self.grew.wait()

    def holds(self, at: int) -> bool:
        """The object's bytes from ``at`` on, as it was told, and nothing beside them."""
        good = rising(self.told) and self.told[-1] == len(self.buffer)
        return good and bytes(self.whole) == b"x" + BYTES[at : at + len(self.buffer)] + b"x"


async def read(store: S3Store, at: int, size: int) -> Memory:
    memory = Memory(size)
    info = await store.read_into("film", at, memory.buffer, etag=ETAG, progress=memory.progress)
    assert (info.etag, info.size) == (ETAG, len(BYTES))
    return memory


@pytest.mark.parametrize("size", [1, 4000, 4096, 64 * 1024, len(BYTES)])
async def test_one_connection_gives_all(store: S3Store, ranges: Ranges, size: int) -> None:
    """Whether or not the body comes with its head; between them, what goes through aiohttp."""

    async def apart(ask: Ask) -> None:
        ask.writer.write(ask.head)
        await ask.writer.drain()
        await arrived.wait()
        ask.writer.write(ask.body)

    arrived = asyncio.Event()
    assert (await read(store, 0, size)).holds(0)
    ranges.scripts.append(apart)
    reading = asyncio.ensure_future(read(store, len(BYTES) - size, size))
    while len(ranges.asked) < 2:
        await asyncio.sleep(0)
    arrived.set()
    assert (await reading).holds(len(BYTES) - size)
    assert await store.read("film", 0, size, etag=ETAG) == BYTES[:size]
    assert (await read(store, 0, size)).holds(0)
    assert (ranges.connections, len(ranges.asked)) == (1, 4)


async def test_many_at_once(store: S3Store, ranges: Ranges) -> None:
    got = await asyncio.gather(*(read(store, at * 1000, MIB) for at in range(20)))
    assert all(memory.holds(at * 1000) for at, memory in enumerate(got))
    assert ranges.connections <= 20
    assert (await read(store, 5, MIB)).holds(5)


async def test_aiohttp_sees_the_head_alone(store: S3Store, ranges: Ranges, monkeypatch: pytest.MonkeyPatch) -> None:
    parse, parsed = ResponseHandler.data_received, 0

    def counted(self: ResponseHandler, data: bytes) -> None:
        nonlocal parsed
        parsed += len(data)
        parse(self, data)

    monkeypatch.setattr(ResponseHandler, "data_received", counted)
    assert (await read(store, 0, len(BYTES))).holds(0)
    assert 0 < parsed <= 4096


@pytest.mark.parametrize("after", [0, 3000, 300_000, 2 * MIB - 100])
async def test_goes_on_at_the_offset(store: S3Store, ranges: Ranges, after: int) -> None:
    ranges.scripts += [cut(after), cut(after // 2)]
    assert (await read(store, 17, 3 * MIB)).holds(17)
    first, second, third = ranges.asked
    assert (first.first, second.first, third.first) == (17, 17 + after, 17 + after + after // 2)
    assert {ask.last for ask in ranges.asked} == {16 + 3 * MIB}
    assert {ask.if_match for ask in ranges.asked} == {ETAG}
    assert len({ask.connection for ask in ranges.asked}) == 3


async def test_a_stalled_connection_is_given_up(store: S3Store, ranges: Ranges) -> None:
    left = asyncio.Event()

    async def stall(ask: Ask) -> None:
        ask.writer.write(ask.head + ask.body[:300_000])
        await ask.gone()
        left.set()

    ranges.scripts.append(stall)
    assert (await read(store, 17, MIB)).holds(17)
    assert [ask.first for ask in ranges.asked] == [17, 300_017]
    async with asyncio.timeout(10):
        await left.wait()


async def test_slow_is_not_dead(open_store: OpenStore, ranges: Ranges) -> None:
    """Longer than a stall and the deadline, but at a rate that is enough."""
    store = await open_store(deadline=0.4, stall_timeout=0.3, least_rate=100_000)
    ranges.scripts.append(pieces(50_000, 0.1))
    began = time.monotonic()
    assert (await read(store, 0, 500_000)).holds(0)
    assert time.monotonic() - began > 0.7
    assert len(ranges.asked) == 1


async def test_a_trickle_ends(open_store: OpenStore, ranges: Ranges) -> None:
    store = await open_store(deadline=0.4, stall_timeout=0.3, least_rate=100_000)
    ranges.scripts.append(pieces(1000, 0.1))
    began = time.monotonic()
    with fails("origin_unavailable"):
        await read(store, 0, MIB)
    assert 0.3 < time.monotonic() - began < 2.5


@pytest.mark.parametrize("at_once", [True, False])
async def test_what_nobody_asked_for_ends_the_connection(store: S3Store, ranges: Ranges, at_once: bool) -> None:
    bad = b"HTTP/1.1 206 Partial Content\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000
    received, left = asyncio.Event(), asyncio.Event()

    async def more(ask: Ask) -> None:
        ask.writer.write(ask.head + ask.body + (bad if at_once else b""))
        await received.wait()
        if not at_once:
            ask.writer.write(bad)
        await ask.gone()
        left.set()

    ranges.scripts.append(more)
    assert (await read(store, 17, MIB)).holds(17)
    received.set()
    async with asyncio.timeout(10):
        await left.wait()
    assert (await read(store, 0, MIB)).holds(0)
    assert ranges.connections == 2


async def test_whoever_gives_up_has_his_memory_back(store: S3Store, ranges: Ranges) -> None:
    left = asyncio.Event()

    async def half(ask: Ask) -> None:
        ask.writer.write(ask.head + ask.body[:MIB])
        await ask.writer.drain()
        await given_up.wait()
        ask.writer.write(ask.body[MIB:])
        await ask.gone()
        left.set()

    given_up, memory = asyncio.Event(), Memory(2 * MIB)
    ranges.scripts.append(half)
    reading = asyncio.ensure_future(
        store.read_into("film", 0, memory.buffer, etag=ETAG, progress=memory.progress)
    )  # fmt: skip
    await memory.beyond(MIB // 2)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    told = len(memory.told)
    memory.buffer[:] = bytes(2 * MIB)
    given_up.set()
    async with asyncio.timeout(10):
        await left.wait()
    assert not any(memory.buffer) and len(memory.told) == told
    assert (await read(store, 0, MIB)).holds(0)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"ETag": '"v2"'}, "source_changed"),
        ({"Content-Range": f"bytes 0-{MIB - 1}/{len(BYTES)}"}, "origin_unavailable"),
        ({"Content-Range": f"bytes 17-{MIB + 15}/{len(BYTES)}"}, "origin_unavailable"),
        ({"Content-Length": str(MIB + 1)}, "origin_unavailable"),
        ({"Content-Length": str(MIB - 1)}, "origin_unavailable"),
        ({"Transfer-Encoding": "chunked"}, "origin_unavailable"),
    ],
)
async def test_another_answer_never_touches_the_memory(
    open_store: OpenStore, ranges: Ranges, headers: dict[str, str], code: str
) -> None:
    async def odd(ask: Ask) -> None:
        ask.headers = headers
        ask.writer.write(ask.head + ask.body)

    store = await open_store(attempts=2)
    ranges.scripts += [odd, odd]
    memory = Memory(MIB)
    with fails(code):
        await store.read_into("film", 17, memory.buffer, etag=ETAG, progress=memory.progress)
    assert memory.whole == b"x" * (MIB + 2) and not memory.told
    ranges.scripts.clear()
    assert (await read(store, 17, MIB)).holds(17)


async def test_the_second_request_wins(open_store: OpenStore, ranges: Ranges) -> None:
    async def late(ask: Ask) -> None:
        await ask.gone()

    store = await open_store(hedge_after=0.05)
    ranges.scripts.append(late)
    assert (await read(store, 17, MIB)).holds(17)
    assert [ask.first for ask in ranges.asked] == [17, 17]


async def test_through_a_proxy(open_store: OpenStore, ranges: Ranges, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a tunnel where it is TLS, else by name; both give back what they were lent."""
    port, passed = int(ranges.endpoint.rpartition(":")[2]), 0

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal passed
        passed += 1
        head = await reader.readuntil(b"\r\n\r\n")
        inner, outer = await asyncio.open_connection("127.0.0.1", port)
        if head.startswith(b"CONNECT localhost:"):
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            assert head.startswith(b"GET http://localhost:")
            outer.write(head)
        await asyncio.gather(copy(reader, outer), copy(inner, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}")
        monkeypatch.setenv("https_proxy", os.environ["http_proxy"])
        bucket._proxy.cache_clear()
        far = f"{ranges.endpoint.partition(':')[0]}://localhost:{port}"
        store = await open_store(endpoint=far)
        for at in (17, 0, 5):
            assert (await read(store, at, MIB)).holds(at)
        await store.close()
    bucket._proxy.cache_clear()
    assert (passed, ranges.connections) == (1, 1)


@pytest.mark.parametrize("size", [1000, 20_000, 200_000])
async def test_over_tls_an_answer_and_the_end_at_once(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """What was announced to be the last is not left where the end of the connection takes it away."""
    for name, value in (("ACCESS_KEY_ID", "key"), ("SECRET_ACCESS_KEY", "secret"), ("CA_BUNDLE", certificate.chain)):
        monkeypatch.setenv(f"AWS_{name}", str(value))
    secure = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    secure.load_cert_chain(certificate.chain, certificate.key)
    head = (
        f'HTTP/1.1 206 Partial Content\r\nETag: "{ETAG}"\r\nContent-Range: bytes 0-{size - 1}/{len(BYTES)}\r\n'
        f"Content-Length: {size}\r\nConnection: close\r\n\r\n"
    )

    def serve() -> None:
        for _ in range(2):
            with secure.wrap_socket(listening.accept()[0], server_side=True) as connection:
                while not connection.recv(65536).endswith(b"\r\n\r\n"):
                    pass
                connection.sendall(head.encode() + BYTES[:size])

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)
        serving = asyncio.ensure_future(asyncio.to_thread(serve))
        endpoint = f"https://127.0.0.1:{listening.getsockname()[1]}"
        settings = S3Settings(**{"endpoint": endpoint, "region": "us-east-1", **QUICK, "attempts": 1})
        store = await open_s3("s3://films", settings)
        assert (await read(store, 0, size)).holds(0)
        assert await store.read("film", 0, size, etag=ETAG) == BYTES[:size]
        await serving
        await store.close()


async def test_what_is_left_of_an_answer_ends_no_other() -> None:
    loop = asyncio.get_running_loop()
    handler, transport = ResponseHandler(loop), Mock(spec=asyncio.Transport)
    handler._payload = StreamReader(handler, 2**16, loop=loop)
    handler._payload.feed_eof()
    handler.set_response_params()
    line = receiving.Line(transport, handler)
    for part in (b"HTTP/1.1 206 Partial Content\r\n", b"Content-Length: 5\r\n\r\n"):
        line.get_buffer(-1)[: len(part)] = part
        line.buffer_updated(len(part))
    message, _ = await handler.read()
    assert message.code == 206
    transport.abort.assert_not_called()


async def test_aiohttp_still_has_what_is_used_of_it() -> None:
    made = ResponseHandler(asyncio.get_running_loop())
    assert all(hasattr(made, name) for name in PRIVATE)
    async with aiohttp.ClientSession() as session:
        assert session._retry_connection is True
    theirs = inspect.signature(aiohttp.TCPConnector._create_connection)
    assert [*theirs.parameters] == [*inspect.signature(receiving.Connector._create_connection).parameters]


def test_no_more_of_aiohttp_is_used() -> None:
    used = {
        node.attr
        for node in ast.walk(ast.parse(inspect.getsource(receiving)))
        if isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id == "self")
    }
    assert {name for name in used if name.startswith("_")} == PRIVATE | {"_create_connection"}


async def test_for_good_in_mid_body(store: S3Store, ranges: Ranges) -> None:
    """Attempts are counted through: what has come stays, and is no reason to go on for ever."""

    async def reset(ask: Ask) -> None:
        ask.writer.transport.abort()

    ranges.scripts += [cut(300_000), *[reset] * 20]
    memory = Memory(MIB)
    with fails("origin_unavailable"):
        await store.read_into("film", 17, memory.buffer, etag=ETAG, progress=memory.progress)
    assert len(ranges.asked) == 4
    assert bytes(memory.buffer[: memory.told[-1]]) == BYTES[17 : 17 + memory.told[-1]]
