from libc.stdint cimport uint32_t, uint64_t


cdef class Index:
    cdef readonly uint64_t size, duration
    cdef readonly uint32_t timescale
    cdef readonly bint fragmented
    cdef readonly tuple brands, tracks
