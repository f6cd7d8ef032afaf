"""A source that is a file of this machine, read by ranges only."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import weakref
from collections.abc import Sequence
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

from streamgate.errors import StreamGateError
from streamgate.native.mapped import Mapped

_BLOCKS = 16
_BLOCK = 4096
# The kernel takes no more at once than its own read-ahead or the device's largest request: 1280 KiB as a rule.
_AHEAD = 512 * 1024


class FileSource:
    """An open regular file.

    The descriptor lives as long as the object: whoever still sends from it keeps it open by holding a reference.
    Raises :class:`StreamGateError` with ``source_not_found`` or ``source_unreadable``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # O_NONBLOCK so that a FIFO somebody put there cannot hang the open.
            self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError) as e:
            raise StreamGateError("source_not_found", f"{path.name}: no such file") from e
        except OSError as e:
            raise StreamGateError("source_unreadable", f"{path.name}: {os.strerror(e.errno or errno.EIO)}") from e
        weakref.finalize(self, os.close, self.fd)
        status = os.fstat(self.fd)
        if not stat.S_ISREG(status.st_mode):
            raise StreamGateError("source_unreadable", f"{path.name}: not a regular file")
        self.size = status.st_size
        self.signature = signature(status)

    @cached_property
    def mapped(self) -> Mapped:
        """The file in the address space, for the kernel to send from; raises ``source_unreadable``."""
        return Mapped(self.fd)

    def read(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes from ``offset``; fewer only at the end of the file."""
        pieces = []
        while length > 0:
            try:
                piece = os.pread(self.fd, length, offset)
            except OSError as e:
                raise StreamGateError(
                    "source_unreadable", f"{self.path.name}: {os.strerror(e.errno or errno.EIO)}"
                ) from e
            if not piece:
                break
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def look(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of each range."""
        return [self.read(offset, length) for offset, length in ranges]

    @property
    def name(self) -> str:
        """The file's."""
        return self.path.name

    @property
    def key(self) -> str:
        """The file as the system knows it, and blocks spread over what it holds."""
        return f"{self.signature} {self.identity().hex()}"

    def read_ahead(self, offset: int, length: int) -> None:
        """Have the kernel begin to read these bytes into its page cache, unless samples of them are there already.

        Asking is cheap (a byte each, preadv2(2)'s RWF_NOWAIT); advice for what is in the cache costs half as much as reading it.
        """
        end = offset + length
        probes = (offset + length // 3, offset + 2 * length // 3, end - 1)
        with contextlib.suppress(OSError):  # EAGAIN: it is not in the cache; ENOTSUP: who knows
            if length <= 0 or all(os.preadv(self.fd, [bytearray(1)], at, os.RWF_NOWAIT) for at in probes):
                return
        for at in range(offset, end, _AHEAD):
            with contextlib.suppress(OSError):  # it is a wish
                os.posix_fadvise(self.fd, at, min(_AHEAD, end - at), os.POSIX_FADV_WILLNEED)

    def identity(self, index: bytes = b"") -> bytes:
        """A digest (16 bytes) of what the file holds: its size, its sample ``index`` and blocks spread over it.

        Never the modification time alone, which a copy changes, and never the whole file, which may be large.
        """
        digest = blake2b(self.size.to_bytes(8, "big"), digest_size=16)
        digest.update(blake2b(index, digest_size=16).digest())
        step = max(_BLOCK, self.size // _BLOCKS)
        for offset in range(0, self.size, step):
            digest.update(self.read(offset, _BLOCK))
        return digest.digest()


def signature(status: os.stat_result) -> tuple[int, int, int]:
    """What changes when a file is written or replaced: (inode, size, modification time in ns)."""
    return (status.st_ino, status.st_size, status.st_mtime_ns)
