"""What the disk tier holds, for all workers of the node: a page of memory that they share, kept by S3-FIFO in bytes.

The truth is the folder: an object is there if its file is. The ledger says how many bytes that is and who leaves
next; it is made anew from names, sizes and times when a node starts, and when a worker was killed while it wrote here.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

_MAGIC = 0x31_72_65_67_64_65_6C_53
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
    ]
)
_RECORD = np.dtype([("high", "<u8"), ("low", "<u8"), ("size", "<u8")])


class Ledger:
    """The shared page in ``folder``, whose objects are below ``folder/objects``; at most ``budget`` bytes of them.

    Everything but :meth:`hit` blocks. Raises OSError where the folder cannot be written.
    """

    def __init__(self, folder: Path, budget: int, clear: Callable[[], None] = lambda: None) -> None:
        """``clear`` is called where this is the node's first worker, before there is another."""
        self._folder = folder
        self.budget = budget
        self.evictions = 0
        self._threads = threading.Lock()
        # Held until this process ends: who can lock it alone is the first of the node.
        self._presence = os.open(folder / "presence", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._keeper = os.open(folder / "keeper", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with self._locked():
            self.first = self._alone()
            self._map()
            if self.first:
                clear()
                # By the clock that files' times are of.
                self._head["booted"] = os.stat(folder / "ledger").st_mtime_ns
                self._rebuild()
                self._head["dirty"] = 0
            fcntl.flock(self._presence, fcntl.LOCK_SH)

    def close(self) -> None:
        """Let the node's next start be the first again, if this was the last worker."""
        for fd in (self._presence, self._lock, self._keeper):
            os.close(fd)

    @property
    def booted(self) -> int:
        """When the first worker of the node came, by the clock of the disk: ns since 1970."""
        return int(self._head["booted"])

    @property
    def bytes(self) -> int:
        """Bytes of all objects."""
        return int(self._head["bytes"].sum())

    def __len__(self) -> int:
        return int(self._head["count"].sum())

    def path(self, digest: str) -> Path:
        """Where the object's file is."""
        return self._folder / "objects" / digest[:2] / digest

    def keep(self) -> bool:
        """Become the one worker that looks after the tier; False where another one is."""
        try:
            fcntl.flock(self._keeper, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def hit(self, digest: str, least: int = _MOST_HITS) -> None:
        """Note that the object was asked for, unless ``least`` hits are noted already; takes no lock."""
        place = _place(digest)
        if self._hits[place] < min(least, _MOST_HITS):
            self._hits[place] += 1

    def add(self, digest: str, size: int, publish: Callable[[], None]) -> bool:
        """Make room for an object of ``size`` bytes and ``publish`` its file; False where it is too large for the tier."""
        if size > self.budget // 8:
            return False
        with self._locked(), self._changing():
            self._forget(digest)
            while self.bytes + size > self.budget and self.bytes:
                self._evict()
            publish()
            ghost = self._ghosts[_place(digest)] == _fingerprint(digest)
            if ghost:
                self._ghosts[_place(digest)] = 0
            self._hits[_place(digest)] = 0
            self._append(_MAIN if ghost else _SMALL, _record(digest, size))
        return True

    def remove(self, digest: str) -> bool:
        """Throw an object out; whether it was there."""
        with self._locked(), self._changing():
            self._forget(digest)
            try:
                self.path(digest).unlink()
            except FileNotFoundError:
                return False
        return True

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        # The file's lock is one process's against another's; it ends with the process, however that ends.
        with self._threads:
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._lock, fcntl.LOCK_UN)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        if self._head["dirty"]:
            self._rebuild()
        self._head["dirty"] = 1
        try:
            yield
        finally:
            self._head["dirty"] = 0

    def _alone(self) -> bool:
        try:
            fcntl.flock(self._presence, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _map(self) -> None:
        slots = min(max(self.budget // _TYPICAL, _LEAST), _MOST)
        fd = os.open(self._folder / "ledger", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if self.first:
                os.ftruncate(fd, 0)
                os.ftruncate(fd, _size(slots))
                # A hole that cannot be filled later would be a SIGBUS.
                os.posix_fallocate(fd, 0, _size(slots))
            else:
                # Others may have begun with another budget: the room for records is what they made.
                slots = _slots(os.fstat(fd).st_size)
            page = mmap.mmap(fd, _size(slots))
        finally:
            os.close(fd)
        self._head: Any = np.frombuffer(page, _HEAD, 1)[0]
        at = _HEAD.itemsize
        self._rings: Any = np.frombuffer(page, _RECORD, 2 * slots, at).reshape(2, slots)
        at += 2 * slots * _RECORD.itemsize
        self._ghosts: Any = np.frombuffer(page, "<u8", _PLACES, at)
        self._hits: Any = np.frombuffer(page, np.uint8, _PLACES, at + 8 * _PLACES)
        self._slots = slots
        self._head["magic"], self._head["slots"] = _MAGIC, slots

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
        while self.bytes > self.budget:
            self._evict()

    def _append(self, queue: int, record: tuple[int, int, int]) -> None:
        if self._head["count"][queue] == self._slots:
            self._drop(queue)
        at = int(self._head["oldest"][queue] + self._head["count"][queue]) % self._slots
        self._rings[queue, at] = record
        self._head["count"][queue] += 1
        self._head["bytes"][queue] += record[2]

    def _take(self, queue: int) -> tuple[int, int, int]:
        """The oldest record of ``queue`` leaves it."""
        at = int(self._head["oldest"][queue])
        high, low, size = (int(part) for part in self._rings[queue, at])
        self._head["oldest"][queue] = (at + 1) % self._slots
        self._head["count"][queue] -= 1
        self._head["bytes"][queue] -= size
        return high, low, size

    def _evict(self) -> None:
        """One object leaves; of those in front of it some get another round, or into the main queue."""
        while True:
            full = self._head["bytes"][_MAIN] > self.budget - self.budget // 10
            queue = _MAIN if full or not self._head["count"][_SMALL] else _SMALL
            record = self._take(queue)
            if not record[2]:  # a hole
                if not len(self):
                    return
                continue
            digest = _digest(record)
            place = _place(digest)
            if queue == _MAIN and self._hits[place]:
                self._hits[place] -= 1
            elif queue == _SMALL and self._hits[place] >= _PROMOTED:
                self._hits[place] = 0
            else:
                break
            self._append(_MAIN, record)
        if queue == _SMALL:
            self._ghosts[place] = _fingerprint(digest)
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
                part = self._rings[queue][first : max(first, last)]
                for at in np.flatnonzero((part["low"] == low) & (part["high"] == high)):
                    self._head["bytes"][queue] -= part[at]["size"]
                    part[at]["size"] = 0


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
