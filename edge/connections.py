"""Connections: what aiohttp's protocol lacks. Limits on their number and on a head's time and size, errors as problems."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_request import BaseRequest

from edge import problems
from edge.app import common_headers
from edge.node import Node
from streamgate.core.logging import get_logger
from streamgate.errors import CODES, StreamGateError

_log = get_logger("edge.connections")
# Nothing here takes a body. One that comes nevertheless is read away so long, or the client might not read its answer.
_LINGER_S = 1.0


class Connections:
    """The open connections of one listener: makes them, counts them, and waits for the last one to end."""

    def __init__(self, node: Node, server: web.Server) -> None:
        self.node = node
        self._server = server
        self._open: set[Connection] = set()
        self._none = asyncio.Event()
        self._none.set()
        settings = node.settings.server
        self._arguments: dict[str, Any] = {
            "keepalive_timeout": settings.keepalive_timeout,
            "max_line_size": settings.max_request_line,
            "max_field_size": settings.max_header_field,
            "max_headers": settings.max_header_fields,
            # A few bytes of a body could become many, and nothing here takes one.
            "auto_decompress": False,
            "lingering_time": _LINGER_S,
            "access_log": None,
        }
        node.telemetry.watch("connections", lambda: len(self._open))

    def __call__(self) -> Connection:
        """A protocol for a new connection: the factory that ``create_server`` wants."""
        return Connection(self, self._server, loop=asyncio.get_running_loop(), **self._arguments)

    @property
    def full(self) -> bool:
        """Whether there are as many as allowed."""
        return len(self._open) >= self.node.settings.server.max_connections

    def add(self, connection: Connection) -> None:
        self._open.add(connection)
        self._none.clear()

    def discard(self, connection: Connection) -> None:
        self._open.discard(connection)
        if not self._open:
            self._none.set()

    async def drain(self, deadline: float) -> int:
        """End idle connections now and busy ones with their response; after ``deadline`` seconds cut those that are left.

        Returns how many were cut.
        """
        for connection in list(self._open):
            connection.end()
        try:
            async with asyncio.timeout(deadline):
                await self._none.wait()
        except TimeoutError:
            left = list(self._open)
            for connection in left:
                connection.abort()
            return len(left)
        return 0


class Connection(web.RequestHandler):
    """One connection. The timer for a request's head runs from its first byte (of a new connection: from the start).

    ``_waiting`` counts the bytes of a head that is begun but not complete.

    It reads private attributes of aiohttp's protocol: the version is pinned, and tests hold what is built on them.
    """

    __slots__ = ("_connections", "_head_timer", "_waiting")

    def __init__(self, connections: Connections, server: web.Server, **arguments: Any) -> None:
        super().__init__(server, **arguments)
        self._connections = connections
        self._head_timer: asyncio.TimerHandle | None = None
        self._waiting = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or answer 503 where there are too many."""
        if self._connections.full:
            node = self._connections.node
            node.telemetry.count("connections_refused")
            error = StreamGateError("overloaded", "there are too many connections")
            stream = cast(asyncio.Transport, transport)
            stream.write(problems.bare(self._problem(error)))
            stream.close()
            self._force_close = True
            self._manager = None
            return
        self._connections.add(self)
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the connection."""
        self._stop_timer()
        super().connection_lost(exc)
        self._connections.discard(self)

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
            self._start_timer()
            if self._waiting > self._connections.node.settings.server.max_head:
                self._refuse("head_too_large")

    def end(self) -> None:
        """End the connection: now if it is idle, else with the response under way."""
        if self._request_in_progress or self._messages:
            self.close()
        else:
            self.force_close()

    def abort(self) -> None:
        """Cut the connection, whatever it is doing."""
        if self._task_handler is not None:
            self._task_handler.cancel()
        if self.transport is not None:
            self.transport.abort()

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
        node = self._connections.node
        node.telemetry.count("errors", code=error.code)
        node.telemetry.count("requests", route="malformed", status=str(error.status))
        request._version = HttpVersion11
        response = self._problem(error)
        response.force_close()
        return response

    async def finish_response(
        self, request: BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """As aiohttp's; but an error it raised before our handlers were asked (Expect) becomes a problem."""
        if isinstance(resp, web.HTTPException) and resp.status >= 400:
            resp = problems.from_aiohttp(resp, self._connections.node.settings.edge.retry_after)
        return await super().finish_response(request, resp, start_time)

    def _problem(self, error: StreamGateError) -> web.Response:
        """The answer to what is no request; whose origin it comes from is not known."""
        node = self._connections.node
        response = problems.response(error, node.settings.edge.retry_after)
        common_headers(node, None, response)
        return response

    def _start_timer(self) -> None:
        if self._head_timer is None:
            limit = self._connections.node.settings.server.head_timeout
            self._head_timer = asyncio.get_running_loop().call_later(limit, self._head_is_late)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        # Browsers open connections ahead of need: one that never said a word gets none.
        if self._waiting:
            self._refuse("head_timeout")
        else:
            self.force_close()

    def _refuse(self, code: str) -> None:
        """Answer what is no whole request yet, and end the connection."""
        if self.transport is not None:
            node = self._connections.node
            node.telemetry.count("errors", code=code)
            node.telemetry.count("requests", route="malformed", status=str(CODES[code].status))
            self.transport.write(problems.bare(self._problem(StreamGateError(code))))
        self._stop_timer()
        self.force_close()
