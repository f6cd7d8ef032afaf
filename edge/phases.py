"""The phases of a request, in order. ``docs/phases.md`` tells the same story, and a test holds the two together."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web

from edge import deliver as delivery
from edge import media, routes
from edge.context import Context
from edge.cors import METHODS
from edge.paths import canonical_path
from streamgate.core.logging import get_logger
from streamgate.errors import StreamGateError

# uri-host with its port (RFC 3986 section 3.2); empty is allowed
_HOST = re.compile(r"[A-Za-z0-9\-._~%!$&'()*+,;=:\[\]]*")
_ALLOWED = frozenset(METHODS.split(", "))
_log = get_logger("edge.access")


async def parse(ctx: Context) -> None:
    """Check method and host, bring the path into its one spelling, and find out what it asks for."""
    request = ctx.request
    _check_head(request)
    if f"{request.raw_path.partition('?')[0]}/".startswith(ctx.mounts or "?"):
        ctx.route, ctx.path = "mounted", canonical_path(request.raw_path)
        return
    if request.method not in _ALLOWED:
        raise StreamGateError("method_not_allowed")
    if request.method == hdrs.METH_OPTIONS:
        # A preflight carries no token and asks nothing of the path: what is wrong with it, the request itself will hear.
        ctx.route = "preflight"
        ctx.response = web.Response(status=204, headers={"Allow": METHODS, "Cache-Control": "no-store"})
        ctx.node.cors.preflight(ctx.response.headers)
        return
    ctx.path = canonical_path(request.raw_path)
    if ctx.path.startswith("/v/"):
        ctx.target = routes.match(ctx.path)
        ctx.route = ctx.target.route.name


async def authorize(ctx: Context) -> None:
    """Decide who may see it: every asset of this node is open to all, so answers are public."""
    ctx.scope = "public"


async def key(ctx: Context) -> None:
    """Name the entry: the path behind any token, without host and query; manifests also by the opening they were made from."""
    assert ctx.target is not None
    if ctx.target.route.immutable:
        ctx.key = ctx.path
        return
    ctx.opened = ctx.node.assets.current(ctx.target.asset)
    ctx.key = _manifest_key(ctx)


async def lookup(ctx: Context) -> None:
    """Look for the entry in memory."""
    ctx.entry = ctx.node.cache.get(ctx.key) if ctx.key else None
    ctx.hit = ctx.entry is not None
    ctx.node.telemetry.count("cache_lookups", result="hit" if ctx.hit else "miss")


async def resolve(ctx: Context) -> None:
    """On a miss, open the asset and make the entry: a text, an init segment, or a plan of the segment's cut."""
    if ctx.entry is not None:
        return
    assert ctx.target is not None
    ctx.opened = ctx.node.assets.known(ctx.target.asset) if ctx.target.route.immutable else None
    if ctx.opened is None or ctx.target.rendition not in ctx.opened.asset.presentation.renditions:
        ctx.opened = await ctx.node.assets.open(ctx.target.asset)
    if not ctx.target.route.immutable:
        ctx.key = _manifest_key(ctx)
        ctx.entry = ctx.node.cache.get(ctx.key)
        if ctx.entry is not None:
            return
    arguments = (ctx.target, ctx.opened, ctx.node.settings.edge)
    if ctx.target.route.name in media.QUICK:
        ctx.entry = media.build(*arguments)
    else:
        ctx.entry = await ctx.node.flights.join(ctx.key, media.build, *arguments)


async def store(ctx: Context) -> None:
    """Keep what was made, if its body is in memory: segments are cut anew for each request."""
    if not ctx.hit and ctx.entry is not None and isinstance(ctx.entry.body, bytes):
        ctx.node.cache.put(ctx.key, ctx.entry)


async def deliver(ctx: Context) -> None:
    """Choose the coding, answer conditions and ranges, and send the body as fast as the client takes it."""
    await delivery.deliver(ctx)


async def log(ctx: Context) -> None:
    """Count and time the request, and write one line about it; neither holds a query or a token."""
    status = ctx.response.status if ctx.response is not None else 0
    telemetry = ctx.node.telemetry
    telemetry.count("requests", route=ctx.route, status=str(status))
    telemetry.observe("request_seconds", ctx.elapsed, route=ctx.route)
    if ctx.sent:
        telemetry.count("response_bytes", ctx.sent, route=ctx.route)
    if ctx.aborted:
        telemetry.count("requests_aborted", cause=ctx.aborted)
    if not ctx.node.settings.log.access:
        return
    fields: dict[str, object] = {
        "method": ctx.request.method,
        "path": ctx.path,
        "route": ctx.route,
        "status": status,
        "bytes": ctx.sent,
        "seconds": round(ctx.elapsed, 6),
        "phases": {name: round(seconds, 6) for name, seconds in ctx.timings.items()},
        "client": ctx.request.remote,
    }
    if ctx.code:
        fields["code"] = ctx.code
    if ctx.aborted:
        fields["aborted"] = ctx.aborted
    _log.info("request", **fields)


def _check_head(request: web.Request) -> None:
    """What a parser lets pass and two servers in a row could understand in two ways (RFC 9112 sections 2.3, 3.2, 6.1)."""
    hosts = request.headers.getall(hdrs.HOST, ())
    # Not ``request.version``, which is fixed once it was asked for; the answer's version follows the request's.
    if request._version not in (HttpVersion10, HttpVersion11):
        request._version = HttpVersion11
        raise StreamGateError("request_malformed", "only HTTP/1.1 and HTTP/1.0 are spoken here")
    if len(hosts) != 1 and (hosts or request.version == HttpVersion11):
        raise StreamGateError("request_malformed", "HTTP/1.1 wants exactly one Host field")
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise StreamGateError("request_malformed", "the Host field is no host")
    if request.version == HttpVersion10 and hdrs.TRANSFER_ENCODING in request.headers:
        raise StreamGateError("request_malformed", "HTTP/1.0 has no Transfer-Encoding")


def _manifest_key(ctx: Context) -> str:
    return f"{ctx.path}#{ctx.opened.generation}" if ctx.opened is not None else ""


PHASES: tuple[Callable[[Context], Awaitable[None]], ...] = (parse, authorize, key, lookup, resolve, store, deliver, log)
