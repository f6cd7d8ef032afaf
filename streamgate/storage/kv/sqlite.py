"""The machine's own store: one SQLite file in WAL mode, shared by all processes of the machine, in a thread of its own.

What a call has returned from survives the death of all processes, and of the machine (``synchronous=FULL``).
Beside the file is a reserve of room on the disk, so that there is a place for what matters when others have filled it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar, cast

from streamgate.errors import StreamGateError
from streamgate.storage.kv.events import EVENT_TYPES, Event, EventType, Position
from streamgate.storage.kv.reserve import Reserve

T = TypeVar("T")

_BUSY_S = 5.0
_FULL = frozenset((sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE))
_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS kv (key TEXT PRIMARY KEY, value BLOB NOT NULL, until REAL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS kv_until ON kv (until) WHERE until IS NOT NULL;
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY AUTOINCREMENT, type TEXT NOT NULL, subject BLOB NOT NULL, until INTEGER
);
CREATE INDEX IF NOT EXISTS events_until ON events (until) WHERE until IS NOT NULL;
"""


class SqliteStore:
    """Made by :meth:`open`. Every call raises ``store_unavailable`` where the file cannot be read or written.

    Times to live are in seconds; None: for ever. ``clock`` gives s since 1970.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="streamgate-store")
        self._connection: sqlite3.Connection | None = None
        self._identity = (0, 0)
        self._reserve = Reserve(path.with_name(f"{path.name}-reserve"))

    @classmethod
    async def open(cls, path: Path, clock: Callable[[], float] = time.time) -> SqliteStore:
        """The store at ``path``, made where there is none, readable by this user alone."""
        store = cls(path, clock)
        try:
            await store._run(store._connect)
        except BaseException:
            store._thread.shutdown(wait=False)
            raise
        return store

    async def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            await self._run(self._connection.close)
        self._thread.shutdown(wait=False)

    async def get(self, key: str) -> bytes | None:
        """The value, or None where there is none any more."""
        return await self._run(lambda: self._get(key))

    async def put(self, key: str, value: bytes, ttl: float | None = None) -> None:
        """Set a value."""

        def put() -> None:
            with self._transaction() as db:
                db.execute("INSERT OR REPLACE INTO kv VALUES (?, ?, ?)", (key, value, self._until(ttl)))

        await self._run(put)

    async def put_new(self, key: str, value: bytes, ttl: float | None = None) -> bool:
        """Set a value where there is none; whether it was. Of several at once exactly one succeeds."""

        def put() -> bool:
            with self._transaction() as db:
                db.execute("DELETE FROM kv WHERE key = ? AND until <= ?", (key, self._clock()))
                done = db.execute("INSERT OR IGNORE INTO kv VALUES (?, ?, ?)", (key, value, self._until(ttl)))
                return done.rowcount == 1

        return await self._run(put)

    async def take(self, key: str) -> bytes | None:
        """The value, which is then gone. Of several at once exactly one gets it."""

        def take() -> bytes | None:
            with self._transaction() as db:
                found = self._get(key)
                db.execute("DELETE FROM kv WHERE key = ?", (key,))
                return found

        return await self._run(take)

    async def delete(self, key: str) -> bool:
        """Remove a value; whether there was one."""
        return await self.take(key) is not None

    async def lease(self, name: str, holder: bytes, ttl: float) -> bool:
        """Take or extend the lease ``name``; False where another holder has it."""

        def lease() -> bool:
            with self._transaction() as db:
                if self._get(name) not in (None, holder):
                    return False
                db.execute("INSERT OR REPLACE INTO kv VALUES (?, ?, ?)", (name, holder, self._until(ttl)))
                return True

        return await self._run(lease)

    async def release(self, name: str, holder: bytes) -> bool:
        """Give a lease back; False where the holder had it no longer."""

        def release() -> bool:
            with self._transaction() as db:
                held = self._get(name) == holder
                db.execute("DELETE FROM kv WHERE key = ? AND value = ?", (name, holder))
                return held

        return await self._run(release)

    async def append(self, type: EventType, subject: bytes, until: int | None) -> int:
        """Add an event; its id, higher than that of every earlier one. Raises ValueError for a type that is none."""
        if type not in EVENT_TYPES:
            raise ValueError(f"there is no event type {type!r}")

        def append() -> int:
            with self._transaction() as db:
                done = db.execute("INSERT INTO events (type, subject, until) VALUES (?, ?, ?)", (type, subject, until))
                return cast(int, done.lastrowid)

        return await self._run(append)

    async def events(self, after: Position | None = None, limit: int = 10_000) -> tuple[list[Event], Position]:
        """The next events that matter still, and where they end; from the start where the store is another than ``after``'s."""

        def read() -> tuple[list[Event], Position]:
            with self._transaction("DEFERRED") as db:
                incarnation = self._incarnation(db)
                seen = after.id if after is not None and after.incarnation == incarnation else 0
                rows = db.execute(
                    "SELECT id, type, subject, until FROM events"
                    " WHERE id > ? AND (until IS NULL OR until > ?) ORDER BY id LIMIT ?",
                    (seen, self._clock(), limit),
                ).fetchall()
            found = [Event(*row) for row in rows]
            return found, Position(incarnation, found[-1].id if found else seen)

        return await self._run(read)

    async def prune(self) -> int:
        """Remove values and events whose time has passed, and make the reserve whole again; how many were removed."""

        def prune() -> int:
            with self._transaction() as db:
                now = self._clock()
                gone = db.execute("DELETE FROM kv WHERE until <= ?", (now,)).rowcount
                gone += db.execute("DELETE FROM events WHERE until <= ?", (now,)).rowcount
            self._reserve.fill()
            return gone

        return await self._run(prune)

    def _follow(self) -> None:
        """Go over to the file that took the place of ours, or make it: whoever writes there is to be heard."""
        try:
            found = os.stat(self._path)
            if (found.st_dev, found.st_ino) == self._identity:
                return
        except FileNotFoundError:
            pass
        assert self._connection is not None
        self._connection.close()
        self._connect()

    def _connect(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Before SQLite does, which gives the files beside it this file's mode.
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        made = os.fstat(descriptor)
        os.close(descriptor)
        self._identity = made.st_dev, made.st_ino
        self._connection = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        incarnation = f"INSERT OR IGNORE INTO about VALUES ('incarnation', '{secrets.token_hex(16)}');"
        self._connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} {incarnation} COMMIT;")
        self._reserve.fill()

    @contextlib.contextmanager
    def _transaction(self, kind: str = "IMMEDIATE") -> Iterator[sqlite3.Connection]:
        self._follow()
        assert self._connection is not None
        self._connection.execute(f"BEGIN {kind}")
        try:
            yield self._connection
            self._connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise

    def _get(self, key: str) -> bytes | None:
        assert self._connection is not None
        found = self._connection.execute(
            "SELECT value FROM kv WHERE key = ? AND (until IS NULL OR until > ?)", (key, self._clock())
        ).fetchone()
        return found[0] if found else None

    def _incarnation(self, db: sqlite3.Connection) -> str:
        return cast(str, db.execute("SELECT value FROM about WHERE name = 'incarnation'").fetchone()[0])

    def _until(self, ttl: float | None) -> float | None:
        return None if ttl is None else self._clock() + ttl

    async def _run(self, work: Callable[[], T]) -> T:
        def mapped() -> T:
            while True:
                try:
                    return work()
                except (sqlite3.Error, OSError) as error:
                    # Nothing of it was written, so it may be done again.
                    if not (_is_full(error) and self._reserve.give_up()):
                        raise StreamGateError("store_unavailable", f"{self._path}: {error}") from error

        return await asyncio.get_running_loop().run_in_executor(self._thread, mapped)


def _is_full(error: sqlite3.Error | OSError) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "sqlite_errorcode", None) in _FULL
