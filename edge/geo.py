"""The databases of where viewers are while a node runs: looked at now and then, and read again when they were replaced."""

from __future__ import annotations

import asyncio
import contextlib

from streamgate.core.logging import get_logger
from streamgate.core.settings.geoip import GeoipSettings
from streamgate.storage.geo import Geo

_log = get_logger("edge.geo")


class Atlas:
    """``geo`` as it is now. Raises ``config_invalid`` as that does; ``required``: see there."""

    def __init__(self, settings: GeoipSettings, *, required: bool = True) -> None:
        self.geo = Geo(settings, required=required)
        self._interval = settings.interval
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look; in the event loop."""
        if self.geo.configured and self._task is None:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            try:
                await asyncio.to_thread(self.geo.look)
            except Exception:
                _log.exception("the GeoIP databases could not be looked at")
