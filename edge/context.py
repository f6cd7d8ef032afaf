"""The one object that travels through the phases of a request."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web

from edge.assets import Opened
from edge.entries import Entry
from edge.node import Node
from edge.routes import Target


@dataclass(slots=True)
class Context:
    """A request on its way; each phase reads what earlier ones wrote.

    ``mounts`` are prefixes that other applications answer.
    ``scope`` is Cache-Control's: "public" for what everybody may see. ``sent`` counts bytes of the body.
    ``aborted`` names what cut the response short. ``timings`` are seconds by phase.
    """

    request: web.Request
    node: Node
    mounts: tuple[str, ...] = ()
    started: float = field(default_factory=time.perf_counter)
    path: str = ""
    route: str = "other"
    target: Target | None = None
    scope: str = "public"
    key: str = ""
    opened: Opened | None = None
    entry: Entry | None = None
    hit: bool = False
    response: web.StreamResponse | None = None
    sent: int = 0
    code: str = ""
    aborted: str = ""
    timings: dict[str, float] = field(default_factory=dict)

    async def run(self, phase: Callable[[Context], Awaitable[None]]) -> None:
        """Run one phase and note how long it took, whether it succeeded or not."""
        began = time.perf_counter()
        try:
            await phase(self)
        finally:
            self.timings[phase.__name__] = time.perf_counter() - began

    @property
    def elapsed(self) -> float:
        """Seconds since the request's head was there."""
        return time.perf_counter() - self.started

    def server_timing(self) -> str:
        """The phases so far as a Server-Timing field (W3C Server Timing), in milliseconds."""
        return ", ".join(f"{name};dur={seconds * 1000:.2f}" for name, seconds in self.timings.items())


CONTEXT = web.RequestKey("context", Context)
