"""C interface of the hot path's counters."""

from libc.stdint cimport int64_t, uint64_t


cdef enum:
    N_ROUTES = 12
    N_STATUSES = 4
    N_BUCKETS = 16


cdef enum:                                          # places in the row; the first four are tables
    REQUESTS = 0                                    # [route][status]
    BYTES = REQUESTS + N_ROUTES * N_STATUSES        # [route]
    SECONDS = BYTES + N_ROUTES                      # [route][bucket]
    NANOSECONDS = SECONDS + N_ROUTES * N_BUCKETS    # [route]
    HITS = NANOSECONDS + N_ROUTES
    MISSES
    NATIVE
    HANDED
    REFUSED
    TOKENS_READ
    TOKENS_REMEMBERED
    ABORTED_CLIENT
    ABORTED_TIMEOUT
    ABORTED_SOURCE
    N_COUNTERS


cdef class Tally:
    cdef object memory              # keeps the row in its place
    cdef uint64_t* row

    cdef void answer(self, int route, int status, int64_t sent, int64_t duration) noexcept


# The name of a route, by its index in ROUTES.
cdef const char* name_of(int route) noexcept
