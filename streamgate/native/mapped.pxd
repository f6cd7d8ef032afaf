"""C interface of bodies that are cut from a file in memory."""

from libc.stdint cimport int64_t, uint64_t
from posix.uio cimport iovec

from streamgate.native.gather cimport Plan


cdef class Mapped:
    cdef int fd                     # of the file, which somebody else keeps open
    cdef char* address              # where it is mapped; never read by us
    cdef int64_t size, modified     # bytes, ns since 1970; as it was when it was mapped
    cdef uint64_t inode
    cdef bint telling               # the kernel tells us which pages are in memory

    cdef bint same(self) noexcept nogil


cdef class Cut:
    cdef readonly Plan plan
    cdef readonly Mapped source
    cdef readonly int64_t size      # bytes

    # The whole body as parts for sendmsg; how many, 0 where they are more than `most`.
    cdef int fill(self, iovec* parts, int most) noexcept
    # Some of it, read. Raises source_changed, source_truncated, source_unreadable.
    cdef bytes rest(self, int64_t start, int64_t length)
