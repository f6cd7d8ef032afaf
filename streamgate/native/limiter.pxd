"""C interface of the rate limiter: the hot path asks it before every answer."""

from libc.stdint cimport int64_t, uint64_t


cdef struct Place:
    uint64_t key                 # hash of who is counted; 0: free
    int64_t due                  # CLOCK_MONOTONIC, ns: the theoretical arrival time of the next request


cdef class Limiter:
    cdef object _memory
    cdef Place* _places
    cdef uint64_t _mask          # groups - 1
    cdef uint64_t[2] _seed
    cdef readonly int64_t interval
    cdef readonly int64_t tolerance

    # 0 where the request may go on, else the nanoseconds until it might.
    cdef int64_t admit(self, const unsigned char* key, size_t length, int64_t now) noexcept nogil
    cdef Place* _place(self, uint64_t hash, int64_t now) noexcept nogil
