"""What the feed revokes is written into the rows, too: so it stays when the event is no more.

A session or a grant ends in its own row. Of accounts, entitlements and assets one row, ``revoked``, says until when they were
revoked, as long as a session that had begun before may live.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

from streamgate.control.auth.ledger import Ledger
from streamgate.control.auth.revoked import LASTING, LASTS_S, Revoked
from streamgate.core.logging import get_logger
from streamgate.errors import StreamGateError
from streamgate.storage.kv.events import Event, EventType
from streamgate.storage.kv.rows import RowStore, Write

_log = get_logger("streamgate.auth")
_ROW = "revoked"
_MOST = 10_000  # entries of the row, the latest ends stay
_BATCH = 500
_AGAIN_S = 1.0
_BEFORE_S = 20.0
_TRIES = 10


class Endings:
    """Made by :meth:`open`. ``clock`` gives s since 1970."""

    def __init__(
        self, rows: RowStore, ledger: Ledger, revoked: Revoked, clock: Callable[[], float] = time.time
    ) -> None:
        self._rows = rows
        self._ledger = ledger
        self._revoked = revoked
        self._clock = clock
        self._due: dict[tuple[str, bytes], None] = {}
        self._again: dict[tuple[str, bytes], float] = {}
        self._wanted = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, rows: RowStore, ledger: Ledger, revoked: Revoked) -> Endings:
        """What was written down before is in force; where that cannot be read it is tried again and again."""
        made = cls(rows, ledger, revoked)
        made._due[_ROW, b""] = None
        try:
            await made._write([(_ROW, b"")])
            made._due.clear()
        except StreamGateError as error:
            # As long as rows cannot be read nobody gets a lease, either.
            _log.warning("what was revoked before is not known yet", code=error.code)
            made._wanted.set()
        made._writing = asyncio.create_task(made._keep_writing())
        return made

    async def close(self) -> None:
        """Write no more."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.wait([self._writing])

    def note(self, event: Event, *, new: bool = True) -> None:
        """Write down what an event ends, by and by: it is in force already. Not ``new``: it was written by who has told it."""
        if event.type in ("revoke.session", "revoke.grant"):
            if new:
                self._due[event.type, event.subject] = None
            if self._ledger.shared and event.until is not None:
                self._again[event.type, event.subject] = event.until - _BEFORE_S
        elif new and event.type in LASTING and event.until is not None:
            self._due[_ROW, b""] = None
        if self._due:
            self._wanted.set()

    def look_again(self) -> None:
        """Before an event is no more, have it seen to that its row says the same: a site's store may have lost that in a failover."""
        now = self._clock()
        for what in [what for what, at in self._again.items() if at <= now]:
            del self._again[what]
            self._due[what] = None
            self._wanted.set()

    async def _keep_writing(self) -> None:
        while True:
            await self._wanted.wait()
            batch = list(self._due)[:_BATCH]
            for each in batch:
                del self._due[each]
            try:
                await self._write(batch)
            except StreamGateError as error:
                _log.warning("what was revoked is not written down yet", code=error.code)
                self._due |= dict.fromkeys(batch)
                await asyncio.sleep(_AGAIN_S)
            if not self._due:
                self._wanted.clear()

    async def _write(self, batch: list[tuple[str, bytes]]) -> None:
        ended = {
            kind: [subject for due, subject in batch if due == kind] for kind in ("revoke.session", "revoke.grant")
        }
        await self._ledger.note_ended(ended["revoke.session"], ended["revoke.grant"])
        if (_ROW, b"") in batch:
            await self._merge()

    async def _merge(self) -> None:
        """Bring the row and what is in memory together; of several nodes that do so each adds what it knows."""
        for _ in range(_TRIES):
            (row,) = await self._rows.get_many([_ROW])
            for kind, subject, until in _read(row):
                self._revoked.add(kind, subject, until)
            now = self._clock()
            known = sorted(
                (until, kind, subject.hex())
                for kind, subject, until in self._revoked.lasting()
                if until + LASTS_S > now
            )[-_MOST:]
            made = json.dumps([[kind, subject, until] for until, kind, subject in known]).encode()
            if not known or made == row:
                return
            if (await self._rows.write([Write(_ROW, made, known[-1][0] + LASTS_S - now, row)]))[0]:
                return
        raise StreamGateError("store_unavailable", "a row was changed again and again")


def _read(row: bytes | None) -> list[tuple[EventType, bytes, int]]:
    try:
        return [(kind, bytes.fromhex(subject), int(until)) for kind, subject, until in json.loads(row or b"[]")]
    except (ValueError, TypeError):
        _log.error("the row of what was revoked cannot be read")
        return []
