"""Connections: the native protocol in front, and behind it aiohttp's for all that is no hit in memory."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import sys
import termios
from typing import Any

from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_request import BaseRequest

from edge import fast, problems
from edge.app import common_headers
from edge.door import Door, Doors
from edge.entries import Entry
from edge.node import Node
from edge.shared_hits import Asker, Wanted
from streamgate.core.logging import get_logger
from streamgate.errors import StreamGateError
from streamgate.native.accesslog import AccessLog
from streamgate.native.hotpath import Protocol
from streamgate.native.limiter import Limiter

_log = get_logger("edge.connections")
# Nothing here takes a body. One that comes nevertheless is read away so long, or the client might not read its answer.
_LINGER_S = 1.0
# The native protocol ends idle connections: it knows of all requests.
_NEVER_S = 10**8
# An idle connection lacks nothing but the client's farewell (TLS's close_notify): a round trip, or for ever where the
# client has gone or does not want to.
_FAREWELL_S = 2.0
_LOOK_S = 0.25
# Of our own farewell, at the most, so much may be on its way to a client that has gone; of an answer there is more.
_FAREWELL_BYTES = 128


class Connections:
    """The open connections of one listener: makes them, knows them, and waits for the last one to end."""

    def __init__(
        self,
        node: Node,
        server: web.Server,
        *,
        log: AccessLog | None = None,
        by_address: Limiter | None = None,
        by_token: Limiter | None = None,
    ) -> None:
        self.node = node
        self._server = server
        settings = node.settings.server
        self._arguments: dict[str, Any] = {
            "keepalive_timeout": _NEVER_S,
            "max_line_size": settings.max_request_line,
            "max_field_size": settings.max_header_field,
            "max_headers": settings.max_header_fields,
            # A few bytes of a body could become many, and nothing here takes one.
            "auto_decompress": False,
            "lingering_time": _LINGER_S,
            "access_log": None,
        }
        self._asker = Asker(node, fast.cutter(node)) if node.settings.redis.url else None
        self.factory = fast.factory(
            node, self.handler, log=log, by_address=by_address, by_token=by_token, asker=self._asker
        )
        self._open = self.factory.connections
        node.telemetry.watch("connections", lambda: len(self._open))
        count, self._most = node.telemetry.count, settings.max_connections
        self.doors = Doors(
            self._most,
            lambda peer: self.factory(peer) if len(self._open) < self._most else None,
            lambda: fast.refusal(node, "overloaded"),
            lambda: count("connections_refused"),
            lambda: count("connections_failed", cause="overloaded"),
        )

    def __call__(self, peer: bytes | None = None, opening: int = 0) -> Protocol | Door:
        """A protocol for a new connection: the factory that ``create_server`` wants.

        ``peer``: the client's packed address, where it is another than the socket's. ``opening``: how many connections are
        about to be there; where there might be no room for all, it is decided when they are.
        """
        return self.factory(peer) if len(self._open) + opening <= self._most else Door(self.doors, peer)

    async def drain(self, deadline: float, idle: float = 0.0) -> int:
        """End idle connections after ``idle`` seconds and busy ones with their response; cut those left at ``deadline``.

        Returns how many were cut.
        """
        none = asyncio.Event()
        self.factory.emptied = none.set
        if not self._open:
            return 0
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(none.wait(), idle)
        for connection in list(self._open):
            connection.end()
        parting = asyncio.create_task(self._part())
        try:
            async with asyncio.timeout(deadline):
                await none.wait()
        except TimeoutError:
            left = list(self._open)
            for connection in left:
                connection.abort()
            return len(left)
        finally:
            parting.cancel()
        return 0

    async def _part(self) -> None:
        """Cut connections that are closed and wait for their client's farewell, when they have done so for long enough."""
        time = asyncio.get_running_loop().time
        since: dict[Protocol, float] = {}
        while True:
            now = time()
            since = {each: since.get(each, now) for each in self._open if _said_all(each.transport)}
            for connection, began in since.items():
                if now - began >= _FAREWELL_S:
                    connection.abort()
            await asyncio.sleep(_LOOK_S)

    def handler(self, peer: bytes) -> Handler:
        """aiohttp's side of a connection from that packed address."""
        loop = asyncio.get_running_loop()
        if self._asker is not None:
            return WaitingHandler(self._asker, self.node, self._server, peer, loop=loop, **self._arguments)
        return Handler(self.node, self._server, peer, loop=loop, **self._arguments)


def _said_all(transport: asyncio.Transport | None) -> bool:
    """Whether a connection is closed on our side, and its client has got all but perhaps our farewell."""
    if transport is None or not transport.is_closing() or transport.get_write_buffer_size():
        return False
    with contextlib.suppress(OSError):
        # What has been written and not yet acknowledged (tcp(7), SIOCOUTQ, of which this is another name).
        unsent = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
        return int.from_bytes(unsent, sys.byteorder) <= _FAREWELL_BYTES
    return True


