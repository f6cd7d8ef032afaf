"""A bounded pool of threads for work that would block the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError

T = TypeVar("T")


class Pool:
    """``threads`` threads and at most ``max_queued`` tasks that wait for one."""

    def __init__(self, name: str, threads: int, max_queued: int, telemetry: Telemetry) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=f"streamgate-{name}")
        self._threads = threads
        self._limit = threads + max_queued
        self._pending = 0
        telemetry.watch("tasks_queued", lambda: self.queued, pool=name)

    @property
    def queued(self) -> int:
        """Tasks that wait for a thread."""
        return max(0, self._pending - self._threads)

    async def run(self, work: Callable[..., T], *arguments: object) -> T:
        """The result of ``work(*arguments)``; raises ``overloaded`` at once where too much waits already."""
        if self._pending >= self._limit:
            raise StreamGateError("overloaded", "too many tasks wait for a thread")
        self._pending += 1
        future = asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)
        future.add_done_callback(self._done)
        return await future

    def _done(self, _: asyncio.Future[T]) -> None:
        self._pending -= 1

    def close(self) -> None:
        """Take no more work and forget what waits; what runs may end."""
        self._executor.shutdown(wait=False, cancel_futures=True)
