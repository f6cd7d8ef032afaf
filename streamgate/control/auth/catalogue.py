"""Which assets there are, and the policy of each, as its asset.toml says it; listed again when what is known is old."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from streamgate.access.policies import OPERATORS, Policy
from streamgate.core.settings import Settings
from streamgate.errors import StreamGateError
from streamgate.storage import description
from streamgate.storage.discovery import DESCRIPTION, AssetRef, Gates, discover, of_objects
from streamgate.storage.objects.store import ObjectInfo, ObjectStore, open_store

_OPEN = Policy("public")
"""Of an asset that says nothing of who may see it."""
_FRESH_S = 1.0
_REMOTE_S = 5.0
_NEW_S = 0.25  # an asset that is not known may have come just now


class Catalogue:
    """The assets at ``root``: a folder, one asset, or s3://bucket/prefix. Made by :meth:`open`."""

    def __init__(self, root: str, store: ObjectStore | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._store = store
        self._clock = clock
        self._gates = Gates()
        self._known: dict[str, AssetRef] = {}
        self._listed_at = float("-inf")
        self._listing: asyncio.Task[None] | None = None
        self._read: dict[str, tuple[object, Policy, float]] = {}
        """By asset: what tells the version of its asset.toml, what that says, and when it was looked at last."""

    @classmethod
    async def open(cls, settings: Settings, root: str) -> Catalogue:
        """The assets of the node. Raises ``config_invalid`` for an address where no store can be."""
        return cls(root, await open_store(root, settings.s3) if "://" in root else None)

    async def close(self) -> None:
        """Close the store."""
        if self._listing is not None:
            self._listing.cancel()
            await asyncio.wait([self._listing])
        if self._store is not None:
            await self._store.close()

    async def policy(self, asset: str) -> Policy:
        """The policy of an asset. Raises ``asset_not_found``, ``asset_description``, ``source_*`` and ``origin_*``."""
        age = self._clock() - self._listed_at
        if age > (_FRESH_S if self._store is None else _REMOTE_S) or (asset not in self._known and age > _NEW_S):
            await self._list()
        ref = self._known.get(asset)
        if ref is None:
            raise StreamGateError("asset_not_found")
        known = self._read.get(asset)
        if known is not None and self._clock() - known[2] <= _NEW_S:
            return known[1]
        now = self._clock()
        version, read = await self._described(ref)
        if read is not None:
            policy = known[1] if known is not None and known[0] == version else _policy(await read())
        elif known is not None:
            policy = known[1]  # a description that has just gone opens nothing that it had closed
        else:
            policy = OPERATORS if ref.gated else _OPEN
        self._read[asset] = version, policy, now
        return policy

    async def _list(self) -> None:
        """List once for all who want it now; what cannot be listed leaves what is known as it was."""
        if self._listing is None:
            self._listing = asyncio.create_task(self._look())
        listing = self._listing
        try:
            await asyncio.shield(listing)
        except StreamGateError:
            if not self._known:
                raise

    async def _look(self) -> None:
        try:
            if self._store is None:
                found = await asyncio.to_thread(discover, Path(self._root), self._gates)
            else:
                found = of_objects([each async for each in self._store.list()])
            self._known = {ref.id: ref for ref in found}
            self._listed_at = self._clock()
            for gone in self._read.keys() - self._known.keys():
                del self._read[gone]
        finally:
            self._listing = None

    async def _described(self, ref: AssetRef) -> tuple[object, Callable[[], asyncio.Future[bytes]] | None]:
        """What tells the asset.toml's version, and what reads it; a lone file has none."""
        loop = asyncio.get_running_loop()
        if self._store is None:
            path = ref.path / DESCRIPTION
            version = await asyncio.to_thread(_version, path)
            return version, (lambda: loop.run_in_executor(None, _read, path)) if version is not None else None
        told = next((each for each in ref.files if each.key.endswith(DESCRIPTION)), None)
        if told is None:
            return None, None
        return (told.key, told.etag), lambda: asyncio.ensure_future(self._fetch(told))

    async def _fetch(self, told: ObjectInfo) -> bytes:
        assert self._store is not None
        return await self._store.read(told.key, 0, description.MAX_BYTES + 1, etag=told.etag)


def _version(path: Path) -> tuple[int, ...] | None:
    try:
        told = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StreamGateError("source_unreadable", "the asset's description") from error
    return told.st_ino, told.st_size, told.st_mtime_ns


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(description.MAX_BYTES + 1)
    except OSError as error:
        raise StreamGateError("source_unreadable", "the asset's description") from error


def _policy(data: bytes) -> Policy:
    told = description.policy(data)
    return told or (OPERATORS if description.gated(data) else _OPEN)
