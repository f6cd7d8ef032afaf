"""The door of a process that may be full: who finds room comes in, and who does not is told so before the connection ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from streamgate.core.lifecycle import file_limit

# A request may be on its way: closed upon it, the connection would be reset, and the client might lose its answer.
_LINGER_S = 1.0
_MOST_READ = 65536
# Refusals at once: some for small ceilings, and no more than there are files for beside what is being served.
_FEWEST_AT_ONCE, _MOST_AT_ONCE, _PART_OF_FILES = 64, 1024, 16


class Doors:
    """Doors of a process that takes ``most`` connections: ``enter(peer)`` gives a new one's protocol, None where it is full.

    ``answer`` gives what is said to those who must go, and ``refused`` is called for each who hears it, ``turned_away`` for
    each who does not, for there are too many of them.
    """

    def __init__(
        self,
        most: int,
        enter: Callable[[bytes | None], Any],
        answer: Callable[[], bytes],
        refused: Callable[[], None],
        turned_away: Callable[[], None],
    ) -> None:
        self.enter = enter
        self.answer = answer
        self.most = max(_FEWEST_AT_ONCE, min(most, _MOST_AT_ONCE, file_limit() // _PART_OF_FILES))
        """Refusals at once."""
        self._leaving: set[Door] = set()
        self._refused = refused
        self._turned_away = turned_away

    def leave(self, door: Door) -> bool:
        """Whether the one at this door may be told; :meth:`forget` it then when it has gone."""
        if len(self._leaving) >= self.most:
            self._turned_away()
            return False
        self._leaving.add(door)
        self._refused()
        return True

    def forget(self, door: Door) -> None:
        """It has gone."""
        self._leaving.discard(door)


class Door(asyncio.Protocol):
    """The protocol of a connection of which it is decided when it is there; ``peer`` as for the protocols behind it."""

    def __init__(self, doors: Doors, peer: bytes | None) -> None:
        self._doors = doors
        self._peer = peer
        self._read = 0
        self._transport: Any = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Let it in, or answer and wait a moment for the client to go."""
        inside = self._doors.enter(self._peer)
        if inside is not None:
            transport.set_protocol(inside)
            inside.connection_made(transport)
            return
        if not self._doors.leave(self):
            transport.abort()
            return
        self._transport = transport
        self._timer = asyncio.get_running_loop().call_later(_LINGER_S, transport.abort)
        transport.write(self._doors.answer())
        if transport.can_write_eof():
            transport.write_eof()
        else:
            # TLS: it says that it closes, and goes on to read until the client has said so too.
            transport.close()

    def data_received(self, data: bytes) -> None:
        """Read what nobody will answer."""
        self._read += len(data)
        if self._read > _MOST_READ:
            self._transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Make room for another refusal."""
        if self._timer is not None:
            self._timer.cancel()
        self._doors.forget(self)
