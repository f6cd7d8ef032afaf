"""C interface of the log of what players report (CMCD): the hot path adds to it without building Python objects."""

from libc.stdint cimport int64_t, uint8_t

from streamgate.native.accesslog cimport Record
from streamgate.native.http1 cimport Head, Span


cdef struct Told:               # what a request brought, unparsed; spans are borrowed
    bint any                    # it is to be logged
    Span query                  # the value of CMCD= in the query; at is NULL: none
    Span[4] fields              # CMCD-Object, -Request, -Session, -Status
    const char* tier


cdef class CmcdLog:
    cdef object sink
    cdef double sample, owed
    cdef char* buffer
    cdef size_t used, room

    # Fills `told` by the request. Asked once for each request that is answered; `hit`: a tier had it, on the `disk` or in memory.
    cdef void take(self, const Head* head, Told* told, bint hit, bint disk) noexcept
    # Writes one entry; hands the buffer on when it is full. `now`: ns since 1970.
    cdef int write(self, const Told* told, const Record* record, int64_t now) except -1
    cdef int hand_on(self) except -1
    cdef bint wanted(self) noexcept
    cdef void _put(self, const uint8_t* at, size_t size, size_t most) noexcept
    cdef void _number(self, int64_t value) noexcept
    cdef void _end(self, char end) noexcept
