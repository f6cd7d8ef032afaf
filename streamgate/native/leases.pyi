"""Leases of sessions: who holds one for the network that a request is from is served without asking anybody."""

from collections.abc import Set as AbstractSet
from typing import Self, final

from streamgate.native.cat import Token

def network(address: bytes) -> bytes:
    """The first bytes of a packed address that name its network: 3 (/24), 6 (/48), none of one that is not known."""

@final
class Lease:
    """One session, used from one network; made by :class:`Leases` alone."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        """Raises TypeError."""
    until: int
    """CLOCK_MONOTONIC in ns; 0: it has ended."""
    used: bool
    """Whether a request counted on it since somebody looked last."""
    @property
    def session(self) -> bytes: ...
    @property
    def network(self) -> bytes: ...
    @property
    def names(self) -> tuple[tuple[str, bytes], ...]:
        """All whose end is this one's: types of events and their subjects (:mod:`streamgate.storage.kv.events`)."""
    @property
    def asset(self) -> str: ...

@final
class Leases:
    """The leases that a process holds, ``most`` at once: beyond that the one that was granted first makes room.

    Where none are ``required``, every token is served without. Raises ValueError for a table without room.
    """

    def __new__(cls, most: int = 50_000, *, required: bool = True) -> Self: ...
    def __len__(self) -> int: ...
    @property
    def required(self) -> bool: ...
    @property
    def most(self) -> int: ...
    @property
    def free(self) -> Lease:
        """What tokens are given that need none: those of foreign keys."""
    def hold(self, token: Token, asset: str, address: bytes, now: int) -> Lease | None:
        """The lease by which a request for ``asset`` from a packed address may be served, which counts as used; None: there is none."""
    def get(self, session: bytes, place: bytes) -> Lease | None:
        """The lease of a session and a network, which may have ended."""
    def grant(
        self, session: bytes, place: bytes, until: int, *, asset: str, names: tuple[tuple[str, bytes], ...] = ()
    ) -> Lease:
        """Hold a lease for ``asset`` until then (CLOCK_MONOTONIC, ns); one that is held already is extended and stays the same object."""
    def end(self, lease: Lease) -> None:
        """End one."""
    def end_named(self, names: AbstractSet[tuple[str, bytes]]) -> int:
        """End all that have one of these names; how many there were."""
    def used(self, now: int) -> list[Lease]:
        """Those that requests counted on since this was called last; forgets what has ended."""
