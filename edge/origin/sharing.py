"""One reader of a source on this machine: whichever process is first listens on a name made of the source, all others ask it.

The name is an abstract Unix address: the kernel gives it to one process, and takes it back when that process ends. Who
answers on it, and who asks, must be this user.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator
from hashlib import blake2b

from edge.origin.extents import Extents, Memory
from edge.threads import Pool
from streamgate.core.logging import get_logger
from streamgate.core.telemetry import Telemetry
from streamgate.errors import CODES, StreamGateError
from streamgate.storage.objects.remote import RemoteSource

_QUESTION = struct.Struct("<QQQQ")  # offset and length of the range, and of its window
_TRIES = 8
_PAUSE_S = 0.005
_ALIVE_S = 1.0  # who reads says so often that it lives, if it has nothing else to say
_SILENT_S = 10.0  # one that said nothing for too long is not asked again before that
_IDLE_S = 20.0  # so long after its last use a source is let go of
_PEER = struct.Struct("3i")
_MOST_DETAIL = 1024
_PIECE = 256 * 1024
_POOLED = 16
_BACKLOG = 1024
_log = get_logger("edge.origin")


class _Source:
    """A source that this process reads for the machine (``extents``), or asks another for."""

    def __init__(self) -> None:
        self.extents: Extents | None = None
        self.server: asyncio.Server | None = None
        self.clients: set[asyncio.StreamWriter] = set()
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.used = 0.0
        self.readers = 0
        # What this process reads by itself while who reads for all says nothing, and until when.
        self.alone: Extents | None = None
        self.alone_until = 0.0
        self.settling = asyncio.Lock()


class _Silent(Exception):
    """The process that reads it for all says nothing: it hangs, or was stopped."""


class Origin:
    """Reads sources for whoever cuts segments. ``machine`` tells those apart that share nothing: all processes of a node
    have the same. ``pool`` is where those who cut work. A reader that says nothing for ``silence`` seconds is done without.
    """

    def __init__(self, machine: str, memory: Memory, pool: Pool, telemetry: Telemetry, silence: float = 3.0) -> None:
        self.pool = pool
        self._machine = machine
        self._memory = memory
        self._telemetry = telemetry
        self._silence = silence
        self._sources: dict[str, _Source] = {}
        self._sweeping: asyncio.TimerHandle | None = None
        telemetry.watch("origin_held_bytes", lambda: memory.bytes)

    def begin(self, source: RemoteSource, offset: int, length: int, window: tuple[int, int]) -> None:
        """See :meth:`Extents.begin`; nothing happens where another process reads the source, or nobody yet."""
        held = self._sources.get(self._address(source))
        if held is not None and held.extents is not None:
            held.used = asyncio.get_running_loop().time()
            held.extents.begin(offset, length, window)

    async def read(self, source: RemoteSource, offset: int, length: int, window: tuple[int, int]) -> bytes | memoryview:
        """Bytes [offset, offset + length) of ``source``; see :meth:`Extents.read`."""
        pieces = [piece async for piece in self.pieces(source, offset, length, window)]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def pieces(
        self, source: RemoteSource, offset: int, length: int, window: tuple[int, int]
    ) -> AsyncIterator[bytes | memoryview]:
        """The same as it comes."""
        self._watch()
        # By its address, not by its bytes alone: of two objects that are the same one may be deleted.
        held = self._sources.setdefault(self._address(source), _Source())
        held.readers += 1
        held.used = asyncio.get_running_loop().time()
        at, end = offset, offset + length
        try:
            for _ in range(_TRIES):
                extents = held.extents or _alone(held) or await self._settle(held, source)
                try:
                    asked = (
                        extents.read(at, end - at, window)
                        if extents is not None
                        else self._asked(held, source, at, end - at, window)
                    )
                    async for piece in asked:
                        yield piece
                        at += len(piece)
                    return
                except _Silent:
                    _log.warning("who reads a source for all says nothing; it is read without it", source=source.name)
                    held.alone = held.alone or Extents(source, self._memory, self._telemetry)
                    held.alone_until = asyncio.get_running_loop().time() + _SILENT_S
                    _hang_up(held)
                except (ConnectionError, asyncio.IncompleteReadError, RuntimeError):
                    # Who read it has gone, and all connections to it are as dead (a write to one is uvloop's RuntimeError);
                    # or it does not listen yet.
                    _hang_up(held)
                    await asyncio.sleep(_PAUSE_S)
            raise StreamGateError("fill_lost", f"{source.name}: who reads it changes too often")
        finally:
            held.readers -= 1

    def forget(self) -> None:
        """Have what is asked for from now on read anew."""
        for held in self._sources.values():
            for extents in (held.extents, held.alone):
                if extents is not None:
                    extents.forget()

    def close(self) -> None:
        """End everything."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        for key in list(self._sources):
            self._let_go(key)

    async def _settle(self, held: _Source, source: RemoteSource) -> Extents | None:
        """Become the one who reads it, if nobody else is; None where somebody is."""
        async with held.settling:
            if held.extents is not None:
                return held.extents
            listening = _socket()
            try:
                listening.bind(self._address(source))
            except OSError:  # the name is taken
                listening.close()
                return None
            extents = Extents(source, self._memory, self._telemetry)

            async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await _answer(held, extents, reader, writer)

            held.server = await asyncio.start_unix_server(answer, sock=listening, backlog=_BACKLOG)
            held.extents = extents
            return extents

    async def _asked(
        self, held: _Source, source: RemoteSource, offset: int, length: int, window: tuple[int, int]
    ) -> AsyncIterator[bytes]:
        """What the process says that reads it. Raises ConnectionError and IncompleteReadError where that one has gone,
        :class:`_Silent` where it says nothing."""
        reader, writer = held.idle.pop() if held.idle else await self._connect(source)
        good = False
        try:
            writer.write(_QUESTION.pack(offset, length, *window))
            left = length
            while left:
                size, piece = await _part(reader, self._silence)
                if size < 0:
                    code, _, detail = piece.decode("utf-8", "replace").partition(" ")
                    good = True
                    raise StreamGateError(code if code in CODES else "internal", detail)
                left -= size
                yield piece
            good = True
        finally:
            if good and len(held.idle) < _POOLED:
                held.idle.append((reader, writer))
            else:
                writer.close()

    async def _connect(self, source: RemoteSource) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        connection = _socket()
        try:
            await asyncio.get_running_loop().sock_connect(connection, self._address(source))
            if not _ours(connection):
                _log.error("another user answers in the place of a reader of sources")
                raise StreamGateError("origin_unavailable", "another user of this machine is in the way")
            return await asyncio.open_unix_connection(sock=connection, limit=2 * _PIECE)
        except BaseException:
            connection.close()
            raise

    def _address(self, source: RemoteSource) -> str:
        told = f"{os.getuid()} {self._machine} {source.store.name} {source.info.key} {source.key}"
        return f"\0streamgate-source-{blake2b(told.encode(), digest_size=16).hexdigest()}"

    def _watch(self) -> None:
        """Look for idle sources as long as there are any."""
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(_IDLE_S / 4, self._look)

    def _look(self) -> None:
        self._sweeping = None
        self._sweep()
        if self._sources:
            self._watch()

    def _sweep(self) -> None:
        """Let go of sources that nobody has asked for in a while."""
        now = asyncio.get_running_loop().time()
        for key, held in list(self._sources.items()):
            if not held.readers and now - held.used > _IDLE_S:
                self._let_go(key)

    def _let_go(self, key: str) -> None:
        held = self._sources.pop(key)
        if held.server is not None:
            held.server.close()
        for extents in (held.extents, held.alone):
            if extents is not None:
                extents.close()
        for writer in (*held.clients, *(writer for _, writer in held.idle)):
            writer.close()


