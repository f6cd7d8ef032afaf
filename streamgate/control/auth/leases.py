"""Leases: which sessions may be served on, from which network, for how long."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from streamgate.access.sessions import GRACE_S, Session, judge
from streamgate.control.auth.activity import Activity
from streamgate.control.auth.ledger import Ledger
from streamgate.control.auth.places import Places
from streamgate.control.auth.revoked import Revoked
from streamgate.core.logging import get_logger
from streamgate.errors import StreamGateError

_log = get_logger("streamgate.auth")
_ENDED = 10_000  # sessions that are told to have ended, or were of late
_AT_ONCE = 8

Pair = tuple[bytes, str, str | None]
"""A session, the network that it was used from, and the asset that was asked for (None: the session's)."""


class Leases:
    """Decides on pairs of a session and a network. ``duration`` in s; ``clock`` gives s since 1970."""

    def __init__(
        self,
        ledger: Ledger,
        revoked: Revoked,
        activity: Activity,
        places: Places,
        duration: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._revoked = revoked
        self._activity = activity
        self._places = places
        self._duration = duration
        self._clock = clock
        self._to_leave: deque[Session] = deque()
        self._left: dict[bytes, None] = {}
        self._leaving: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Tell no more of streams that have ended; they are forgotten by themselves."""
        if self._leaving is not None:
            self._leaving.cancel()
            await asyncio.wait([self._leaving])

    async def decide(self, pairs: Sequence[Pair], *, fresh: bool = False) -> tuple[dict[str, Any], dict[str, str]]:
        """What is granted and what is refused, by ``session|network``; raises ``store_unavailable``."""
        known = self._ledger.find(dict.fromkeys(session for session, _, _ in pairs), fresh=fresh)
        found, _ = await asyncio.gather(known, self._ledger.writable())
        refused: dict[str, str] = {}
        playing: dict[str, tuple[Session, str]] = {}
        now = self._clock()
        for id, network, asset in pairs:
            name = f"{id.hex()}|{network}"
            try:
                if id not in found:
                    raise StreamGateError("session_unknown")
                session, epoch = found[id]
                if self._revoked.ends(session):
                    raise StreamGateError("session_ended")
                place = None if session.binding == "none" else self._places.of(session.binding, network)
                judge(session, epoch, session.asset if asset is None else asset, place, now)
                playing[name] = session, network
            except StreamGateError as error:
                refused[name] = error.code
                if error.code == "session_ended":
                    self._leave(found[id][0])
        codes, to_end = await self._activity.ask(list(playing.values()))
        granted: dict[str, Any] = {}
        for (name, (session, _)), code in zip(playing.items(), codes, strict=True):
            if code:
                refused[name] = code
            else:
                granted[name] = self._told(session, now)
        at_once = asyncio.Semaphore(_AT_ONCE)
        await asyncio.gather(*(self._end(id, at_once) for id in to_end))
        return granted, refused

    def _leave(self, session: Session) -> None:
        """It is no stream any more: that is told once, and by and by, for nobody waits for it."""
        if session.id in self._left or len(self._to_leave) >= _ENDED:
            return
        self._left[session.id] = None
        while len(self._left) > _ENDED:
            del self._left[next(iter(self._left))]
        self._to_leave.append(session)
        if self._leaving is None or self._leaving.done():
            self._leaving = asyncio.create_task(self._tell())

    async def _tell(self) -> None:
        while self._to_leave:
            session = self._to_leave.popleft()
            try:
                await self._activity.end(session)
            except StreamGateError as error:
                self._left.pop(session.id, None)
                _log.warning("a session that has ended counts as a stream for a while", code=error.code)

    def _told(self, session: Session, now: float) -> dict[str, Any]:
        return {
            "seconds": max(0.0, min(self._duration, session.cap + GRACE_S - now)),
            "grant": session.grant.hex(),
            "epoch": session.epoch,
            "account": session.account,
            "entitlements": session.entitlements,
            "asset": session.asset,
            "start": session.start,
            "cap": session.cap,
            "networks": session.networks if session.binding != "none" else (),
        }

    async def _end(self, id: bytes, at_once: asyncio.Semaphore) -> None:
        """End a stream that makes room for another."""
        async with at_once:
            found = await self._ledger.find([id])
            if id in found:
                session, _ = found[id]
                await self._ledger.end_session(session)
                self._leave(session)
                _log.info("the oldest of too many streams was ended")
