"""Passwords are hashed in threads: few at once, for each takes its time and memory, and not too many wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from streamgate.errors import StreamGateError

T = TypeVar("T")


class Hashing:
    """``threads`` at once, ``queue`` more wait."""

    def __init__(self, threads: int, queue: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="streamgate-hash")
        self._most = threads + queue
        self._under_way = 0

    async def run(self, work: Callable[[], T]) -> T:
        """Do something slow; raises ``overloaded`` where too many wait, and what ``work`` raises."""
        if self._under_way >= self._most:
            raise StreamGateError("overloaded", "too many passwords are being checked")
        self._under_way += 1
        # Counted until the thread has done it, whether or not somebody still waits.
        working = asyncio.get_running_loop().run_in_executor(self._pool, work)
        working.add_done_callback(self._done)
        return await asyncio.shield(working)

    def close(self) -> None:
        """Take no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _done(self, working: asyncio.Future[T]) -> None:
        self._under_way -= 1
        if not working.cancelled():
            working.exception()  # nobody may be waiting
