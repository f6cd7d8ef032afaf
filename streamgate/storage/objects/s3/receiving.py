"""Bodies received in place: what the socket gives goes straight into the memory that it is for.

aiohttp makes the connections, sends the requests and parses the heads. Between a transport and aiohttp's protocol lies a
:class:`Line`: it hands the transport a little memory while a head is expected, and the reader's own from then on. At the
end aiohttp is told that its body is over, and the connection is in its pool again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.streams import EMPTY_PAYLOAD

if TYPE_CHECKING:
    from aiohttp.client import ClientTimeout
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.tracing import Trace

# A head, as a rule, and little of what follows: that is copied.
_HEAD = 4096
# What is read at once of a body that goes through aiohttp.
_PIECE = 64 * 1024
# Of TLS: may have been read, and is not counted by asyncio.
_RECORD = 16 * 1024


class Connector(aiohttp.TCPConnector):
    """Makes connections whose bodies can be received in place."""

    async def _create_connection(
        self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout
    ) -> ResponseHandler:
        handler = await super()._create_connection(req, traces, timeout)
        if (transport := handler.transport) is not None:
            # uvloop asks a protocol what kind it is when reading starts.
            transport.pause_reading()
            transport.set_protocol(Line(transport, handler))
            transport.resume_reading()
        return handler


@dataclass(slots=True)
class _Body:
    """What is received in place: told of it, until when, and when something last came (s of the loop's clock)."""

    arrived: Callable[[int], None]
    stall: float
    late: Callable[[], float]
    ended: asyncio.Future[None]
    moved: float
    timer: asyncio.TimerHandle | None = None


class Line(asyncio.BufferedProtocol):
    """One connection. Behind a head nothing more is read until somebody says where to: :meth:`receive` or :meth:`flow`.

    What comes when nobody has asked is part of no answer, and ends the connection.
    """

    def __init__(self, transport: asyncio.Transport, handler: ResponseHandler) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._handler = handler
        self._scratch = memoryview(bytearray(_PIECE))
        self._room = self._scratch[:_HEAD]
        self._body: _Body | None = None

    @staticmethod
    def of(response: aiohttp.ClientResponse) -> Line | None:
        """The line whose body waits to be read; None where aiohttp takes it, or has all of it."""
        transport = response.connection.transport if response.connection is not None else None
        line = transport.get_protocol() if transport is not None else None
        return line if isinstance(line, Line) and not line.closing else None

    @property
    def closing(self) -> bool:
        """Whether no other answer comes over this connection."""
        return self._handler._should_close

    def flow(self) -> None:
        """Let the body come through aiohttp, whose timeout begins."""
        self._room = self._scratch
        self._handler.start_timeout()
        self._transport.resume_reading()

    async def receive(
        self, room: memoryview, arrived: Callable[[int], None], stall: float, late: Callable[[], float]
    ) -> None:
        """Fill ``room``, which is as long as what is left of the body; ``arrived`` is told how many bytes have come.

        Raises TimeoutError where nothing comes for ``stall`` s, or not all until ``late()`` (of the loop's clock, it may
        move on), and ClientPayloadError where the connection breaks. Whoever gives up ends the connection.
        """
        now = self._loop.time()
        body = self._body = _Body(arrived, stall, late, self._loop.create_future(), now)
        self._room = room
        body.timer = self._loop.call_at(min(now + stall, late()), self._look)
        self._transport.resume_reading()
        try:
            await body.ended
        finally:
            body.timer.cancel()
            if self._body is body:
                self._let_go()
                self._transport.abort()
            if body.ended.done() and not body.ended.cancelled():
                body.ended.exception()  # was seen, even by who is cancelled meanwhile

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes belong; what goes through aiohttp is read at once, as far as it has come."""
        if self._room is self._scratch and sizehint + _RECORD > len(self._scratch):
            self._scratch = self._room = memoryview(bytearray(sizehint + _RECORD))
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        """So many have come."""
        body = self._body
        if body is None:
            self._feed(bytes(self._room[:nbytes]))
            return
        self._room = self._room[nbytes:]
        body.moved = self._loop.time()
        if not self._room:
            self._let_go()
            self._whole()
            if not body.ended.done():
                body.ended.set_result(None)
        body.arrived(nbytes)

    def eof_received(self) -> None:
        """The other side sends no more: the transport closes."""
        self._handler.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._fail(aiohttp.ClientPayloadError("the connection broke"))
        self._handler.connection_lost(exc)

    def pause_writing(self) -> None:
        """The request does not fit into the socket."""
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        """It does now."""
        self._handler.resume_writing()

    def _feed(self, data: bytes) -> None:
        """Let aiohttp have it, up to the end of a head."""
        handler = self._handler
        if handler._parser is None:  # nobody has asked
            self._transport.abort()
            return
        known = handler._payload
        if known is not None and known.is_eof():  # of the answer before
            handler._payload = known = None
        handler.data_received(data)
        payload = handler._payload
        if payload is None or payload is EMPTY_PAYLOAD:  # more of a head is to come
            return
        if payload.is_eof():
            self._whole()
        elif handler._should_close:
            # The end may follow at once, and over TLS what was not read by then is lost: aiohttp takes it.
            self._room = self._scratch
        elif payload is not known:
            # Nobody waits for the other side until it is known where to.
            handler._drop_timeout()
            self._transport.pause_reading()

    def _whole(self) -> None:
        """The answer ends here."""
        self._room = self._scratch[:_HEAD]
        payload, self._handler._payload, self._handler._parser = self._handler._payload, None, None
        if payload is not None and not payload.is_eof():
            payload.feed_eof()

    def _look(self) -> None:
        """Has the time come to give up?"""
        if (body := self._body) is None:
            return
        due = min(body.moved + body.stall, body.late())
        if self._loop.time() < due:
            body.timer = self._loop.call_at(due, self._look)
        else:
            self._fail(TimeoutError())

    def _fail(self, error: Exception) -> None:
        if (body := self._body) is not None:
            self._let_go()
            self._transport.abort()
            if not body.ended.done():
                body.ended.set_exception(error)

    def _let_go(self) -> None:
        """Nothing is written any more into memory that is a reader's."""
        self._body = None
        self._room = self._scratch[:_HEAD]
