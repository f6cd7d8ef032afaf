"""What the disk tier holds, for all workers of the node: a file that they share, kept by S3-FIFO in bytes.

The truth is the folder: an object is there if its file is. The ledger says how many bytes that is and who leaves
next; it is made anew from names, sizes and times when a node starts, when a worker was killed while it wrote here, and
when somebody cut or overwrote it. It is read and written, never mapped: a page of a file that was cut is a SIGBUS.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

_MAGIC = 0x32_72_65_67_64_65_6C_53
_NAME = re.compile(r"[0-9a-f]{32}")
_SMALL, _MAIN = 0, 1
# Records that a queue can hold: objects are rarely smaller than this.
_TYPICAL = 16 * 1024
_LEAST, _MOST = 1024, 2**20
# Counters of hits and ghosts are tables without chains: that two objects share a place now and then does no harm.
_PLACES = 2**18
_PROMOTED = 2
_MOST_HITS = 3

_HEAD = np.dtype(
    [
        ("magic", "<u8"),
        ("slots", "<u8"),
        ("dirty", "<u8"),
        ("booted", "<u8"),
        ("oldest", "<u8", (2,)),
        ("count", "<u8", (2,)),
        ("bytes", "<u8", (2,)),
        ("removed", "<u8"),
    ]
)
_RECORD = np.dtype([("high", "<u8"), ("low", "<u8"), ("size", "<u8")])
_WORD = np.dtype("<u8")


class Ledger:
    """The shared file in ``folder``, whose objects are below ``folder/objects``; at most ``budget`` bytes of them.

    Everything blocks. Raises OSError where the folder cannot be written, FileNotFoundError where it is another than before.
    """

    def __init__(self, folder: Path, budget: int, clear: Callable[[], None] = lambda: None) -> None:
        """``clear`` is called where this is the node's first worker, before there is another."""
        self._folder = folder
        self.budget = budget
        self.evictions = 0
        self._threads = threading.Lock()
        self._closed = False
        self._files: dict[str, int] = {}
        try:
            # "presence" is held until this process ends: who can lock it alone is the first of the node.
            for name in ("presence", "lock", "keeper", "ledger"):
                self._files[name] = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._fd = self._files["ledger"]
            self._known = {str(folder / name): os.fstat(fd).st_ino for name, fd in self._files.items()}
            with self._threads, self._file_lock():
                self.first = self._alone()
                self._slots = int(min(max(self.budget // _TYPICAL, _LEAST), _MOST))
                if self.first:
                    clear()
                    os.ftruncate(self._fd, 0)
                self._load()
                self._save()
                #: When the first worker of the node came, by the clock of the disk: ns since 1970.
                self.booted = int(self._head["booted"])
                fcntl.flock(self._files["presence"], fcntl.LOCK_SH)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let the node's next start be the first again, if this was the last worker."""
        self._closed = True
        # The files stay open for threads that are still at work: their numbers must not become other files'.
        for name in self._files.keys() & {"presence", "keeper"}:
            fcntl.flock(self._files[name], fcntl.LOCK_UN)

    def __del__(self) -> None:
        for fd in self._files.values():
            os.close(fd)

    @property
    def bytes(self) -> int:
        """Bytes of all objects, as far as is known."""
        head = self._read_head()
        return int(head["bytes"].sum()) if head is not None else 0

    @property
    def removed(self) -> int:
        """Changes whenever a worker throws an object out before its time."""
        head = self._read_head()
        return int(head["removed"]) if head is not None else 0

    def __len__(self) -> int:
        head = self._read_head()
        return int(head["count"].sum()) if head is not None else 0

    def path(self, digest: str) -> Path:
        """Where the object's file is."""
        return self._folder / "objects" / digest[:2] / digest

    def keep(self) -> bool:
        """Become the one worker that looks after the tier; False where another one is."""
        try:
            fcntl.flock(self._files["keeper"], fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def hit(self, digest: str, least: int = _MOST_HITS) -> None:
        """Note that the object was asked for, unless ``least`` hits are noted already; takes no lock, raises nothing."""
        place = _place(digest)
        with contextlib.suppress(OSError):
            hits = self._hits(place)
            if hits < min(least, _MOST_HITS):
                self._set_hits(place, hits + 1)

    def add(self, digest: str, size: int, publish: Callable[[], None]) -> bool:
        """Make room for an object of ``size`` bytes and ``publish`` its file; False where it is too large for the tier."""
        if size > self.budget // 8:
            return False
        with self._changing():
            # Both queues are read for that: not for what is new.
            if self.path(digest).exists():
                self._forget(digest)
            while self._bytes + size > self.budget and self._bytes:
                self._evict()
            publish()
            ghost = self._at(self._ghosts_at + 8 * _place(digest), _WORD) == _fingerprint(digest)
            if ghost:
                self._put(self._ghosts_at + 8 * _place(digest), _WORD, 0)
            self._set_hits(_place(digest), 0)
            self._append(_MAIN if ghost else _SMALL, _record(digest, size))
        return True

    def remove(self, digest: str) -> bool:
        """Throw an object out; whether it was there."""
        with self._changing():
            self._forget(digest)
            self._head["removed"] += 1
            try:
                self.path(digest).unlink()
            except FileNotFoundError:
                return False
        return True

    @contextlib.contextmanager
    def _file_lock(self) -> Iterator[None]:
        # One process's against another's; it ends with the process, however that ends.
        fcntl.flock(self._files["lock"], fcntl.LOCK_EX)
        try:
            # Who made the folder anew has other files, and knows nothing of a lock on ours.
            for path, number in self._known.items():
                if os.stat(path).st_ino != number:
                    raise FileNotFoundError(errno.ENOENT, "the folder was made anew", str(self._folder))
            yield
        finally:
            fcntl.flock(self._files["lock"], fcntl.LOCK_UN)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """The head in memory, to be changed; what fails half-way is found dirty by the next one."""
        with self._threads:
            if self._closed:
                raise FileNotFoundError(errno.ENOENT, "the folder was left", str(self._folder))
            with self._file_lock():
                self._load()
                self._head["dirty"] = 1
                self._put(0, _HEAD, self._head)
                yield
                self._save()

    def _alone(self) -> bool:
        try:
            fcntl.flock(self._files["presence"], fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _load(self) -> None:
        """Read the head, or make everything anew where it cannot be believed."""
        # Others may have begun with another budget: the room for records is what they made.
        size = os.fstat(self._fd).st_size
        if _size(_slots(size)) == size and _slots(size) >= _LEAST:
            self._slots = _slots(size)
        head = self._read_head()
        if head is not None and not head["dirty"]:
            self._head = head
            return
        self._head = np.zeros((), _HEAD)
        # What was there may be garbage, ghosts and hits too; and a hole that cannot be filled later would be an error.
        os.ftruncate(self._fd, 0)
        os.posix_fallocate(self._fd, 0, _size(self._slots))
        # By the clock that files' times are of.
        self._head["booted"] = os.fstat(self._fd).st_mtime_ns
        self._head["removed"] = int(self._head["booted"])
        self._rebuild()

    def _save(self) -> None:
        self._head["magic"], self._head["slots"], self._head["dirty"] = _MAGIC, self._slots, 0
        self._put(0, _HEAD, self._head)

    def _read_head(self) -> Any:
        """The head as it is written down; None where it cannot be right."""
        try:
            if os.fstat(self._fd).st_size != _size(self._slots):
                return None
            head = self._at(0, _HEAD)
        except OSError:
            return None
        right = (
            head["magic"] == _MAGIC
            and head["slots"] == self._slots
            and (head["count"] <= self._slots).all()
            and (head["oldest"] < self._slots).all()
            and (head["bytes"][head["count"] == 0] == 0).all()
        )
        return head if right else None

    def _at(self, at: int, kind: np.dtype[Any]) -> Any:
        """What lies at a place of the file; zeros where that has ended."""
        return np.frombuffer(os.pread(self._fd, kind.itemsize, at).ljust(kind.itemsize, b"\0"), kind)[0].copy()

    def _put(self, at: int, kind: np.dtype[Any], value: object) -> None:
        os.pwrite(self._fd, np.array(value, kind).tobytes(), at)

    @property
    def _bytes(self) -> int:
        return int(self._head["bytes"].sum())

    @property
    def _ghosts_at(self) -> int:
        return int(_HEAD.itemsize) + 2 * self._slots * int(_RECORD.itemsize)

    def _hits(self, place: int) -> int:
        found = os.pread(self._fd, 1, self._ghosts_at + 8 * _PLACES + place)
        return found[0] if found else 0

    def _set_hits(self, place: int, hits: int) -> None:
        os.pwrite(self._fd, bytes((hits,)), self._ghosts_at + 8 * _PLACES + place)

    def _record_at(self, queue: int, at: int) -> int:
        return int(_HEAD.itemsize) + (queue * self._slots + at) * int(_RECORD.itemsize)

    def _rebuild(self) -> None:
        """Read names, sizes and times; what has been in use most recently leaves last."""
        found = []
        for folder in sorted((self._folder / "objects").iterdir()):
            with os.scandir(folder) as files:
                for file in files:
                    status = file.stat(follow_symlinks=False)
                    if _NAME.fullmatch(file.name) and file.name[:2] == folder.name:
                        found.append((status.st_mtime_ns, file.name, status.st_size))
                    else:
                        os.unlink(file.path)
        for name in ("oldest", "count", "bytes"):
            self._head[name] = 0
        for _, digest, size in sorted(found):
            self._append(_MAIN, _record(digest, size))
        while self._bytes > self.budget:
            self._evict()

    def _append(self, queue: int, record: tuple[int, int, int]) -> None:
        if self._head["count"][queue] == self._slots:
            self._drop(queue)
        at = int(self._head["oldest"][queue] + self._head["count"][queue]) % self._slots
        self._put(self._record_at(queue, at), _RECORD, record)
        self._head["count"][queue] += 1
        self._head["bytes"][queue] += record[2]

    def _take(self, queue: int) -> tuple[int, int, int]:
        """The oldest record of ``queue`` leaves it."""
        at = int(self._head["oldest"][queue])
        high, low, size = (int(part) for part in self._at(self._record_at(queue, at), _RECORD))
        self._head["oldest"][queue] = (at + 1) % self._slots
        self._head["count"][queue] -= 1
        left = int(self._head["bytes"][queue]) - size
        # What somebody wrote over our records must not keep us from ending.
        self._head["bytes"][queue] = left if left > 0 and self._head["count"][queue] else 0
        return high, low, size

    def _evict(self) -> None:
        """One object leaves; of those in front of it some get another round, or into the main queue."""
        while True:
            full = self._head["bytes"][_MAIN] > self.budget - self.budget // 10
            queue = _MAIN if full or not self._head["count"][_SMALL] else _SMALL
            record = self._take(queue)
            if not record[2]:  # a hole
                if not self._head["count"].any():
                    return
                continue
            digest = _digest(record)
            place = _place(digest)
            hits = self._hits(place)
            if queue == _MAIN and hits:
                self._set_hits(place, min(hits, _MOST_HITS) - 1)
            elif queue == _SMALL and hits >= _PROMOTED:
                self._set_hits(place, 0)
            else:
                break
            self._append(_MAIN, record)
        if queue == _SMALL:
            self._put(self._ghosts_at + 8 * place, _WORD, _fingerprint(digest))
        self._unlink(digest)

    def _drop(self, queue: int) -> None:
        """The oldest record leaves, for there is no room for more of them."""
        record = self._take(queue)
        if record[2]:
            self._unlink(_digest(record))

    def _unlink(self, digest: str) -> None:
        self.evictions += 1
        with contextlib.suppress(FileNotFoundError):
            self.path(digest).unlink()

    def _forget(self, digest: str) -> None:
        """Leave a hole where the object is in a queue."""
        high, low, _ = _record(digest, 0)
        for queue in (_SMALL, _MAIN):
            oldest, count = int(self._head["oldest"][queue]), int(self._head["count"][queue])
            # What is behind the end goes on at the beginning.
            for first, last in ((oldest, min(oldest + count, self._slots)), (0, oldest + count - self._slots)):
                size = max(last - first, 0) * int(_RECORD.itemsize)
                raw = os.pread(self._fd, size, self._record_at(queue, first)).ljust(size, b"\0")
                part = np.frombuffer(raw, _RECORD)
                for at in np.flatnonzero((part["low"] == low) & (part["high"] == high)):
                    self._head["bytes"][queue] -= min(part["size"][at], self._head["bytes"][queue])
                    self._put(self._record_at(queue, first + int(at)), _RECORD, (high, low, 0))


def _size(slots: int) -> int:
    return _HEAD.itemsize + 2 * slots * _RECORD.itemsize + 9 * _PLACES


def _slots(size: int) -> int:
    return (size - _HEAD.itemsize - 9 * _PLACES) // (2 * _RECORD.itemsize)


def _record(digest: str, size: int) -> tuple[int, int, int]:
    return int(digest[:16], 16), int(digest[16:], 16), size


def _digest(record: tuple[int, int, int]) -> str:
    return f"{record[0]:016x}{record[1]:016x}"


def _place(digest: str) -> int:
    return int(digest[:8], 16) % _PLACES


def _fingerprint(digest: str) -> int:
    return int(digest[16:], 16) | 1
