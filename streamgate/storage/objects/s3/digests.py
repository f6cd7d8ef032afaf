"""What copies of objects were found to hold, read once: remembered in memory, and in a file for after a restart."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from structlog import get_logger

from streamgate.native.index import FORMAT_VERSION

_log = get_logger("streamgate.objects")

_REMEMBERED = 50_000
_BUSY_S = 2.0
# Rows of another format of the index compare with nothing that is read now.
_TABLE = f"digests_{FORMAT_VERSION}"
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS {_TABLE} (
    id INTEGER PRIMARY KEY AUTOINCREMENT, store TEXT NOT NULL, key TEXT NOT NULL, etag TEXT NOT NULL,
    size INTEGER NOT NULL, digest TEXT NOT NULL, shared INTEGER NOT NULL, UNIQUE (store, key, etag, size)
);
"""
_INSERT = f"INSERT OR REPLACE INTO {_TABLE} (store, key, etag, size, digest, shared) VALUES (?, ?, ?, ?, ?, ?)"
_TRIM = f"DELETE FROM {_TABLE} WHERE id <= (SELECT max(id) FROM {_TABLE}) - {_REMEMBERED}"
_ALL = f"SELECT store, key, etag, size, digest, shared FROM {_TABLE} ORDER BY id"
_ONE = f"SELECT digest, shared FROM {_TABLE} WHERE store = ? AND key = ? AND etag = ? AND size = ?"

Copy = tuple[str, str, str, int]
"""A copy of an object: name of the bucket, key, ETag there, and size in bytes."""


class Digests:
    """The digest of each copy that was compared, and whether it is the name of its version: ``shared`` by copies whose ETags differ.

    Made by :meth:`open`. The last 50 000 are kept. ``path`` is a SQLite file that all processes of a machine share; what
    is wrong with it is logged, and costs no more than to read a copy again.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[Copy, tuple[str, bool]] = OrderedDict()
        self._connection: sqlite3.Connection | None = None
        self._using = threading.Lock()

    @classmethod
    async def open(cls, path: Path | None = None) -> Digests:
        """With what earlier processes found out; without a ``path`` in memory alone."""
        made = cls()
        if path is not None:
            await asyncio.to_thread(made._open, path)
        return made

    async def close(self) -> None:
        """Close the file."""
        await asyncio.to_thread(self._close)

    def known(self, copy: Copy) -> tuple[str, bool] | None:
        """(digest, whether it is shared), as far as this process knows."""
        return self._known.get(copy)

    async def look(self, copy: Copy) -> tuple[str, bool] | None:
        """The same; asks what other processes have found out meanwhile."""
        found = self._known.get(copy)
        if found is None and self._connection is not None:
            found = await asyncio.to_thread(self._read, copy)
            if found is not None:
                self._remember(copy, *found)
        return found

    async def keep(self, copy: Copy, digest: str, shared: bool) -> None:
        """Remember what was found out."""
        if self._known.get(copy) != (digest, shared):
            self._remember(copy, digest, shared)
            if self._connection is not None:
                await asyncio.to_thread(self._write, copy, digest, shared)

    def _remember(self, copy: Copy, digest: str, shared: bool) -> None:
        self._known[copy] = digest, shared
        self._known.move_to_end(copy)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    # --- what follows blocks

    def _open(self, path: Path) -> None:
        with self._usable("opened"):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            made = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
            made.execute("PRAGMA journal_mode = WAL")
            made.execute("PRAGMA synchronous = NORMAL")
            made.executescript(_SCHEMA)
            for *copy, digest, shared in made.execute(_ALL):
                store, key, etag, size = copy
                self._remember((store, key, etag, size), digest, bool(shared))
            self._connection = made

    def _read(self, copy: Copy) -> tuple[str, bool] | None:
        with self._using, self._usable("read"):
            row = self._connection.execute(_ONE, copy).fetchone() if self._connection is not None else None
            return (row[0], bool(row[1])) if row is not None else None
        return None

    def _write(self, copy: Copy, digest: str, shared: bool) -> None:
        with self._using, self._usable("written"):
            if self._connection is not None:
                self._connection.execute(_INSERT, (*copy, digest, shared))
                self._connection.execute(_TRIM)

    def _close(self) -> None:
        with self._using:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextlib.contextmanager
    def _usable(self, what: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            _log.warning("digests of copies cannot be kept", step=what, reason=type(error).__name__)
