"""Gather: output bytes that are a short head of ours and many ranges of one source.

A source that is muxed sample by sample has some 120 ranges in a segment of 4 s.
One preadv scatters them into the answer and spills the gaps between them, which costs about as much as one contiguous
read; a pread for each costs twice that.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EAGAIN, EINTR, EOPNOTSUPP, errno
from libc.stdint cimport INT64_MAX, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy
from posix.types cimport off_t
from posix.uio cimport iovec

import os

import numpy as np

from streamgate.errors import StreamGateError
from streamgate.native.samples cimport Range

cdef extern from "<sys/uio.h>" nogil:
    enum: RWF_NOWAIT
    ssize_t preadv2(int fd, const iovec* parts, int count, off_t offset, int flags)

cdef enum:
    MAX_IOVECS = 1024           # IOV_MAX of Linux
    NOGIL_BYTES = 65536         # copies below this are shorter than a hand-over of the GIL

cdef unsigned char spill[MAX_GAP]    # what falls between ranges; written by many threads at once and read by none


cdef object refused(str code, str doing, int error):
    return StreamGateError(code, f"{doing}: {os.strerror(error)}")


cdef size_t advance(iovec* parts, size_t count, size_t done) noexcept nogil:
    """Take ``done`` transferred bytes off the front of ``parts``; returns how many of them are used up."""
    cdef size_t i = 0
    while i < count and done >= parts[i].iov_len:
        done -= parts[i].iov_len
        i += 1
    if i < count:
        parts[i].iov_base = <char*> parts[i].iov_base + done
        parts[i].iov_len -= done
    return i


cdef int read_all(int fd, iovec* parts, size_t count, uint64_t position, bint wait) except -1 nogil:
    cdef ssize_t got
    cdef size_t used
    cdef int error
    while count:
        got = preadv2(fd, parts, <int> count, position, 0 if wait else RWF_NOWAIT)
        if got < 0:
            error = errno
            if not wait and (error == EAGAIN or error == EOPNOTSUPP):
                return 0
            with gil:
                if error != EINTR:
                    raise refused("source_unreadable", f"read at byte {position}", error)
                PyErr_CheckSignals()
            continue
        if got == 0:
            with gil:
                raise StreamGateError("source_truncated", f"the file ends at byte {position}, before its samples do")
        used = advance(parts, count, got)
        parts += used
        count -= used
        position += got
    return 1


@cython.final
cdef class Plan:
    def __cinit__(self):
        self.head = b""
        self.runs = NULL

    def __init__(self, bytes head not None, ranges):
        if self.runs != NULL or self.size:
            raise StreamGateError("internal", "a plan cannot be changed")
        cdef const uint64_t[:, ::1] pairs = np.ascontiguousarray(ranges, dtype=np.uint64).reshape(-1, 2)
        self.head = head
        self.take(<const Range*> &pairs[0, 0] if pairs.shape[0] else NULL, pairs.shape[0])

    def __dealloc__(self):
        free(self.runs)

    cdef int take(self, const Range* ranges, size_t count) except -1:
        """Copy the ranges, merge adjacent ones, and note where each lies in the payload."""
        cdef size_t i, kept = 0
        cdef uint64_t offset, length, total = 0
        cdef uint64_t limit = INT64_MAX - <uint64_t> len(self.head)
        cdef Range* runs = <Range*> malloc((count or 1) * (sizeof(Range) + sizeof(uint64_t)))
        if runs == NULL:
            raise MemoryError
        self.runs = runs
        self.at = <uint64_t*> (runs + count)
        self.first = INT64_MAX if count else 0
        self.end = 0
        for i in range(count):
            offset = ranges[i].offset
            length = ranges[i].length
            if length == 0:
                continue
            if offset > INT64_MAX or length > INT64_MAX - offset or length > limit - total:
                raise StreamGateError("source_malformed", "byte ranges lie beyond any file")
            if kept and runs[kept - 1].offset + runs[kept - 1].length == offset:
                runs[kept - 1].length += length
            else:
                runs[kept].offset = offset
                runs[kept].length = length
                self.at[kept] = total
                kept += 1
            total += length
            self.first = min(self.first, offset)
            self.end = max(self.end, offset + length)
        if kept == 0:
            self.first = 0
        self.count = kept
        self.payload = total
        self.size = total + <uint64_t> len(self.head)
        return 0

    @property
    def ranges(self):
        held = PyBytes_FromStringAndSize(<const char*> self.runs, self.count * sizeof(Range))
        return np.frombuffer(held, dtype=np.uint64).reshape(-1, 2)

    @property
    def span(self):
        return self.first, self.end - self.first

    cdef size_t run_at(self, uint64_t position) noexcept nogil:
        """The run that holds byte ``position`` of the payload, which lies in it."""
        cdef size_t low = 0, high = self.count, middle
        while high - low > 1:
            middle = (low + high) // 2
            if self.at[middle] <= position:
                low = middle
            else:
                high = middle
        return low

    cdef int bounds(self, object start, object length, uint64_t* first, uint64_t* count) except -1:
        if start < 0 or start > self.size or (length is not None and length < 0):
            raise StreamGateError("range_not_satisfiable", f"bytes {start} and {length} more of {self.size}")
        first[0] = start
        count[0] = self.size - first[0]
        if length is not None and length < count[0]:
            count[0] = length
        return 0

    def from_fd(self, int fd, start=0, length=None):
        cdef uint64_t position, left, taken = 0, ahead = len(self.head)
        self.bounds(start, length, &position, &left)
        cdef bytes answer = PyBytes_FromStringAndSize(NULL, left)
        cdef char* out = PyBytes_AS_STRING(answer)
        if position < ahead:
            taken = min(left, ahead - position)
            memcpy(out, PyBytes_AS_STRING(self.head) + position, taken)
        if left > taken:
            with nogil:
                self.read(fd, out + taken, position + taken - ahead, left - taken, True)
        return answer

    def from_page_cache(self, int fd):
        cdef bytes answer = PyBytes_FromStringAndSize(NULL, self.size)
        cdef char* out = PyBytes_AS_STRING(answer)
        cdef size_t ahead = len(self.head)
        memcpy(out, PyBytes_AS_STRING(self.head), ahead)
        return answer if self.payload == 0 or self.read(fd, out + ahead, 0, self.payload, False) else None

    def payload_from_fd(self, int fd):
        return self.from_fd(fd, len(self.head))

    cdef int read(self, int fd, char* out, uint64_t position, uint64_t left, bint wait) except -1 nogil:
        """Read ``left`` bytes of the payload from ``position`` on; as many runs per call as lie close together.

        0 where that would ``wait`` for the disk and may not.
        """
        cdef iovec parts[MAX_IOVECS]
        cdef size_t n, i = self.run_at(position)
        cdef uint64_t skip = position - self.at[i], offset, length, begin, cursor
        while left:
            n = 0
            begin = cursor = self.runs[i].offset + skip
            while left and n + 2 <= MAX_IOVECS:
                offset = self.runs[i].offset + skip
                length = min(self.runs[i].length - skip, left)
                if offset != cursor:
                    if offset < cursor or offset - cursor > MAX_GAP:
                        break
                    parts[n].iov_base = spill
                    parts[n].iov_len = offset - cursor
                    n += 1
                parts[n].iov_base = out
                parts[n].iov_len = length
                n += 1
                out += length
                left -= length
                cursor = offset + length
                skip = 0
                i += 1
            if not read_all(fd, parts, n, begin, wait):
                return 0
        return 1

    def from_buffer(self, const unsigned char[::1] data not None, uint64_t base, start=0, length=None):
        cdef uint64_t position, left, taken = 0, ahead = len(self.head), held = data.shape[0]
        cdef const unsigned char* source = &data[0] if held else NULL
        self.bounds(start, length, &position, &left)
        cdef bytes answer = PyBytes_FromStringAndSize(NULL, left)
        cdef char* out = PyBytes_AS_STRING(answer)
        if position < ahead:
            taken = min(left, ahead - position)
            memcpy(out, PyBytes_AS_STRING(self.head) + position, taken)
        if left - taken > NOGIL_BYTES:
            with nogil:
                self.copy(source, base, held, out + taken, position + taken - ahead, left - taken)
        elif left > taken:
            self.copy(source, base, held, out + taken, position + taken - ahead, left - taken)
        return answer

    @property
    def ascending(self):
        cdef size_t i
        for i in range(1, self.count):
            if self.runs[i].offset < self.runs[i - 1].offset + self.runs[i - 1].length:
                return False
        return True

    def gather(self, const unsigned char[::1] data not None, uint64_t base, unsigned char[::1] out not None, start, done):
        cdef uint64_t position, left, skip, offset, length, ahead = len(self.head), held = data.shape[0]
        cdef size_t i
        # In front of ``out`` there is no more room than behind it.
        self.bounds(done, out.shape[0] - (done - start) if 0 <= start <= done else -1, &position, &left)
        cdef uint64_t first = start
        cdef char* at = <char*> &out[0] + (position - first) if left else NULL
        if left and position < ahead:
            length = min(left, ahead - position)
            memcpy(at, PyBytes_AS_STRING(self.head) + position, length)
            at += length
            left -= length
            position += length
        i = self.run_at(position - ahead) if left else 0
        while left:
            skip = position - ahead - self.at[i]
            offset = self.runs[i].offset + skip
            if offset < base or offset - base >= held:
                break
            length = min(min(self.runs[i].length - skip, held - (offset - base)), left)
            memcpy(at, &data[offset - base], length)
            at += length
            left -= length
            position += length
            if skip + length == self.runs[i].length:
                i += 1
        return position

    cdef int copy(self, const unsigned char* data, uint64_t base, uint64_t held, char* out, uint64_t position,
                  uint64_t left) except -1 nogil:
        """Copy ``left`` bytes of the payload from ``position`` on; ``data`` is the source's [base, base + held)."""
        cdef size_t i = self.run_at(position)
        cdef uint64_t skip = position - self.at[i], offset, length
        while left:
            offset = self.runs[i].offset + skip
            length = min(self.runs[i].length - skip, left)
            if offset < base or offset - base > held or length > held - (offset - base):
                with gil:
                    raise outside(offset, length, base, held)
            memcpy(out, data + (offset - base), length)
            out += length
            left -= length
            skip = 0
            i += 1
        return 0


cdef object outside(uint64_t offset, uint64_t length, uint64_t base, uint64_t held):
    return StreamGateError(
        "source_truncated", f"bytes {offset} to {offset + length} are not among the {held} given from byte {base} on"
    )


cdef Plan make_plan(bytes head, const Range* ranges, size_t count):
    cdef Plan plan = Plan.__new__(Plan)
    plan.head = head
    plan.take(ranges, count)
    return plan
