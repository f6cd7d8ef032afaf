"""Grants and sessions as they are stored: rows of the machine's store, or of the site's, and some of them in memory.

The machine's rows are written by this process alone, so what is in memory is as they are. A site's are written by all its
nodes, and are read each time.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from streamgate.access.sessions import GRACE_S, ID_BYTES, Grant, Session, by_time, fresh_id
from streamgate.control.auth.revoked import Revoked
from streamgate.core.logging import get_logger
from streamgate.errors import StreamGateError
from streamgate.storage.kv.events import EventType
from streamgate.storage.kv.rows import RowStore, Write

_log = get_logger("streamgate.auth")
_KEPT_S = 3600  # beyond the end: who asks late is told that it ended, and not that it never was
_TRIES = 5
_WRITTEN_S = 60.0
_Row = TypeVar("_Row", Grant, Session)
_Value = TypeVar("_Value")


class EventLog(Protocol):
    """The machine's feed."""

    async def append(self, type: EventType, subject: bytes, until: int | None) -> int: ...


class Ledger:
    """``shared``: other nodes write ``rows``, too. At most ``limit`` sessions, and grants, are kept in memory.

    ``told``: s that the feed tells of an end. A lease does not last longer, and who asks for another one is told by the row; None:
    until the cap, where tokens count without a lease.

    What is written here is written when a call returns. Every call may raise ``store_unavailable``; then what was asked for
    may have been done all the same, and doing it again does no harm.
    """

    def __init__(
        self,
        rows: RowStore,
        events: EventLog,
        revoked: Revoked,
        *,
        shared: bool,
        limit: int,
        told: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.shared = shared
        self._rows = rows
        self._events = events
        self._revoked = revoked
        self._told = told
        self._clock = clock
        self._sessions: dict[bytes, Session] = {}
        self._epochs: dict[bytes, int | None] = {}
        """Of grants: None of one that is not live."""
        self._limit = limit

    def __len__(self) -> int:
        return len(self._sessions)

    def fresh_id(self) -> bytes:
        """An id for a grant or a session that begins now."""
        return fresh_id(secrets.token_bytes(ID_BYTES), self._clock())

    async def open(self, grant: Grant) -> None:
        """Write a pending grant down, before anything is checked for it."""
        await self._rows.write([self._write(_grant_key(grant.id), grant)])

    async def grant(self, pending: Grant, entitlements: tuple[str, ...], session: Session) -> None:
        """Make the grant a live one, with its first session; raises ``session_ended`` where it was ended meanwhile."""
        live = pending.live(entitlements)
        done, _ = await self._rows.write(
            [
                self._write(_grant_key(live.id), live, pending.encode()),
                self._write(session_key(session.id), session),
            ]
        )
        if not done:
            raise StreamGateError("session_ended", "the grant was ended before it began")
        self._keep(self._epochs, session.grant, live.epoch)
        self._keep(self._sessions, session.id, session)

    async def covering(self, id: bytes) -> Grant | None:
        """A grant as it is stored, None where there is none."""
        (row,) = await self._read([_grant_key(id)])
        return _decode(Grant, row)

    async def add(self, session: Session) -> None:
        """Write one more session of a grant down. Has that ended meanwhile, the session has never begun: its epoch is of before."""
        await self._rows.write([self._write(session_key(session.id), session)])
        self._keep(self._sessions, session.id, session)

    async def refuse(self, pending: Grant) -> None:
        """The policy was not satisfied."""
        await self._rows.write([self._write(_grant_key(pending.id), pending.ended(), pending.encode())])

    async def writable(self) -> None:
        """Raises ``store_unavailable`` where others could not write what they ended into the store that we share with them."""
        if self.shared:
            await self._rows.write([Write("written", b"", _WRITTEN_S)])

    async def find(self, ids: Iterable[bytes], *, fresh: bool = False) -> dict[bytes, tuple[Session, int | None]]:
        """Those of these sessions that there are, each with its grant's epoch, None where that is not live.

        ``fresh``: as they are stored, whatever is in memory.
        """
        fresh = fresh or self.shared
        found: dict[bytes, Session] = {}
        missing: list[bytes] = []
        for id in ids:
            if fresh or (session := self._sessions.pop(id, None)) is None:
                missing.append(id)
            else:
                self._sessions[id] = found[id] = session  # the one used last is the last to go
        for row in await self._read([session_key(id) for id in missing]):
            session = _decode(Session, row)
            if session is not None:
                found[session.id] = session
                self._keep(self._sessions, session.id, session)
        epochs: dict[bytes, int | None] = {}
        missing = []
        for session in found.values():
            id = session.grant
            if fresh or id not in self._epochs:
                missing.append(id)
            else:
                self._epochs[id] = epochs[id] = self._epochs.pop(id)
        for id, row in zip(missing, await self._read([_grant_key(id) for id in missing]), strict=True):
            grant = _decode(Grant, row)
            epochs[id] = grant.epoch if grant is not None and grant.state == "live" else None
            self._keep(self._epochs, id, epochs[id])
        return {id: (session, epochs[session.grant]) for id, session in found.items()}

    async def rebind(self, session: Session, network: str) -> Session:
        """Bind a session to another network; raises ``session_ended`` where it ended meanwhile."""
        key, row = session_key(session.id), session.encode()
        for _ in range(_TRIES):
            bound = session.bound_to(network)
            if bound == session:
                return session
            (done,) = await self._rows.write([self._write(key, bound, row)])
            if done:
                self._keep(self._sessions, bound.id, bound)
                return bound
            # Somebody was faster: another renewal of this session, perhaps.
            self._sessions.pop(session.id, None)
            (now,) = await self._rows.get_many([key])
            found = _decode(Session, now)
            if now is None or found is None or found.state != "live":
                raise StreamGateError("session_ended")
            session, row = found, now
        raise StreamGateError("store_unavailable", "a row was changed again and again")

    async def end_session(self, session: Session) -> None:
        """End one session, in all the site."""
        ended = await self._end(Session, session_key(session.id))
        if ended is not None:
            self._keep(self._sessions, ended.id, ended)
        await self._tell("revoke.session", session.id, session.cap)

    async def end_grant(self, id: bytes) -> None:
        """End a grant with all its sessions, in all the site."""
        ended = await self._end(Grant, _grant_key(id))
        if ended is not None:
            self._keep(self._epochs, id, None)
            await self._tell("revoke.grant", id, ended.cap)

    async def note_ended(self, sessions: Sequence[bytes], grants: Sequence[bytes]) -> None:
        """End these in their rows, those that there are; the feed has told everybody."""
        for session in await self._end_each(Session, [session_key(id) for id in sessions]):
            self._keep(self._sessions, session.id, session)
        for grant in await self._end_each(Grant, [_grant_key(id) for id in grants]):
            self._keep(self._epochs, grant.id, None)

    async def _end_each(self, kind: type[_Row], keys: list[str]) -> list[_Row]:
        """End those that there are; which these were."""
        known = [_decode(kind, row) for row in await self._read(keys)]
        going = [key for key, row in zip(keys, known, strict=True) if row is not None and row.state != "ended"]
        return [row for key in going if (row := await self._end(kind, key)) is not None]

    async def _end(self, kind: type[_Row], key: str) -> _Row | None:
        """The row when it has ended; None where there is none."""
        for _ in range(_TRIES):
            (row,) = await self._rows.get_many([key])
            known = _decode(kind, row)
            if known is None or known.state == "ended":
                return known
            ended = known.ended()
            (done,) = await self._rows.write([self._write(key, ended, row)])
            if done:
                return ended
        raise StreamGateError("store_unavailable", "a row was changed again and again")

    async def _tell(self, kind: EventType, subject: bytes, cap: int) -> None:
        if not self._revoked.holds(kind, subject):
            end = cap if self._told is None else min(cap, int(self._clock() + self._told))
            await self._events.append(kind, subject, end + GRACE_S)
            self._revoked.add(kind, subject, end + GRACE_S)

    def _write(self, key: str, row: Grant | Session, expected: bytes | None = None) -> Write:
        return Write(key, row.encode(), max(1.0, row.cap + GRACE_S + _KEPT_S - self._clock()), expected)

    async def _read(self, keys: list[str]) -> list[bytes | None]:
        return await self._rows.get_many(keys) if keys else []

    def _keep(self, kept: dict[bytes, _Value], id: bytes, value: _Value) -> None:
        if self.shared:
            return
        kept.pop(id, None)
        kept[id] = value
        while len(kept) > self._limit:
            del kept[next(iter(kept))]


def _grant_key(id: bytes) -> str:
    return f"grant/{by_time(id)}"


def session_key(id: bytes) -> str:
    """Where a session's row is."""
    return f"session/{by_time(id)}"


def _decode(kind: type[_Row], row: bytes | None) -> _Row | None:
    if row is None:
        return None
    try:
        return kind.decode(row)
    except (ValueError, TypeError):
        _log.error("a row of the store cannot be read", kind=kind.__name__.lower())
        return None
