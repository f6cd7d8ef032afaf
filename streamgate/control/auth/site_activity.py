"""Who plays now in all of a site: what its nodes tell each other in the store that they share.

A row for each holder of streams, ``streams/HOLDER``, names its sessions, and one for each session, ``networks/SESSION``, its networks; each
with the time (s since 1970) of the first and the latest request that was told. Rows are changed by compare-and-set. A node tells of a
session again when half of the time has passed in which it counts; in between it believes what it has told.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence

from streamgate.access.sessions import Session
from streamgate.control.auth.activity import holders
from streamgate.core.settings import AuthSettings
from streamgate.errors import StreamGateError
from streamgate.storage.kv.rows import RowStore, Write

_TRIES = 10
_AT_ONCE = 8
_Times = dict[str, tuple[float, float]]
"""By name: the first and the latest request."""
_Rows = dict[str, bytes | None]


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
        # More at once would wait for a connection, and longer than a call may take.
        at_once = asyncio.Semaphore(_AT_ONCE)

        async def tell(at: int, session: Session, network: str) -> None:
            try:
                async with at_once:
                    await self._spread(session, network, now, rows)
                    ended.update(dict.fromkeys(await self._play(session, now, rows)))
            except StreamGateError as error:
                if error.code == "store_unavailable":
                    raise
                codes[at] = error.code
            else:
                self._told[session.id, network] = now

        due = []
        keys: dict[str, None] = {}
        for at, (session, network) in enumerate(pairs):
            if self._told.get((session.id, network), 0.0) <= again:
                self._told.pop((session.id, network), None)
                due.append((at, session, network))
                keys |= dict.fromkeys((_networks(session), *map(_streams, holders(session))))
        # All at once what each would ask for first.
        names = list(keys)
        rows = dict(zip(names, await self._rows.get_many(names) if names else [], strict=True))
        for failed in await asyncio.gather(*(tell(*each) for each in due), return_exceptions=True):
            if failed is not None:
                raise failed
        while self._told and (next(iter(self._told.values())) <= again or len(self._told) > self._settings.remembered):
            del self._told[next(iter(self._told))]
        return codes, list(ended)

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

    async def _spread(self, session: Session, network: str, now: float, rows: _Rows) -> None:
        limit = session.max_networks
        if not limit:
            return

        def tell(known: _Times) -> None:
            # One more than allowed tells as much as all of them.
            if network not in known and len(known) > limit:
                del known[min(known, key=lambda name: known[name][1])]
            known[network] = known.get(network, (now, now))[0], now

        if len(await self._change(_networks(session), self._settings.networks_window, tell, rows)) > limit:
            raise StreamGateError("session_shared")

    async def _play(self, session: Session, now: float, rows: _Rows) -> list[bytes]:
        """Which other sessions are to end for it; raises ``too_many_streams``."""
        name, limit = session.id.hex(), session.max_streams
        ended: dict[str, None] = {}
        of_one: list[str] = []

        def tell(known: _Times) -> None:
            of_one.clear()  # what an earlier attempt meant was not stored
            others = sorted((each for each in known if each != name), key=lambda each: known[each][0])
            if name not in known and len(others) >= limit:
                if session.when_full == "refuse":
                    raise StreamGateError("too_many_streams")
                for each in others[: len(others) - limit + 1]:
                    del known[each]
                    of_one.append(each)
            known[name] = known.get(name, (now, now))[0], now

        for at, holder in enumerate(holders(session)):
            try:
                await self._change(_streams(holder), self._settings.streams_window, tell, rows)
            except StreamGateError as error:
                if error.code == "too_many_streams":
                    await self._leave(session, holders(session)[:at])  # who have counted it already
                raise
            ended |= dict.fromkeys(of_one)
        return [bytes.fromhex(each) for each in ended]

    async def _change(
        self, key: str, window: float, change: Callable[[_Times], object], rows: _Rows | None = None
    ) -> _Times:
        """Change what counts of a row; the row as it is then. ``rows``: some that were read just now, each good for once."""
        rows = {} if rows is None else rows
        for _ in range(_TRIES):
            row = rows.pop(key) if key in rows else (await self._rows.get_many([key]))[0]
            known = _fresh(row, self._clock() - window)
            change(known)
            made = json.dumps(known, separators=(",", ":")).encode()
            (done,) = await self._rows.write([Write(key, made, window, row)])
            if done:
                return known
        raise StreamGateError("store_unavailable", "a row was changed again and again")


def _fresh(row: bytes | None, since: float) -> _Times:
    """What was told in a row after ``since``."""
    return {name: (first, last) for name, (first, last) in json.loads(row or b"{}").items() if last > since}


def _streams(holder: str) -> str:
    return f"streams/{holder}"


def _networks(session: Session) -> str:
    return f"networks/{session.id.hex()}"
