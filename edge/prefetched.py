"""Which segments were fetched ahead and not used yet: a table in memory that all workers of a node share.

A slot for each hash: whoever comes to a taken one drives out what was there. Two workers that write the same slot at the
same time can lose an entry, which then counts as neither used nor wasted.
"""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Callable
from hashlib import blake2b

_SLOT = struct.Struct("<QII")  # hash of the key, 0: free; size in KiB, rounded up; when, in s of the monotonic clock
_LOOKED = 8  # slots that are looked at for old entries with each new one
_OLD_S = 900.0
_KIB = 1024


def room(slots: int) -> int:
    """Bytes of a table, in whole pages."""
    return -(-slots * _SLOT.size // mmap.PAGESIZE) * mmap.PAGESIZE


class Prefetched:
    """A table of ``slots``, in the memory behind ``descriptor`` from ``offset`` on; of this process alone without it.

    ``wasted`` is called with the bytes of what was driven out, or has been there for a quarter of an hour.
    """

    def __init__(
        self,
        slots: int,
        descriptor: int = -1,
        offset: int = 0,
        *,
        wasted: Callable[[int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slots = slots
        self._memory = memoryview(mmap.mmap(descriptor, room(slots), offset=offset))
        self._wasted = wasted
        self._clock = clock
        self._next = 0

    def add(self, key: str, size: int) -> None:
        """``size`` bytes were fetched ahead."""
        self._look()
        name, at = self._place(key)
        before, kib, _ = _SLOT.unpack_from(self._memory, at)
        if before:
            self._wasted(kib * _KIB)
        _SLOT.pack_into(self._memory, at, name, -(-size // _KIB), int(self._clock()))

    def has(self, key: str) -> bool:
        """Whether it waits to be used."""
        name, at = self._place(key)
        return bool(_SLOT.unpack_from(self._memory, at)[0] == name)

    def take(self, key: str) -> bool:
        """It is used, or is not there any more; whether it waited for that."""
        name, at = self._place(key)
        if _SLOT.unpack_from(self._memory, at)[0] != name:
            return False
        _SLOT.pack_into(self._memory, at, 0, 0, 0)
        return True

    def _place(self, key: str) -> tuple[int, int]:
        name = int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "little") or 1
        return name, name % self._slots * _SLOT.size

    def _look(self) -> None:
        oldest = self._clock() - _OLD_S
        for _ in range(min(_LOOKED, self._slots)):
            at = self._next * _SLOT.size
            name, kib, when = _SLOT.unpack_from(self._memory, at)
            if name and when < oldest:
                _SLOT.pack_into(self._memory, at, 0, 0, 0)
                self._wasted(kib * _KIB)
            self._next = (self._next + 1) % self._slots
