"""Sending answers on a connection at the pace of its client; a base class for the hot path's protocol, used from C."""

import asyncio

from typing_extensions import disjoint_base

@disjoint_base
class Sender:
    @property
    def transport(self) -> asyncio.Transport | None:
        """What carries the connection; None before and after."""
