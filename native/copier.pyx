"""Copier: many outputs out of one source, each of whose bytes is read once.

Tracks lie interleaved in a file, sample by sample. What one segment leaves out another one takes, so a window of the
source is read in as few calls as its gaps allow, and each output is written from it with one writev.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EINTR, errno
from libc.stdint cimport INT64_MAX, uint64_t
from libc.stdlib cimport free
from posix.types cimport off_t
from posix.uio cimport iovec, writev
from posix.unistd cimport SEEK_CUR, lseek

from streamgate.errors import StreamGateError
from streamgate.native.gather cimport MAX_GAP, Plan, advance, read_all, refused
from streamgate.native.samples cimport Range

cdef extern from "<fcntl.h>" nogil:
    int FALLOC_FL_KEEP_SIZE
    int fallocate(int fd, int mode, off_t offset, off_t length)

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void** memory, size_t alignment, size_t size)

cdef extern from "<sys/mman.h>" nogil:
    int MADV_HUGEPAGE
    int madvise(void* memory, size_t length, int advice)

cdef enum:
    WINDOW = 2097152            # a huge page: one page fault for all of it, and it stays in the processor's caches
    CACHE_LINE = 64
    MAX_PARTS = 512             # pieces of one output that a window holds at most; Linux takes 1024 a call
    MOST = 64                   # outputs at a time
    WORTH_RESERVING = 131072    # bytes; below, reserving costs as much as it saves

MOST_OUTPUTS = MOST


cdef struct Output:
    int fd
    uint64_t size
    const Range* runs           # those that are still to be copied
    size_t count
    uint64_t done               # bytes of the first of them
    size_t parts                # filled entries of vectors
    iovec vectors[MAX_PARTS]


cdef void reserve(int fd, uint64_t count) noexcept nogil:
    """Give the ``count`` bytes that follow their place on the disk at once.

    ext4 otherwise reserves it block by block while they are written, which costs as much as copying them.
    Whatever this call has against it (a pipe, a file system that cannot, a full disk), the write itself tells.
    """
    cdef off_t position
    if count < WORTH_RESERVING:
        return
    position = lseek(fd, 0, SEEK_CUR)
    if position >= 0:
        fallocate(fd, FALLOC_FL_KEEP_SIZE, position, count)


cdef int write_all(int fd, iovec* parts, size_t count) except -1 nogil:
    cdef ssize_t put
    cdef size_t used
    cdef int error
    while count:
        put = writev(fd, parts, <int> count)
        if put < 0:
            error = errno
            with gil:
                if error != EINTR:
                    raise refused("output_failed", "write", error)
                PyErr_CheckSignals()
            continue
        used = advance(parts, count, put)
        parts += used
        count -= used
    return 0


cdef inline Output* foremost(Output* outputs, size_t count) noexcept nogil:
    """The output whose next byte lies first in the source; NULL where all have theirs."""
    cdef Output* found = NULL
    cdef size_t i
    for i in range(count):
        if outputs[i].count and (found == NULL or outputs[i].runs.offset + outputs[i].done
                                 < found.runs.offset + found.done):
            found = &outputs[i]
    return found


@cython.final
cdef class Copier:
    cdef int source
    cdef bint busy
    cdef char* window
    cdef Output* outputs

    def __cinit__(self, int fd):
        cdef void* memory = NULL
        self.source = fd
        if posix_memalign(&memory, WINDOW, WINDOW + MOST * sizeof(Output)):
            raise MemoryError
        madvise(memory, WINDOW, MADV_HUGEPAGE)
        self.window = <char*> memory
        self.outputs = <Output*> (self.window + WINDOW)

    def __dealloc__(self):
        free(self.window)

    def copy(self, outputs):
        cdef tuple held = tuple(outputs)        # keeps what the pointers point into
        cdef size_t count = len(held)
        cdef uint64_t total = 0
        if count > MOST or self.busy:
            raise StreamGateError("internal", f"{count} outputs at a time, {MOST} at most, by one thread")
        self.busy = True
        try:
            for i, (plan, fd) in enumerate(held):
                total += self.begin(&self.outputs[i], plan, fd)
            with nogil:
                self.run(count)
        finally:
            self.busy = False
        return total

    cdef uint64_t begin(self, Output* output, Plan plan, int fd) except? 0:
        if plan is None:
            raise TypeError("an output needs a plan")
        output.fd, output.size = fd, plan.size
        output.runs, output.count, output.done = plan.runs, plan.count, 0
        output.vectors[0].iov_base = PyBytes_AS_STRING(plan.head)
        output.vectors[0].iov_len = PyBytes_GET_SIZE(plan.head)
        output.parts = 1
        return plan.size

    cdef int run(self, size_t count) except -1 nogil:
        """Window by window: pieces of the outputs in the order of the source, read in stretches, then written."""
        cdef Output* output
        cdef uint64_t position, take
        cdef uint64_t begin, end        # the stretch of the source that is being planned
        cdef size_t i, at               # where in the window it goes
        for i in range(count):
            reserve(self.outputs[i].fd, self.outputs[i].size)
        while True:
            at = 0
            begin = end = INT64_MAX     # none yet
            while True:
                output = foremost(self.outputs, count)
                if output == NULL or output.parts == MAX_PARTS:
                    break
                position = output.runs.offset + output.done
                if not begin <= position <= end + MAX_GAP:
                    self.fetch(at, begin, end)
                    at += end - begin
                    at += (position - at) % CACHE_LINE      # copies are quickest between places that are alike in that
                    begin = end = position
                if at + (position - begin) >= WINDOW:
                    break
                take = min(output.runs.length - output.done, WINDOW - at - (position - begin))
                output.vectors[output.parts].iov_base = self.window + at + (position - begin)
                output.vectors[output.parts].iov_len = take
                output.parts += 1
                output.done += take
                end = max(end, position + take)
                if output.done == output.runs.length:
                    output.runs += 1
                    output.count -= 1
                    output.done = 0
            self.fetch(at, begin, end)
            self.flush(count)
            if output == NULL:
                return 0

    cdef int fetch(self, size_t at, uint64_t begin, uint64_t end) except -1 nogil:
        """Read [begin, end) of the source to ``at`` in the window."""
        cdef iovec part
        part.iov_base, part.iov_len = self.window + at, end - begin
        if end > begin:
            read_all(self.source, &part, 1, begin, True)
        return 0

    cdef int flush(self, size_t count) except -1 nogil:
        cdef size_t i
        for i in range(count):
            if self.outputs[i].parts:
                write_all(self.outputs[i].fd, self.outputs[i].vectors, self.outputs[i].parts)
            self.outputs[i].parts = 0
        return 0
