"""The one object that travels through the phases of a request."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web

from edge import heads
from edge.assets import Opened
from edge.entries import Entry
from edge.node import Node
from edge.paths import without_secrets
from edge.renewal import Renewed
from edge.routes import Target
from streamgate.native.cat import Token
from streamgate.native.leases import Lease


@dataclass(slots=True)
class Context:
    """A request on its way; each phase reads what earlier ones wrote.

    ``mounts`` are prefixes that other applications answer. ``peer`` is the packed address that the connection is
    from, ``client`` that of who asks as trusted proxies tell, b"" where not known.
    ``path`` is canonical and behind any token; ``media``: it lies below ``/v/``, and ``asset`` is what it belongs to.
    ``credential`` is the token as it was sent, and where (``path``, ``header``, ``query``, ``cookie``); ``token`` is the same
    when it has opened the asset; ``stale``: the site's feed was too old by then, and somebody else may have revoked it.
    ``renewed`` is the next token, which the answer brings.
    ``scope`` is Cache-Control's: "public" for what everybody may see. ``sent`` counts bytes of the body.
    ``shared`` is the name under which the tier that nodes share was asked. ``tier`` had the entry, if any ``asked`` did; else it was made, and is ``stored``, perhaps by a flight that somebody
    else had begun: ``collapsed``. ``aborted`` names what cut the response short; ``follow`` is told of the lease by whose end :meth:`cut` is
    to be called. ``timings`` are seconds by phase.
    """

    request: web.Request
    node: Node
    mounts: tuple[str, ...] = ()
    started: float = field(default_factory=time.perf_counter)
    peer: bytes = b""
    client: bytes = b""
    path: str = ""
    route: str = "other"
    media: bool = False
    asset: str = ""
    target: Target | None = None
    credential: tuple[str, str] | None = None
    token: Token | None = None
    stale: bool = False
    renewed: Renewed | None = None
    scope: str = "public"
    key: str = ""
    shared: str = ""
    opened: Opened | None = None
    entry: Entry | None = None
    hit: bool = False
    asked: bool = False
    tier: str = ""
    stored: bool = False
    collapsed: bool = False
    response: web.StreamResponse | None = None
    sent: int = 0
    code: str = ""
    aborted: str = ""
    follow: Callable[[Lease, Token, Callable[[], None]], None] = lambda *_: None
    timings: dict[str, float] = field(default_factory=dict)

    async def run(self, phase: Callable[[Context], Awaitable[None]]) -> None:
        """Run one phase and note how long it took, whether it succeeded or not."""
        began = time.perf_counter()
        try:
            await phase(self)
        finally:
            self.timings[phase.__name__] = time.perf_counter() - began

    def cut(self) -> None:
        """End the connection, for who gets the answer may not have it any more."""
        self.aborted = self.aborted or "lease"
        if self.request.transport is not None:
            self.request.transport.abort()

    @property
    def elapsed(self) -> float:
        """Seconds since the request's head was there."""
        return time.perf_counter() - self.started

    @property
    def known_path(self) -> str:
        """The path behind any token; of one that matches no route what is as long as a token is left out."""
        return self.path if self.target is not None else without_secrets(self.path)

    @property
    def shown(self) -> str:
        """The path as logs have it: in the place of a token the beginning of its session's handle, if it was believed."""
        if self.credential is None or self.credential[1] != "path":
            return self.known_path
        return f"/t/~{self.token.session[:4].hex() if self.token is not None else ''}{self.known_path}"

    def cache_status(self) -> str:
        """What the tiers had to do with it, as a Cache-Status field."""
        return heads.cache_status(self.tier, asked=self.asked, stored=self.stored, collapsed=self.collapsed)

    def server_timing(self) -> str:
        """The phases so far as a Server-Timing field (W3C Server Timing), in milliseconds."""
        return ", ".join(f"{name};dur={seconds * 1000:.2f}" for name, seconds in self.timings.items())


CONTEXT = web.RequestKey("context", Context)
