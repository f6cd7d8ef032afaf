"""Slabs: memory for bodies on their way, used again and again.

Where a system gives fresh memory it clears it page by page as it is touched, which costs several times as much as to fill it. What
was given back is kept, up to a limit, and lent again as it is.
"""

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from libc.errno cimport EINTR, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from posix.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, PROT_READ, PROT_WRITE, mmap, munmap
from posix.types cimport off_t
from posix.unistd cimport pwrite

import os
import zlib

cdef extern from "crc32.h" nogil:
    bint crc32_is_fast()
    uint32_t crc32_folded(uint32_t crc, const uint8_t* data, size_t size)
    uint32_t crc32_bitwise(uint32_t crc, const uint8_t* data, size_t size)

cdef enum:
    GRAIN = 65536               # sizes are multiples of this
    PAGE = 4096                 # what O_DIRECT asks of addresses, offsets and lengths at most
    PIECE = 262144              # what is written at a time is still in the processor's caches from the checksum
    FOLDED = 64                 # bytes that the quick checksum begins with


@cython.no_gc
@cython.final
cdef class Memory:
    """A mapping of its own."""
    cdef char* at
    cdef size_t room

    def __cinit__(self, size_t room):
        cdef void* found = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        if found == MAP_FAILED:
            raise MemoryError
        self.at = <char*> found
        self.room = room

    def __dealloc__(self):
        if self.at != NULL:
            munmap(self.at, self.room)


@cython.final
cdef class Slabs:
    cdef list free              # those given back last are lent first: they may still be in the processor's caches
    cdef readonly size_t limit
    cdef readonly size_t spare

    def __init__(self, size_t limit):
        self.free = []
        self.limit = limit

    def take(self, size_t size):
        cdef Slab slab = Slab.__new__(Slab)
        cdef size_t room = max(1, (size + GRAIN - 1) // GRAIN) * GRAIN
        cdef Memory memory, found = None
        cdef Py_ssize_t i
        for i in range(len(self.free) - 1, -1, -1):
            memory = <Memory> self.free[i]
            # What is much larger is better kept for who needs it.
            if room <= memory.room <= room + room // 2 and (found is None or memory.room < found.room):
                found = memory
                if found.room == room:
                    break
        if found is None:
            found = Memory(room)
        else:
            self.free.remove(found)
            self.spare -= found.room
        slab.memory, slab.size, slab.owner = found, size, self
        return memoryview(slab)

    cdef int back(self, Memory memory) except -1:
        if memory.room > self.limit:
            return 0
        self.free.append(memory)
        self.spare += memory.room
        while self.spare > self.limit:
            self.spare -= (<Memory> self.free.pop(0)).room
        return 0


@cython.no_gc
@cython.final
cdef class Slab:
    cdef Memory memory
    cdef Slabs owner
    cdef size_t size

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.memory.at, self.size, 0, flags)

    def __dealloc__(self):
        if self.memory is not None:
            self.owner.back(self.memory)


def checksum(const uint8_t[::1] data not None, uint32_t crc=0):
    cdef size_t size = data.shape[0]
    if size == 0:
        return crc
    if not crc32_is_fast():
        return zlib.crc32(data, crc)
    with nogil:
        crc = more(crc, &data[0], size)
    return crc


cdef uint32_t more(uint32_t crc, const uint8_t* data, size_t size) noexcept nogil:
    cdef size_t folded = size // 16 * 16 if size >= FOLDED else 0
    crc = ~crc
    if folded:
        crc = crc32_folded(crc, data, folded)
    return ~crc32_bitwise(crc, data + folded, size - folded)


def write(int fd, const uint8_t[::1] data not None, off_t at, uint32_t crc=0, int direct=-1):
    cdef size_t size = data.shape[0], part, past = 0
    cdef int error = 0
    cdef bint fast = crc32_is_fast()
    if size == 0:
        return crc
    if not fast:
        crc = zlib.crc32(data, crc)
    if direct >= 0 and at % PAGE == 0 and <size_t> &data[0] % PAGE == 0:
        past = size // PAGE * PAGE
    with nogil:
        if past:
            if fast:
                crc = more(crc, &data[0], past)
            error = put(direct, &data[0], past, at)
        while past < size and not error:
            part = min(size - past, PIECE)
            if fast:
                crc = more(crc, &data[past], part)
            error = put(fd, &data[past], part, at + past)
            past += part
    if error:
        raise OSError(error, os.strerror(error))
    return crc


cdef int put(int fd, const uint8_t* data, size_t size, off_t at) noexcept nogil:
    """Write all of it; the error's number, or 0."""
    cdef size_t done = 0
    cdef ssize_t sent
    while done < size:
        sent = pwrite(fd, data + done, size - done, at + done)
        if sent >= 0:
            done += sent
        elif errno != EINTR:
            return errno
    return 0
