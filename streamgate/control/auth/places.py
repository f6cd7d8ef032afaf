"""What sessions are bound to: a network, or the autonomous system that it belongs to, by a MaxMind database."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress

from streamgate.access.sessions import system_of
from streamgate.core.logging import get_logger
from streamgate.core.settings.geoip import GeoipSettings
from streamgate.errors import StreamGateError
from streamgate.storage.geo import Geo

_log = get_logger("streamgate.auth")


class Places:
    """Made by :meth:`open`."""

    def __init__(self, geo: Geo, interval: float) -> None:
        self._geo = geo
        self._interval = interval
        self._looking: asyncio.Task[None] | None = None
        self._told = False

    @classmethod
    async def open(cls, settings: GeoipSettings) -> Places:
        """What is wrong with the database is logged, and nothing is known until it is right; that of countries is not needed."""
        needed = settings.model_copy(update={"country": ""})
        made = cls(await asyncio.to_thread(lambda: Geo(needed, required=False)), settings.interval)
        if made._geo.configured:
            made._looking = asyncio.create_task(made._look())
        return made

    async def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking

    def of(self, binding: str, network: str) -> str:
        """What a binding makes of a network (a /24 or /48 in text): itself, or its system; "" where that is not known.

        Nobody announces less than a /24 or a /48 to all the world, so a network belongs to one system.
        """
        if binding != "asn" or not network:
            return network
        try:
            number = self._geo.number(ipaddress.ip_network(network).network_address.packed)
        except ValueError:
            return ""
        return "" if number is None else system_of(number, network)

    def needed(self, binding: str, network: str) -> str:
        """The same, where there is no session without it; raises ``binding_unavailable``."""
        place = self.of(binding, network)
        if binding != "none" and not place:
            if binding == "asn" and not self._geo.configured and not self._told:
                self._told = True
                _log.warning("a policy binds sessions to an asn, and geoip.asn names no database: nobody gets in there")
            raise StreamGateError("binding_unavailable")
        return place

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await asyncio.to_thread(self._geo.look)
