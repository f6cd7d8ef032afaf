"""Bodies that are cut from a file in memory: the kernel copies them from a mapping straight to a socket.

A segment of a file that is muxed sample by sample has some 120 ranges; one ``sendmsg`` takes them all, where reading
costs a system call for each that lies apart. Nobody but the kernel reads the mapping: where the file has been cut short, that is
an error of the call (EFAULT), not a signal that ends the process.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from libc.errno cimport errno
from libc.stdint cimport int64_t, uint64_t
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, mmap, munmap
from posix.stat cimport fstat, struct_stat
from posix.uio cimport iovec

import os

from streamgate.errors import StreamGateError
from streamgate.native.gather cimport Plan

cdef extern from "<sys/mman.h>" nogil:
    int mincore(void* address, size_t length, unsigned char* answers)

cdef extern from "<sys/stat.h>" nogil:
    struct timespec:
        int64_t tv_sec, tv_nsec
    struct with_times "stat":
        timespec st_mtim

cdef enum:
    PAGE = 4096
    PAGES = 4096                # looked at in one call
    MOST = 64 * 1024 * 1024     # bytes that a plan may lie spread over


@cython.final
cdef class Mapped:
    def __cinit__(self, int fd):
        cdef struct_stat found
        self.address = NULL
        if fstat(fd, &found) < 0 or found.st_size <= 0:
            raise StreamGateError("source_unreadable", "no file to map")
        self.fd, self.size = fd, found.st_size
        self.inode, self.modified = found.st_ino, _modified(&found)
        # mincore(2) tells the truth only to those who own the file, or may write to it.
        self.telling = os.geteuid() in (0, found.st_uid) or os.access(f"/proc/self/fd/{fd}", os.W_OK)
        address = <uint64_t> mmap(NULL, self.size, PROT_READ, MAP_SHARED, fd, 0)
        if address == <uint64_t> MAP_FAILED:
            raise StreamGateError("source_unreadable", os.strerror(errno))
        self.address = <char*> address

    def __dealloc__(self):
        if self.address != NULL:
            munmap(self.address, self.size)

    @property
    def unchanged(self):
        return self.same()

    cdef bint same(self) noexcept nogil:
        cdef struct_stat found
        return (
            fstat(self.fd, &found) == 0 and found.st_size == self.size and found.st_ino == self.inode
            and _modified(&found) == self.modified
        )

    def resident(self, Plan plan not None):
        cdef unsigned char answers[PAGES]
        cdef int64_t at = plan.first - plan.first % PAGE, left = plan.end - at, length, n, i
        if not self.telling or plan.end > <uint64_t> self.size or left > MOST or not self.same():
            return False
        while plan.payload and left > 0:
            length = min(left, PAGES * PAGE)
            if mincore(self.address + at, length, answers) < 0:
                return False
            n = (length + PAGE - 1) // PAGE
            for i in range(n):
                if not answers[i] & 1:
                    return False
            at += length
            left -= length
        return True


@cython.final
cdef class Cut:
    def __cinit__(self, Plan plan not None, Mapped source not None):
        if plan.end > <uint64_t> source.size:
            raise StreamGateError("source_truncated", "the plan goes beyond the file")
        self.plan, self.source, self.size = plan, source, plan.size

    cdef int fill(self, iovec* parts, int most) noexcept:
        cdef Plan plan = self.plan
        cdef size_t i
        cdef int count = 0
        if plan.count + 1 > <size_t> most or plan.payload == 0:
            return 0
        if len(plan.head):
            parts[0].iov_base, parts[0].iov_len = PyBytes_AS_STRING(plan.head), len(plan.head)
            count = 1
        for i in range(plan.count):
            parts[count].iov_base, parts[count].iov_len = self.source.address + plan.runs[i].offset, plan.runs[i].length
            count += 1
        return count

    cdef bytes rest(self, int64_t start, int64_t length):
        cdef bytes found = self.plan.from_fd(self.source.fd, start, length)
        if not self.source.same():
            raise StreamGateError("source_changed", "the file was written to while it was being sent")
        return found


cdef inline int64_t _modified(const struct_stat* found) noexcept nogil:
    cdef const with_times* status = <const with_times*> found
    return status.st_mtim.tv_sec * 1000000000 + status.st_mtim.tv_nsec
