"""Running the edge: its socket, its event loop, and its end."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import uvloop
from aiohttp import web

from edge.app import make_app
from edge.connections import Connections
from edge.node import Node
from edge.roles import streaming
from streamgate.core import logging
from streamgate.core.health import Health
from streamgate.core.lifecycle import Lifecycle, Role, stop_signals
from streamgate.core.settings import ServerSettings, Settings
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError

_log = logging.get_logger("edge.server")
# When connections are cut, their handlers are cancelled; that takes no time worth waiting for.
_CLEANUP_S = 1.0


def run(settings: Settings, root: Path, *, announce: Callable[[str], None]) -> int:
    """Serve the assets of ``root`` until SIGTERM or SIGINT; returns the exit code, 0 for a graceful stop.

    ``announce`` is called with the server's address (no trailing slash) once it listens. A second signal ends the process
    at once. Raises StreamGateError ``listen_failed``, ``source_not_found`` and whatever else keeps it from starting.
    """
    stop_logging = logging.configure(settings.log)
    try:
        _raise_file_limit()
        role, node = streaming(settings, root, Telemetry(), Health())
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_run(node, role, announce))
    finally:
        stop_logging()


async def _run(node: Node, role: Role, announce: Callable[[str], None]) -> int:
    with stop_signals() as asked:
        await serve(node, [role], asked, announce=announce)
    return 0


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
    settings = node.settings.server
    lifecycle = Lifecycle(roles, node.health)
    # Before the roles: an address in use should be told at once.
    listening = await asyncio.to_thread(listen, settings)
    try:
        await lifecycle.start()
        runner = web.AppRunner(make_app(node, mounts=mounts), access_log=None, shutdown_timeout=_CLEANUP_S)
        await runner.setup()
        assert runner.server is not None
        connections = Connections(node, runner.server)
        server = await asyncio.get_running_loop().create_server(connections, sock=listening, backlog=settings.backlog)
    except BaseException:
        listening.close()
        await lifecycle.stop()
        raise
    address = url(listening)
    node.health.state = "ready"
    _log.info("listening", url=address)
    announce(address)
    try:
        await asked.wait()
    finally:
        node.health.state = "stopping"
        _log.info("stopping", deadline=settings.stop_deadline)
        await asyncio.sleep(settings.drain_delay)
        server.close()
        await lifecycle.drain()
        cut = await connections.drain(settings.stop_deadline)
        await runner.cleanup()
        await lifecycle.stop()
        _log.info("stopped", connections_cut=cut)


def _raise_file_limit() -> None:
    """Connections and sources are open files: of the usual soft limit, 1024, a burst of viewers would leave nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        _log.warning("the limit of open files stays as it is", limit=soft, reason=str(error))


def listen(settings: ServerSettings) -> socket.socket:
    """A socket that listens on the settings' address; raises ``listen_failed``."""
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        listening = socket.create_server(address[:2], family=family, backlog=settings.backlog)
    except OSError as error:
        reason = error.strerror or os.strerror(error.errno or 0)
        raise StreamGateError("listen_failed", f"{settings.host} port {settings.port}: {reason}") from error
    # Accepted sockets inherit it: what a client does not take is not kept for it for ever, not even by the kernel.
    # Later than our own limit, which knows why it ends a response.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(settings.send_timeout * 2000))
    listening.setblocking(False)
    return listening


def url(listening: socket.socket) -> str:
    """How a browser of this machine reaches the socket."""
    host, port = listening.getsockname()[:2]
    if host == "0.0.0.0":
        host = "127.0.0.1"
    elif host == "::":
        host = "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
