"""A circuit breaker: what fails again and again, or is slow, is left alone for a while, so that nobody waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar

from streamgate.errors import StreamGateError

T = TypeVar("T")

State = Literal["closed", "open", "half-open"]

_DOUBLINGS = 30


class Circuit:
    """Closed: calls go through. Open: they raise ``code`` at once. Half-open: one call tries, the others still raise.

    It opens after ``failures`` in a row, and when of the last ``window`` calls the part ``share`` failed or took longer than
    ``slow`` (s). Then it waits for ``probe`` (s), doubled each time that the call which tries was bad, ``probe_max`` at most;
    each time a random part of up to a half is taken off, so that many do not try at once. Failures are errors with ``code``;
    a call that raises anything else did get an answer.

    ``on_change`` is told each new state, within the call that brought it about. ``clock`` (s) is monotonic; ``dice``: [0, 1).
    For one event loop.
    """

    def __init__(
        self,
        *,
        failures: int,
        slow: float,
        share: float,
        window: int,
        probe: float,
        probe_max: float,
        code: str = "store_unavailable",
        on_change: Callable[[State], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._failures = failures
        self._slow = slow
        self._bad_of_window = max(1, round(share * window))
        self._probe = probe
        self._probe_max = probe_max
        self._code = code
        self._on_change = on_change
        self._clock = clock
        self._dice = dice
        self._state: State = "closed"
        self._latest: deque[bool] = deque(maxlen=window)
        """Which of the latest calls were bad."""
        self._in_a_row = 0
        self._opened = 0
        """How often it has opened since it was healthy for a whole window."""
        self._try_at = 0.0
        self._turn = 0
        """Raised with each change: a call that began before one no longer counts."""
        self._not_closed = asyncio.Event()

    @property
    def state(self) -> State:
        """``closed``, ``open`` or ``half-open``."""
        return self._state

    async def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """What ``work`` gives. Raises ``code`` without asking it while the circuit is open."""
        if self._state != "closed":
            if self._state == "half-open" or self._clock() < self._try_at:
                raise StreamGateError(self._code, "left alone after failures")
            self._change("half-open")
        turn, begun = self._turn, self._clock()
        try:
            result = await work()
        except StreamGateError as error:
            self._judge(turn, begun, failed=error.code == self._code)
            raise
        except BaseException as error:
            self._judge(turn, begun, failed=False, verdict=isinstance(error, Exception))
            raise
        self._judge(turn, begun, failed=False)
        return result

    async def heal(self, probe: Callable[[], Awaitable[object]]) -> None:
        """Have ``probe``, a call through this circuit, try whenever it is open and the wait is over, for ever.

        So it closes though nobody else calls.
        """
        while True:
            await self._not_closed.wait()
            # Somebody else may be trying: then it is looked at again soon.
            await asyncio.sleep(max(self._try_at - self._clock(), self._probe / 2))
            if self._state == "open":
                with contextlib.suppress(StreamGateError):
                    await probe()

    def _judge(self, turn: int, begun: float, *, failed: bool, verdict: bool = True) -> None:
        """Count a call that has ended; without a verdict where it was given up."""
        if turn != self._turn:
            return
        bad = failed or self._clock() - begun > self._slow
        if self._state == "half-open":
            if not verdict:
                # Whoever comes next may try.
                self._change("open")
            elif bad:
                self._open()
            else:
                self._in_a_row = 0
                self._latest.clear()
                self._change("closed")
            return
        if not verdict:
            return
        self._latest.append(bad)
        self._in_a_row = self._in_a_row + 1 if failed else 0
        full = len(self._latest) == self._latest.maxlen
        if self._in_a_row >= self._failures or (full and sum(self._latest) >= self._bad_of_window):
            self._open()
        elif full:
            self._opened = 0

    def _open(self) -> None:
        wait = min(self._probe_max, self._probe * 2 ** min(self._opened, _DOUBLINGS))
        self._opened += 1
        self._try_at = self._clock() + wait * (1 - self._dice() / 2)
        self._change("open")

    def _change(self, state: State) -> None:
        self._state = state
        self._turn += 1
        if state == "closed":
            self._not_closed.clear()
        else:
            self._not_closed.set()
        if self._on_change is not None:
            self._on_change(state)
