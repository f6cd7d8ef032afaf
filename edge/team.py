"""The workers that serve by one set of settings: as many as there are seats, and each seat is taken again when it is left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Literal

from edge.process import Process
from streamgate.core.logging import get_logger
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError

_log = get_logger("edge.team")
# A worker that lived that long was no hopeless case: its successor starts at once.
_STEADY_S = 10.0
_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 5.0
# A successor takes less to start; where there is none by then, the others accept what comes to the empty seat.
_COVER_S = 1.0


class Team:
    """``start`` starts a worker for a seat, and is told whether it is to replace another; ``seats`` is how many there are.

    ``generation`` is told in logs.
    """

    def __init__(
        self, generation: int, seats: int, start: Callable[[int, bool], Awaitable[Process]], telemetry: Telemetry
    ) -> None:
        self.generation = generation
        self.members: list[Process] = []
        self._seats = seats
        self._start = start
        self._telemetry = telemetry
        self._leaving = False
        self._keeping: list[asyncio.Task[None]] = []
        self._empty: dict[int, float] = {}
        self._failures: dict[int, StreamGateError] = {}

    @property
    def state(self) -> Literal["ready", "degraded"]:
        """Whether all seats are taken, or have been left only just now."""
        return "degraded" if self._empty else "ready"

    def vacancies(self) -> list[dict[str, object]]:
        """For each empty seat since how long (s) it is, and why the last attempt to fill it failed."""
        now = time.monotonic()
        return [
            {
                "seat": seat,
                "age": round(now - since, 1),
                "code": failure.code if (failure := self._failures.get(seat)) else "",
                "detail": failure.detail if failure else "",
            }
            for seat, since in sorted(self._empty.items())
        ]

    async def start(self) -> None:
        """Start all and wait until they serve; raises what keeps one from it, and then there are none."""
        try:
            for seat in range(self._seats):
                self.members.append(await self._start(seat, False))
            await asyncio.gather(*(member.ready() for member in self.members))
        except BaseException:
            await self.kill()
            raise
        self._keeping = [asyncio.create_task(self._keep(seat)) for seat in range(self._seats)]

    def leave(self, deadline: float, idle: float, *, last: bool) -> None:
        """Have all end, and replace none: no seat is missed any more."""
        self._leaving = True
        for seat in list(self._empty):
            self._taken(seat)
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
            covering = asyncio.get_running_loop().call_later(_COVER_S, self._left, seat)
            try:
                wait = await self._fill(seat, wait)
            finally:
                covering.cancel()
                self._taken(seat)

    async def _fill(self, seat: int, wait: float) -> float:
        """Start workers until one serves at the seat, the first in ``wait`` seconds; how long to wait should that one die."""
        while not self._leaving:
            await asyncio.sleep(wait)
            wait = min(max(2 * wait, _FIRST_WAIT_S), _LONGEST_WAIT_S)
            if self._leaving:
                break
            try:
                member = self.members[seat] = await self._start(seat, True)
                if self._leaving:
                    # Nobody has told it to leave: it was not there yet.
                    member.kill()
                await member.ready()
                break
            except StreamGateError as error:
                failure = error
            except OSError as error:
                failure = StreamGateError("worker_failed", str(error))
            _log.error("a worker cannot be started", code=failure.code, detail=failure.detail, wait=wait)
            self._failures[seat] = failure
            self.members[seat].kill()
            await asyncio.shield(self.members[seat].ended)
        return wait

    def _left(self, seat: int) -> None:
        self._empty[seat] = time.monotonic()
        self._telemetry.gauge("worker_seats_empty", 1)
        _log.error("a worker is missing, the others take its connections", seat=seat)
        self._share_out()

    def _taken(self, seat: int) -> None:
        self._failures.pop(seat, None)
        if self._empty.pop(seat, None) is not None:
            self._telemetry.gauge("worker_seats_empty", -1)
        self._share_out()

    def _share_out(self) -> None:
        """Tell those who serve, of whom one may be new, which seats are empty."""
        for member in self.members:
            if member.state == "serving":
                member.tell({"do": "cover", "seats": sorted(self._empty)})
