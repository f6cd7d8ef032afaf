"""C interface of the sender: one answer after another on a connection, at the pace of its client."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t
from posix.time cimport clock_gettime, timespec

from streamgate.native.accesslog cimport AccessLog, Record
from streamgate.native.cmcd cimport CmcdLog, Told
from streamgate.native.stored cimport Stored
from streamgate.native.tally cimport Tally


cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void* iov_base
        size_t iov_len


cdef enum:
    NS = 1000000000


cdef class Sender:
    cdef Tally tally
    cdef AccessLog log              # None: nothing is logged
    cdef CmcdLog reports            # None: what players report is not logged
    cdef object loop
    cdef readonly object transport  # None once the connection has ended
    cdef int fd                     # of the socket, to write to directly; -1: only the transport may
    cdef bint shared                # somebody else may have written to the transport
    cdef bint paused                # the transport wants no more bytes
    cdef bint unbuffered            # the transport tells of every byte that it could not send
    cdef bint last                  # the connection ends with the answer under way
    cdef bint ended                 # nothing more is read or answered
    cdef int64_t began, now         # the request's head was there: ns of the monotonic clock, ns since 1970
    cdef int64_t quiet_since, moved_since, moved    # ns; bytes since `moved_since`
    cdef Stored out                 # the answer under way, None: none
    cdef bytes rest                 # of its head
    cdef int64_t first, position, stop              # of its body: [first, stop), sent up to position
    cdef bytes kept                 # what `record` points into
    cdef Record record
    cdef Told reported
    cdef uint8_t[16] address
    cdef int address_size
    cdef char[46] shown             # the address as the log has it

    # `parts`, with room for one more, are the head; first and stop, last, and the record are set.
    cdef int send(self, Stored stored, iovec* parts, int count) except -1
    cdef int send_cut(self, Stored stored, iovec* parts, int count) except -1
    cdef bint writable(self) except -1
    cdef ssize_t give(self, iovec* parts, int count, bint more) noexcept
    cdef int fail(self, Stored stored, int64_t sent, int cause) except -1
    cdef int wait(self, Stored stored, bytes rest) except -1
    cdef int keep(self) except -1
    cdef int pump(self) except -1
    cdef int64_t push(self) except -2
    cdef object read_piece(self)
    cdef void move(self, int64_t size) noexcept
    cdef int finish(self) except -1
    cdef int leave(self, Stored stored, int64_t sent) except -1
    cdef int cut(self, int cause) except -1
    cdef int give_up(self) except -1
    cdef int close(self) except -1


cdef inline int64_t clock(int which) noexcept nogil:
    """A clock, in ns."""
    cdef timespec now
    clock_gettime(which, &now)
    return <int64_t> now.tv_sec * NS + now.tv_nsec


cdef inline void part(iovec* one, const char* data, size_t size) noexcept nogil:
    one.iov_base, one.iov_len = <void*> data, size


cdef inline void lines(iovec* one, bytes data) noexcept:
    one.iov_base, one.iov_len = PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)
