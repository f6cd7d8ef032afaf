"""Who makes an object: one process of the machine at a time, for as long as it lives.

The claim is the growing file itself. It is made under another name, locked, and linked to its own: so whoever finds it
finds it locked, and the lock ends with the process that holds it, however that ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from edge.tiers.objects import ADDRESS, HEADER
from streamgate.native import slabs

_TRIES = 16
# Bytes from which on a write goes past the page cache: to find room there costs more than all else, and most of what is
# stored nobody asks for again.
_LARGE = 256 * 1024
_numbers = itertools.count()


class Claim:
    """An open growing file: to be written where it ``leads``, else another process's, which listens on ``address``.

    ``number`` is that of the last purge that its process knew of when it was begun. ``direct``: what is large goes past the
    page cache, where the file system can do that.
    """

    __slots__ = ("__weakref__", "_given_up", "address", "begun", "direct", "fd", "leads", "number", "path")

    def __init__(
        self, fd: int, path: Path, leads: bool, address: str, number: int = 0, *, direct: bool = False
    ) -> None:
        self.fd = fd
        self.path = path
        self.leads = leads
        self.address = address
        self.number = number
        self.direct = direct
        # Somebody works on it, and will give it up.
        self.begun = False
        self._given_up = False

    def reserve(self, size: int) -> None:
        """Take room for a body of ``size`` bytes on the disk, so that it cannot fill up later; raises OSError."""
        os.posix_fallocate(self.fd, 0, HEADER + size)

    def write(self, data: bytes | memoryview, at: int, crc: int = 0) -> int:
        """Write part of the body, and go on with its CRC-32; raises OSError."""
        if self.direct and len(data) >= _LARGE:
            with contextlib.suppress(_Unable), _past_the_cache(self.fd) as direct:
                return slabs.write(self.fd, data, HEADER + at, crc, direct)
        return slabs.write(self.fd, data, HEADER + at, crc)

    def abandoned(self) -> bool:
        """Remove the file if nobody works on it any more; whether that is so."""
        return _stale(self.path, self.fd)

    @property
    def given_up(self) -> bool:
        """Whether it was ended: the file may have no name any more, or be another's."""
        return self._given_up

    def give_up(self) -> None:
        """End the claim: the file goes unless it was renamed; blocking. Who has it open reads on."""
        if self.leads and not self._given_up:
            self._given_up = True
            with contextlib.suppress(OSError):
                if os.stat(self.path).st_ino == os.fstat(self.fd).st_ino:
                    self.path.unlink()

    def published(self) -> None:
        """It ended as an object: the name is no claim's any more."""
        self._given_up = True

    def __del__(self) -> None:
        os.close(self.fd)


class Claims:
    """The growing files in ``folder``; ``address`` is where this process tells others how far its own are. ``direct``: see
    :class:`Claim`."""

    def __init__(self, folder: Path, address: str = "", *, direct: bool = False) -> None:
        self._folder = folder
        self.address = address
        self._direct = direct

    def clear(self) -> None:
        """Remove all leftovers; for the first process of a node only, while there is no other."""
        for path in self._folder.iterdir():
            path.unlink()

    def sweep(self) -> None:
        """Remove leftovers of processes that ended."""
        for path in self._folder.iterdir():
            if "." not in path.name:
                with contextlib.suppress(OSError):
                    Claim(os.open(path, os.O_RDONLY | os.O_CLOEXEC), path, False, "").abandoned()

    def claim(self, digest: str, made: Path | None, number: int = 0) -> Claim | None:
        """The claim for an object; None where it is at ``made`` by now. Raises OSError where the disk refuses."""
        path = self._folder / digest
        for _ in range(_TRIES):
            with contextlib.suppress(FileNotFoundError):
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                address, _, known = os.pread(fd, ADDRESS, HEADER - ADDRESS).rstrip(b"\0").decode().partition(" ")
                found = Claim(fd, path, False, address, int(known or 0))
                if not found.abandoned():
                    return found
            claim = self._begin(path, number)
            if claim is None:
                continue
            # Looked for only now: whoever led before may have been quick, and most of the time there is none.
            if made is not None and made.exists():
                claim.give_up()
                return None
            return claim
        raise BlockingIOError("a claim changes hands too often")

    def _begin(self, path: Path, number: int) -> Claim | None:
        """A new growing file; None where another process was first."""
        own = self._folder / f"{os.getpid()}.{next(_numbers)}"
        fd = os.open(own, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.pwrite(fd, f"{self.address} {number}".encode().ljust(ADDRESS, b"\0"), HEADER - ADDRESS)
            os.link(own, path)
        except FileExistsError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        finally:
            own.unlink()
        return Claim(fd, path, True, self.address, number, direct=self._direct)


class _Unable(Exception):
    """The file system has no writes past the page cache."""


@contextlib.contextmanager
def _past_the_cache(fd: int) -> Iterator[int]:
    """The same file, opened with O_DIRECT (open(2)); raises :class:`_Unable`, also for EINVAL within."""
    try:
        direct = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError as error:
        raise _Unable from error
    try:
        yield direct
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise _Unable from error
        raise
    finally:
        os.close(direct)


def _stale(path: Path, fd: int) -> bool:
    """Remove the growing file at ``path``, open as ``fd``, if nobody works on it any more; whether that is so."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    with contextlib.suppress(FileNotFoundError):
        if os.stat(path).st_ino == os.fstat(fd).st_ino:
            path.unlink()
    return True
