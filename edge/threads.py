"""A bounded pool of threads for work that would block the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError

T = TypeVar("T")


class Threads(Protocol):
    """Where work is done that would block the event loop."""

    async def run(self, work: Callable[..., T], *arguments: object) -> T:
        """The result of ``work(*arguments)``."""


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

    def submit(self, work: Callable[..., T], *arguments: object) -> Future[T]:
        """The same for a thread, which may wait."""
        return self._executor.submit(work, *arguments)

    def _done(self, _: asyncio.Future[T]) -> None:
        self._pending -= 1

    def close(self) -> None:
        """Take no more work and forget what waits; what runs may end."""
        self._executor.shutdown(wait=False, cancel_futures=True)


class Patient:
    """Work of a ``pool`` that waits for a disk: for ``patience`` seconds at most, and then for nothing at all for ``retry``.

    A thread that hangs in a call of the system cannot be ended: it is left alone, and ``late`` is told.
    """

    def __init__(
        self,
        pool: Pool,
        patience: float,
        retry: float,
        late: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._patience = patience
        self._retry = retry
        self._late = late
        self._clock = clock
        self._until = float("-inf")

    @property
    def stalled(self) -> bool:
        """Whether something took too long a moment ago."""
        return self._clock() < self._until

    async def run(self, work: Callable[..., T], *arguments: object) -> T:
        """The result of ``work(*arguments)``; raises ``cache_failed`` where that takes too long, or something did just now."""
        self._check()
        try:
            async with asyncio.timeout(self._patience):
                return await self._pool.run(work, *arguments)
        except TimeoutError:
            raise self._stall() from None

    def wait(self, work: Callable[..., T], *arguments: object) -> T:
        """The same for a thread, which may wait."""
        self._check()
        try:
            future = self._pool.submit(work, *arguments)
        except RuntimeError:
            raise StreamGateError("stopping") from None
        try:
            return future.result(self._patience)
        except TimeoutError:
            future.cancel()
            raise self._stall() from None

    def _check(self) -> None:
        if self.stalled:
            raise StreamGateError("cache_failed", "the disk took too long a moment ago")

    def _stall(self) -> StreamGateError:
        if not self.stalled:
            self._late()
        self._until = self._clock() + self._retry
        return StreamGateError("cache_failed", "the disk takes too long")
