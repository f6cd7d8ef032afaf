"""Who plays now in all of a site: what its nodes tell each other in the store that they share.

A row for each holder of streams, ``streams/HOLDER``, names its sessions, and one for each session, ``networks/SESSION``, its networks; each
with the time (s since 1970) of the first and the latest request that was told. Rows are changed by compare-and-set. A node tells of a
session again when half of the time has passed in which it counts; in between it believes what it has told.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence

from streamgate.access.sessions import Session
from streamgate.control.auth.activity import holders
from streamgate.core.settings import AuthSettings
from streamgate.errors import StreamGateError
from streamgate.storage.kv.rows import RowStore, Write

_TRIES = 10
_NETWORKS = "networks/"
_Times = dict[str, tuple[float, float]]
"""By name: the first and the latest request."""
_Due = tuple[int, Session, str]
"""One to be counted: its place among those that were asked for, the session, the network."""


class SiteActivity:
    """An :class:`~streamgate.control.auth.activity.Activity` over rows that others write, too."""

    def __init__(self, rows: RowStore, settings: AuthSettings, clock: Callable[[], float] = time.time) -> None:
        self._rows = rows
        self._settings = settings
        self._clock = clock
        self._told: dict[tuple[bytes, str], float] = {}

    async def room(self, session: Session) -> None:
        """Raises ``too_many_streams``."""
        if session.when_full == "refuse":
            for row in await self._rows.get_many([_streams(holder) for holder in holders(session)]):
                if len(_fresh(row, self._clock() - self._settings.streams_window)) >= session.max_streams:
                    raise StreamGateError("too_many_streams")

    async def ask(self, pairs: Sequence[tuple[Session, str]]) -> tuple[list[str], list[bytes]]:
        """Count requests; what was told of late is not told again."""
        now = self._clock()
        again = now - min(self._settings.streams_window, self._settings.networks_window) / 2
        codes = [""] * len(pairs)
        ended: dict[bytes, None] = {}
        due: list[_Due] = []
        for at, (session, network) in enumerate(pairs):
            if self._told.get((session.id, network), 0.0) <= again:
                self._told.pop((session.id, network), None)
                due.append((at, session, network))
        for _ in range(_TRIES):
            if due:
                due = await self._tell(due, now, codes, ended)
        if due:
            raise StreamGateError("store_unavailable", "a row was changed again and again")
        while self._told and (next(iter(self._told.values())) <= again or len(self._told) > self._settings.remembered):
            del self._told[next(iter(self._told))]
        return codes, list(ended)

    async def _tell(self, due: list[_Due], now: float, codes: list[str], ended: dict[bytes, None]) -> list[_Due]:
        """Count these in one reading and one writing of all their rows; those whose row somebody else changed meanwhile."""
        names = list(dict.fromkeys(name for _, session, _ in due for name in _rows_of(session)))
        rows = dict(zip(names, await self._rows.get_many(names) if names else [], strict=True))
        known = {name: _fresh(row, now - self._window(name)) for name, row in rows.items()}
        changed: dict[str, list[str]] = {}
        for at, session, network in due:
            codes[at] = self._count(session, network, now, known, changed)
        writes = [
            Write(name, json.dumps(known[name], separators=(",", ":")).encode(), self._window(name), rows[name])
            for name in changed
        ]
        done = dict(zip(changed, await self._rows.write(writes) if writes else [], strict=True))
        for name, gone in changed.items():
            if done[name]:
                ended |= dict.fromkeys(bytes.fromhex(each) for each in gone)
        left: list[_Due] = []
        for each in due:
            at, session, network = each
            if not all(done.get(name, True) for name in _rows_of(session)):
                left.append(each)
            elif not codes[at]:
                self._told[session.id, network] = now
        return left

    def _count(
        self, session: Session, network: str, now: float, known: dict[str, _Times], changed: dict[str, list[str]]
    ) -> str:
        """Count one in rows as they are ``known``: the code of its refusal, or "". ``changed``: which, and who ends by that."""
        id = session.id.hex()
        if limit := session.max_networks:
            row = known[_networks(session)]
            # One more than allowed tells as much as all of them.
            if network not in row and len(row) > limit:
                del row[min(row, key=lambda name: row[name][1])]
            row[network] = row.get(network, (now, now))[0], now
            changed.setdefault(_networks(session), [])
            if len(row) > limit:
                return "session_shared"
        streams = [_streams(holder) for holder in holders(session)]
        full = [name for name in streams if id not in known[name] and len(known[name]) >= session.max_streams]
        if full and session.when_full == "refuse":
            for name in streams:
                if known[name].pop(id, None):  # an earlier attempt may have counted it
                    changed.setdefault(name, [])
            return "too_many_streams"
        for name in streams:
            row = known[name]
            gone = changed.setdefault(name, [])
            if name in full:
                oldest = sorted(row, key=lambda each: row[each][0])
                gone += oldest[: len(row) - session.max_streams + 1]
                for each in gone:
                    row.pop(each, None)
            row[id] = row.get(id, (now, now))[0], now
        return ""

    def _window(self, name: str) -> float:
        return self._settings.networks_window if name.startswith(_NETWORKS) else self._settings.streams_window

    async def end(self, session: Session) -> None:
        """It is no stream any more."""
        await self._leave(session, holders(session))

    async def _leave(self, session: Session, of: Sequence[str]) -> None:
        for holder in of:
            await self._change(
                _streams(holder), self._settings.streams_window, lambda known: known.pop(session.id.hex(), None)
            )

    async def shared(self, session: Session) -> bool:
        """Whether it is used from too many networks."""
        if not session.max_networks:
            return False
        (row,) = await self._rows.get_many([_networks(session)])
        return len(_fresh(row, self._clock() - self._settings.networks_window)) > session.max_networks

    async def _change(self, key: str, window: float, change: Callable[[_Times], object]) -> None:
        """Change what counts of a row."""
        for _ in range(_TRIES):
            (row,) = await self._rows.get_many([key])
            known = _fresh(row, self._clock() - window)
            change(known)
            made = json.dumps(known, separators=(",", ":")).encode()
            (done,) = await self._rows.write([Write(key, made, window, row)])
            if done:
                return
        raise StreamGateError("store_unavailable", "a row was changed again and again")


def _fresh(row: bytes | None, since: float) -> _Times:
    """What was told in a row after ``since``."""
    return {name: (first, last) for name, (first, last) in json.loads(row or b"{}").items() if last > since}


def _streams(holder: str) -> str:
    return f"streams/{holder}"


def _networks(session: Session) -> str:
    return f"{_NETWORKS}{session.id.hex()}"


def _rows_of(session: Session) -> list[str]:
    """The rows that a session is counted in."""
    streams = [_streams(holder) for holder in holders(session)]
    return [_networks(session), *streams] if session.max_networks else streams
