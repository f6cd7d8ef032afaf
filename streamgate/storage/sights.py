"""When tokens of others were first seen by any process of this machine: a restart makes none of them young again."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from pathlib import Path

from streamgate.errors import StreamGateError

_WAIT_S = 2.0


class Sights:
    """A file of at most ``most`` tokens' digests, and times in s since 1970; the oldest make room. Any thread may use it."""

    def __init__(self, path: Path, most: int) -> None:
        self._path = path
        self._most = most
        self._lock = threading.Lock()
        self._opened: sqlite3.Connection | None = None

    def first(self, digest: bytes, now: int) -> int:
        """When ``digest`` was first asked for, which is ``now`` for one that never was. Blocking.

        Raises ``store_unavailable`` where the file cannot be read or written: how old a token is is not known then.
        """
        with self._lock:
            try:
                return self._first(digest, now)
            except (sqlite3.Error, OSError) as error:
                self._drop()
                raise StreamGateError("store_unavailable", "when a token was first seen cannot be told") from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._drop()

    def _first(self, digest: bytes, now: int) -> int:
        if self._opened is None:
            self._opened = self._open()
        one = self._opened
        found = one.execute("SELECT first FROM sights WHERE digest = ?", (digest,)).fetchone()
        if found is None:
            with one:
                one.execute("BEGIN IMMEDIATE")
                one.execute("INSERT OR IGNORE INTO sights VALUES (?, ?)", (digest, now))
                count = one.execute("SELECT count(*) FROM sights").fetchone()[0]
                if count > self._most:
                    one.execute(
                        "DELETE FROM sights WHERE digest IN (SELECT digest FROM sights ORDER BY first LIMIT ?)",
                        (count - self._most + self._most // 16,),
                    )
                found = one.execute("SELECT first FROM sights WHERE digest = ?", (digest,)).fetchone()
        return min(int(found[0]), now) if found else now

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        opened = sqlite3.connect(self._path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)
        # A crash of the machine may forget the last of them; that is worth no wait for the disk at each.
        for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL"):
            opened.execute(statement)
        opened.execute(
            "CREATE TABLE IF NOT EXISTS sights (digest BLOB PRIMARY KEY, first INTEGER NOT NULL) WITHOUT ROWID"
        )
        opened.execute("CREATE INDEX IF NOT EXISTS oldest ON sights (first)")
        return opened

    def _drop(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            with contextlib.suppress(sqlite3.Error):
                opened.close()
