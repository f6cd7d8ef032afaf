"""When tokens of others were first seen by any process of this machine: a restart makes none of them young again."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from streamgate.errors import StreamGateError

T = TypeVar("T")
_WAIT_S = 2.0
_GRACE_S = 60  # more than a verifier grants after exp, and clocks differ
_SPELLINGS = 16  # that are known of one token


class Sights:
    """A file of about ``most`` tokens' digests, and times in s since 1970. Any thread may use it.

    A token is forgotten once it is over by itself, never before: who was forgotten would be young again.
    """

    def __init__(self, path: Path, most: int) -> None:
        self._path = path
        self._most = most
        self._lock = threading.Lock()
        self._opened: sqlite3.Connection | None = None
        self._free = 0  # that may be added before they are counted again
        self._full_at = -1

    def first(self, digest: bytes, now: int, end: int) -> int:
        """When ``digest`` was first asked for, which is ``now`` for one that never was; ``end``: its exp. Blocking.

        Raises ``store_unavailable`` where the file cannot be read or written: how old a token is is not known then; and
        ``overloaded`` for a new one where all are of tokens that are not over.
        """
        return self._try(lambda one: self._first(one, digest, now, end))

    def _try(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            try:
                if self._opened is None:
                    self._opened = self._open()
                return work(self._opened)
            except (sqlite3.Error, OSError) as error:
                self._drop()
                raise StreamGateError("store_unavailable", "when a token was first seen cannot be told") from error

    def spelt(self, digest: bytes, identity: bytes, end: int) -> list[bytes]:
        """Note that the token with this ``identity``, which has been seen, was written so; ``digest``: of its characters. Blocking.

        Gives all that is known of how it is written. Raises ``store_unavailable``.
        """

        def note(one: sqlite3.Connection) -> list[bytes]:
            known = one.execute("SELECT digest FROM spelt WHERE identity = ?", (identity,)).fetchall()
            if (digest,) not in known and len(known) < _SPELLINGS:
                one.execute("INSERT OR IGNORE INTO spelt VALUES (?, ?, ?)", (digest, identity, end))
            return [each for (each,) in known]

        return self._try(note)

    def identities(self, digests: Sequence[bytes]) -> list[bytes | None]:
        """Which tokens these are, None of those that were never seen. Blocking. Raises ``store_unavailable``."""

        def look(one: sqlite3.Connection) -> list[bytes | None]:
            rows = (one.execute("SELECT identity FROM spelt WHERE digest = ?", (each,)).fetchone() for each in digests)
            return [row[0] if row is not None else None for row in rows]

        return self._try(look)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._drop()

    def _first(self, one: sqlite3.Connection, digest: bytes, now: int, end: int) -> int:
        found = one.execute("SELECT first FROM seen WHERE digest = ?", (digest,)).fetchone()
        if found is None:
            with one:
                one.execute("BEGIN IMMEDIATE")
                self._make_room(one, now)
                one.execute("INSERT OR IGNORE INTO seen VALUES (?, ?, ?)", (digest, now, end))
                found = one.execute("SELECT first FROM seen WHERE digest = ?", (digest,)).fetchone()
        return min(int(found[0]), now)

    def _make_room(self, one: sqlite3.Connection, now: int) -> None:
        if self._free <= 0:
            left = 0
            if now != self._full_at:
                one.execute(
                    "DELETE FROM seen WHERE digest IN (SELECT digest FROM seen WHERE ends < ? ORDER BY ends LIMIT ?)",
                    (now - _GRACE_S, self._most // 16 + 1),
                )
                one.execute("DELETE FROM spelt WHERE ends < ?", (now - _GRACE_S,))
                left = self._most - one.execute("SELECT count(*) FROM seen").fetchone()[0]
            if left <= 0:
                self._full_at = now
                raise StreamGateError("overloaded", "too many tokens of others are in use")
            self._free = max(1, left // 64)  # other processes add some, too
        self._free -= 1

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        opened = sqlite3.connect(self._path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)
        # A crash of the machine may forget the last of them; that is worth no wait for the disk at each.
        for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL"):
            opened.execute(statement)
        opened.execute(
            "CREATE TABLE IF NOT EXISTS seen"
            " (digest BLOB PRIMARY KEY, first INTEGER NOT NULL, ends INTEGER NOT NULL) WITHOUT ROWID"
        )
        opened.execute("CREATE INDEX IF NOT EXISTS soonest ON seen (ends)")
        opened.execute(
            "CREATE TABLE IF NOT EXISTS spelt"
            " (digest BLOB PRIMARY KEY, identity BLOB NOT NULL, ends INTEGER NOT NULL) WITHOUT ROWID"
        )
        opened.execute("CREATE INDEX IF NOT EXISTS of_one ON spelt (identity)")
        return opened

    def _drop(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            with contextlib.suppress(sqlite3.Error):
                opened.close()
