"""The indexes of sources in the disk tier."""

from __future__ import annotations

from edge.entries import Entry
from edge.tiers.disk import DiskTier


class DiskIndexes:
    """What :class:`streamgate.storage.indexes.IndexStore` asks for; both block."""

    def __init__(self, disk: DiskTier) -> None:
        self._disk = disk

    def get(self, key: str) -> bytes | None:
        """What was kept under ``key``, checked if this is the first use since the node started."""
        return self._disk.get(key)

    def keep(self, key: str, data: bytes) -> bool:
        """Keep it, if the disk takes it."""
        return self._disk.keep(key, Entry("application/octet-stream", "index", "no-store", data), data)
