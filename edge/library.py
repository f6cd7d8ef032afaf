"""Where a node's assets come from: a folder, or a bucket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edge.origin.sharing import Origin
from edge.remuxes import Remuxes
from edge.tiers.indexes import of_asset
from streamgate.core.logging import get_logger
from streamgate.core.settings import MediaSettings, Settings
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError
from streamgate.storage import assets, description
from streamgate.storage.assets import Asset, AssetRef, Limits
from streamgate.storage.description import Facts
from streamgate.storage.discovery import DESCRIPTION, described, of_objects, with_previews
from streamgate.storage.indexes import IndexStore
from streamgate.storage.objects.remote import Bridge, RemoteSource
from streamgate.storage.objects.store import ObjectInfo, open_store
from streamgate.storage.remote_assets import open_remote

_log = get_logger("edge.library")
# The assets are listed about once a second: what is the matter with them is told when it changes, and then so often.
_TELL_AGAIN_S = 60.0
_DESCRIPTIONS_AT_ONCE = 16


class _Told:
    """What keeps the assets from being listed, logged when it changes."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._told: tuple[str, str] | None = None
        self._told_at = 0.0

    @property
    def problem(self) -> str | None:
        """What it is now, in a few words."""
        return None if self._told is None else f"the assets cannot be listed: {self._told[0]}"

    def tell(self, error: StreamGateError | None) -> None:
        """Log what keeps the assets from being listed, or that nothing does any more."""
        now, what = self._clock(), (error.code, error.detail) if error is not None else None
        if what == self._told and (error is None or now - self._told_at < _TELL_AGAIN_S):
            return
        self._told, self._told_at = what, now
        if error is None:
            _log.info("the assets can be listed again")
        else:
            _log.error("the assets cannot be listed", code=error.code, detail=error.detail)


class FolderLibrary:
    """The assets of a folder, or the one that a path names; foreign containers are converted into the data folder."""

    def __init__(
        self,
        root: Path,
        limits: MediaSettings,
        data: Path,
        remuxes: Remuxes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = root
        self._limits = Limits(limits.target, limits.max_segment, limits.trick_interval)
        self._index_limits = limits.model_dump(include={"max_index_bytes", "max_samples", "max_boxes"})
        self._data = data
        self._gates = assets.Gates()
        self.indexes: IndexStore | None = None
        self._remuxes = remuxes
        self._told = _Told(clock)

    def discover(self) -> list[AssetRef]:
        """All assets there are; raises ``source_unreadable``, which does not tell viewers where the folder is."""
        try:
            found = assets.discover(self._root, self._gates)
            self._told.tell(None)
            return found
        except StreamGateError as error:
            self._told.tell(error)
            if error.code == "source_too_complex":
                raise StreamGateError(error.code, "there are too many assets") from error
            raise StreamGateError("source_unreadable", "the assets cannot be listed") from error

    def open(self, ref: AssetRef) -> Asset:
        """Open one; where a container must be converted first, that is begun, and ``asset_preparing`` raised."""
        try:
            return assets.open_asset(
                ref,
                self._limits,
                data=self._data,
                index_limits=self._index_limits,
                index_store=of_asset(self.indexes, ref.preview_of or ref.id),
            )
        except assets.Preparing as preparing:
            for job in preparing.jobs:
                self._remuxes.submit(job.source, job.target)
            raise


class BucketLibrary:
    """The assets of the store at ``url`` (s3://bucket/prefix), opened by threads that wait for the event loop.

    Where the store cannot be asked, what it listed last counts on.
    """

    def __init__(
        self, url: str, settings: Settings, telemetry: Telemetry, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._url = url
        self._settings = settings
        self._telemetry = telemetry
        media = settings.media
        self._limits = Limits(media.target, media.max_segment, media.trick_interval)
        self._index_limits = media.model_dump(include={"max_index_bytes", "max_samples", "max_boxes"})
        self._facts: dict[str, Facts] = {}
        self._listed: list[AssetRef] | None = None
        self._told = _Told(clock)
        self.indexes: IndexStore | None = None

    async def start(self, origin: Origin | None = None) -> None:
        """Open the store, in the event loop that is to serve it; raises ``config_invalid``.

        ``origin`` reads sources for all processes of the machine: what tells of one is asked for once.
        """

        async def read(source: RemoteSource, offset: int, length: int) -> bytes:
            assert origin is not None
            return bytes(await origin.read(source, offset, length, (offset, length)))

        patience = self._settings.origin.open_timeout
        self._bridge = Bridge(asyncio.get_running_loop(), patience, read if origin is not None else None)
        data = self._settings.server.data_folder
        self._store = await open_store(self._url, self._settings.s3, self._telemetry, data)

    def problem(self) -> str | None:
        """Why the store could not be listed when that was tried last; None where it could."""
        return self._told.problem

    def missing(self) -> str | None:
        """Why no asset is known at all; None where some have been listed once."""
        return None if self._listed is not None else self._told.problem or "the assets are yet to be listed"

    async def stop(self) -> None:
        """Close the store."""
        await self._store.close()

    def discover(self) -> list[AssetRef]:
        """All assets there are; raises ``origin_*`` where that has never been known."""
        try:
            self._listed = self._bridge.run(self._list())
            self._told.tell(None)
        except StreamGateError as error:
            self._told.tell(error)
            if self._listed is None or error.source != "origin":
                raise
        return self._listed

    def open(self, ref: AssetRef) -> Asset:
        """Open one; a source that was replaced since it was listed is opened as it is now."""
        try:
            return self._open(ref)
        except StreamGateError as error:
            if error.code not in ("source_changed", "source_not_found"):
                raise
        fresh = {each.id: each for each in with_previews(self.discover())}.get(ref.id)
        if fresh is None:
            raise StreamGateError("asset_not_found")
        return self._open(fresh)

    def _open(self, ref: AssetRef) -> Asset:
        limits = self._index_limits
        return open_remote(
            ref,
            self._store,
            self._bridge,
            self._limits,
            index_limits=limits,
            index_store=of_asset(self.indexes, ref.preview_of or ref.id),
        )

    async def _list(self) -> list[AssetRef]:
        refs = of_objects([each async for each in self._store.list()])
        at_once = asyncio.Semaphore(_DESCRIPTIONS_AT_ONCE)
        before, self._facts = self._facts, {}

        async def told(ref: AssetRef) -> AssetRef:
            file = next((each for each in ref.files if each.key.endswith(DESCRIPTION)), None)
            if file is None:
                return ref
            version = f"{file.key} {file.etag} {file.size}"
            known = before.get(version)
            if known is None:
                async with at_once:
                    known = await self._read(file)
            if known is None:
                return replace(ref, embed_origins=description.NOWHERE)  # it opens nothing until it is read
            self._facts[version] = known
            return described(ref, known)

        return list(await asyncio.gather(*(told(ref) for ref in refs)))

    async def _read(self, file: ObjectInfo) -> Facts | None:
        """What an asset.toml says; None where it cannot be read now.

        One that cannot be understood opens nothing: it is told of once, and not read again until it is another.
        """
        try:
            data = await self._store.read(file.key, 0, description.MAX_BYTES + 1, etag=file.etag)
            return description.facts(data)
        except StreamGateError as error:
            _log.warning("an asset.toml cannot be read", key=file.key, code=error.code, detail=error.detail)
            return Facts() if error.code == "asset_description" else None
