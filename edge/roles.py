"""The data plane's roles."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from edge.keyring import Keyring
from edge.node import Node, make_node
from edge.remuxes import Remuxes
from edge.tiers.indexes import DiskIndexes
from streamgate.core.health import Health
from streamgate.core.lifecycle import Role
from streamgate.core.logging import get_logger
from streamgate.core.settings import MediaSettings, Settings
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError
from streamgate.native.cat import Verifier
from streamgate.storage import assets, keys
from streamgate.storage.assets import Asset, AssetRef, Limits
from streamgate.storage.indexes import IndexStore

_log = get_logger("edge.roles")
# The assets are listed about once a second: what is the matter with them is told when it changes, and then so often.
_TELL_AGAIN_S = 60.0


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
        self._clock = clock
        self._told: tuple[str, str] | None = None
        self._told_at = 0.0

    def discover(self) -> list[AssetRef]:
        """All assets there are; raises ``source_unreadable``, which does not tell viewers where the folder is."""
        try:
            found = assets.discover(self._root, self._gates)
            self._tell(None)
            return found
        except StreamGateError as error:
            self._tell(error)
            if error.code == "source_too_complex":
                raise StreamGateError(error.code, "there are too many assets") from error
            raise StreamGateError("source_unreadable", "the assets cannot be listed") from error

    def _tell(self, error: StreamGateError | None) -> None:
        """Log what keeps the assets from being listed, or that nothing does any more."""
        now, what = self._clock(), (error.code, error.detail) if error is not None else None
        if what == self._told and (error is None or now - self._told_at < _TELL_AGAIN_S):
            return
        self._told, self._told_at = what, now
        if error is None:
            _log.info("the assets can be listed again")
        else:
            _log.error("the assets cannot be listed", code=error.code, detail=error.detail)

    def open(self, ref: AssetRef) -> Asset:
        """Open one; where a container must be converted first, that is begun, and ``asset_preparing`` raised."""
        try:
            return assets.open_asset(
                ref, self._limits, data=self._data, index_limits=self._index_limits, index_store=self.indexes
            )
        except assets.Preparing as preparing:
            for job in preparing.jobs:
                self._remuxes.submit(job.source, job.target)
            raise


def streaming(
    settings: Settings,
    root: Path,
    telemetry: Telemetry,
    health: Health,
    limits: int | None = None,
    *,
    replacing: bool = False,
) -> tuple[Role, Node]:
    """The role that cuts and serves media of ``root``, and the node its requests run on; the rest as for ``make_node``."""
    remuxes = Remuxes(settings.edge.remux_jobs, telemetry)
    library = FolderLibrary(root, settings.media, settings.server.data_folder, remuxes)
    node = make_node(settings, library, telemetry, health, _verifier(settings), limits, replacing=replacing)
    keyring = Keyring(keys.Folder(*keys.place(settings)), node.gate.verifier, settings.tokens.revalidate)
    library.indexes = DiskIndexes(node.tiers.disk)

    async def start() -> None:
        await node.assets.refs()
        await node.gate.start()
        keyring.start()

    async def stop() -> None:
        await keyring.stop()
        remuxes.close()
        node.close()

    return Role("streaming", start=start, stop=stop), node


def _verifier(settings: Settings) -> Verifier:
    """With the keys of the settings; where none are configured and none can be kept, no token is believed."""
    try:
        return Verifier([key.verifying() for key in keys.configured(settings)])
    except StreamGateError as error:
        if settings.tokens.keys or not isinstance(error.__cause__, OSError):
            raise
        _log.warning("no key of playback tokens", reason=error.detail)
        return Verifier()
