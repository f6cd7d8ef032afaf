"""What one edge process has: handed to every request by its context."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edge import routes
from edge.access_log import open_access_log
from edge.assets import Assets, Library
from edge.authorize import Gate
from edge.budget import Budget
from edge.cmcd_log import open_cmcd_log
from edge.conditions import Conditions
from edge.cors import Cors
from edge.flights import Flights
from edge.foreign import Foreign
from edge.freshness import Freshness
from edge.geo import Atlas
from edge.leases import Leasing
from edge.limits import RateLimits, end
from edge.once import Once
from edge.origin.extents import Memory
from edge.origin.sharing import Origin
from edge.prefetched import Prefetched
from edge.proxies import Proxies
from edge.purges import Purges
from edge.renewal import Renewing
from edge.revocations import Revocations
from edge.threads import Pool
from edge.tiers.chain import Tiers
from streamgate.core.health import Health
from streamgate.core.settings import Settings
from streamgate.core.telemetry import Telemetry
from streamgate.native.accesslog import AccessLog
from streamgate.native.cat import Verifier
from streamgate.native.cmcd import CmcdLog
from streamgate.native.slabs import Slabs
from streamgate.storage.sights import Sights


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
    atlas: Atlas
    once: Once
    tiers: Tiers
    budget: Budget
    proxies: Proxies
    rates: RateLimits
    leasing: Leasing
    access: AccessLog | None
    reports: CmcdLog | None
    prefetched: Prefetched
    close: Callable[[], None]
    revocations: Revocations
    feed: Freshness
    renewing: Renewing
    purges: Purges = field(default_factory=Purges)


def make_node(
    settings: Settings,
    library: Library,
    telemetry: Telemetry,
    health: Health,
    verifier: Verifier | None = None,
    limits: int | None = None,
    *,
    auth: str = "",
    replacing: bool = False,
    remote: bool = False,
) -> Node:
    """A node that serves ``library`` to whom ``verifier`` believes (nobody, where there is none); ``close`` it at the end.

    ``limits`` is a descriptor of the memory in which all processes of the node count requests, and what they fetch ahead.
    ``replacing``: the process takes the place of one that died, and what the other could do without does not keep it from
    serving. ``remote``: what the library opens lies in a store. ``auth``: the auth role's socket, "" where there is none.
    """
    edge = settings.edge
    pool = Pool("work", edge.threads, edge.max_queued, telemetry)
    openers = Pool("open", settings.origin.open_threads if remote else edge.open_threads, edge.max_queued, telemetry)
    cors, budget, flights = Cors(edge), Budget(edge.buffered_bytes), Flights(pool)
    data = settings.server.data_folder if edge.disk_bytes else Path()
    telemetry.watch("buffered_bytes", lambda: budget.held)

    origin = None
    slabs = Slabs(settings.origin.held_bytes // 2)
    if remote:
        memory = Memory(settings.origin.held_bytes, slabs)
        origin = Origin(str(settings.server.data_folder), memory, pool, telemetry, edge.leader_silence)
    far = settings.origin
    intervals = (far.revalidate, far.list_interval, far.stale) if remote else None
    assets = Assets(library, openers, edge, telemetry, origin=origin, intervals=intervals)
    proxies = Proxies(settings.server.trusted_proxies)
    gate = Gate(assets, edge, verifier or Verifier(), proxies)
    others, rates = (
        settings.foreign,
        RateLimits(settings.limits, limits, settings.foreign.checks_per_network, settings.auth.renewals_per_session),
    )
    checkers = Pool("foreign", 1, edge.max_authorizing, telemetry)
    # A token stays there until its exp: many times what one worker remembers.
    sights = Sights(settings.server.data_folder / "foreign.sqlite", 16 * others.remembered)
    gate.foreign = Foreign(gate.verifier, checkers, rates.by_network, sights, others.max_life)
    atlas, once = Atlas(settings.geoip, required=not replacing), Once(settings)
    conditions = Conditions(settings.conditions, atlas, once)
    gate.slow, gate.told = conditions.check, conditions.told
    revocations, feed = Revocations(), Freshness(None)
    leasing = Leasing(settings, auth, revocations, telemetry, lambda: feed.stale, gate.verifier)
    access, close_log = open_access_log(settings.log, telemetry, replacing=replacing)
    reports, close_reports = open_cmcd_log(settings.log, telemetry, replacing=replacing)

    tiers = Tiers(edge, data, cors, pool, flights, telemetry, budget, slabs)
    tiers.memory.guarded = lambda key: bool(assets.embeds(routes.asset_of(key)))
    assets.on_guarded = lambda asset: tiers.memory.forget_below(f"/v/{asset}/")

    def close() -> None:
        gate.stop()
        if origin is not None:
            origin.close()
        pool.close()
        openers.close()
        checkers.close()
        sights.close()
        close_log()
        close_reports()

    def wasted(size: int) -> None:
        telemetry.count("prefetches", result="wasted")
        telemetry.count("prefetch_bytes", size, result="wasted")

    node = Node(
        settings=settings,
        telemetry=telemetry,
        health=health,
        cors=cors,
        pool=pool,
        flights=flights,
        assets=assets,
        gate=gate,
        atlas=atlas,
        once=once,
        tiers=tiers,
        budget=budget,
        proxies=proxies,
        rates=rates,
        leasing=leasing,
        revocations=revocations,
        feed=feed,
        renewing=Renewing(rates.by_session, telemetry),
        access=access,
        reports=reports,
        prefetched=Prefetched(
            settings.prefetch.remembered,
            -1 if limits is None else limits,
            0 if limits is None else end(settings.limits),
            wasted=wasted,
        ),
        close=close,
        purges=Purges(settings.purge.most, assets.tags),
    )
    node.revocations.attach(gate.verifier)
    gate.foreign.revoked = lambda digest: revocations.until("revoke.token", digest)
    revocations.on_token = gate.foreign.revoke
    node.tiers.memory.purges = node.tiers.disk.purges = node.purges
    telemetry.watch("site_feed_stale", lambda: float(node.feed.stale))
    health.note(feed.problem)
    health.note(leasing.problem)
    return node
