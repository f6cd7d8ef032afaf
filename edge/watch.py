"""Watching over workers: one that is alive but does nothing any more, for its loop is blocked, makes room for another.

A worker shows a sign of life on the page of counters once a second, from its beginning. How long there was none is
counted in looks and not by a clock, so that nobody is blamed for a pause of the whole machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from edge.process import Process
from edge.shared import Page
from streamgate.core.logging import get_logger
from streamgate.core.telemetry import Telemetry

_log = get_logger("edge.watch")
_LOOK_S = 0.5


class Watch:
    """Looks at ``processes``, the workers that there are; ``timeout`` (s) is how long one may be silent, 0: for ever."""

    def __init__(
        self,
        page: Page,
        processes: Callable[[], Iterable[Process]],
        telemetry: Telemetry,
        timeout: Callable[[], float],
    ) -> None:
        self._page = page
        self._processes = processes
        self._telemetry = telemetry
        self._timeout = timeout
        self._seen: dict[Process, tuple[int, int]] = {}

    async def run(self) -> None:
        """Look again and again, for ever."""
        while True:
            await asyncio.sleep(_LOOK_S)
            self.look()

    def look(self) -> None:
        """Look once, and kill who was silent for too long: whoever keeps its seat starts another."""
        timeout, seen = self._timeout(), self._seen
        self._seen = {}
        for process in self._processes():
            beats = self._page.beats(process.slot)
            before, looks = seen.get(process, (0, 0))
            looks = looks + 1 if beats and beats == before else 0
            self._seen[process] = beats, looks
            if timeout and looks * _LOOK_S >= timeout and process.state != "ended":
                _log.error("a worker hangs and is killed", pid=process.pid, silent=looks * _LOOK_S)
                self._telemetry.count("worker_hangs")
                process.kill()
                self._seen[process] = 0, 0
