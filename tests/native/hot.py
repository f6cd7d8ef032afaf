"""A factory of the hot path with objects of its own, a handler that notes what it is given, and clients for both."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from asyncio import selector_events
from collections.abc import AsyncIterator
from typing import Any

from uvloop import loop as uvloop_loop

from streamgate.native.hotpath import COUNTERS, Factory, Stored
from streamgate.native.s3fifo import Cache

HEAD = b'ETag: "t"\r\nCache-Control: public\r\n'
CONTENT = b"Content-Type: video/mp4\r\n"
PLAIN = (uvloop_loop.TCPTransport, selector_events._SelectorSocketTransport)  # type: ignore[attr-defined]


def stored(body: bytes | tuple[int, int, int], **more: Any) -> Stored:
    return Stored(b'"t"', HEAD, CONTENT, body, **{"route": "segment", **more})


def get(path: str, *fields: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: a", *fields, "", ""]).encode()


class Handler:
    """Answers each whole head with its path, when it is told to; notes everything."""

    def __init__(self, peer: bytes) -> None:
        self.peer = peer
        self.idle = True
        self.given: list[bytes] = []
        self.waits = False
        self.ended = False
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.waits = hot.waits

    def connection_lost(self, exc: BaseException | None) -> None:
        self.idle = False

    def data_received(self, data: bytes) -> None:
        self.given.append(data)
        self.idle = False
        if not self.waits:
            self.answer()

    def answer(self) -> None:
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nhandled" * len(self.given[-1:]))
        self.idle = True

    def eof_received(self) -> bool | None:
        return None

    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...

    def end(self) -> None:
        self.ended = True
        self.transport.close()

    def abort(self) -> None: ...


class Health:
    state = "ready"


class _Choice:
    waits = False


hot = _Choice()


class Node:
    """Everything of one factory."""

    def __init__(self, **more: Any) -> None:
        self.cache: Cache[Stored] = Cache(1 << 30)
        self.handlers: list[Handler] = []
        self.counters = memoryview(bytearray(8 * len(COUNTERS))).cast("Q")
        self.health = Health()
        self.factory = Factory(
            asyncio.get_running_loop(),
            cache=self.cache,
            health=self.health,
            fallback=self._handler,
            problem=lambda code: f"HTTP/1.1 400 {code}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode(),
            unsatisfiable=lambda size, route, disk: Stored(
                b'""', f"Content-Range: bytes */{size}\r\n".encode(), b"", b"no", route=route
            ),
            negotiate=lambda accepted: "br" if "br" in accepted else "identity",
            counters=self.counters,
            **{"plain": PLAIN, **more},
        )

    def _handler(self, peer: bytes) -> Handler:
        self.handlers.append(Handler(peer))
        return self.handlers[-1]

    def put(self, path: str, body: bytes | tuple[int, int, int], **more: Any) -> None:
        assert self.cache.put(path.encode(), stored(body, **more), 1000)

    def count(self, name: str) -> int:
        return self.counters[COUNTERS.index(name)]

    @contextlib.asynccontextmanager
    async def listening(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(self.factory, "127.0.0.1", 0, ssl=tls)  # type: ignore[arg-type]
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for connection in list(self.factory.connections):
                connection.abort()
            await until(lambda: not self.factory.connections)


async def until(condition: Any) -> None:
    """Let the loop turn until it holds; the test's time limit ends what never does."""
    while not condition():
        await asyncio.sleep(0.001)


async def answer(reader: asyncio.StreamReader, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    """The next answer of a connection: status, fields, body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    line, *lines = head[:-4].split("\r\n")
    fields = dict(each.split(": ", 1) for each in lines)
    status = int(line.split()[1])
    length = int(fields.get("Content-Length", 0)) if method == "GET" and status != 304 else 0
    return status, fields, await reader.readexactly(length)
