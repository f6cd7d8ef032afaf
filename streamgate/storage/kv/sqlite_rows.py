"""Conditional writes of rows into the table ``kv``: as few statements as there are kinds of conditions, where nothing is refused.

A statement each would have the thread let go of the interpreter, and wait for it, once for every row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import lru_cache

from streamgate.storage.kv.rows import ANY, Write

_MOST = 64
"""Rows of a statement: each number of them is a text of its own, which is kept."""
# A value whose time has passed is none.
_INSERT = (
    "INSERT INTO kv VALUES {rows} ON CONFLICT (key) DO UPDATE SET value = excluded.value, until = excluded.until"
    " WHERE kv.until <= ?"
)
_REPLACE = (
    "UPDATE kv SET value = told.column2, until = told.column3 FROM (VALUES {rows}) AS told"
    " WHERE kv.key = told.column1 AND kv.value = told.column4 AND (kv.until IS NULL OR kv.until > ?)"
)
_PUT = "INSERT OR REPLACE INTO kv VALUES (?, ?, ?)"


def write_all(db: sqlite3.Connection, writes: Sequence[Write], now: float) -> list[bool] | None:
    """Do all of these in the transaction that is open; None where one was refused, or may have been: then none was done."""
    if len({each.key for each in writes}) < len(writes):  # what one finds may be what another has left
        return None
    fresh = [(each.key, each.value, _until(each, now)) for each in writes if each.expected is None]
    changed = [
        (each.key, each.value, _until(each, now), each.expected) for each in writes if isinstance(each.expected, bytes)
    ]
    db.execute("SAVEPOINT many")
    if not (_all(db, _INSERT, fresh, now) and _all(db, _REPLACE, changed, now)):
        db.execute("ROLLBACK TO many")
        return None
    db.executemany(_PUT, [(each.key, each.value, _until(each, now)) for each in writes if each.expected is ANY])
    return [True] * len(writes)


def write_one(db: sqlite3.Connection, each: Write, now: float) -> bool:
    """Do one; whether it was done."""
    if each.expected is not ANY:
        found = db.execute(
            "SELECT value FROM kv WHERE key = ? AND (until IS NULL OR until > ?)", (each.key, now)
        ).fetchone()
        if (found[0] if found else None) != each.expected:
            return False
    db.execute(_PUT, (each.key, each.value, _until(each, now)))
    return True


def _all(db: sqlite3.Connection, statement: str, rows: Sequence[tuple[object, ...]], now: float) -> bool:
    """Whether a statement changed every row that it was told."""
    for at in range(0, len(rows), _MOST):
        part = rows[at : at + _MOST]
        done = db.execute(
            _text(statement, len(part), len(part[0])), [*(value for row in part for value in row), now]
        ).rowcount
        if done != len(part):
            return False
    return True


@lru_cache(2 * _MOST)
def _text(statement: str, rows: int, columns: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return statement.format(rows=", ".join([row] * rows))


def _until(each: Write, now: float) -> float | None:
    return None if each.ttl is None else now + each.ttl
