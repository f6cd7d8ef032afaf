"""Roles: what a process consists of, and in which order its parts start and stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from streamgate.core.health import Health
from streamgate.core.logging import get_logger

_log = get_logger("streamgate.lifecycle")


async def _nothing() -> None:
    """The hook of a role that has nothing to do."""


@dataclass(frozen=True)
class Role:
    """One service of the nine: the unit that is started, drained and stopped.

    ``ready`` says what is missing, or None. ``routes`` are handed to the HTTP server, whose type they have.
    ``events`` maps the name of an event to what the role does when it hears of it.
    """

    name: str
    start: Callable[[], Awaitable[None]] = _nothing
    ready: Callable[[], str | None] = lambda: None
    drain: Callable[[], Awaitable[None]] = _nothing
    stop: Callable[[], Awaitable[None]] = _nothing
    routes: Sequence[Any] = ()
    events: Mapping[str, Callable[[Any], Awaitable[None]]] = field(default_factory=dict)


class Lifecycle:
    """Starts roles in order and stops them in reverse; a failed start stops those that had started."""

    def __init__(self, roles: Sequence[Role], health: Health) -> None:
        self._roles = roles
        self._started: list[Role] = []
        self._health = health

    async def start(self) -> None:
        """Start all roles; what a role's ``start`` raises is passed on."""
        for role in self._roles:
            try:
                await role.start()
            except BaseException:
                await self.stop()
                raise
            self._started.append(role)
            self._health.add(role.name, role.ready)

    async def drain(self) -> None:
        """Tell all roles to take nothing new."""
        await asyncio.gather(*(role.drain() for role in self._started))

    async def stop(self) -> None:
        """Stop the roles that had started, the last one first."""
        while self._started:
            await self._started.pop().stop()


def open_standard_streams() -> None:
    """Open those of the descriptors 0, 1 and 2 that are closed, on nothing: or a socket could get such a number.

    uvloop ends the process where it is to close one, and what prints would write into a client's connection.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number, which is this one.
            os.open(os.devnull, os.O_RDWR)


def file_limit() -> int:
    """How many files this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def raise_file_limit() -> None:
    """Let this process open as many files as it may.

    Connections and sources are open files: of the usual soft limit, 1024, a burst of viewers would leave nothing.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        _log.warning("the limit of open files stays as it is", limit=soft, reason=str(error))


@contextlib.contextmanager
def stop_signals(leave: Callable[[int], None] = os._exit) -> Iterator[asyncio.Event]:
    """An event that SIGTERM or SIGINT sets; a second signal leaves at once with status 128 + its number."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()

    def on_signal(number: int) -> None:
        if asked.is_set():
            leave(128 + number)
        asked.set()

    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield asked
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
