"""Receiving what connections bring, many at a time; a base class for the hot path's protocol, used from C."""

import asyncio
from typing import Self, final

from typing_extensions import disjoint_base

from streamgate.native.sender import Sender

@final
class Poller:
    """Reads for all receivers of one loop, with one callback for all whose sockets are ready. Raises OSError."""

    def __new__(cls, loop: asyncio.AbstractEventLoop) -> Self: ...
    def ready(self) -> None:
        """Read once from each socket that is ready; the loop calls it."""

@disjoint_base
class Receiver(Sender):
    def take_over(self, poller: Poller) -> None:
        """Have ``poller`` read instead of the transport, if the transport is open and nobody else needs what it brings."""
