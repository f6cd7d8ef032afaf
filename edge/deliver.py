"""Sending an entry: content coding, conditions, ranges, and a body that waits for its reader."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import replace

from aiohttp import hdrs, web

from edge import compression, conditional, heads, ranges, storing
from edge.context import Context
from edge.entries import Body, Entry, Fetched
from edge.tiers.growing import Growing
from streamgate.core.logging import get_logger
from streamgate.errors import StreamGateError

# Bodies are handed to the transport in pieces, each with a time limit of its own.
_PIECE = 256 * 1024
_SMALL = 64 * 1024
# While a body does not grow, so often is looked whether its client is still there.
_LOOK_S = 1.0
_log = get_logger("edge.deliver")


class RangeNotSatisfiable(StreamGateError):
    """416, with the size that the client should know (RFC 9110 section 15.5.17)."""

    def __init__(self, size: int) -> None:
        super().__init__("range_not_satisfiable", f"there are {size} bytes")
        self.size = size


async def deliver(ctx: Context) -> None:
    """Answer with ``ctx.entry``; RFC 9110 section 13.2.2 gives the order.

    Raises StreamGateError before the head is sent, ConnectionError after it.
    """
    request, entry = ctx.request, ctx.entry
    assert entry is not None
    get = request.method == hdrs.METH_GET
    wants_range = get and hdrs.RANGE in request.headers
    # Ranges are served of the identity coding only.
    accepted = None if wants_range else conditional.joined(request.headers, hdrs.ACCEPT_ENCODING)
    entry = await _encoded(ctx, entry, accepted)
    body, size = entry.body, entry.size
    headers, content = heads.representation(entry, ctx.scope)
    if ctx.tier:
        headers["Age"] = str(max(0, int(time.time()) - entry.made))
    conditions = conditional.of(request.headers)
    verdict = conditional.evaluate(conditions, request.method, entry.etag)
    if verdict == "failed":
        raise StreamGateError("precondition_failed")
    if verdict == "not modified":
        await send(ctx, web.Response(status=304, headers=headers))
        return
    headers |= content
    status, part = 200, (0, size)
    if wants_range and conditional.range_applies(conditions, entry.etag):
        try:
            selected = ranges.select(conditional.joined(request.headers, hdrs.RANGE), size)
        except ranges.Unsatisfiable:
            raise RangeNotSatisfiable(size) from None
        if selected is not None:
            status, part = 206, selected
            headers["Content-Range"] = f"bytes {part[0]}-{part[1] - 1}/{size}"
    if get and isinstance(body, bytes) and len(body) <= _SMALL:
        # Head and body in one packet.
        await send(ctx, web.Response(status=status, headers=headers, body=body[part[0] : part[1]]))
        return
    response = web.StreamResponse(status=status, headers=headers)
    response.content_length = part[1] - part[0]
    if not get:
        await send(ctx, response)
    elif isinstance(body, bytes):
        await _send_buffered(ctx, response, memoryview(body)[part[0] : part[1]])
    else:
        await _send_body(ctx, response, body, *part)


async def send(ctx: Context, response: web.StreamResponse) -> None:
    """Send a response that holds its whole body, or has none."""
    await _begin(ctx, response)
    with _Sending(ctx, response) as sending:
        await sending.end()
    body = response.body if isinstance(response, web.Response) else None
    if isinstance(body, bytes) and ctx.request.method != hdrs.METH_HEAD:
        ctx.sent += len(body)


async def _encoded(ctx: Context, entry: Entry, accepted: str | None) -> Entry:
    """The entry in the coding for this client; compressed bodies are kept beside their entries."""
    body = entry.body
    edge = ctx.node.settings.edge
    if not entry.compressible or not isinstance(body, bytes) or len(body) < edge.compress_min:
        return entry
    coding = compression.negotiate(accepted)
    if coding == compression.IDENTITY:
        return entry
    # No path has a semicolon in front of a coding's name: see edge.routes.
    key = f"{ctx.key or ctx.path};{coding}"
    tiers = ctx.node.tiers
    known = tiers.memory.get(key) if ctx.media else tiers.pages.get(key.encode())
    if known is not None and known.tag == entry.tag:
        made = replace(known, made=entry.made)
    elif len(body) <= edge.compress_inline:
        made = replace(entry, body=compression.encode(body, coding), coding=coding)
    else:
        encoded = await ctx.node.flights.join(f"{key}#{entry.tag}", compression.encode, body, coding)
        made = replace(entry, body=encoded, coding=coding)
    if ctx.media:
        tiers.memory.put(key, made, storing.terms(ctx))
    elif known is None and "no-store" not in entry.cache_control:
        tiers.pages.put(key.encode(), made, made.size)
    return made


async def _send_body(ctx: Context, response: web.StreamResponse, body: Body | Fetched, start: int, end: int) -> None:
    """Read the part and send it: at once where it is small or must be made whole, else block by block.

    Where memory is short everything goes out in blocks: many slow readers must not keep the others from being served.
    What is still being made, or comes from afar, goes out as it grows.
    """
    edge, length = ctx.node.settings.edge, end - start
    whole = body.whole or not isinstance(body, Fetched) and _fits(ctx, length)
    step = length if whole else edge.block
    with ctx.node.budget.hold(body.size if body.whole else step):
        # The first block is read before the head is sent: what fails here still has its proper status.
        block = await _read(ctx, body, start, min(step, length))
        if len(block) == length:
            await _send_buffered(ctx, response, memoryview(block))
            return
        await _begin(ctx, response)
        with _Sending(ctx, response) as sending:
            while True:
                await sending.write(memoryview(block))
                start += len(block)
                if start >= end:
                    break
                try:
                    block = await _read(ctx, body, start, min(step, end - start))
                except StreamGateError as error:
                    # The head has promised more bytes than will come: the client must see the connection end.
                    ctx.aborted, ctx.code = "source", error.code
                    _log.warning("source failed while it was being sent", code=error.code, detail=error.detail)
                    raise ConnectionResetError(str(error)) from error
            await sending.end()


def _fits(ctx: Context, length: int) -> bool:
    return length <= ctx.node.settings.edge.max_buffered_segment and ctx.node.budget.ample(length)


async def _read(ctx: Context, body: Body | Fetched, start: int, most: int) -> bytes | memoryview:
    """``most`` bytes from ``start``; fewer, but at least one, of a body that is still being made."""
    if isinstance(body, Growing):
        try:
            most = min(most, await _grown(ctx, body, start))
        except StreamGateError as error:
            if error.code != "fill_lost" or body.otherwise is None:
                raise
            body = body.otherwise
    if isinstance(body, Growing) and (block := body.at_hand(start, most)) is not None:
        return block
    began = time.perf_counter()
    if isinstance(body, Fetched):
        block = await body.fetch(start, most)
    else:
        # A crowd that comes for one object reads it together.
        block = await ctx.node.flights.join(f"{id(body)} {start} {most}", body.read, start, most)
    ctx.node.telemetry.observe("segment_cut_seconds", time.perf_counter() - began, kind=body.kind)
    if len(block) != most:
        raise StreamGateError("internal", f"a body gave {len(block)} bytes instead of {most}")
    return block


async def _grown(ctx: Context, body: Growing, start: int) -> int:
    """How many bytes there are from ``start``, at least one; raises ``fill_lost``, or ConnectionError where nobody wants them."""
    if body.written > start:
        return body.written - start
    loop = asyncio.get_running_loop()
    end = loop.time() + ctx.node.settings.edge.fill_timeout
    while True:
        try:
            async with asyncio.timeout_at(min(end, loop.time() + _LOOK_S)):
                return await body.available(start)
        except TimeoutError:
            # Who writes hears of it; who waits must ask.
            if ctx.request.transport is None:
                raise ConnectionResetError("the client has gone") from None
            if loop.time() >= end:
                raise StreamGateError("fill_lost") from None


async def _send_buffered(ctx: Context, response: web.StreamResponse, body: memoryview) -> None:
    await _begin(ctx, response)
    with _Sending(ctx, response) as sending:
        await sending.write(body)
        await sending.end()


async def _begin(ctx: Context, response: web.StreamResponse) -> None:
    ctx.response = response
    await response.prepare(ctx.request)
    ctx.node.telemetry.observe("first_byte_seconds", ctx.elapsed, route=ctx.route)


class _Sending:
    """The body of a response on its way, with one timer for all of it: a client that takes too little for too long is cut off."""

    def __init__(self, ctx: Context, response: web.StreamResponse) -> None:
        self._ctx = ctx
        self._response = response
        self._loop = asyncio.get_running_loop()
        self._limit = ctx.node.settings.server.send_timeout
        # Since when it is the client that is waited for; None: it is not.
        self._since: float | None = None
        self._stalled = False
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> _Sending:
        self._timer = self._loop.call_later(self._limit, self._look)
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def write(self, data: memoryview) -> None:
        """Write ``data``, waiting for the client; raises ConnectionError where it takes too little for too long."""
        for at in range(0, len(data), _PIECE):
            piece = data[at : at + _PIECE]
            await self._taken(self._response.write(piece))
            self._ctx.sent += len(piece)

    async def end(self) -> None:
        """Nothing follows. Raises as :meth:`write`."""
        await self._taken(self._response.write_eof())

    async def _taken(self, written: Awaitable[None]) -> None:
        self._since = self._loop.time()
        try:
            await written
        except ConnectionError:
            if not self._stalled:
                raise
        finally:
            self._since = None
        if self._stalled:
            raise ConnectionResetError("the client takes too little for too long")

    def _look(self) -> None:
        now = self._loop.time()
        due = (now if self._since is None else self._since) + self._limit
        if due > now:
            self._timer = self._loop.call_at(due, self._look)
            return
        self._timer, self._stalled = None, True
        self._ctx.aborted = "timeout"
        if self._ctx.request.transport is not None:
            # Not close(): that would wait for the client to take what is still buffered.
            self._ctx.request.transport.abort()