def _alone(held: _Source) -> Extents | None:
    """What this process reads by itself for now."""
    return held.alone if asyncio.get_running_loop().time() < held.alone_until else None


def _hang_up(held: _Source) -> None:
    while held.idle:
        held.idle.pop()[1].close()


async def _answer(held: _Source, extents: Extents, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one process, question by question."""
    connection: socket.socket = writer.get_extra_info("socket")
    held.clients.add(writer)
    try:
        while _ours(connection):
            offset, length, *window = _QUESTION.unpack(await reader.readexactly(_QUESTION.size))
            held.used = asyncio.get_running_loop().time()
            held.readers += 1
            alive = asyncio.ensure_future(_alive(writer))
            try:
                async for piece in extents.read(offset, length, (window[0], window[1])):
                    for at in range(0, len(piece), _PIECE):
                        part = piece[at : at + _PIECE]
                        writer.write(struct.pack("<i", len(part)))
                        writer.write(part)
                        await writer.drain()
            except StreamGateError as error:
                told = f"{error.code} {error.detail}".encode()[:_MOST_DETAIL]
                writer.write(struct.pack("<i", -len(told)) + told)
                await writer.drain()
            finally:
                alive.cancel()
                held.readers -= 1
    except (ConnectionError, asyncio.IncompleteReadError, RuntimeError):
        pass  # it has gone; uvloop says so by a RuntimeError
    finally:
        held.clients.discard(writer)
        with contextlib.suppress(Exception):
            writer.close()


async def _alive(writer: asyncio.StreamWriter) -> None:
    """Say now and then that we live, where nothing else is on its way."""
    while True:
        await asyncio.sleep(_ALIVE_S)
        if not writer.is_closing() and not writer.transport.get_write_buffer_size():
            writer.write(struct.pack("<i", 0))


async def _part(reader: asyncio.StreamReader, silence: float) -> tuple[int, bytes]:
    """The next part of an answer, its size negative where it is an error; raises :class:`_Silent` where none comes."""
    size = 0
    try:
        while not size:
            async with asyncio.timeout(silence):
                (size,) = struct.unpack("<i", await reader.readexactly(4))
        async with asyncio.timeout(silence):
            return size, await reader.readexactly(abs(size))
    except TimeoutError:
        raise _Silent from None


def _socket() -> socket.socket:
    """A socket to ask or to be asked on; raises ``overloaded`` where the process may have no more files."""
    try:
        return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    except OSError as error:
        raise StreamGateError("overloaded", os.strerror(error.errno or 0)) from error


def _ours(connection: socket.socket) -> bool:
    """Whether the other end is a process of this user (unix(7), SO_PEERCRED)."""
    _, uid, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return bool(uid == os.getuid())
