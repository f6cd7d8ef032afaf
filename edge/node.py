"""What one edge process has: handed to every request by its context."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edge.access_log import open_access_log
from edge.assets import Assets, Library
from edge.authorize import Gate
from edge.budget import Budget
from edge.cors import Cors
from edge.flights import Flights
from edge.limits import RateLimits
from edge.proxies import Proxies
from edge.revocations import Revocations
from edge.threads import Pool
from edge.tiers.chain import Tiers
from streamgate.core.health import Health
from streamgate.core.settings import Settings
from streamgate.core.telemetry import Telemetry
from streamgate.native.accesslog import AccessLog
from streamgate.native.cat import Verifier


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
    gate: Gate
    tiers: Tiers
    budget: Budget
    proxies: Proxies
    rates: RateLimits
    access: AccessLog | None
    close: Callable[[], None]
    revocations: Revocations = field(default_factory=Revocations)


def make_node(
    settings: Settings,
    library: Library,
    telemetry: Telemetry,
    health: Health,
    verifier: Verifier | None = None,
    limits: int | None = None,
    *,
    replacing: bool = False,
) -> Node:
    """A node that serves ``library`` to whom ``verifier`` believes (nobody, where there is none); ``close`` it at the end.

    ``limits`` is a descriptor of the memory in which all processes of the node count requests. ``replacing``: the process
    takes the place of one that died, and what the other could do without does not keep it from serving.
    """
    edge = settings.edge
    pool = Pool("work", edge.threads, edge.max_queued, telemetry)
    openers = Pool("open", edge.open_threads, edge.max_queued, telemetry)
    cors, budget, flights = Cors(edge), Budget(edge.buffered_bytes), Flights(pool)
    data = settings.server.data_folder if edge.disk_bytes else Path()
    telemetry.watch("buffered_bytes", lambda: budget.held)

    assets = Assets(library, openers, edge, telemetry)
    proxies = Proxies(settings.server.trusted_proxies)
    gate = Gate(assets, edge, verifier or Verifier(), proxies)
    access, close_log = open_access_log(settings.log, telemetry, replacing=replacing)

    def close() -> None:
        gate.stop()
        pool.close()
        openers.close()
        close_log()

    node = Node(
        settings=settings,
        telemetry=telemetry,
        health=health,
        cors=cors,
        pool=pool,
        flights=flights,
        assets=assets,
        gate=gate,
        tiers=Tiers(edge, data, cors, pool, flights, telemetry),
        budget=budget,
        proxies=proxies,
        rates=RateLimits(settings.limits, limits),
        access=access,
        close=close,
    )
    node.revocations.attach(gate.verifier)
    return node
