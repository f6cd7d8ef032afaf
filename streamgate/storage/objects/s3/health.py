"""Whether a bucket is to be asked first or last: it goes down by failures in a row, and comes up by probes that succeed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from streamgate.core.settings.origin import S3Settings

_LONGEST = 16  # pauses grow to so many times the first


class Health:
    """One bucket's. While it is down, ``probe`` (True: it answers) is tried in the background, by no viewer.

    One that goes down again soon after it came up waits twice as long as before: it does not flap.
    """

    def __init__(
        self,
        settings: S3Settings,
        probe: Callable[[], Awaitable[bool]],
        changed: Callable[[bool], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.up = True
        self._settings = settings
        self._probe = probe
        self._changed = changed
        self._sleep = sleep
        self._failures = 0
        self._pause = settings.replica_retry
        self._up_since = float("-inf")
        self._probing: asyncio.Task[None] | None = None

    def answered(self) -> None:
        """A request got what it asked for."""
        self._failures = 0

    def failed(self) -> None:
        """A request did not."""
        self._failures += 1
        if not self.up or self._failures < self._settings.replica_failures:
            return
        now = asyncio.get_running_loop().time()
        longest = self._settings.replica_retry * _LONGEST
        self._pause = min(2 * self._pause, longest) if now - self._up_since < longest else self._settings.replica_retry
        self.up = False
        self._changed(False)
        self._probing = asyncio.create_task(self._come_up())

    async def close(self) -> None:
        """Probe no more."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)

    async def _come_up(self) -> None:
        longest = self._settings.replica_retry * _LONGEST
        good = 0
        while good < self._settings.replica_successes:
            await self._sleep(self._pause * random.uniform(0.8, 1.2))
            if await self._probe():
                good += 1
            else:
                good = 0
                self._pause = min(2 * self._pause, longest)
        self._failures = 0
        self._up_since = asyncio.get_running_loop().time()
        self.up = True
        self._changed(True)
