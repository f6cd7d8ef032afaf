"""Accepting connections. uvloop's own server takes about one a turn of its loop, so that under load most wait for ever."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from streamgate.core.logging import get_logger
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError

_log = get_logger("edge.accept")
# So many in a row from one socket; then those who are connected have their turn.
_AT_ONCE = 256
# Of this one connection only: its client or its network went away meanwhile (accept(2), "Error handling").
_ONE = frozenset(
    {
        errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ETIMEDOUT, errno.ENETDOWN, errno.ENETUNREACH,
        errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENONET, errno.ENOPROTOOPT, errno.EOPNOTSUPP,
    }
)  # fmt: skip
_PAUSE_S = 0.1
# The kernel's own pacing: it costs nothing here, and holds for TLS and sendfile as well. 64 bits since Linux 4.20.
_SO_MAX_PACING_RATE = 47

# Makes the protocol of a connection: the client's packed address, where it is another than the socket's, and how many
# connections are not yet open, this one among them.
Factory = Callable[[bytes | None, int], Any]
Introduction = Callable[[socket.socket], Awaitable[bytes | None]]


class Acceptor:
    """Takes connections from listening sockets and hands each to a protocol of ``factory``.

    The sockets are non-blocking and may be shared with other processes. ``tls``: what connections are encrypted with, each
    within ``handshake_timeout`` seconds. ``introduce`` tells whom a connection is from where a proxy says so; it may raise
    StreamGateError or OSError, and then the connection ends. ``most``: connections at once that are not yet open.
    ``pace``: bytes a second that each is sent at most; 0: as many as it takes.
    """

    def __init__(
        self,
        listening: Sequence[socket.socket],
        factory: Factory,
        telemetry: Telemetry,
        *,
        tls: ssl.SSLContext | None = None,
        handshake_timeout: float = 10.0,
        introduce: Introduction | None = None,
        most: int = 1024,
        pace: int = 0,
    ) -> None:
        self._listening = list(listening)
        self._factory = factory
        self._telemetry = telemetry
        self._tls = tls
        self._handshake = handshake_timeout if tls is not None else None
        self._introduce = introduce
        self._most = most
        self._pace = pace
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[object]] = set()
        self._paused: dict[socket.socket, asyncio.TimerHandle] = {}

    def start(self) -> None:
        """Begin to accept."""
        for listening in self._listening:
            self._loop.add_reader(listening, self._accept, listening)

    def stop(self, *, last: bool = False) -> None:
        """Accept no more and close the sockets, which others may still hold; ``last`` takes what waits in them first."""
        for listening in self._listening:
            self._loop.remove_reader(listening)
            if last:
                self._accept(listening)
            if (timer := self._paused.pop(listening, None)) is not None:
                timer.cancel()
            listening.close()
        self._listening.clear()

    async def opened(self) -> None:
        """Wait until every connection that was accepted has its protocol."""
        while self._opening:
            await asyncio.wait(self._opening)

    def give_up(self) -> None:
        """End the connections that have no protocol yet."""
        for task in self._opening:
            task.cancel()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, _ = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _ONE:
                    continue
                self._pause(listening, error)
                return
            connection.setblocking(False)
            if self._pace:
                connection.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, struct.pack("@Q", self._pace))
            if len(self._opening) >= self._most:
                self._telemetry.count("connections_failed", cause="overloaded")
                connection.close()
                continue
            task = self._loop.create_task(self._open(connection))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self, connection: socket.socket) -> None:
        try:
            peer = await self._introduce(connection) if self._introduce is not None else None
            await self._loop.connect_accepted_socket(
                lambda: self._factory(peer, len(self._opening)),
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=self._handshake,
            )
        except StreamGateError as error:
            self._telemetry.count("connections_failed", cause=error.code)
            connection.close()
        except asyncio.CancelledError:
            connection.close()
            raise
        except OSError:
            # ssl.SSLError is one: whoever does not speak TLS is told nothing.
            connection.close()
        except Exception:
            connection.close()
            _log.exception("a connection could not be served")

    def _pause(self, listening: socket.socket, error: OSError) -> None:
        """Leave what waits for a moment: without files or memory for it the loop would come back here and do nothing else."""
        self._telemetry.count("accept_pauses")
        if not self._paused:
            _log.error("no connection can be accepted for now", reason=os.strerror(error.errno or 0))
        self._loop.remove_reader(listening)
        self._paused[listening] = self._loop.call_later(_PAUSE_S, self._resume, listening)

    def _resume(self, listening: socket.socket) -> None:
        del self._paused[listening]
        self._loop.add_reader(listening, self._accept, listening)
        self._accept(listening)