class Handler(web.RequestHandler):
    """aiohttp's side of a connection: gets whole heads, or all that comes from the first body on.

    ``peer`` is the client's packed address, b"" where it is not known.
    After a body ``_waiting`` counts the bytes of a head that is begun but not complete, and a timer runs from its first byte.

    It reads private attributes of aiohttp's protocol: the version is pinned, and tests hold what is built on them.
    """

    __slots__ = ("_head_timer", "_node", "_waiting", "peer")

    def __init__(self, node: Node, server: web.Server, peer: bytes, **arguments: Any) -> None:
        super().__init__(server, **arguments)
        self.peer = peer
        self._node = node
        self._head_timer: asyncio.TimerHandle | None = None
        self._waiting = 0

    @property
    def idle(self) -> bool:
        """Whether it waits for a request, and will take one."""
        waiter = self._waiter
        return waiter is not None and not waiter.done() and not (self._close or self._force_close or self._upgraded)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop what is under way."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and watch over heads that are begun but not complete."""
        if self._force_close:
            return
        heads = self._request_count
        super().data_received(data)
        if self._request_count != heads:
            self._stop_timer()
            self._waiting = 0
        elif self._waiter is not None:
            # Behind a request that is being answered, the keep-alive timer takes over.
            self._waiting += len(data)
            if self._head_timer is None:
                limit = self._node.settings.server.head_timeout
                self._head_timer = asyncio.get_running_loop().call_later(limit, self._refuse, "head_timeout")
            if self._waiting > self._node.settings.server.max_head:
                self._refuse("head_too_large")

    def end(self) -> None:
        """End the connection: now if it is idle, else with the response under way."""
        # A request that was taken and whose task has not begun is in neither.
        taken = self._waiter is None and self._request_count > 0
        if self._request_in_progress or self._messages or taken:
            self.close()
        else:
            self.force_close()

    def abort(self) -> None:
        """Stop the response under way; the connection is cut by the caller."""
        if self._task_handler is not None:
            self._task_handler.cancel()

    def handle_error(
        self, request: BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer what is no HTTP, or what failed outside of our handlers; it closes the connection.

        Raises ConnectionError, which makes aiohttp end the connection, where the head of an answer was sent already.
        """
        if isinstance(exc, ConnectionError) or request.writer.output_size > 0:
            raise ConnectionResetError("the answer was cut short") from exc
        if status >= 500:
            error = StreamGateError("internal")
            _log.error("request failed outside of its handler", exc_info=exc)
        elif isinstance(exc, LineTooLong) or "Too many headers" in (message or ""):
            error = StreamGateError("head_too_large")
        else:
            error = StreamGateError("request_malformed")
        self._node.telemetry.count("errors", code=error.code)
        self._node.telemetry.count("requests", route="malformed", status=str(error.status))
        request._version = HttpVersion11
        response = problems.response(error, self._node.settings.edge.retry_after)
        # Whose origin it comes from is not known.
        common_headers(self._node, None, response)
        response.force_close()
        return response

    async def finish_response(
        self, request: BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """As aiohttp's; but an error it raised before our handlers were asked (Expect) becomes a problem."""
        if isinstance(resp, web.HTTPException) and resp.status >= 400:
            resp = problems.from_aiohttp(resp, self._node.settings.edge.retry_after)
        return await super().finish_response(request, resp, start_time)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, code: str) -> None:
        """Answer what is no whole request yet, and end the connection."""
        if self.transport is not None:
            self.transport.write(fast.refusal(self._node, code))
        self._stop_timer()
        self.force_close()


class WaitingHandler(Handler):
    """A handler that keeps a head until Redis has told whether it has what is asked for.

    Meanwhile it is not idle, so what comes behind comes here too. ``missed`` is what Redis lacks of the request that aiohttp
    got last.
    """

    __slots__ = ("_answer", "_asker", "_fresh", "_held", "_protocol", "_wanted", "missed")

    def __init__(self, asker: Asker, node: Node, server: web.Server, peer: bytes, **arguments: Any) -> None:
        super().__init__(node, server, peer, **arguments)
        self._asker = asker
        self._held: list[bytes] = []
        self._wanted: Wanted | None = None
        self._answer: asyncio.Future[Entry | None] | None = None
        self._protocol: Protocol | None = None
        self._fresh = True
        self.missed = ""

    @property
    def idle(self) -> bool:
        """Whether it waits for a request, and for nothing else."""
        return not self._held and super().idle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport's protocol is the native one, which we stand behind."""
        super().connection_made(transport)
        protocol = transport.get_protocol()
        self._protocol = protocol if isinstance(protocol, Protocol) else None

    def connection_lost(self, exc: BaseException | None) -> None:
        """Wait for nothing any more."""
        self._forget()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Keep the head, if Redis is asked for it, and what comes behind it."""
        asked = self._asker.ask()
        if self._held:
            self._held.append(data)
            if sum(map(len, self._held)) > self._node.settings.server.max_head:
                self._hand_on()
            return
        self.missed = ""
        # aiohttp gets its first request before it has begun to wait for one.
        if asked is None or self._protocol is None or not (self._fresh or super().idle):
            self._fresh = False
            super().data_received(data)
            return
        self._held.append(data)
        self._wanted, self._answer = asked
        self._answer.add_done_callback(self._told)

    def end(self) -> None:
        """End the connection, with the answer under way if there is one."""
        self._hand_on()
        super().end()

    def abort(self) -> None:
        """Stop what is under way."""
        self._forget()
        super().abort()

    def _told(self, answer: asyncio.Future[Entry | None]) -> None:
        """Redis has answered."""
        if answer is not self._answer or answer.cancelled():
            return
        wanted, entry, held = self._wanted, answer.result(), self._held
        assert wanted is not None and self._protocol is not None
        if entry is None:
            self._hand_on()
            self.missed = wanted.key
        elif len(held) == 1:
            self._forget()
            if not self._asker.send(self._protocol, held[0], wanted, entry):
                self._fresh = False
                super().data_received(held[0])
        else:
            self._hand_on()

    def _hand_on(self) -> None:
        """Let aiohttp have what was kept."""
        held = self._held
        self._forget()
        for data in held:
            self._fresh = False
            super().data_received(data)

    def _forget(self) -> None:
        self._held, self._wanted, self._answer = [], None, None
