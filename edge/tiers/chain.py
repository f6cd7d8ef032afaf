"""The tiers of a node in their order, the flights behind them, and what goes on in the background."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge.budget import Budget
from edge.cors import Cors
from edge.entries import Entry, Fetched
from edge.flights import Flights
from edge.threads import Pool
from edge.tiers.disk import DiskTier
from edge.tiers.fills import Fills
from edge.tiers.growing import Growing
from edge.tiers.memory import MemoryTier
from edge.tiers.negatives import Negatives
from edge.tiers.redis import open_tier
from edge.tiers.scrub import scrub
from edge.tiers.shared_flights import SharedFlights
from edge.tiers.sharing import Sharing
from edge.tiers.stored import tier_of
from edge.tiers.tier import CacheTier, Terms
from streamgate.core.settings import EdgeSettings, RedisSettings
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError
from streamgate.native.s3fifo import Cache
from streamgate.native.slabs import Slabs

# A file that is thrown out keeps its room on the disk until every worker has let it go.
_SWEEP_S = 10.0
# One that fails is let go by all who have it open as soon as one of them has seen it.
_LOOK_S = 0.2


class Tiers:
    """Memory, then disk, then what the nodes of a site share; ``data`` is the folder of the disk tier."""

    def __init__(
        self,
        settings: EdgeSettings,
        data: Path,
        cors: Cors,
        pool: Pool,
        flights: Flights,
        telemetry: Telemetry,
        budget: Budget | None = None,
        slabs: Slabs | None = None,
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._flights = flights
        self._telemetry = telemetry
        self.memory = MemoryTier(settings, cors, pool)
        # The disk has threads of its own: where it hangs they do, and no others.
        self._disk_pool = Pool("disk", settings.threads, settings.max_queued, telemetry)
        self.disk = DiskTier(
            data,
            settings.disk_bytes,
            self._disk_pool,
            telemetry,
            retry=settings.disk_retry,
            patience=settings.disk_patience,
            direct=settings.disk_direct,
        )
        self.disk.on_loss = self.memory.forget
        # Coded forms of what is no media: the hot path has no business with them.
        self.pages: Cache[Entry] = Cache(settings.cache_bytes // 8)
        self.negatives = Negatives(settings.failure_ttl)
        self._fills = Fills(self.disk, pool, self.negatives, telemetry, budget, slabs, settings.leader_silence)
        self._shallow: Sequence[CacheTier] = (self.memory,)
        self._deep: Sequence[CacheTier] = (self.memory, self.disk)
        # What the nodes of a site share, if there is such a thing.
        self.sharing: Sharing | None = None
        self._tasks: list[asyncio.Task[Any]] = []
        # Told of what is served although it was purged softly: it is to be fetched again.
        self.on_stale: Callable[[str], None] = lambda key: None
        telemetry.watch("cache_bytes", lambda: self.memory.index.bytes)
        telemetry.watch("cache_objects", lambda: len(self.memory.index))

    @property
    def filling(self) -> int:
        """Objects that are being made in this process, or are followed by it."""
        return self._fills.under_way

    async def start(self) -> None:
        """Read what is there, and begin what goes on for ever."""
        await self._fills.start()
        await self.disk.start()
        if self.disk.budget:
            work = (self._sweep(), scrub(self.disk, self._disk_pool, self._settings.scrub_rate))
            self._tasks = [asyncio.ensure_future(task) for task in work]

    async def share(self, settings: RedisSettings) -> Sharing:
        """Share with the other nodes from now on, whether or not Redis answers. Raises ``config_invalid``."""
        tier = await open_tier(settings, self._pool, self._telemetry)
        # A manifest's name goes on behind its path.
        tier.refuses = lambda key, entry: self.disk.purges.after(key.partition("#")[0], entry.made)
        flights = SharedFlights(tier, self._telemetry, settings.lease)
        self.sharing = Sharing(tier, flights, self.memory, self.disk, self._pool, self._telemetry)
        return self.sharing

    async def close(self) -> None:
        """End what goes on. Objects stay, what is unfinished goes."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._fills.close()
        if self.sharing is not None:
            await self.sharing.close()
        self.disk.close()
        self._disk_pool.close()

    async def lookup(
        self, key: str, generation: int, terms: Terms, *, deep: bool, shared: str = ""
    ) -> tuple[Entry | None, str]:
        """The entry, of this ``generation``, and the tier that had its body; only ``deep`` on the disk, and not in Redis
        unless it is ``shared`` under that name.

        Raises what ``key`` failed with a moment ago: to be made anew, perhaps, so what there is goes first.
        """
        if deep and (made := await self._fills.settled(key)) is not None and made.generation == generation:
            # No disk is in the way of what is in memory.
            self._telemetry.count("tier_hits", tier=tier_of(made))
            return made, tier_of(made)
        tiers = self._deep if deep else self._shallow
        for at, tier in enumerate(tiers):
            entry = await tier.lookup(key)
            if entry is not None and entry.generation == generation:
                if terms.until is not None:
                    entry = replace(entry, made=int(time.time()))  # its asset was looked at just now
                for faster in tiers[: at + 1]:
                    await faster.on_hit(key, entry, terms)
                if entry.stale:
                    self.on_stale(key)
                # An entry of the memory tier may have its body on the disk.
                self._telemetry.count("tier_hits", tier=tier_of(entry))
                return entry, tier_of(entry)
        self.negatives.check(key)
        if shared and self.sharing is not None:
            entry = await self.sharing.lookup(key, shared, generation, terms, cut=deep)
            if entry is not None:
                return entry, self.sharing.tier.name
        return None, ""

    def shares(self, size: int) -> bool:
        """Whether the nodes share a segment of ``size`` bytes."""
        return self.sharing is not None and self.sharing.tier.takes(size)

    async def fill(self, key: str, entry: Entry, terms: Terms, *, looked: bool = False) -> tuple[Entry, bool, bool]:
        """An entry whose body is yet to be made, with a body on its way; whether it is stored, and whether somebody
        else had begun it, here or on another node. Raises what its source raises.

        Where the disk takes none, what is small is made in memory, and the rest by each who wants it, as is what was
        purged since the entry was made. ``looked``: it is not in Redis, as far as the caller knows.
        """
        if self.sharing is None or not self.sharing.tier.takes(entry.size):
            return await self._fill(key, entry, terms)
        lease = entry.body.read_as if isinstance(entry.body, Fetched) else ""
        found = None if looked else await self.sharing.lookup(key, key, 0, terms, cut=True)
        if found is None:
            found = await self.sharing.turn(key, key, 0, terms, cut=True, lease=lease)
        if found is not None:
            return found, True, True
        try:
            filled = await self._fill(key, entry, terms)
        except BaseException:
            self.sharing.failed(key, lease)
            raise
        self.sharing.made(key, filled[0], lease)
        if lease and self.sharing.leads(lease) and isinstance(entry.body, Fetched):
            # What it was made of is here now. Whoever wants the others of it waits for them, and does not read it again.
            for other, beside in entry.body.beside():
                if self.sharing.tier.takes(beside.size):
                    self.sharing.begin(f"beside {other}", self._also(other, beside, terms))
        return filled

    async def _also(self, key: str, entry: Entry, terms: Terms) -> None:
        await self.fill(key, entry, terms, looked=True)

    async def _fill(self, key: str, entry: Entry, terms: Terms) -> tuple[Entry, bool, bool]:
        if self.disk.purges.since(key, entry.born):
            return entry, False, False
        joined = await self._fills.join(key, entry, self._settings.fill_timeout)
        if joined is not None:
            return joined[0], True, joined[1]
        small = self.memory.fits(entry.size) or self.shares(entry.size)
        if isinstance(entry.body, bytes | Growing) or not small:
            return entry, False, False
        if isinstance(entry.body, Fetched):
            body = await entry.body.fetch(0, entry.size)
        else:
            body = await self._flights.join(key, entry.body.read, 0, entry.size)
        made = replace(entry, body=body)
        return made, self.memory.put(key, made, terms), False

    def detach(self, meant: Callable[[str], bool]) -> list[str]:
        """Let nobody else join the flights for the keys that are ``meant``; those of objects that are on their way."""
        self._flights.detach()
        return self._fills.detach(meant)

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        swept, seen = loop.time(), 0
        while True:
            await asyncio.sleep(_LOOK_S)
            with contextlib.suppress(StreamGateError):  # overloaded: the next time
                removals = await self._disk_pool.run(self.disk.look)
                if removals != seen or loop.time() - swept >= _SWEEP_S:
                    await self._disk_pool.run(self.memory.sweep, self.disk.keep_hot)
                    swept, seen = loop.time(), removals
