"""Between a request and the tiers: what is looked for where, what is made on a miss, and where that is kept."""

from __future__ import annotations

import time
from dataclasses import replace

from aiohttp import hdrs

from edge import conditional, media
from edge.context import Context
from edge.entries import Entry
from edge.tiers.tier import Terms
from streamgate.errors import StreamGateError


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
    found, tier = await ctx.node.tiers.lookup(ctx.key, _generation(ctx), terms(ctx), deep=deep)
    if found is not None:
        ctx.entry, ctx.tier = found, tier


async def make(ctx: Context) -> Entry:
    """The entry that no tier has; a path below a rendition that there is not is remembered for a while."""
    assert ctx.target is not None and ctx.opened is not None
    arguments = (ctx.target, ctx.opened, ctx.node.settings.edge)
    try:
        if ctx.target.route.name in media.QUICK:
            return media.build(*arguments)
        key = f"{ctx.key}#{_generation(ctx)}"
        return replace(await ctx.node.flights.join(key, media.build, *arguments), generation=_generation(ctx))
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
    elif _wants_body(ctx, ctx.entry):
        ctx.entry, ctx.stored, ctx.collapsed = await tiers.fill(ctx.key, ctx.entry, terms(ctx))


def _generation(ctx: Context) -> int:
    """The opening that an entry must tell of; 0: any."""
    assert ctx.target is not None
    return 0 if ctx.target.route.immutable or ctx.opened is None else ctx.opened.generation


def _wants_body(ctx: Context, entry: Entry) -> bool:
    if ctx.request.method != hdrs.METH_GET:
        return False
    return conditional.evaluate(conditional.of(ctx.request.headers), ctx.request.method, entry.etag) == "go on"
