"""What one edge process has: handed to every request by its context."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edge.assets import Assets, Library
from edge.cache import Budget, EntryCache
from edge.cors import Cors
from edge.flights import Flights
from edge.threads import Pool
from streamgate.core.health import Health
from streamgate.core.settings import Settings
from streamgate.core.telemetry import Telemetry


@dataclass(frozen=True)
class Node:
    """Settings, telemetry, and everything bounded: threads, memory, open assets."""

    settings: Settings
    telemetry: Telemetry
    health: Health
    cors: Cors
    pool: Pool
    flights: Flights
    assets: Assets
    cache: EntryCache
    budget: Budget
    close: Callable[[], None]


def make_node(settings: Settings, library: Library, telemetry: Telemetry, health: Health) -> Node:
    """A node that serves ``library``; ``close`` it at the end."""
    edge = settings.edge
    pool = Pool("work", edge.threads, edge.max_queued, telemetry)
    openers = Pool("open", edge.open_threads, edge.max_queued, telemetry)
    cache, budget = EntryCache(edge.cache_bytes), Budget(edge.buffered_bytes)
    telemetry.watch("cache_bytes", lambda: cache.bytes)
    telemetry.watch("buffered_bytes", lambda: budget.held)

    def close() -> None:
        pool.close()
        openers.close()

    return Node(
        settings=settings,
        telemetry=telemetry,
        health=health,
        cors=Cors(edge),
        pool=pool,
        flights=Flights(pool),
        assets=Assets(library, openers, edge, telemetry),
        cache=cache,
        budget=budget,
        close=close,
    )
