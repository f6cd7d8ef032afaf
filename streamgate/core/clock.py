"""Clocks for what must not depend on the wall clock alone, which people and protocols set ahead and back."""

from __future__ import annotations

import time
from collections.abc import Callable

_DRIFT_S = 1.0  # between two looks; more is a leap


def steady() -> float:
    """Seconds that only ever grow, those of a suspended machine included; the same in all its processes (clock_gettime(2))."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class PatientClock:
    """The wall clock (s since 1970) for whoever throws things away for good.

    A leap back is followed at once, one ahead only when it has stood for ``patience`` seconds: what is set ahead by
    mistake is put right again, and by then what seemed to have ended may not be gone.
    """

    def __init__(
        self, clock: Callable[[], float] = time.time, passed: Callable[[], float] = steady, patience: float = 3600.0
    ) -> None:
        self._clock = clock
        self._passed = passed
        self._patience = patience
        self._offset = clock() - passed()
        self._ahead_since: float | None = None

    def __call__(self) -> float:
        """Now, as far as it is believed."""
        passed = self._passed()
        offset = self._clock() - passed
        if offset <= self._offset + _DRIFT_S:
            self._offset, self._ahead_since = offset, None
        elif self._ahead_since is None:
            self._ahead_since = passed
        elif passed - self._ahead_since >= self._patience:
            self._offset, self._ahead_since = offset, None
        return passed + self._offset


class Setbacks:
    """Notices that the wall clock (s since 1970) was set back: what had ended by it has not."""

    def __init__(self, clock: Callable[[], float] = time.time, passed: Callable[[], float] = steady) -> None:
        self._clock = clock
        self._passed = passed
        self._offset = clock() - passed()

    def __call__(self) -> bool:
        """Whether it was, by more than clocks are put right by all the time, since this was last asked."""
        before, self._offset = self._offset, self._clock() - self._passed()
        return self._offset < before - _DRIFT_S
