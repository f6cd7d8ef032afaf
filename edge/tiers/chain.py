"""The tiers of a node in their order, the flights behind them, and what goes on in the background."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge.cors import Cors
from edge.entries import Entry
from edge.flights import Flights
from edge.threads import Pool
from edge.tiers.disk import DiskTier
from edge.tiers.fills import Fills
from edge.tiers.growing import Growing
from edge.tiers.memory import MemoryTier
from edge.tiers.negatives import Negatives
from edge.tiers.scrub import scrub
from edge.tiers.stored import tier_of
from edge.tiers.tier import CacheTier, Terms
from streamgate.core.settings import EdgeSettings
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError
from streamgate.native.s3fifo import Cache

# A file that is thrown out keeps its room on the disk until every worker has let it go.
_SWEEP_S = 10.0
# One that fails is let go by all who have it open as soon as one of them has seen it.
_LOOK_S = 0.2


class Tiers:
    """Memory, then disk; ``data`` is the folder of the disk tier."""

    def __init__(
        self, settings: EdgeSettings, data: Path, cors: Cors, pool: Pool, flights: Flights, telemetry: Telemetry
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._flights = flights
        self._telemetry = telemetry
        self.memory = MemoryTier(settings, cors, pool)
        self.disk = DiskTier(data, settings.disk_bytes, pool, telemetry, retry=settings.disk_retry)
        self.disk.on_loss = self.memory.forget
        # Coded forms of what is no media: the hot path has no business with them.
        self.pages: Cache[Entry] = Cache(settings.cache_bytes // 8)
        self.negatives = Negatives(settings.failure_ttl)
        self._fills = Fills(self.disk, pool, self.negatives, telemetry)
        self._shallow: Sequence[CacheTier] = (self.memory,)
        self._deep: Sequence[CacheTier] = (self.memory, self.disk)
        self._tasks: list[asyncio.Task[Any]] = []
        telemetry.watch("cache_bytes", lambda: self.memory.index.bytes)

    async def start(self) -> None:
        """Read what is there, and begin what goes on for ever."""
        await self._fills.start()
        await self.disk.start()
        if self.disk.budget:
            work = (self._sweep(), scrub(self.disk, self._pool, self._settings.scrub_rate))
            self._tasks = [asyncio.ensure_future(task) for task in work]

    async def close(self) -> None:
        """End what goes on. Objects stay, what is unfinished goes."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._fills.close()
        self.disk.close()

    async def lookup(self, key: str, generation: int, terms: Terms, *, deep: bool) -> tuple[Entry | None, str]:
        """The entry, of this ``generation``, and the tier that had its body; only ``deep`` on the disk.

        Raises what ``key`` failed with a moment ago.
        """
        self.negatives.check(key)
        tiers = self._deep if deep else self._shallow
        for at, tier in enumerate(tiers):
            entry = await tier.lookup(key)
            if entry is not None and entry.generation == generation:
                if terms.until is not None:
                    entry = replace(entry, made=int(time.time()))  # its asset was looked at just now
                for faster in tiers[: at + 1]:
                    await faster.on_hit(key, entry, terms)
                # An entry of the memory tier may have its body on the disk.
                self._telemetry.count("tier_hits", tier=tier_of(entry))
                return entry, tier_of(entry)
        return None, ""

    async def fill(self, key: str, entry: Entry, terms: Terms) -> tuple[Entry, bool, bool]:
        """An entry whose body is yet to be made, with a body on its way; whether it is stored, and whether somebody
        else had begun it. Raises what its source raises.

        Where the disk takes none, what is small is made in memory, and the rest by each who wants it.
        """
        joined = await self._fills.join(key, entry, self._settings.fill_timeout)
        if joined is not None:
            return joined[0], True, joined[1]
        if isinstance(entry.body, bytes | Growing) or not self.memory.fits(entry.size):
            return entry, False, False
        made = replace(entry, body=await self._flights.join(key, entry.body.read, 0, entry.size))
        return made, self.memory.put(key, made, terms), False

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        swept, seen = loop.time(), 0
        while True:
            await asyncio.sleep(_LOOK_S)
            with contextlib.suppress(StreamGateError):  # overloaded: the next time
                removals = await self._pool.run(self.disk.look)
                if removals != seen or loop.time() - swept >= _SWEEP_S:
                    await self._pool.run(self.memory.sweep, self.disk.keep_hot)
                    swept, seen = loop.time(), removals
