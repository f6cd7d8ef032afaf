"""Tokens that others issue: what the verifier leaves to others, which is to look at signatures, and at when a token was first seen.

It is done in a thread, and for a network only so often: arithmetic that anybody can ask for must not keep others waiting. What
was found right is remembered by the verifier, which looks at all but the signature each time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from edge.threads import Threads
from streamgate.access import foreign
from streamgate.access.foreign import Checker
from streamgate.access.keys import AnyKey, PublicKey
from streamgate.core.logging import get_logger
from streamgate.errors import StreamGateError
from streamgate.native.cat import CLAIMS, Token, Verifier, decode

_EXP = CLAIMS["exp"]
_NEVER = 2**62
_LONGEST_S = 10 * 366 * 86_400  # that a first sight is kept in a store
_GRACE_S = 60  # more than a verifier grants after exp, and clocks differ
_AGAIN_S = 0.25
_log = get_logger("edge.foreign")


class Sights(Protocol):
    """When a token was first seen."""

    def first(self, digest: bytes, now: int, end: int) -> int:
        """See :class:`streamgate.storage.sights.Sights`."""

    def spelt(self, digest: bytes, identity: bytes, end: int) -> list[bytes]:
        """As its."""

    def identities(self, digests: Sequence[bytes]) -> list[bytes | None]:
        """As its."""


class SiteStore(Protocol):
    """What the nodes of a site share; both calls raise ``store_unavailable``."""

    async def get(self, key: str) -> bytes | None: ...
    async def put_new(self, key: str, value: bytes, ttl: float | None = None) -> bool: ...


class Rate(Protocol):
    """How often a network may ask."""

    def ask(self, key: bytes, now: int) -> int:
        """0, or how long it has to wait, in ns; see :class:`streamgate.native.limiter.Limiter`."""


class Foreign:
    """Looks at tokens of others that ``verifier`` does not remember; ``max_life``: s that one counts from its first sight."""

    def __init__(
        self,
        verifier: Verifier,
        threads: Threads,
        rate: Rate,
        sights: Sights,
        max_life: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._verifier = verifier
        self._threads = threads
        self._rate = rate
        self._sights = sights
        self._max_life = max_life
        self._clock = clock
        self._checkers: dict[tuple[bytes, int], Checker] = {}
        self._flights: dict[bytes, asyncio.Future[None]] = {}
        self.site: SiteStore | None = None
        """Where the nodes of a site tell each other of first sights; None: there is one machine."""
        self.revoked: Callable[[bytes], int] = lambda _: 0
        """Until when the token with this digest is revoked, s since 1970."""
        self._resolving: list[bytes] = []
        self._resolved: asyncio.Task[None] | None = None

    def configure(self, keys: Sequence[AnyKey]) -> None:
        """Take the public keys among ``keys``, which are good."""
        self._checkers = {
            (key.kid, foreign.NUMBERS[key.algorithm]): foreign.load(key.public, key.algorithm)
            for key in keys
            if isinstance(key, PublicKey)
        }

    async def read(self, token: str, address: bytes) -> Token:
        """What :meth:`Verifier.read` gives, and of a token of others that was never seen, too; ``address``: packed, the client's.

        Raises as it does, ``rate_limited`` where too many of them come from one network, ``overloaded``, and
        ``store_unavailable`` where it cannot be told when it was first seen.
        """
        try:
            return self._verifier.read(token)
        except StreamGateError as error:
            if error.code != "token_signature":
                raise
        key, _, _, digest, _ = self._verifier.covered(token)
        if key.leased:
            raise StreamGateError("token_signature")
        # Of requests for one token that come at once one has the work done, and may leave before it is.
        flight = self._flights.get(digest)
        if flight is None:
            self._admit(address)
            flight = asyncio.ensure_future(self._look(token))
            self._flights[digest] = flight
            flight.add_done_callback(lambda done: self._landed(digest, done))
        await asyncio.shield(flight)
        return self._verifier.read(token)

    def revoke(self, digest: bytes) -> None:
        """Have a token that was revoked by how it was written refused as it may be written elsewhere, too; in the event loop.

        What another process of the machine saw written so, this one may know in another form.
        """
        self._resolving.append(digest)
        if self._resolved is None or self._resolved.done():
            self._resolved = asyncio.create_task(self._resolve())

    async def _resolve(self) -> None:
        while self._resolving:
            digests, self._resolving = self._resolving, []
            try:
                found = await self._threads.run(self._sights.identities, digests)
            except StreamGateError as error:
                _log.error("a token of others that is revoked may count as it is written elsewhere", code=error.code)
                self._resolving = [*digests, *self._resolving]
                await asyncio.sleep(_AGAIN_S)
                continue
            for digest, identity in zip(digests, found, strict=True):
                if identity is not None:
                    self._verifier.revoke_token(identity, self.revoked(digest))

    async def _look(self, token: str) -> None:
        generation = -1
        while generation != self._verifier.generation:  # what was right by keys that have changed meanwhile is not
            generation = self._verifier.generation
            key, covered, signature, digest, identity = self._verifier.covered(token)
            checker = self._checkers.get((key.kid, key.algorithm))
            # A MAC was looked at by the verifier.
            if checker is None and key.algorithm != foreign.HS256:
                raise StreamGateError("token_signature")
            first, spelt = await self._threads.run(self._first, token, checker, covered, signature, digest, identity)
            if self.site is not None:
                first = min(first, await _told(self.site, identity, first, _end(token)))
        self._verifier.remember(token, int(first + self._max_life))
        # It may have been revoked as it was written elsewhere, before this process saw it.
        if until := max((self.revoked(each) for each in spelt), default=0):
            self._verifier.revoke_token(identity, until)

    def _first(
        self, token: str, checker: Checker | None, covered: bytes, signature: bytes, digest: bytes, identity: bytes
    ) -> tuple[int, list[bytes]]:
        """When it was first seen on this machine, and how it was written."""
        if checker is not None and not checker.right(covered, signature):
            raise StreamGateError("token_signature")
        end = _end(token)
        return self._sights.first(identity, int(self._clock()), end), self._sights.spelt(digest, identity, end)

    def _admit(self, address: bytes) -> None:
        if self._rate.ask(network(address), time.monotonic_ns()):
            raise StreamGateError("rate_limited", "too many tokens that were never seen come from this network")

    def _landed(self, digest: bytes, flight: asyncio.Future[None]) -> None:
        self._flights.pop(digest, None)
        if not flight.cancelled():
            flight.exception()  # who waited has it; nobody may have


async def _told(site: SiteStore, identity: bytes, first: int, end: int) -> int:
    """When a token was first seen in all the site, which is ``first`` where no other node has told of it."""
    name = f"sight/{identity.hex()}"
    if await site.put_new(name, str(first).encode(), float(min(max(0, end - first), _LONGEST_S) + _GRACE_S)):
        return first
    told = await site.get(name)
    return int(told) if told is not None else first


def _end(token: str) -> int:
    """The token's exp in s since 1970; for one without a plain exp more than will ever be."""
    try:
        exp = decode(token)[3].get(_EXP)
    except (StreamGateError, TypeError):  # the verifier says so
        exp = None
    return max(0, min(exp, _NEVER)) if type(exp) is int else _NEVER


def network(address: bytes) -> bytes:
    """The network of a packed address: /24, or /48 of IPv6; an IPv4-mapped address is its IPv4's."""
    if len(address) == 16 and address.startswith(bytes(10) + b"\xff\xff"):
        address = address[12:]
    return address[: 3 if len(address) == 4 else 6]
