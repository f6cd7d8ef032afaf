"""Hits in Redis on the native path: a head waits for them outside of C, and is then answered there like any other.

The hot path asks for what is not in memory as it asks for what can be cut, when it knows that the client may have it. What may
be in Redis is noted, and the head goes to the connection's handler, which keeps it until Redis has answered: then the hot
path gets it again, or aiohttp gets it, which knows that Redis has nothing.
"""

from __future__ import annotations

import asyncio

from edge import media, storing
from edge.cors import Cors
from edge.cutting import Cutter
from edge.entries import Entry
from edge.node import Node
from edge.routes import ROUTES, match
from edge.tiers.stored import stored
from edge.tiers.tier import Terms
from streamgate.core.logging import get_logger
from streamgate.errors import StreamGateError
from streamgate.native.hotpath import Protocol, Stored

_log = get_logger("edge.shared_hits")
# Texts go out in the coding that a client prefers, which the other way makes.
_ROUTES = tuple(route for route in ROUTES if route.name == "init" or route.name in media.CUT)


class Wanted:
    """What a client may have and is not in memory."""

    __slots__ = ("gated", "key", "route")

    def __init__(self, key: str, gated: bool, route: str) -> None:
        self.key = key
        self.gated = gated
        self.route = route

    @property
    def terms(self) -> Terms:
        """How it may be given away."""
        return Terms("private" if self.gated else "public", self.route)


class Asker:
    """Called by the hot path in the place of ``cutter``, which is asked first."""

    def __init__(self, node: Node, cutter: Cutter | None) -> None:
        self._node = node
        self._cors = Cors(node.settings.edge)
        self._cutter = cutter
        self._wanted: Wanted | None = None
        self._here: Stored | None = None

    def __call__(self, path: bytes, gated: bool) -> Stored | None:
        """What can be sent now; else it is noted, if Redis may have it, for the handler that is called next."""
        here, self._here = self._here, None
        if here is not None:
            return here
        cut = self._cutter(path, gated) if self._cutter is not None else None
        if cut is None:
            self._wanted = self._want(path.decode("latin-1"), gated)
        return cut

    def ask(self) -> tuple[Wanted, asyncio.Future[Entry | None]] | None:
        """What was noted for the head that the handler got just now, and the answer on its way."""
        wanted, self._wanted = self._wanted, None
        sharing = self._node.tiers.sharing
        future = sharing.tier.ask(wanted.key) if wanted is not None and sharing is not None else None
        return (wanted, future) if wanted is not None and future is not None else None

    def send(self, protocol: Protocol, head: bytes, wanted: Wanted, entry: Entry) -> bool:
        """Have ``head`` answered with ``entry``, and let memory take it; False: somebody else must answer."""
        edge, tiers = self._node.settings.edge, self._node.tiers
        try:
            self._here = stored(entry, wanted.terms, self._cors, edge.compress_min, "redis")
            sent = protocol.again(head)
        except Exception:  # who waits must be answered, whatever is wrong with what came
            _log.exception("an entry of Redis cannot be sent")
            return False
        finally:
            self._here = self._wanted = None
        if sent:
            self._node.telemetry.count("tier_hits", tier="redis")
            tiers.memory.put(wanted.key, entry, wanted.terms)
        return sent

    def _want(self, key: str, gated: bool) -> Wanted | None:
        node = self._node
        sharing = node.tiers.sharing
        if sharing is None or not sharing.tier.readable:
            return None
        try:
            target = match(key, _ROUTES)
            node.tiers.negatives.check(key)
        except StreamGateError:
            return None  # whoever answers will tell
        if node.assets.embeds(target.asset):
            return None  # the answer depends on who asks
        # The disk comes first, and is asked in a thread.
        if target.route.name in media.CUT and node.tiers.disk.budget or not storing.may_be_shared(node, target):
            return None
        return Wanted(key, gated, target.route.name)
