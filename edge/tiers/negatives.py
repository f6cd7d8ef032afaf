"""What cannot be had, remembered briefly: who asks again is told at once, and nothing is made."""

from __future__ import annotations

import time
from collections.abc import Callable

from streamgate.errors import StreamGateError
from streamgate.native.s3fifo import Cache

# Names that a stranger makes up drive out each other, and nothing else.
_CAPACITY = 1024 * 1024
_SIZE = 512
# These say something of this process at this moment, nothing of what was asked for.
_FLEETING = frozenset(("overloaded", "stopping", "cache_failed", "fill_lost"))


class Negatives:
    """Failures by key, each for ``ttl`` seconds."""

    def __init__(self, ttl: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._ttl = ttl
        self._clock = clock
        self._failures: Cache[tuple[float, str, str]] = Cache(_CAPACITY)

    def remember(self, key: str, error: StreamGateError) -> None:
        """``key`` cannot be had, for this reason."""
        if self._ttl and error.code not in _FLEETING:
            self._failures.put(key.encode(), (self._clock() + self._ttl, error.code, error.detail), _SIZE)

    def forget(self, meant: Callable[[str], bool]) -> None:
        """Forget the failures of the keys that are ``meant``."""
        for key in self._failures.keys():
            if meant(key.decode()):
                self._failures.remove(key)

    def check(self, key: str) -> None:
        """Raise the error with which ``key`` failed a moment ago, if it did."""
        known = self._failures.get(key.encode())
        if known is None:
            return
        until, code, detail = known
        if self._clock() < until:
            raise StreamGateError(code, detail)
        self._failures.remove(key.encode())
