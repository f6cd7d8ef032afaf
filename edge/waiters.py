"""Those who wait for the next step of something that grows, or for its end."""

from __future__ import annotations

import asyncio


class Waiters:
    """For one event loop."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    async def wait(self) -> None:
        """Return at the next :meth:`wake`."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            await waiter
        finally:
            self._waiting.discard(waiter)

    def wake(self) -> None:
        """Let all go on who wait now."""
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
