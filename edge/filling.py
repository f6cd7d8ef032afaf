"""Putting an object into the tiers for nobody in particular, by the flights that viewers' requests take."""

from __future__ import annotations

import asyncio
from typing import Literal

from edge.entries import Entry
from edge.node import Node
from edge.tiers.growing import Growing
from edge.tiers.tier import Terms
from streamgate.errors import StreamGateError

Result = Literal["fetched", "present", "dropped"]


async def fill(node: Node, key: str, entry: Entry, terms: Terms) -> Result:
    """Have ``entry`` made and stored, and wait for that.

    "fetched": by us; "present": it is there, or somebody else made it; "dropped": no tier takes it. Raises what making it
    raises, ``fill_lost`` where it does not grow for ``edge.fill_timeout``.
    """
    made, stored, collapsed = await node.tiers.fill(key, entry, terms)
    if not stored:
        return "dropped"
    if isinstance(made.body, Growing):
        await _whole(made.body, node.settings.edge.fill_timeout)
    return "present" if collapsed else "fetched"


async def _whole(body: Growing, timeout: float) -> None:
    while not body.ended:
        try:
            async with asyncio.timeout(timeout):
                await body.beyond(body.written)
        except TimeoutError:
            raise StreamGateError("fill_lost") from None
    if body.error is not None:
        raise StreamGateError(body.error.code, body.error.detail)
