"""Numbers under names in a buffer that several processes may read: what metrics are kept in.

The buffer is a row of 64-bit words. Word 0 says how many words are in use; behind it one entry follows another::

    length of the key in bytes (32 bits) | number of cells (32 bits) | key, padded to whole words | the cells

A key begins with its kind: ``d`` counts as IEEE doubles, ``q`` as unsigned integers, ``g`` gauges as doubles. One process
writes; others read at any time: a word is written whole, and an entry counts only when it is complete.
"""

from __future__ import annotations

import mmap
import struct
import threading
from collections.abc import Iterator, Sequence

SIZE = 256 * 1024
"""Bytes for the metrics of one process: several thousand series."""

HEAD = mmap.PAGESIZE
"""Bytes before the cells in the slot of a process, in memory that the processes of a node share."""
SLOT = HEAD + SIZE

_ENTRY = struct.Struct("=II")
_WORD = 8


class Cells:
    """Finds and makes entries in ``buffer``, a multiple of 8 bytes; entries that it holds already go on being used.

    ``doubles`` and ``words`` are the same memory; an index in one is the same cell in the other.
    """

    def __init__(self, buffer: memoryview) -> None:
        self._bytes = buffer.cast("B")
        self.doubles: memoryview[float] = self._bytes.cast("d")
        self.words: memoryview[int] = self._bytes.cast("Q")
        if not self.words[0]:
            self.words[0] = 1
        self._lock = threading.Lock()
        self._known = {key: (first, count) for key, first, count in self._scan()}

    def find(self, key: str, count: int = 1) -> int | None:
        """The index of the first cell of ``key``'s ``count``, made with zeros; None where there is no room for it."""
        with self._lock:
            known = self._known.get(key)
            if known is not None and known[1] == count:
                return known[0]
            name = key.encode()
            start = self.words[0]
            first = start + 1 + -(-len(name) // _WORD)
            if first + count > len(self.words):
                return None
            _ENTRY.pack_into(self._bytes, start * _WORD, len(name), count)
            self._bytes[(start + 1) * _WORD : (start + 1) * _WORD + len(name)] = name
            # A process that was killed just here may have left something behind.
            self.words[first : first + count] = memoryview(bytes(count * _WORD)).cast("Q")
            self.words[0] = first + count
            self._known[key] = (first, count)
            return first

    def read(self) -> Iterator[tuple[str, Sequence[float]]]:
        """Every entry's key and numbers."""
        for key, first, count in self._scan():
            yield key, (self.words if key[0] == "q" else self.doubles)[first : first + count].tolist()

    def forget_gauges(self) -> None:
        """Set gauges to zero: what they told of went with its process."""
        for key, first, count in self._scan():
            if key[0] == "g":
                self.doubles[first : first + count] = memoryview(bytes(count * _WORD)).cast("d")

    def release(self) -> None:
        """Let go of the buffer; nothing else may be asked afterwards."""
        self.doubles.release()
        self.words.release()
        self._bytes.release()

    def _scan(self) -> Iterator[tuple[str, int, int]]:
        at, end = 1, self.words[0]
        while at < end:
            length, count = _ENTRY.unpack_from(self._bytes, at * _WORD)
            first = at + 1 + -(-length // _WORD)
            yield bytes(self._bytes[(at + 1) * _WORD : (at + 1) * _WORD + length]).decode(), first, count
            at = first + count


def slot_of(fd: int, number: int) -> memoryview:
    """The slot of that number in the memory behind ``fd``: HEAD bytes, then what Cells are made of."""
    return memoryview(mmap.mmap(fd, SLOT, offset=number * SLOT))


def private() -> Cells:
    """Cells that no other process sees."""
    return Cells(memoryview(bytearray(SIZE)))
