"""How often something may happen, by whom: a leaking bucket for each name, of those that came last."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

_NAMES = 4096


class Rates:
    """``burst`` at once, and ``rate`` a second, for each of the last 4096 names."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def too_many(self, name: str = "") -> bool:
        """Whether nothing more is allowed for now."""
        return self._level(name) > self._burst - 1

    def add(self, name: str = "") -> None:
        """One more."""
        self._levels[name] = self._level(name) + 1, self._clock()
        self._levels.move_to_end(name)
        if len(self._levels) > _NAMES:
            self._levels.popitem(last=False)

    def _level(self, name: str) -> float:
        level, at = self._levels.get(name, (0.0, 0.0))
        return max(0.0, level - (self._clock() - at) * self._rate)
