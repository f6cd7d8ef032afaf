"""Leases: which sessions may be served on, from which network, for how long."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from streamgate.access.sessions import GRACE_S, Session, judge
from streamgate.control.auth.activity import Activity
from streamgate.control.auth.ledger import Ledger
from streamgate.control.auth.revoked import Revoked
from streamgate.core.logging import get_logger
from streamgate.errors import StreamGateError

_log = get_logger("streamgate.auth")

Pair = tuple[bytes, str, str | None]
"""A session, the network that it was used from, and the asset that was asked for (None: the session's)."""


class Leases:
    """Decides on pairs of a session and a network. ``duration`` in s; ``clock`` gives s since 1970."""

    def __init__(
        self,
        ledger: Ledger,
        revoked: Revoked,
        activity: Activity,
        duration: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._revoked = revoked
        self._activity = activity
        self._duration = duration
        self._clock = clock

    async def decide(self, pairs: Sequence[Pair], *, fresh: bool = False) -> tuple[dict[str, Any], dict[str, str]]:
        """What is granted and what is refused, by ``session|network``; raises ``store_unavailable``."""
        found = await self._ledger.find(dict.fromkeys(session for session, _, _ in pairs), fresh=fresh)
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
                judge(session, epoch, session.asset if asset is None else asset, network, now)
                playing[name] = session, network
            except StreamGateError as error:
                refused[name] = error.code
                if error.code == "session_ended":
                    await self._activity.end(found[id][0])
        codes, to_end = await self._activity.ask(list(playing.values()))
        granted: dict[str, Any] = {}
        for (name, (session, _)), code in zip(playing.items(), codes, strict=True):
            if code:
                refused[name] = code
            else:
                granted[name] = self._told(session, now)
        for id in to_end:
            await self._end(id)
        return granted, refused

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

    async def _end(self, id: bytes) -> None:
        """End a stream that makes room for another."""
        found = await self._ledger.find([id])
        if id in found:
            session, _ = found[id]
            await self._activity.end(session)
            await self._ledger.end_session(session)
            _log.info("the oldest of too many streams was ended")
