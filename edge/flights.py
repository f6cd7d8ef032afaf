"""One flight per key: who asks for what is being made already waits for it, instead of making it again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from edge.threads import Threads

T = TypeVar("T")


@dataclass(slots=True)
class _Flight:
    task: asyncio.Task[Any]
    waiting: int = 0


class Flights:
    """Work under way in ``threads``, by key."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._under_way: dict[str, _Flight] = {}

    async def join(self, key: str, work: Callable[..., T], *arguments: object) -> T:
        """The result of ``work(*arguments)``, or what it raises; of work that began under ``key`` and has not ended.

        A flight is over when the first who waited for it goes on: if that one keeps the result before it waits for
        anything else, nobody makes it again.
        """
        flight = self._under_way.get(key)
        if flight is None:
            flight = self._under_way[key] = _Flight(asyncio.ensure_future(self._threads.run(work, *arguments)))
            flight.task.add_done_callback(lambda _: self._landed(key, flight))
        flight.waiting += 1
        try:
            # Who goes away leaves the others their flight.
            result: T = await asyncio.shield(flight.task)
            return result
        finally:
            flight.waiting -= 1
            if flight.task.done():
                self._forget(key, flight)

    def detach(self) -> None:
        """Let nobody else join what is under way: who comes from now on begins anew."""
        self._under_way.clear()

    def _landed(self, key: str, flight: _Flight) -> None:
        # An error is known to those who wait, and to nobody else.
        if flight.task.cancelled() or flight.task.exception() or not flight.waiting:
            self._forget(key, flight)

    def _forget(self, key: str, flight: _Flight) -> None:
        if self._under_way.get(key) is flight:
            del self._under_way[key]
