"""A store of one object that answers as a test tells it to, over connections of this event loop."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from itertools import pairwise

MIB = 1024 * 1024
BYTES = secrets.token_bytes(3 * MIB + 17)
ETAG = "v1"


@dataclass
class Ask:
    """One request: the ``head`` that answers it, the ``body`` behind that, and the connection both belong on."""

    first: int
    last: int
    if_match: str
    connection: int
    writer: asyncio.StreamWriter
    reader: asyncio.StreamReader
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        return BYTES[self.first : self.last + 1]

    @property
    def head(self) -> bytes:
        fields = {
            "Content-Length": str(len(self.body)),
            "Content-Range": f"bytes {self.first}-{self.last}/{len(BYTES)}",
            "ETag": f'"{ETAG}"',
            **self.headers,
        }
        told = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"HTTP/1.1 206 Partial Content\r\n{told}\r\n".encode()

    async def gone(self) -> None:
        """Return when the other side has closed the connection."""
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(self.reader.read(), 10)


Script = Callable[[Ask], Awaitable[None]]


async def whole(ask: Ask) -> None:
    """All in one piece."""
    ask.writer.write(ask.head + ask.body)


def cut(after: int) -> Script:
    """So much of the body, and the connection is closed."""

    async def script(ask: Ask) -> None:
        ask.writer.write(ask.head + ask.body[:after])
        await ask.writer.drain()
        ask.writer.close()

    return script


def pieces(size: int, pause: float) -> Script:
    """The body in pieces of ``size`` bytes, one each ``pause`` s."""

    async def script(ask: Ask) -> None:
        ask.writer.write(ask.head)
        for at in range(0, len(ask.body), size):
            ask.writer.write(ask.body[at : at + size])
            await asyncio.sleep(pause)

    return script


class Ranges:
    """``asked``: all requests so far; ``scripts``: how the next ones are answered, then each is :func:`whole`."""

    def __init__(self) -> None:
        self.asked: list[Ask] = []
        self.connections = 0
        self.scripts: deque[Script] = deque()
        self.endpoint = ""
        self._open: set[asyncio.StreamWriter] = set()

    @contextlib.asynccontextmanager
    async def listening(self, secure: ssl.SSLContext | None = None) -> AsyncIterator[Ranges]:
        """On a free port."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=secure)
        self.endpoint = f"{'https' if secure else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield self
        server.close()
        for writer in self._open:
            writer.transport.abort()
        await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        self._open.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                found = re.search(r"\r\nRange: bytes=(\d+)-(\d+)\r\n", head)
                match = re.search(r'\r\nIf-Match: "(.*)"\r\n', head)
                assert found
                ask = Ask(int(found[1]), int(found[2]), match[1] if match else "", number, writer, reader)
                self.asked.append(ask)
                await (self.scripts.popleft() if self.scripts else whole)(ask)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()


def rising(told: list[int]) -> bool:
    """Whether each is more than the one before."""
    return all(one < other for one, other in pairwise(told))
