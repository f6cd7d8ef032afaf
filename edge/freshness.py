"""How old what a process knows of the site's feed is: beyond a limit somebody else may have revoked what is believed here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from edge.control import Message
from streamgate.core.clock import steady

Failing = Literal["", "read", "written"]


class Freshness:
    """``max_age`` (s) is how old it may be; None: the node shares no feed, and nothing is ever too old.

    The time that counts is :func:`~streamgate.core.clock.steady`'s, which is the same in the parent, who reads the feed, and
    in the workers. So these know its age though the parent hangs, and nobody's setting of a clock changes it.
    """

    def __init__(self, max_age: float | None, clock: Callable[[], float] = steady) -> None:
        self.failing: Failing = ""
        """What cannot be done with the feed at present."""
        self.circuit = "closed"
        """The state of the circuit to where it is kept."""
        self.max_age = max_age
        self._clock = clock
        self._since = clock()
        self._read: float | None = None

    @property
    def age(self) -> float:
        """Seconds since the feed was last read, or since this began where it never was; 0 where there is none."""
        if self.max_age is None:
            return 0.0
        return max(0.0, self._clock() - (self._since if self._read is None else self._read))

    @property
    def stale(self) -> bool:
        """Whether the feed is older than allowed, or was never read."""
        return self.max_age is not None and (self._read is None or self.age > self.max_age)

    def read_at(self, when: float) -> None:
        """It was read: whatever had been written by ``when`` (s, steady) is known."""
        self._read = when

    def message(self) -> Message:
        """For another process's :meth:`hear`."""
        told = {"max_age": self.max_age, "read": self._read, "failing": self.failing, "circuit": self.circuit}
        return {"do": "site", **told}

    def hear(self, message: Message) -> None:
        """Take over what another process knows."""
        self.max_age, self._read = message["max_age"], message["read"]
        self.failing, self.circuit = message["failing"], message["circuit"]

    def problem(self) -> str | None:
        """A sentence for people, without addresses, where something is not as it should be."""
        if self.max_age is None or not (self.stale or self.failing):
            return None
        known = "was never read" if self._read is None else f"was last read {self.age:.0f} s ago"
        what = f"cannot be {self.failing}, the circuit to it is {self.circuit}" if self.failing else "is not read"
        allowed = ", longer than allowed: not all that is revoked may be known" if self.stale else ""
        return f"the site's feed {what}, it {known}{allowed}"
