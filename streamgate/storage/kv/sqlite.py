"""The machine's own store: one SQLite file in WAL mode, shared by all processes of the machine, in a thread of its own.

What a call has returned from survives the death of all processes, and of the machine (``synchronous=FULL``). Leases do
not survive a restart of the machine, for nobody does who could hold one; they go by a clock that nobody sets.
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
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar, cast

from streamgate.core.clock import PatientClock
from streamgate.core.clock import steady as passed
from streamgate.errors import StreamGateError
from streamgate.storage.kv import sqlite_rows
from streamgate.storage.kv.events import EVENT_TYPES, UID_BYTES, Event, EventType, Position
from streamgate.storage.kv.reserve import Reserve
from streamgate.storage.kv.rows import Write

T = TypeVar("T")

_BUSY_S = 5.0
_FULL = frozenset((sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE))
_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS kv (key TEXT PRIMARY KEY, value BLOB NOT NULL, until REAL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS kv_until ON kv (until) WHERE until IS NOT NULL;
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY AUTOINCREMENT, type TEXT NOT NULL, subject BLOB NOT NULL, until INTEGER, uid BLOB
);
CREATE INDEX IF NOT EXISTS events_until ON events (until) WHERE until IS NOT NULL;
CREATE TABLE IF NOT EXISTS leases (
    name TEXT PRIMARY KEY, holder BLOB NOT NULL, until REAL NOT NULL, boot TEXT NOT NULL
) WITHOUT ROWID;
"""
# Files of before the uid was are brought up to date.
_UIDS = (
    "UPDATE events SET uid = randomblob(16) WHERE uid IS NULL",
    "CREATE UNIQUE INDEX IF NOT EXISTS events_uid ON events (uid)",
)
_FIRST = "INSERT INTO sqlite_sequence SELECT 'events', ? WHERE NOT EXISTS (SELECT * FROM sqlite_sequence)"
_INSERT = "INSERT INTO events (type, subject, until, uid) VALUES (?, ?, ?, ?)"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class SqliteStore:
    """Made by :meth:`open`. Every call raises ``store_unavailable`` where the file cannot be read or written.

    Times to live are in seconds; None: for ever. ``clock`` gives s since 1970, ``steady`` the seconds that leases go by:
    those of the machine unless another clock was given.
    """

    def __init__(
        self, path: Path, clock: Callable[[], float] = time.time, steady: Callable[[], float] | None = None
    ) -> None:
        self._path = path
        self._clock = clock
        self._steady = steady or (passed if clock is time.time else clock)
        self._gone = PatientClock(clock, self._steady)
        self._boot = ""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="streamgate-store")
        self._connection: sqlite3.Connection | None = None
        self._identity = (0, 0)
        self._reserve = Reserve(path.with_name(f"{path.name}-reserve"))

    @classmethod
    async def open(
        cls, path: Path, clock: Callable[[], float] = time.time, steady: Callable[[], float] | None = None
    ) -> SqliteStore:
        """The store at ``path``, made where there is none, readable by this user alone."""
        store = cls(path, clock, steady)
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

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values in the order of ``keys``."""
        return await self._run(lambda: [self._get(key) for key in keys])

    async def write(self, writes: Sequence[Write]) -> list[bool]:
        """Do these in one step; which of them were done, and not refused for what was there instead."""

        def write() -> list[bool]:
            with self._transaction() as db:
                now = self._clock()
                if (done := sqlite_rows.write_all(db, writes, now)) is None:
                    done = [sqlite_rows.write_one(db, each, now) for each in writes]
                return done

        return await self._run(write)

    async def lease(self, name: str, holder: bytes, ttl: float) -> bool:
        """Take or extend the lease ``name``; False where another holder has it."""

        def lease() -> bool:
            with self._transaction() as db:
                if self._holder(db, name) not in (None, holder):
                    return False
                row = name, holder, self._steady() + ttl, self._boot
                db.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?)", row)
                return True

        return await self._run(lease)

    async def release(self, name: str, holder: bytes) -> bool:
        """Give a lease back; False where the holder had it no longer."""

        def release() -> bool:
            with self._transaction() as db:
                held = self._holder(db, name) == holder
                db.execute("DELETE FROM leases WHERE name = ? AND holder = ?", (name, holder))
                return held

        return await self._run(release)

    async def append(self, type: EventType, subject: bytes, until: int | None) -> int:
        """Add an event; its id, higher than that of every earlier one. Raises ValueError for a type that is none."""
        _check_type(type)
        row = type, subject, until, secrets.token_bytes(UID_BYTES)

        def append() -> int:
            with self._transaction() as db:
                return cast(int, db.execute(_INSERT, row).lastrowid)

        return await self._run(append, reserved=True)

    async def adopt(self, events: Iterable[Event]) -> int:
        """Add events that have a uid, in this order: all of those that are not here yet, or none; how many these were.

        Raises ValueError for a type that is none.
        """
        rows = [(event.type, event.subject, event.until, event.uid) for event in events]
        for row in rows:
            _check_type(row[0])

        def adopt() -> int:
            with self._transaction() as db:
                return sum(db.execute(f"{_INSERT} ON CONFLICT (uid) DO NOTHING", row).rowcount for row in rows)

        return await self._run(adopt, reserved=True)

    async def events(self, after: Position | None = None, limit: int = 10_000) -> tuple[list[Event], Position]:
        """The next events that matter still, and where they end; from the start where the store is another than ``after``'s.

        One that was put back from a backup, so that what ``after`` tells of is not in it, is another from then on.
        """

        def read() -> tuple[list[Event], Position]:
            if after is not None:
                self._renew_if_lost(after)
            with self._transaction("DEFERRED") as db:
                incarnation = self._incarnation(db)
                start = after if after is not None and after.incarnation == incarnation else Position(incarnation, 0)
                rows = db.execute(
                    "SELECT id, type, subject, until, uid FROM events"
                    " WHERE id > ? AND (until IS NULL OR until > ?) ORDER BY id LIMIT ?",
                    (start.id, self._clock(), limit),
                ).fetchall()
                last = self._last(db)
            found = [Event(*row) for row in rows]
            if len(found) == limit:
                return found, Position(incarnation, found[-1].id, found[-1].uid)
            # Beyond what is told there may be what has ended.
            return found, max(start, Position(incarnation, *last), key=lambda position: position.id)

        return await self._run(read)

    async def drop(self, events: Iterable[Event]) -> int:
        """Remove these events, for a later one says all that they said; how many there were."""
        uids = [(event.uid,) for event in events]

        def drop() -> int:
            with self._transaction() as db:
                last = self._last(db)
                gone = db.executemany("DELETE FROM events WHERE uid = ?", uids).rowcount
                self._note_last(db, last, gone)
                return gone

        return await self._run(drop) if uids else 0

    async def prune(self) -> int:
        """Remove values and events whose time has passed, and make the reserve whole again; how many were removed."""

        def prune() -> int:
            with self._transaction() as db:
                now = self._gone()
                db.execute("DELETE FROM leases WHERE until <= ? OR boot != ?", (self._steady(), self._boot))
                gone = db.execute("DELETE FROM kv WHERE until <= ?", (now,)).rowcount
                last = self._last(db)
                ended = db.execute("DELETE FROM events WHERE until <= ?", (now,)).rowcount
                self._note_last(db, last, ended)
                gone += ended
            self._reserve.fill()
            return gone

        return await self._run(prune, reserved=True)

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
        self._identity = 0, 0  # until it is one of ours
        self._connection = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        incarnation = f"INSERT OR IGNORE INTO about VALUES ('incarnation', '{secrets.token_hex(16)}');"
        self._connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} {incarnation} COMMIT;")
        with self._begun() as db:
            if "uid" not in [column[1] for column in db.execute("PRAGMA table_info(events)")]:
                db.execute("ALTER TABLE events ADD COLUMN uid BLOB")
            for statement in _UIDS:
                db.execute(statement)
            # Microseconds since 1970: numbers rise, though the file was lost and begins anew.
            db.execute(_FIRST, (int(self._clock() * 1e6),))
        self._boot = _BOOT_ID.read_text().strip()
        self._identity = made.st_dev, made.st_ino
        self._reserve.fill()

    def _transaction(self, kind: str = "IMMEDIATE") -> contextlib.AbstractContextManager[sqlite3.Connection]:
        self._follow()
        return self._begun(kind)

    @contextlib.contextmanager
    def _begun(self, kind: str = "IMMEDIATE") -> Iterator[sqlite3.Connection]:
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

    def _holder(self, db: sqlite3.Connection, name: str) -> bytes | None:
        found = db.execute(
            "SELECT holder FROM leases WHERE name = ? AND until > ? AND boot = ?", (name, self._steady(), self._boot)
        ).fetchone()
        return found[0] if found else None

    def _renew_if_lost(self, position: Position) -> None:
        """Give the store another incarnation where what was read from it is no longer in it."""
        with self._transaction("DEFERRED") as db:
            if not self._has_lost(db, position):
                return
        with self._transaction() as db:
            if self._has_lost(db, position):
                db.execute("UPDATE about SET value = ? WHERE name = 'incarnation'", (secrets.token_hex(16),))

    def _has_lost(self, db: sqlite3.Connection, position: Position) -> bool:
        if not position.id or self._incarnation(db) != position.incarnation:
            return False
        found = db.execute("SELECT uid FROM events WHERE id = ?", (position.id,)).fetchone()
        return (position.id, position.uid) != ((position.id, found[0]) if found else self._last_of_before(db))

    def _last(self, db: sqlite3.Connection) -> tuple[int, bytes]:
        """Number and uid of the last event of all; 0 where there never was one."""
        found = db.execute("SELECT id, uid FROM events ORDER BY id DESC LIMIT 1").fetchone()
        return max(found or (0, b""), self._last_of_before(db))

    def _note_last(self, db: sqlite3.Connection, last: tuple[int, bytes], gone: int) -> None:
        """Whoever has come as far as the ``last`` event is to be believed, though it may be among the ``gone`` ones now."""
        if gone:
            db.execute("INSERT OR REPLACE INTO about VALUES ('last', ?)", (f"{last[0]} {last[1].hex()}",))

    def _last_of_before(self, db: sqlite3.Connection) -> tuple[int, bytes]:
        """Those of the event that was the last one before some were removed."""
        found = db.execute("SELECT value FROM about WHERE name = 'last'").fetchone()
        number, _, uid = found[0].partition(" ") if found else ("0", "", "")
        return int(number), bytes.fromhex(uid)

    def _incarnation(self, db: sqlite3.Connection) -> str:
        return cast(str, db.execute("SELECT value FROM about WHERE name = 'incarnation'").fetchone()[0])

    def _until(self, ttl: float | None) -> float | None:
        return None if ttl is None else self._clock() + ttl

    async def _run(self, work: Callable[[], T], *, reserved: bool = False) -> T:
        """Do it in the thread. ``reserved``: it may have the room that is kept free, which those who come anew could fill, too."""

        def mapped() -> T:
            while True:
                try:
                    return work()
                except (sqlite3.Error, OSError) as error:
                    # Nothing of it was written, so it may be done again.
                    if not (reserved and _is_full(error) and self._reserve.give_up()):
                        raise StreamGateError("store_unavailable", f"{self._path}: {error}") from error

        return await asyncio.get_running_loop().run_in_executor(self._thread, mapped)


def _check_type(type: str) -> None:
    if type not in EVENT_TYPES:
        raise ValueError(f"there is no event type {type!r}")


def _is_full(error: sqlite3.Error | OSError) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "sqlite_errorcode", None) in _FULL
