"""The indexes of sources in the disk tier and in Redis, for the threads that open assets."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as LateError

from edge.entries import Entry
from edge.tiers.disk import DiskTier
from edge.tiers.redis import INDEX
from edge.tiers.sharing import Sharing
from streamgate.core.settings import RedisSettings
from streamgate.errors import StreamGateError
from streamgate.storage.indexes import IndexStore


class DiskIndexes:
    """What :class:`streamgate.storage.indexes.IndexStore` asks for; both block."""

    def __init__(self, disk: DiskTier) -> None:
        self._disk = disk

    def get(self, key: str) -> bytes | None:
        """What was kept under ``key``, checked if this is the first use since the node started."""
        with contextlib.suppress(StreamGateError):
            return self._disk.threads.wait(self._disk.get, key)
        return None

    def keep(self, key: str, data: bytes) -> bool:
        """Keep it, if the disk takes it."""
        entry = Entry("application/octet-stream", INDEX, "no-store", data)
        with contextlib.suppress(StreamGateError):
            return self._disk.threads.wait(self._disk.keep, key, entry, data)
        return False


class SharedIndexes:
    """``near``, then what the nodes share; both block. To be made in the loop that does the sharing, and called in threads.

    An index that another node reads is waited for, for as long as a lease lasts.
    """

    def __init__(self, near: IndexStore, sharing: Sharing, settings: RedisSettings) -> None:
        self._near = near
        self._sharing = sharing
        self._loop = asyncio.get_running_loop()
        # A read, the lease, and reads while it lasts, of which the last may have begun at its end.
        self._patience = settings.lease + 4 * settings.timeout

    def get(self, key: str) -> bytes | None:
        """What was kept under ``key``, here or by another node."""
        data = self._near.get(key)
        if data is None:
            asking = self._sharing.index(key)
            try:
                waiting = asyncio.run_coroutine_threadsafe(asking, self._loop)
            except RuntimeError:  # the loop has ended
                asking.close()
                return None
            try:
                data = waiting.result(self._patience)
            except (LateError, CancelledError):
                waiting.cancel()
            if data is not None:
                self._near.keep(key, data)
        return data

    def keep(self, key: str, data: bytes) -> bool:
        """Keep it here, and let the other nodes have it."""
        try:
            self._loop.call_soon_threadsafe(self._sharing.keep, key, data)
        except RuntimeError:  # the loop has ended
            pass
        return self._near.keep(key, data)


class OfAsset:
    """The indexes of an asset's sources in ``store``: a purge of the asset means them as well."""

    def __init__(self, store: IndexStore, asset_id: str) -> None:
        self._store = store
        self._below = f"/v/{asset_id}"

    def get(self, key: str) -> bytes | None:
        """What was kept under ``key`` for this asset."""
        return self._store.get(f"{self._below}{key}")

    def keep(self, key: str, data: bytes) -> bool:
        """Keep it for this asset."""
        return self._store.keep(f"{self._below}{key}", data)


def of_asset(store: IndexStore | None, asset_id: str) -> IndexStore | None:
    """Where the indexes of an asset's sources are kept; None where none are."""
    return None if store is None else OfAsset(store, asset_id)
