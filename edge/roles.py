"""The data plane's roles."""

from __future__ import annotations

from pathlib import Path

from edge.node import Node, make_node
from edge.remuxes import Remuxes
from streamgate.core.health import Health
from streamgate.core.lifecycle import Role
from streamgate.core.settings import Settings
from streamgate.core.telemetry import Telemetry
from streamgate.storage import assets
from streamgate.storage.assets import Asset, AssetRef, Limits


class FolderLibrary:
    """The assets of a folder, or the one that a path names; foreign containers are converted into the data folder."""

    def __init__(self, root: Path, limits: Limits, data: Path, remuxes: Remuxes) -> None:
        self._root = root
        self._limits = limits
        self._data = data
        self._remuxes = remuxes

    def discover(self) -> list[AssetRef]:
        """All assets there are; raises ``source_not_found`` or ``source_unreadable``."""
        return assets.discover(self._root)

    def open(self, ref: AssetRef) -> Asset:
        """Open one; where a container must be converted first, that is begun, and ``asset_preparing`` raised."""
        try:
            return assets.open_asset(ref, self._limits, data=self._data)
        except assets.Preparing as preparing:
            for job in preparing.jobs:
                self._remuxes.submit(job.source, job.target)
            raise


def streaming(settings: Settings, root: Path, telemetry: Telemetry, health: Health) -> tuple[Role, Node]:
    """The role that cuts and serves media of ``root``, and the node its requests run on."""
    remuxes = Remuxes(settings.edge.remux_jobs, telemetry)
    limits = Limits(**settings.media.model_dump())
    node = make_node(settings, FolderLibrary(root, limits, settings.server.data_folder, remuxes), telemetry, health)

    async def start() -> None:
        await node.assets.refs()

    async def stop() -> None:
        remuxes.close()
        node.close()

    return Role("streaming", start=start, stop=stop), node
