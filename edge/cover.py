"""The sockets of a worker's team: those of its own seat, and those of others, while there is nobody else to accept from them.

The kernel goes on spreading connections over the sockets of a seat whose worker is dead. Usually its successor takes them
a moment later; should there be none, they would wait for ever.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Sequence

from edge.accept import Acceptor
from edge.server import Server


class Cover:
    """Descriptors by seat, as the worker at ``seat`` inherits them; ``encrypted`` are of sockets that speak TLS."""

    def __init__(
        self, server: Server, listening: Sequence[Sequence[int]], encrypted: Sequence[Sequence[int]], seat: int
    ) -> None:
        self._server = server
        own = {*listening[seat], *encrypted[seat]}
        self.own = tuple([socket.socket(fileno=number) for number in part[seat]] for part in (listening, encrypted))
        # A Unix socket, which all seats share, is accepted from already.
        self._others = {
            other: tuple([number for number in part[other] if number not in own] for part in (listening, encrypted))
            for other in range(len(listening))
            if other != seat
        }
        self._covered: dict[int, list[Acceptor]] = {}

    def cover(self, seats: Collection[int]) -> None:
        """Accept for these seats too, and for no others."""
        for seat in self._covered.keys() - set(seats):
            self._server.forgo(self._covered.pop(seat))
        for seat in self._others.keys() & set(seats) - self._covered.keys():
            plain, encrypted = ([_another(number) for number in part] for part in self._others[seat])
            self._covered[seat] = self._server.take(plain, encrypted)

    def close(self) -> None:
        """Give up the sockets of the others; those that are accepted from are the server's to close."""
        for number in {number for parts in self._others.values() for part in parts for number in part}:
            os.close(number)
        self._others.clear()
        self._covered.clear()


def _another(number: int) -> socket.socket:
    """One more descriptor of a socket, to be closed for itself."""
    return socket.socket(fileno=os.dup(number))
