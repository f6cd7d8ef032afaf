"""Room on a disk that is kept free for what must be written even when it is full: a file that holds nothing."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

SIZE = 4 * 1024 * 1024
"""Bytes of the file when it is whole."""
STEP = 256 * 1024
"""Bytes that are given up at a time: what is given up and not written at once, others may take."""


class Reserve:
    """The file at ``path``; nothing here raises, for a disk without a reserve still is a disk. Everything blocks."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def fill(self) -> None:
        """Take all the room that it should have, if the disk has it."""
        with contextlib.suppress(OSError):
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                had = os.fstat(fd).st_size
                while had < SIZE:
                    # Step by step: on a disk that is nearly full, as much as there is.
                    os.posix_fallocate(fd, had, STEP)
                    had += STEP
            except OSError:
                os.ftruncate(fd, had)
                raise
            finally:
                os.close(fd)

    def give_up(self) -> bool:
        """Let go of a part; False where there is none left."""
        try:
            size = self._path.stat().st_size
            os.truncate(self._path, max(0, size - STEP))
        except OSError:
            return False
        return size > 0
