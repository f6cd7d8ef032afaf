"""Flights across nodes: of several that miss the same thing one makes it, and the others read it from Redis.

Who makes it has a lease that ends by itself. It stays when the thing is written, so that who looked a moment too early finds
it taken, and then finds the thing. A follower waits for as long as a lease lasts at most; then it does the work itself. So it
does where Redis does not answer.

What is read of a source at once (a window with a segment of each track) has one lease, and who gets it makes all of it:
else two nodes would read the same bytes for two objects.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable

from edge.entries import Entry
from edge.tiers.redis import RedisTier, lease_of
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError

_FIRST_S = 0.002
_LONGEST_S = 0.05
# Who began it and never told what became of it: a request that was given up in between.
_GIVEN_UP_S = 60.0
_MANY = 4096


class _Making:
    """What this process is taken to make until ``until``, by a lease that it has until ``leased`` (0: none)."""

    __slots__ = ("fresh", "leased", "told", "until")

    def __init__(self, until: float, leased: float) -> None:
        self.until = until
        self.leased = leased
        self.fresh = leased > 0
        # Of what has one lease, that which is made.
        self.told: set[str] = set()


class SharedFlights:
    """The flights of this process for what ``tier`` keeps. ``lease``: seconds that one lasts."""

    def __init__(
        self, tier: RedisTier, telemetry: Telemetry, lease: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tier = tier
        self._telemetry = telemetry
        self._lease = lease
        self._clock = clock
        self._holder = secrets.token_hex(8).encode()  # for whoever looks at Redis
        self._turns: dict[str, asyncio.Task[Entry | None]] = {}
        self._making: dict[str, _Making] = {}
        self._releasing: set[asyncio.Task[None]] = set()
        self._closed = False

    async def close(self) -> None:
        """Wait for nobody's work any more; give back what is held."""
        self._closed = True
        await asyncio.gather(*self._turns.values(), return_exceptions=True)
        for lease, making in list(self._making.items()):
            self._release(lease, making)
        await asyncio.gather(*self._releasing)

    async def turn(self, key: str, lease: str = "") -> Entry | None:
        """What somebody else has made meanwhile of what was in no tier; None: to be made now, by everybody who is told so.

        Who has made it calls :meth:`made`, or :meth:`failed`. ``lease``: the name of what it is made with, if not alone.
        """
        lease = lease or key
        if not self._tier.readable:
            return None
        waiting = self._turns.get(key)
        if waiting is None:
            making = self._making.get(lease)
            if making is not None and key not in making.told and self._clock() < making.until:
                return None
            waiting = self._turns[key] = asyncio.ensure_future(self._turn(key, lease))
            waiting.add_done_callback(lambda _: self._turns.pop(key, None))
        return await asyncio.shield(waiting)

    def makes(self, key: str, lease: str = "") -> bool:
        """Whether this process makes it, and has not told yet."""
        making = self._making.get(lease or key)
        return making is not None and key not in making.told

    def leads(self, lease: str) -> bool:
        """Whether this process is to make all that has this lease; said once for each time that it got it."""
        making = self._making.get(lease)
        fresh = making is not None and making.fresh
        if making is not None:
            making.fresh = False
        return fresh

    def made(self, key: str, entry: Entry, body: bytes, lease: str = "") -> None:
        """It is made: the others may have it. Nothing happens where that was said already."""
        lease = lease or key
        making = self._making.get(lease)
        if making is None or key in making.told:
            return
        making.told.add(key)
        if lease == key:
            del self._making[lease]
        else:
            making.until = making.leased

        def written(stored: bool) -> None:
            if not stored:
                self._release(lease, making)

        if not self._tier.write(key, entry, body, written):
            written(False)

    def failed(self, key: str, lease: str = "") -> None:
        """It could not be made: whoever waits may try. Nothing happens where it was made."""
        lease = lease or key
        if self.makes(key, lease):
            self._release(lease, self._making[lease])

    async def _turn(self, key: str, lease: str) -> Entry | None:
        end, pause = self._clock() + self._lease, _FIRST_S
        leased = 0.0
        try:
            while not self._closed and self._tier.readable and (now := self._clock()) < end:
                if await self._tier.writes.put_new(lease_of(lease), self._holder, self._lease):
                    leased = now + self._lease
                    break
                found = await self._tier.lookup(key)
                if found is not None:
                    self._telemetry.count("shared_flights", result="followed")
                    return found
                await asyncio.sleep(min(pause, max(0.0, end - self._clock())))
                pause = min(2 * pause, _LONGEST_S)
        except StreamGateError:
            pass
        self._telemetry.count("shared_flights", result="led" if leased else "alone")
        self._note(lease, leased)
        return None

    def _note(self, lease: str, leased: float) -> None:
        now = self._clock()
        if len(self._making) >= _MANY:  # of those whose requests were given up, and leases that have ended
            self._making = {name: making for name, making in self._making.items() if making.until > now}
        self._making[lease] = _Making(now + _GIVEN_UP_S, leased)

    def _release(self, lease: str, making: _Making) -> None:
        """Give the lease back if it is still ours: later it may be another's."""
        if self._making.get(lease) is making:
            del self._making[lease]
        if self._clock() >= making.leased:
            return
        task = asyncio.ensure_future(self._give_back(lease))
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)

    async def _give_back(self, key: str) -> None:
        try:
            await self._tier.writes.delete(lease_of(key))
        except StreamGateError:
            pass  # it ends by itself
