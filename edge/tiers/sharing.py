"""What the nodes of a site share, behind a node's own tiers: where it is looked for, who makes it, and how it gets there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import replace

from edge.entries import Entry
from edge.threads import Pool
from edge.tiers.disk import DiskTier
from edge.tiers.growing import Growing
from edge.tiers.memory import MemoryTier
from edge.tiers.objects import FileBody
from edge.tiers.redis import INDEX, RedisTier
from edge.tiers.shared_flights import SharedFlights
from edge.tiers.tier import Terms
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError

# Bodies on their way to the disk, or from there, at once; beyond it one is left out.
_MOST = 64


class Sharing:
    """``tier`` behind ``memory`` and ``disk``, and ``flights`` in front of whoever makes what it keeps."""

    def __init__(
        self,
        tier: RedisTier,
        flights: SharedFlights,
        memory: MemoryTier,
        disk: DiskTier,
        pool: Pool,
        telemetry: Telemetry,
    ) -> None:
        self.tier = tier
        self._flights = flights
        self._memory = memory
        self._disk = disk
        self._pool = pool
        self._telemetry = telemetry
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def close(self) -> None:
        """Begin nothing more, and give back what is held."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await self._flights.close()
        await self.tier.close()

    async def lookup(self, key: str, name: str, generation: int, terms: Terms, *, cut: bool) -> Entry | None:
        """The entry that is shared as ``name``: the faster tiers take it as ``key``; the disk what is ``cut``."""
        entry = await self.tier.lookup(name)
        return None if entry is None else await self._taken(key, entry, generation, terms, cut)

    async def turn(
        self, key: str, name: str, generation: int, terms: Terms, *, cut: bool, lease: str = ""
    ) -> Entry | None:
        """The same, if another node has made it meanwhile; None: it is to be made here, and :meth:`made` or :meth:`failed`.

        ``lease``: the name of what it is made with, if not alone.
        """
        entry = await self._flights.turn(name, lease)
        return None if entry is None else await self._taken(key, entry, generation, terms, cut)

    def made(self, name: str, entry: Entry, lease: str = "") -> None:
        """It is made, or being made: the other nodes get it when it is whole."""
        if isinstance(entry.body, bytes):
            self._flights.made(name, entry, entry.body, lease)
        elif isinstance(entry.body, Growing | FileBody):
            if name not in self._tasks and self._flights.makes(name, lease):
                self.begin(name, self._share(name, entry, entry.body, lease))
        else:
            self._flights.failed(name, lease)

    def failed(self, name: str, lease: str = "") -> None:
        """It could not be made."""
        self._flights.failed(name, lease)

    def leads(self, lease: str) -> bool:
        """Whether all that has this lease is to be made here; said once."""
        return self._flights.leads(lease)

    async def index(self, key: str) -> bytes | None:
        """The index of a source; None where it is to be read here, and then :meth:`keep` it."""
        entry = await self.tier.lookup(key) or await self._flights.turn(key)
        return entry.body if entry is not None and isinstance(entry.body, bytes) else None

    def keep(self, key: str, data: bytes) -> None:
        """Let the others have the index of a source."""
        self._flights.made(key, Entry("application/octet-stream", INDEX, "no-store", data), data)

    async def _taken(self, key: str, entry: Entry, generation: int, terms: Terms, cut: bool) -> Entry:
        if generation:
            # Its name says that it tells of the asset as it is, which was looked at just now.
            entry = replace(entry, generation=generation, made=int(time.time()))
        await self._memory.on_hit(key, entry, terms)
        if cut and self._disk.writable:
            self.begin(f"disk {key}", self._keep(key, entry, terms))
        self._telemetry.count("tier_hits", tier=self.tier.name)
        return entry

    async def _keep(self, key: str, entry: Entry, terms: Terms) -> None:
        await self._disk.on_hit(key, entry, terms)

    async def _share(self, name: str, entry: Entry, body: Growing | FileBody, lease: str) -> None:
        """Read the body when it is whole, and have it written."""
        try:
            if isinstance(body, Growing):
                await body.beyond(body.size - 1)
                if body.error is not None:
                    raise StreamGateError(body.error.code, body.error.detail)
            self._flights.made(name, entry, await self._pool.run(body.read, 0, body.size), lease)
        finally:
            self._flights.failed(name, lease)  # unless it was made

    def begin(self, name: str, work: Coroutine[None, None, None]) -> None:
        """Have ``work`` done in the background, unless something of this name is, or too much."""
        if name in self._tasks or len(self._tasks) >= _MOST:
            work.close()
            return
        task = self._tasks[name] = asyncio.ensure_future(_quietly(work))
        task.add_done_callback(lambda _: self._tasks.pop(name, None))


async def _quietly(work: Coroutine[None, None, None]) -> None:
    try:
        await work
    except StreamGateError:
        pass  # nobody waits for it
