"""When a request is sent again: attempts, pauses, one deadline, and a budget that keeps an outage from doubling the load."""

from __future__ import annotations

import asyncio
import random

from streamgate.core.settings.origin import S3Settings
from streamgate.storage.objects.s3.errors import OriginError

_BURST = 20.0  # retries that are allowed out of the blue
_PROGRESS = 1024 * 1024  # bytes after which attempts are counted anew


class RetryBudget:
    """Retries of all requests to one bucket: ``ratio`` of the requests, and a few more."""

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio
        self._left = _BURST

    def earn(self) -> None:
        """A request begins."""
        self._left = min(_BURST, self._left + self._ratio)

    def take(self) -> bool:
        """Whether one may be sent again, or twice at once."""
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Patience:
    """How long and how often one request may still try. Time counts only while the origin is waited for."""

    def __init__(self, settings: S3Settings) -> None:
        self._settings = settings
        self._left = settings.deadline
        self._attempts = 0
        self._progress = 0
        self.retries = 0

    @property
    def left(self) -> float:
        """Seconds that may still be waited."""
        return max(0.0, self._left)

    def waited(self, seconds: float) -> None:
        """So long the origin was waited for."""
        self._left -= seconds

    def got(self, count: int) -> None:
        """So many bytes have come: each extends the deadline a little, and enough of them give new attempts."""
        self._left += count / self._settings.least_rate
        self._progress += count
        if self._progress >= _PROGRESS:
            self._attempts = 0

    async def pause(self, error: OriginError, budget: RetryBudget, *, elsewhere: bool = False) -> None:
        """Wait before the next attempt, or raise ``error`` where there is none. ``elsewhere``: at another bucket, at once.

        All buckets together make one attempt.
        """
        self._attempts += not elsewhere
        self._progress = 0
        if not error.again or self._attempts >= self._settings.attempts or self.left <= 0:
            raise error
        if not elsewhere:
            longest = self._settings.backoff * 2.0 ** (self._attempts - 1)
            pause = error.after + random.uniform(0, longest)
            if pause >= self.left or not budget.take():
                raise error
            self.waited(pause)
            await asyncio.sleep(pause)
        self.retries += 1
