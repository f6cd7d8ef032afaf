"""Running the edge in one process: its role, its sockets, its event loop, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping, Sequence

import uvloop
from aiohttp import web

from edge import ceilings, proxy_protocol, tls
from edge.accept import Acceptor
from edge.app import make_app
from edge.connections import Connections
from edge.listeners import listen, listen_all, url
from edge.node import Node
from edge.roles import streaming
from streamgate.core import logging
from streamgate.core.health import Health
from streamgate.core.lifecycle import Lifecycle, Role, raise_file_limit, stop_signals
from streamgate.core.settings import Settings
from streamgate.core.telemetry import Telemetry

__all__ = ["Server", "listen", "run", "serve", "url"]

_log = logging.get_logger("edge.server")
# When connections are cut, their handlers are cancelled; that takes no time worth waiting for.
_CLEANUP_S = 1.0
# To say who one is and to agree on a cipher takes some round trips. Whoever has not begun a request yet can go elsewhere.
_OPENING_S = 2.0


def run(settings: Settings, root: str, *, announce: Callable[[str], None]) -> int:
    """Serve the assets of ``root`` from this process until SIGTERM or SIGINT; returns the exit code, 0 for a graceful stop.

    ``announce`` is called with the server's address (no trailing slash) once it listens. A second signal ends the process
    at once. Raises StreamGateError ``listen_failed``, ``source_not_found`` and whatever else keeps it from starting.
    """
    stop_logging = logging.configure(settings.log)
    try:
        raise_file_limit()
        ceilings.connections(settings, 1)
        settings = ceilings.share(settings, 1)
        role, node = streaming(settings, root, Telemetry(), Health())
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_run(node, role, announce))
    finally:
        stop_logging()


async def _run(node: Node, role: Role, announce: Callable[[str], None]) -> int:
    with stop_signals() as asked:
        await serve(node, [role], asked, announce=announce)
    return 0


class Server:
    """A node's application, its roles and its connections, in the order in which they begin and end.

    ``mounts`` are applications served beside the media, by prefix.
    """

    def __init__(self, node: Node, roles: Sequence[Role], mounts: Mapping[str, web.Application] | None = None) -> None:
        self._node = node
        self._lifecycle = Lifecycle(roles, node.health)
        self._mounts = mounts
        self._acceptors: list[Acceptor] = []
        self.closed = asyncio.Event()
        """Set when no more connections are accepted."""

    async def start(self) -> None:
        """Start the roles and the application; what a role's ``start`` raises is passed on."""
        self._tls = tls.context(self._node.settings.tls)
        try:
            await self._lifecycle.start()
            app = make_app(self._node, mounts=self._mounts)
            self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_CLEANUP_S)
            await self._runner.setup()
        except BaseException:
            await self._lifecycle.stop()
            raise
        assert self._runner.server is not None
        rates = self._node.rates
        self._connections = Connections(
            self._node,
            self._runner.server,
            log=self._node.access,
            by_address=rates.by_address,
            by_token=rates.by_token,
        )

    def accept(self, listening: Sequence[socket.socket], encrypted: Sequence[socket.socket] = ()) -> None:
        """Take connections from these sockets, of which ``encrypted`` speak TLS, and be ready."""
        self.take(listening, encrypted)
        self._node.health.state = "ready"

    def take(self, listening: Sequence[socket.socket], encrypted: Sequence[socket.socket] = ()) -> list[Acceptor]:
        """Take connections from these sockets, too; what :meth:`forgo` wants."""
        server = self._node.settings.server
        started = []
        for sockets, context in ((listening, None), (encrypted, self._tls)):
            acceptor = Acceptor(
                sockets,
                self._connections,
                self._node.telemetry,
                tls=context,
                handshake_timeout=server.head_timeout,
                introduce=proxy_protocol.introduction(server) if server.proxy_protocol else None,
                most=server.max_connections + self._connections.doors.most,
                pace=self._node.settings.limits.bytes_per_second,
            )
            acceptor.start()
            started.append(acceptor)
        self._acceptors += started
        return started

    def forgo(self, acceptors: Sequence[Acceptor]) -> None:
        """Take no more connections from the sockets of these; those that came stay."""
        for acceptor in acceptors:
            acceptor.stop()
            self._acceptors.remove(acceptor)

    async def drain(self, delay: float) -> None:
        """Serve on for ``delay`` seconds, while not being ready."""
        self._node.health.state = "draining"
        await asyncio.sleep(delay)

    async def stop(self, deadline: float, *, idle: float = 0.0, last: bool = True) -> int:
        """Accept no more, let each connection end with the answer under way, and stop the roles.

        Idle connections end after ``idle`` seconds, what is left after ``deadline`` is cut. ``last``: nobody else takes
        what waits to be accepted. Returns how many connections were cut.
        """
        self._node.health.state = "stopping"
        for acceptor in self._acceptors:
            acceptor.stop(last=last)
        self.closed.set()
        await self._lifecycle.drain()
        end = asyncio.get_running_loop().time() + deadline
        with contextlib.suppress(TimeoutError):
            # Who has not yet said who he is, or agreed on a cipher.
            async with asyncio.timeout(min(deadline, _OPENING_S)):
                await asyncio.gather(*(acceptor.opened() for acceptor in self._acceptors))
        for acceptor in self._acceptors:
            acceptor.give_up()
        left = max(0.0, end - asyncio.get_running_loop().time())
        cut = await self._connections.drain(left, min(idle, left))
        await self._runner.cleanup()
        await self._lifecycle.stop()
        return cut


async def serve(
    node: Node,
    roles: Sequence[Role],
    asked: asyncio.Event,
    *,
    announce: Callable[[str], None],
    mounts: Mapping[str, web.Application] | None = None,
) -> None:
    """Start the roles, listen, and wait until ``asked`` to stop; then stop gracefully within the settings' deadline.

    ``mounts`` are applications served beside the media, by prefix.
    """
    server, drain = Server(node, roles, mounts), node.settings.drain
    # Before the roles: an address in use should be told at once.
    listeners = await asyncio.to_thread(listen_all, node.settings, 1)
    try:
        await server.start()
    except BaseException:
        listeners.close()
        raise
    address = listeners.url
    server.accept(*listeners.parts(listeners.rows[0]))
    _log.info("listening", url=address)
    announce(address)
    try:
        await asked.wait()
    finally:
        _log.info("stopping", delay=drain.delay, deadline=drain.deadline)
        await server.drain(drain.delay)
        cut = await server.stop(drain.deadline)
        listeners.close()
        _log.info("stopped", connections_cut=cut)
