"""The phases of a request, in order. ``docs/phases.md`` tells the same story, and a test holds the two together."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Awaitable, Callable
from typing import NoReturn

import yarl
from aiohttp import HttpVersion10, HttpVersion11, hdrs, web

from edge import authorize as access
from edge import deliver as delivery
from edge import routes, storing
from edge.context import Context
from edge.cors import METHODS
from edge.paths import canonical_path, split_token
from edge.proxies import packed
from edge.renewal import on_this_machine
from streamgate.access.tokens import BY_REDIRECT
from streamgate.core import trace
from streamgate.core.logging import get_logger
from streamgate.errors import StreamGateError
from streamgate.media import cmcd
from streamgate.native.cat import Token
from streamgate.native.cmcd import CmcdLog

# uri-host with its port (RFC 3986 section 3.2); empty is allowed
_HOST = re.compile(r"[A-Za-z0-9\-._~%!$&'()*+,;=:\[\]]*")
_ALLOWED = frozenset(METHODS.split(", "))
_log = get_logger("edge.access")


async def parse(ctx: Context) -> None:
    """Check method and host, take the token, bring the path into its one spelling, and find out what it asks for."""
    request = ctx.request
    # Our connections know it, from a PROXY header perhaps; aiohttp's own know their socket.
    ctx.peer = getattr(request.protocol, "peer", None) or packed(request.remote or "")
    forwarded = (request.headers.getall(name, ()) for name in ("Forwarded", "X-Forwarded-For"))
    ctx.client = ctx.node.proxies.client(ctx.peer, *forwarded)
    trace.follow(request.headers.get("traceparent", ""))
    _check_head(request)
    if not ctx.node.proxies.trusts(ctx.client):
        ctx.node.rates.ask(ctx.client)
    if f"{request.raw_path.partition('?')[0]}/".startswith(ctx.mounts or "?"):
        ctx.route, ctx.path = "mounted", canonical_path(request.raw_path)
        return
    if request.method not in _ALLOWED:
        raise StreamGateError("method_not_allowed")
    if request.method == hdrs.METH_OPTIONS:
        # A preflight carries no token and asks nothing of the path: what is wrong with it, the request itself will hear.
        ctx.route = "preflight"
        with contextlib.suppress(StreamGateError):
            ctx.asset = routes.asset_of(split_token(request.raw_path)[1])
        ctx.response = web.Response(status=204, headers={"Allow": METHODS, "Cache-Control": "no-store"})
        ctx.node.cors.preflight(ctx.response.headers)
        return
    token, ctx.path = split_token(request.raw_path)
    ctx.asset = routes.asset_of(ctx.path)
    # A poster is for everybody, whatever its asset is.
    ctx.media = ctx.path.startswith("/v/") and ctx.path not in ctx.node.assets.posters
    if not ctx.media:
        return
    ctx.credential = access.credential(request, token)
    # Whether there is nothing at this path only those hear who may know.
    with contextlib.suppress(StreamGateError):
        ctx.target = routes.match(ctx.path)
        ctx.route = ctx.target.route.name


async def authorize(ctx: Context) -> None:
    """Decide who may see it: an open asset everybody, any other who has a token for it, and a lease; such answers are private."""
    gate, (token, carrier) = ctx.node.gate, ctx.credential or (None, "")
    asked = gate.asked(ctx.request, ctx.path, ctx.peer, ctx.client, carrier)
    ctx.token = await gate.admits(ctx.asset, token, asked)
    if ctx.token is not None:
        ctx.node.rates.ask_with(ctx.token.session)
        lease = await ctx.node.leasing.hold(ctx.token, ctx.asset, ctx.client, carrier)
        ctx.follow(lease, ctx.token, ctx.cut)
        ctx.stale = ctx.node.feed.stale
        if ctx.stale:
            ctx.node.telemetry.count("stale_authorizations")
        _renew(ctx, ctx.token, carrier, asked, ctx.node.leasing.cap(lease))
    ctx.scope = "public" if ctx.token is None else "private"
    if ctx.target is None:
        raise StreamGateError("not_found")
    redirected = ctx.renewed is not None and ctx.renewed.way == BY_REDIRECT
    if ctx.token is not None and token is not None and (redirected or carrier == "query" and _is_playlist(ctx)):
        _redirect(ctx, token)


def _renew(ctx: Context, token: Token, carrier: str, asked: access.Asked, cap: float) -> None:
    """See to it that the answer brings the next token, where this one is about to end."""
    plain = on_this_machine(asked.scheme, asked.host, asked.address)
    playlist = _is_playlist(ctx)
    ctx.renewed = ctx.node.renewing.offer(token, carrier, ctx.asset, cap, playlist=playlist, secure=not plain)


def _is_playlist(ctx: Context) -> bool:
    return ctx.target is not None and ctx.target.route.name in routes.PLAYLISTS


def _redirect(ctx: Context, token: str) -> NoReturn:
    """Send who asks for a playlist to its form with the token, or the next one, in the path."""
    # What it names inherits a path, but no query.
    query = access.without_token(ctx.request.raw_path.partition("?")[2])
    status, shown = 302, token
    if ctx.renewed is not None and ctx.renewed.way == BY_REDIRECT:
        status, shown = ctx.renewed.status, ctx.renewed.token
    kind = web.HTTPFound if status == 302 else web.HTTPTemporaryRedirect
    raise kind(yarl.URL(f"/t/{shown}{ctx.path}{query and '?'}{query}", encoded=True))


async def key(ctx: Context) -> None:
    """Name the entry: the path behind any token, without host and query; manifests also go by the opening they tell of."""
    assert ctx.target is not None
    ctx.key = ctx.path
    if not ctx.target.route.immutable:
        ctx.opened = ctx.node.assets.current(ctx.target.asset)


async def lookup(ctx: Context) -> None:
    """Ask the tiers for the entry: memory, the disk for what is cut, then Redis; what failed a moment ago fails again."""
    assert ctx.target is not None
    ctx.asked = True
    if ctx.target.route.immutable or ctx.opened is not None:
        await storing.lookup(ctx)
    ctx.hit = ctx.entry is not None
    ctx.node.telemetry.count("cache_lookups", result="hit" if ctx.hit else "miss")


async def resolve(ctx: Context) -> None:
    """On a miss, open the asset and make the entry, unless another node does: a text, an init segment, or a plan of a cut."""
    if ctx.entry is not None:
        return
    assert ctx.target is not None
    ctx.opened = ctx.node.assets.known(ctx.target.asset) if ctx.target.route.immutable else None
    if ctx.opened is None or ctx.target.rendition not in ctx.opened.asset.presentation.renditions:
        ctx.opened = await ctx.node.assets.open(ctx.target.asset)
    if not ctx.target.route.immutable:
        await storing.lookup(ctx)
    if ctx.entry is None:
        ctx.entry = await storing.make(ctx)


async def store(ctx: Context) -> None:
    """Keep what was made: texts in memory, a segment on the disk, in one flight that all who want it follow; share what is small."""
    if ctx.entry is not None and not ctx.tier:
        await storing.store(ctx)


async def deliver(ctx: Context) -> None:
    """Choose the coding, answer conditions and ranges, and send the body as fast as the client takes it."""
    await delivery.deliver(ctx)


async def log(ctx: Context) -> None:
    """Count and time the request, and write one line about it; neither holds a query or a token. What its player reports is another log's."""
    # Why one went wrong is another event: errors are few, and their codes and times say more than a line of an access log.
    status = ctx.response.status if ctx.response is not None else 0
    telemetry = ctx.node.telemetry
    telemetry.count("requests", route=ctx.route, status=str(status))
    telemetry.observe("request_seconds", ctx.elapsed, route=ctx.route)
    if ctx.sent:
        telemetry.count("response_bytes", ctx.sent, route=ctx.route)
    if ctx.aborted:
        telemetry.count("requests_aborted", cause=ctx.aborted)
    if ctx.code == "source_changed" and ctx.opened is not None and ctx.opened.asset.remote:
        # Its ETags are asked for seldom.
        ctx.node.assets.doubt(ctx.asset)
    if ctx.code or ctx.aborted:
        phases = {name: round(seconds, 6) for name, seconds in ctx.timings.items()}
        _log.info("request failed", path=ctx.shown, route=ctx.route, code=ctx.code, aborted=ctx.aborted, phases=phases)
    if ctx.node.reports is not None and ctx.media:
        _report(ctx, ctx.node.reports)
    access = ctx.node.access
    if access is None:
        return
    in_path = ctx.credential is not None and ctx.credential[1] == "path"
    headers = ctx.request.headers
    access.add(
        method=ctx.request.method.encode(),
        path=ctx.known_path.encode(),
        route=ctx.route.encode(),
        status=status,
        sent=ctx.sent,
        duration=int(ctx.elapsed * 1e9),
        session=(ctx.token.session if ctx.token is not None else b"") if in_path else None,
        address=ctx.client,
        traceparent=headers.get("traceparent", "").encode("utf-8", "surrogateescape"),
        user_agent=headers.get(hdrs.USER_AGENT, "").encode("utf-8", "surrogateescape"),
    )
    if not ctx.node.settings.log.access_file:
        # Among other logs the order of events is worth more than a system call.
        access.flush()


def _report(ctx: Context, log: CmcdLog) -> None:
    """Note what the player reports with its request."""
    headers = ctx.request.headers
    one, two, three, four = (headers.get(name, "").encode("utf-8", "surrogateescape") for name in cmcd.FIELDS)
    log.add(
        path=ctx.known_path.encode(),
        status=ctx.response.status if ctx.response is not None else 0,
        sent=ctx.sent,
        duration=int(ctx.elapsed * 1e9),
        session=ctx.token.session if ctx.token is not None else b"",
        tier=ctx.tier.encode(),
        query=ctx.request.raw_path.partition("?")[2].encode("utf-8", "surrogateescape"),
        fields=(one, two, three, four),
    )


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


PHASES: tuple[Callable[[Context], Awaitable[None]], ...] = (parse, authorize, key, lookup, resolve, store, deliver, log)
