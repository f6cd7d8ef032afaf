"""Who plays now, as lease requests tell: streams at once of an entitlement or an account, and networks of a session."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from streamgate.access.sessions import Session
from streamgate.core.clock import steady
from streamgate.core.settings import AuthSettings
from streamgate.errors import StreamGateError

_NEVER = float("-inf")


class Activity(Protocol):
    """A stream is a session that was let in; its holders are what satisfied its policy, and the account or browser.

    Every call may raise ``store_unavailable``.
    """

    async def room(self, session: Session) -> None:
        """Whether one more stream may begin; raises ``too_many_streams`` where that is refused."""

    async def ask(self, pairs: Sequence[tuple[Session, str]]) -> tuple[list[str], list[bytes]]:
        """Count requests of sessions from networks: for each the code of its refusal or "", and which sessions are to end."""

    async def end(self, session: Session) -> None:
        """A session has ended, and is no stream any more."""

    async def shared(self, session: Session) -> bool:
        """Whether a session is used from too many networks at present."""


def holders(session: Session) -> tuple[str, ...]:
    """Who is counted; nobody where any number is allowed."""
    if not session.max_streams:
        return ()
    return (*session.entitlements, session.account) if session.account else session.entitlements


@dataclass(slots=True)
class _Active:
    """Times in s of a clock that nobody sets: of the last request, of the stream's beginning; each network's last request."""

    holders: tuple[str, ...]
    asked: float
    since: float = _NEVER
    last: float = _NEVER
    networks: tuple[tuple[str, float], ...] = ()


class NodeActivity:
    """An :class:`Activity` of one node, in memory: of ``settings.remembered`` sessions, those quiet for longest go first."""

    def __init__(self, settings: AuthSettings, clock: Callable[[], float] = steady) -> None:
        self._settings = settings
        self._clock = clock
        self._sessions: dict[bytes, _Active] = {}
        self._streams: dict[str, list[bytes]] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    async def room(self, session: Session) -> None:
        """Raises ``too_many_streams``."""
        limit, now = session.max_streams, self._clock()
        if limit and session.when_full == "refuse":
            for holder in holders(session):
                if len(self._playing(holder, limit, now)) >= limit:
                    raise StreamGateError("too_many_streams")

    async def ask(self, pairs: Sequence[tuple[Session, str]]) -> tuple[list[str], list[bytes]]:
        """Count requests."""
        codes: list[str] = []
        ended: dict[bytes, None] = {}
        for session, network in pairs:
            try:
                ended |= dict.fromkeys(self._ask(session, network))
                codes.append("")
            except StreamGateError as error:
                codes.append(error.code)
        return codes, list(ended)

    def _ask(self, session: Session, network: str) -> list[bytes]:
        """Which other sessions are to end for it; raises ``session_shared`` and ``too_many_streams``."""
        now = self._clock()
        active = self._sessions.pop(session.id, None) or _Active(holders(session), now)
        # The one that asked last is the last to be forgotten, refused or not.
        self._sessions[session.id] = active
        active.asked = now
        self._forget(now)
        self._spread(active, session.max_networks, network, now)
        ended: list[bytes] = []
        if active.last <= now - self._settings.streams_window:
            ended = self._begin(active, session, now)
        active.last = now
        return ended

    async def end(self, session: Session) -> None:
        """It is no stream any more."""
        self._end(session.id)

    def _end(self, id: bytes) -> None:
        active = self._sessions.pop(id, None)
        if active is not None:
            self._leave(id, active)

    async def shared(self, session: Session) -> bool:
        """Whether it is used from too many networks."""
        active = self._sessions.get(session.id)
        if active is None or not session.max_networks:
            return False
        return len(self._recent(active, self._clock())) > session.max_networks

    def _spread(self, active: _Active, limit: int, network: str, now: float) -> None:
        if not limit:
            return
        others = tuple(each for each in self._recent(active, now) if each[0] != network)
        # One more than allowed tells as much as all of them.
        active.networks = (*others[-limit:], (sys.intern(network), now))
        if len(active.networks) > limit:
            raise StreamGateError("session_shared")

    def _recent(self, active: _Active, now: float) -> tuple[tuple[str, float], ...]:
        return tuple(each for each in active.networks if each[1] > now - self._settings.networks_window)

    def _begin(self, active: _Active, session: Session, now: float) -> list[bytes]:
        """Let a stream begin, or begin again after a pause."""
        self._leave(session.id, active)
        limit, ended = session.max_streams, dict[bytes, None]()
        for holder in active.holders:
            others = self._playing(holder, limit, now)
            if len(others) < limit:
                continue
            if session.when_full == "refuse":
                raise StreamGateError("too_many_streams")
            oldest = sorted(others, key=lambda each: self._sessions[each].since)
            ended |= dict.fromkeys(oldest[: len(others) - limit + 1])
        active.since = now
        for holder in active.holders:
            self._streams.setdefault(holder, []).append(session.id)
        return list(ended)

    def _playing(self, holder: str, limit: int, now: float) -> list[bytes]:
        """The holder's streams; where these are fewer than ``limit`` some may be quiet by now."""
        known = self._streams.get(holder, [])
        if len(known) >= limit:
            since = now - self._settings.streams_window
            for id in [id for id in known if self._sessions[id].last <= since]:
                self._leave(id, self._sessions[id])
            known = self._streams.get(holder, [])
        return known

    def _forget(self, now: float) -> None:
        """Drop those that were quiet for so long that they count for nothing, the first ones first."""
        since = now - max(self._settings.streams_window, self._settings.networks_window)
        while True:
            id, active = next(iter(self._sessions.items()))
            if active.asked > since and len(self._sessions) <= self._settings.remembered:
                return
            self._end(id)

    def _leave(self, id: bytes, active: _Active) -> None:
        """It is no stream any more."""
        if active.since == _NEVER:
            return
        active.since = active.last = _NEVER
        for holder in active.holders:
            streams = self._streams[holder]
            streams.remove(id)
            if not streams:
                del self._streams[holder]
