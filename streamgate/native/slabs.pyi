"""Memory for bodies on their way, used again and again, and how it gets into a file."""

from typing import final

from typing_extensions import Buffer

@final
class Slabs:
    """Keeps at most ``limit`` bytes that were given back. For one thread with the GIL at a time, whichever it is."""

    limit: int
    spare: int
    """Bytes that nobody needs now."""

    def __init__(self, limit: int) -> None: ...
    def take(self, size: int) -> memoryview:
        """``size`` bytes of whatever was there before. They are given back when no view of them is held any more.

        Raises MemoryError.
        """

def checksum(data: Buffer, crc: int = 0) -> int:
    """CRC-32 of ``data`` behind what gave ``crc``, as ``zlib.crc32``. The GIL is released."""

def write(fd: int, data: Buffer, at: int, crc: int = 0, direct: int = -1) -> int:
    """Write ``data`` to the file from byte ``at`` on, and return the checksum of it behind what gave ``crc``.

    Where ``direct`` is the same file opened with O_DIRECT, whole pages go past the page cache if ``data`` and ``at`` are
    aligned to a page, as slabs are. The GIL is released for all of it. Raises OSError.
    """
