"""C interface of the gather kernel: other kernels make plans here without building Python objects for the ranges."""

from libc.stdint cimport uint64_t
from posix.uio cimport iovec

from streamgate.native.samples cimport Range


cdef enum:
    # A system call costs about as much as copying 24 KiB, so wider gaps are cheaper to skip than to read.
    MAX_GAP = 16384


cdef class Plan:
    cdef readonly bytes head
    cdef readonly uint64_t size     # bytes of head and payload together
    cdef uint64_t payload           # bytes of all ranges
    cdef uint64_t first, end        # smallest source span [first, end) that holds every range
    cdef size_t count
    cdef Range* runs                # `count` non-empty ranges, adjacent ones merged; owned
    cdef uint64_t* at               # position of each run in the payload; same allocation as runs

    cdef int take(self, const Range* ranges, size_t count) except -1
    cdef size_t run_at(self, uint64_t position) noexcept nogil
    cdef int bounds(self, object start, object length, uint64_t* first, uint64_t* count) except -1
    cdef int read(self, int fd, char* out, uint64_t position, uint64_t left, bint wait) except -1 nogil
    cdef int copy(self, const unsigned char* data, uint64_t base, uint64_t held, char* out, uint64_t position,
                  uint64_t left) except -1 nogil


# Copies the ranges. Raises source_malformed where their ends or their sum do not fit 63 bits.
cdef Plan make_plan(bytes head, const Range* ranges, size_t count)

# Fills ``parts`` with the bytes of a file from ``position`` on; changes them. Raises source_truncated, source_unreadable.
# 1, or 0 where the kernel would have to ``wait`` for the disk and may not (or cannot tell: then it never may).
cdef int read_all(int fd, iovec* parts, size_t count, uint64_t position, bint wait) except -1 nogil
# Takes ``done`` transferred bytes off the front of ``parts``; returns how many of them are used up.
cdef size_t advance(iovec* parts, size_t count, size_t done) noexcept nogil
cdef object refused(str code, str doing, int error)
