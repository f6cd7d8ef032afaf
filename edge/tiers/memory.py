"""The memory tier of one worker: the index that the hot path asks, by S3-FIFO.

Small bodies are in memory. A larger one stays in the disk tier's file, which is kept open: the kernel has it in its own
cache, and sends it from there.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace

from edge.ceilings import kept_objects
from edge.cors import Cors
from edge.entries import Entry
from edge.purges import Purges
from edge.threads import Pool
from edge.tiers.objects import FileBody
from edge.tiers.stored import stored
from edge.tiers.tier import Terms
from streamgate.core.lifecycle import file_limit
from streamgate.core.settings import EdgeSettings
from streamgate.errors import StreamGateError
from streamgate.native.s3fifo import Cache
from streamgate.native.stored import Stored

# What an entry costs beside its body: its key, its head, its place in the table.
_OVERHEAD = 1024


class MemoryTier:
    """At most ``edge.cache_bytes``: bodies up to ``edge.memory_object`` in memory, and ``edge.open_objects`` open files.

    Of the files that the process may open a quarter at most are these.
    """

    name = "memory"

    def __init__(self, settings: EdgeSettings, cors: Cors, pool: Pool) -> None:
        capacity = settings.cache_bytes
        self.index: Cache[Stored] = Cache(capacity)
        self._largest = settings.memory_object
        self._compress_min = settings.compress_min
        # An open file takes a place like this many bytes: so one eviction serves both limits.
        files = kept_objects(settings, file_limit())
        self._file_cost = max(_OVERHEAD, capacity // files)
        self._cors = cors
        self._pool = pool
        self._taking: set[str] = set()
        self.purges = Purges()
        # Whose answers depend on who asks: the hot path is to leave them to others.
        self.guarded: Callable[[str], bool] = lambda _: False
        self._files: weakref.WeakValueDictionary[str, FileBody] = weakref.WeakValueDictionary()

    async def lookup(self, key: str) -> Entry | None:
        """The entry, if it is here."""
        return self.get(key)

    async def on_hit(self, key: str, entry: Entry, terms: Terms) -> None:
        """Take what a slower tier had; write the head of what is here anew where the terms have changed."""
        found = self.index.peek(key.encode())
        known = found is not None and found.tag == entry.etag.encode() and found.gated == (terms.scope != "public")
        if (not known or terms.until is not None) and key not in self._taking:
            self._taking.add(key)
            try:
                await self._take(key, entry, terms)
            finally:
                self._taking.discard(key)

    async def on_miss(self, key: str, entry: Entry, terms: Terms) -> bool:
        """Take what was made."""
        return await self._take(key, entry, terms)

    async def remove(self, key: str) -> bool:
        """Forget it."""
        return self.index.remove(key.encode())

    def get(self, key: str) -> Entry | None:
        """As :meth:`lookup`, at once."""
        found = self.index.get(key.encode())
        entry = found.owner if found is not None else None
        return entry if isinstance(entry, Entry) else None

    def fits(self, size: int) -> bool:
        """Whether a body of this size is kept in memory."""
        return size <= self._largest and size + _OVERHEAD <= self.index.capacity // 10

    def put(self, key: str, entry: Entry, terms: Terms) -> bool:
        """Keep an entry whose body is in memory or an open file; whether it is here."""
        body = entry.body
        if isinstance(body, bytes) and not self.fits(len(body)):
            return False
        if not entry.stale:
            verdict = self.purges.since(key, entry.born)
            if verdict == "hard":
                return False
            entry = replace(entry, stale=True) if verdict else entry
        if entry.stale or self.guarded(key):
            # Who asks for it next is to be noticed.
            terms = replace(terms, until=0)
        made = stored(entry, terms, self._cors, self._compress_min)
        if made is None:
            return False
        size = _OVERHEAD + len(body) if isinstance(body, bytes) else self._file_cost
        kept = self.index.put(key.encode(), made, size)
        if kept and isinstance(body, FileBody):
            self._files[key] = body
        return kept

    def forget_below(self, beginning: str) -> None:
        """Forget all whose keys begin so."""
        for key in self.index.keys(beginning.encode()):
            self.index.remove(key)

    def forget(self, key: str, body: FileBody) -> None:
        """Let go of an entry whose body is this one."""
        found = self.index.peek(key.encode())
        if found is not None and isinstance(found.owner, Entry) and found.owner.body is body:
            self.index.remove(key.encode())

    def purge(self, key: bytes, *, soft: bool) -> bool:
        """Forget what is here under ``key`` and was made before now, or serve it on while it is fetched again: ``soft``."""
        found = self.index.peek(key)
        entry = found.owner if found is not None else None
        if found is None or not soft or not isinstance(entry, Entry) or b";" in key:
            return self.index.remove(key)
        terms = Terms("private" if found.gated else "public", found.route)
        return self.put(key.decode(), replace(entry, stale=True), terms)

    async def renew(self, key: str) -> None:
        """Forget what is stale."""
        found = self.index.peek(key.encode())
        if found is not None and isinstance(found.owner, Entry) and found.owner.stale:
            self.index.remove(key.encode())

    def sweep(self, hot: Callable[[FileBody], None]) -> int:
        """Let go of files that were thrown out of the disk tier, and call ``hot`` with the others; how many went."""
        gone = 0
        for key, body in list(self._files.items()):
            if body.gone():
                gone += self.index.remove(key.encode())
            else:
                hot(body)
        return gone

    async def _take(self, key: str, entry: Entry, terms: Terms) -> bool:
        body = entry.body
        if isinstance(body, FileBody) and self.fits(body.size):
            try:
                entry = replace(entry, body=await self._pool.run(body.read, 0, body.size))
            except StreamGateError:
                return False
        return self.put(key, entry, terms)
