"""Which pages of a file are in the kernel's page cache: what was read, or read ahead."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

import numpy as np

_libc = ctypes.CDLL(None, use_errno=True)


def evict(path: Path) -> None:
    """Have the kernel forget what it holds of a file, where the file is on a disk."""
    fd = os.open(path, os.O_RDWR)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def resident(path: Path, offset: int, length: int) -> float:
    """The part of these bytes' pages that is in the page cache, 0 to 1; mincore(2)."""
    first = offset // mmap.PAGESIZE * mmap.PAGESIZE
    # It tells of files that the caller may write.
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        view = np.frombuffer(mapped, np.uint8)
        pages = np.zeros(-(-(offset + length - first) // mmap.PAGESIZE), np.uint8)
        size = ctypes.c_size_t(offset + length - first)
        failed = _libc.mincore(ctypes.c_void_p(view.ctypes.data + first), size, ctypes.c_void_p(pages.ctypes.data))
        del view
        assert not failed, os.strerror(ctypes.get_errno())
        return float(np.mean(pages & 1))
