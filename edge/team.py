"""The workers that serve by one set of settings: as many as there are seats, and each seat is taken again when it is left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from edge.process import Process
from streamgate.core.logging import get_logger
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError

_log = get_logger("edge.team")
# A worker that lived that long was no hopeless case: its successor starts at once.
_STEADY_S = 10.0
_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 5.0


class Team:
    """``start`` starts a worker for a seat; ``seats`` is how many there are; ``generation`` is told in logs."""

    def __init__(
        self, generation: int, seats: int, start: Callable[[int], Awaitable[Process]], telemetry: Telemetry
    ) -> None:
        self.generation = generation
        self.members: list[Process] = []
        self._seats = seats
        self._start = start
        self._telemetry = telemetry
        self._leaving = False
        self._keeping: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start all and wait until they serve; raises what keeps one from it, and then there are none."""
        try:
            for seat in range(self._seats):
                self.members.append(await self._start(seat))
            await asyncio.gather(*(member.ready() for member in self.members))
        except BaseException:
            await self.kill()
            raise
        self._keeping = [asyncio.create_task(self._keep(seat)) for seat in range(self._seats)]

    def leave(self, deadline: float, idle: float, *, last: bool) -> None:
        """Have all end, and replace none."""
        self._leaving = True
        for member in self.members:
            member.leave(deadline, idle, last=last)

    async def ended(self) -> None:
        """Wait until all who leave have gone."""
        await asyncio.gather(*(asyncio.shield(member.ended) for member in self.members))
        for keeping in self._keeping:
            keeping.cancel()

    async def kill(self) -> None:
        """End all at once."""
        self._leaving = True
        for member in self.members:
            member.kill()
        await self.ended()

    async def _keep(self, seat: int) -> None:
        """Put a new worker into the seat of each that ended, sooner or later by how long it had lived."""
        wait = 0.0
        while True:
            member = self.members[seat]
            code = await asyncio.shield(member.ended)
            if self._leaving:
                return
            lived = time.monotonic() - member.since
            wait = 0.0 if lived >= _STEADY_S else wait
            _log.error("a worker died and is replaced", pid=member.pid, status=code, lived=round(lived, 3), wait=wait)
            self._telemetry.count("worker_deaths")
            await asyncio.sleep(wait)
            wait = min(max(2 * wait, _FIRST_WAIT_S), _LONGEST_WAIT_S)
            if self._leaving:
                return
            try:
                self.members[seat] = await self._start(seat)
                await self.members[seat].ready()
            except StreamGateError as error:
                _log.error("a worker cannot be started", code=error.code, detail=error.detail)
                self.members[seat].kill()
