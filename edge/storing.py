"""Between a request and the tiers: what is looked for where, what is made on a miss, and where that is kept."""

from __future__ import annotations

import time
from dataclasses import replace
from hashlib import blake2b

from aiohttp import hdrs

from edge import conditional, media
from edge.context import Context
from edge.entries import Entry
from edge.fingerprint import fingerprint
from edge.node import Node
from edge.routes import Target
from edge.tiers.tier import Terms
from streamgate.errors import StreamGateError
from streamgate.media.presentation import Rendition


def terms(ctx: Context) -> Terms:
    """How the entry may be given away: what is below a rendition for ever, a manifest until its asset is looked at again."""
    assert ctx.target is not None
    until = None
    if not ctx.target.route.immutable:
        assert ctx.opened is not None
        until = int(time.time() + ctx.node.assets.fresh_for(ctx.opened))
    return Terms(ctx.scope, ctx.target.route.name, until)


async def lookup(ctx: Context) -> None:
    """Ask the tiers. A manifest counts only if it tells of the asset as it is open now."""
    assert ctx.target is not None
    deep = ctx.target.route.name in media.CUT
    # Other nodes' tier is not asked twice for the same.
    before, ctx.shared = ctx.shared or getattr(ctx.request.protocol, "missed", ""), _shared(ctx)
    shared = ctx.shared if ctx.shared != before else ""
    found, tier = await ctx.node.tiers.lookup(ctx.key, _generation(ctx), terms(ctx), deep=deep, shared=shared)
    if found is not None:
        ctx.entry, ctx.tier = found, tier


async def make(ctx: Context) -> Entry:
    """The entry that no tier has, unless another node makes it; a path below a rendition that there is not is remembered
    for a while."""
    assert ctx.target is not None and ctx.opened is not None
    sharing = ctx.node.tiers.sharing
    if sharing is None or not ctx.shared or ctx.target.route.name in media.CUT or not _is_offered(ctx):
        return await _make(ctx)
    found = await sharing.turn(ctx.key, ctx.shared, _generation(ctx), terms(ctx), cut=False)
    if found is not None:
        ctx.tier = sharing.tier.name
        return found
    try:
        return await _make(ctx)
    except BaseException:
        sharing.failed(ctx.shared)
        raise


def _is_offered(ctx: Context) -> bool:
    """Whether the asset has what the path names: names that a stranger makes up are no matter of other nodes."""
    assert ctx.target is not None and ctx.opened is not None
    offered = ctx.opened.asset.presentation.renditions
    return all(name in offered for name in (ctx.target.rendition, ctx.target.audio) if name not in ("", "none"))


async def _make(ctx: Context) -> Entry:
    assert ctx.target is not None and ctx.opened is not None
    arguments = (ctx.target, ctx.opened, ctx.node.settings.edge)
    try:
        if ctx.target.route.name in media.QUICK:
            entry = media.build(*arguments)
        else:
            key = f"{ctx.key}#{ctx.opened.generation}"
            entry = await ctx.node.flights.join(key, media.build, *arguments)
        # What it is made of was found by this request: a purge that came later knows of better.
        return replace(entry, generation=_generation(ctx), born=ctx.started)
    except StreamGateError as error:
        if ctx.target.route.immutable:
            ctx.node.tiers.negatives.remember(ctx.key, error)
        raise


async def store(ctx: Context) -> None:
    """Keep a text; let the body of anything else be made and kept, if it is to be sent."""
    assert ctx.entry is not None
    tiers = ctx.node.tiers
    if isinstance(ctx.entry.body, bytes):
        ctx.stored = tiers.memory.put(ctx.key, ctx.entry, terms(ctx))
        if tiers.sharing is not None and ctx.shared:
            tiers.sharing.made(ctx.shared, ctx.entry)
    elif _wants_body(ctx, ctx.entry):
        looked = bool(ctx.shared)
        ctx.entry, ctx.stored, ctx.collapsed = await tiers.fill(ctx.key, ctx.entry, terms(ctx), looked=looked)


def _generation(ctx: Context) -> int:
    """The opening that an entry must tell of; 0: any."""
    assert ctx.target is not None
    return 0 if ctx.target.route.immutable or ctx.opened is None else ctx.opened.generation


def _shared(ctx: Context) -> str:
    """The name under which the nodes share it; "" where they do not. A manifest's says what it tells of."""
    target = ctx.target
    assert target is not None
    if ctx.node.tiers.sharing is None:
        return ""
    if not target.route.immutable:
        if ctx.opened is None:
            return ""
        edge, asset = ctx.node.settings.edge, ctx.opened.asset
        head = f"{media.freshness(edge)} {asset.tags if edge.cache_tags else None}"
        return f"{ctx.key}#{fingerprint(asset.presentation)}-{blake2b(head.encode(), digest_size=8).hexdigest()}"
    return ctx.key if may_be_shared(ctx.node, target) else ""


def may_be_shared(node: Node, target: Target) -> bool:
    """Whether what never changes may be small enough for other nodes to have shared it: most segments are not."""
    opened = node.assets.known(target.asset) if target.route.name in ("segment", "ts_segment") else None
    rendition = opened.asset.presentation.renditions.get(target.rendition) if opened is not None else None
    if isinstance(rendition, Rendition) and target.number < rendition.segments:
        return node.tiers.shares(int(rendition.sizes[target.number]))
    return True


def _wants_body(ctx: Context, entry: Entry) -> bool:
    if ctx.request.method != hdrs.METH_GET:
        return False
    return conditional.evaluate(conditional.of(ctx.request.headers), ctx.request.method, entry.etag) == "go on"
