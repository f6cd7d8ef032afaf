"""The aiohttp application: one way for every request, whatever answers it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from aiohttp import hdrs, web

from edge import cmsd, deliver, heads, problems
from edge.conditions import Answered
from edge.context import CONTEXT, Context
from edge.node import Node
from edge.operations import Operations
from edge.phases import PHASES
from edge.prefetch import Prefetch
from streamgate.core.logging import get_logger
from streamgate.errors import StreamGateError

_log = get_logger("edge")
_parse, *_between, _write_log = PHASES

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(node: Node, *, mounts: Mapping[str, web.Application] | None = None) -> web.Application:
    """The edge: media, pages and operations, and beside them ``mounts``, sub-applications by prefix (``/api``).

    A mounted application decides on methods and CORS itself; errors, logs and metrics are the same for all.
    """
    mounts = mounts or {}
    prefixes = tuple(f"{prefix.rstrip('/')}/" for prefix in mounts)
    operations = Operations(node)
    prefetch = Prefetch(node)

    @web.middleware
    async def serve(request: web.Request, handler: Handler) -> web.StreamResponse:
        ctx = Context(request, node, prefixes)
        request[CONTEXT] = ctx
        node.telemetry.gauge("requests_in_flight", 1)
        try:
            with node.leasing.followed() as ctx.follow:
                await _answer(ctx, handler)
        except ConnectionError:
            ctx.aborted = ctx.aborted or "client"
            raise
        except asyncio.CancelledError:
            ctx.aborted = ctx.aborted or "stop"
            raise
        finally:
            node.telemetry.gauge("requests_in_flight", -1)
            await ctx.run(_write_log)
            prefetch.answered(ctx)
            # The context and its request hold each other; an open file should not wait for the garbage collector.
            ctx.entry, ctx.follow = None, lambda *_: None
        assert ctx.response is not None
        return ctx.response

    async def dispatch(request: web.Request) -> web.StreamResponse:
        ctx = request[CONTEXT]
        if not ctx.media:
            ctx.route, ctx.entry = await operations.find(ctx)
            await ctx.run(PHASES[-2])
        else:
            for phase in _between:
                await ctx.run(phase)
        assert ctx.response is not None
        return ctx.response

    async def finish_head(request: web.Request, response: web.StreamResponse) -> None:
        ctx = request.get(CONTEXT)
        mounted = ctx is not None and ctx.route == "mounted"
        only = node.assets.embeds(ctx.asset) if ctx is not None else ()
        common_headers(node, request.headers.get("Origin"), response, cors=not mounted, only=only)
        # What follows a body, or an upgrade that we decline, might be read in two ways: nothing follows.
        if not mounted and (request.body_exists or hdrs.UPGRADE in request.headers):
            close(response)
        if ctx is not None and not mounted:
            response.headers["Cache-Status"] = ctx.cache_status()
        if ctx is not None and ctx.media and node.settings.edge.cmsd:
            duress = node.health.state == "stopping" or not node.budget.ample(0)
            told = cmsd.dynamic(node.settings.edge.cmsd, request.transport, ctx.elapsed, duress=duress)
            response.headers[cmsd.DYNAMIC] = told
        if ctx is not None and ctx.timings:
            response.headers["Server-Timing"] = ctx.server_timing()
        if ctx is not None and ctx.renewed is not None:
            # Here and nowhere else: what is kept of an answer never holds a token.
            ctx.renewed.tell(response.headers)

    app = web.Application(middlewares=[serve])
    for prefix, mounted in mounts.items():
        app.add_subapp(prefix, mounted)
    app.router.add_route("*", "/{path:.*}", dispatch)
    app.on_startup.append(operations.load)
    app.on_startup.append(lambda _: node.tiers.start())
    app.on_cleanup.append(lambda _: prefetch.close())
    app.on_cleanup.append(lambda _: node.tiers.close())
    app.on_response_prepare.append(finish_head)
    return app


async def _answer(ctx: Context, handler: Handler) -> None:
    """Let the handler answer, or the error that it raised; what it did not send itself is sent here."""
    try:
        await ctx.run(_parse)
        if ctx.response is None:
            ctx.response = await handler(ctx.request)
    except (StreamGateError, web.HTTPException) as error:
        ctx.response = _problem(ctx, error)
    except (ConnectionError, asyncio.CancelledError):
        raise
    except Exception as error:
        _log.exception("request failed", path=ctx.shown, route=ctx.route)
        if ctx.response is not None and ctx.response.prepared:
            ctx.aborted, ctx.code = "error", "internal"
            raise ConnectionResetError("failed after the head was sent") from error
        ctx.response = _problem(ctx, StreamGateError("internal"))
    if not ctx.response.prepared:
        await deliver.send(ctx, ctx.response)


def _problem(ctx: Context, error: StreamGateError | web.HTTPException) -> web.StreamResponse:
    if isinstance(error, web.HTTPException):
        if error.status < 400:
            error.headers["Cache-Control"] = "no-store"
            return web.Response(status=error.status, headers=error.headers)
        ctx.code = problems.from_http(error).code
        answer = problems.from_aiohttp(error, ctx.node.settings.edge.retry_after)
    else:
        ctx.code = error.code
        answer = problems.response(error, ctx.node.settings.edge.retry_after)
    if isinstance(error, Answered):
        answer.headers.update(error.answer.headers)
    if isinstance(error, deliver.RangeNotSatisfiable):
        answer.headers["Content-Range"] = f"bytes */{error.size}"
    ctx.node.telemetry.count("errors", code=ctx.code)
    return answer


def common_headers(
    node: Node, origin: str | None, response: web.StreamResponse, *, cors: bool = True, only: Sequence[str] = ()
) -> None:
    """What every answer says, errors included; ``only`` as for :func:`edge.heads.common`."""
    heads.common(node.cors if cors else None, origin, response.headers, only)
    if node.health.state == "stopping":
        close(response)


def close(response: web.StreamResponse) -> None:
    """Let the connection end with this response."""
    response.force_close()
    response.headers["Connection"] = "close"
