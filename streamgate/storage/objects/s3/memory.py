"""Bytes that may be in memory at once: who comes when they are taken waits its turn."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable


class MemoryBudget:
    """``limit`` bytes, given out in the order of asking; for one event loop."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._left = limit
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @contextlib.asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[Callable[[int], None]]:
        """Have ``size`` bytes, or all where that is more; what is given says that fewer are enough."""
        held = min(size, self._limit)
        if held > self._left or self._waiting:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((held, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._give_back(held)
                else:
                    with contextlib.suppress(ValueError):  # passed over already
                        self._waiting.remove((held, turn))
                    self._give_back(0)
                raise
        else:
            self._left -= held

        def enough(fewer: int) -> None:
            nonlocal held
            if fewer < held:
                self._give_back(held - fewer)
                held = fewer

        try:
            yield enough
        finally:
            self._give_back(held)

    def _give_back(self, size: int) -> None:
        self._left += size
        while self._waiting and self._waiting[0][0] <= self._left:
            wanted, turn = self._waiting.popleft()
            if not turn.done():
                self._left -= wanted
                turn.set_result(None)
