"""Memory that is bounded in bytes: entries kept for later, and bodies on their way."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterator

from edge.entries import Entry
from streamgate.errors import StreamGateError

# What an entry costs beside its body: its key, its fields, its place in the table.
_OVERHEAD = 1024
# A single entry may take this part of the whole at most, so that one long title does not drive out all others.
_LARGEST_PART = 8


class EntryCache:
    """Entries whose bodies are in memory, the least recently used of which make room for new ones."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self.bytes = 0

    def get(self, key: str) -> Entry | None:
        """The entry called ``key``, which becomes the most recently used one."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def put(self, key: str, entry: Entry) -> None:
        """Keep ``entry``, unless it is too large."""
        size = _size(entry)
        if size > self._limit // _LARGEST_PART:
            return
        self.bytes += size - (_size(self._entries.pop(key)) if key in self._entries else 0)
        self._entries[key] = entry
        while self.bytes > self._limit:
            self.bytes -= _size(self._entries.popitem(last=False)[1])

    def __len__(self) -> int:
        return len(self._entries)


def _size(entry: Entry) -> int:
    return _OVERHEAD + (len(entry.body) if isinstance(entry.body, bytes) else 0)


class Budget:
    """Bytes that may be in memory at once for bodies under way."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.held = 0

    def ample(self, size: int) -> bool:
        """Whether ``size`` more bytes leave half of it free."""
        return self.held + size <= self._limit // 2

    @contextlib.contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Reserve ``size`` bytes; raises ``overloaded`` where they are not left, except for the only holder."""
        if self.held and self.held + size > self._limit:
            raise StreamGateError("overloaded", "too many segments are on their way to clients")
        self.held += size
        try:
            yield
        finally:
            self.held -= size
