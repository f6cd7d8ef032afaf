"""For the container parsers: a sample table that grows."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef struct Pile:                       # a plain array that grows
    uint8_t* data
    size_t room                         # bytes allocated


cdef struct Column:                     # one value a sample, as narrow as the values so far allow
    Pile pile
    uint32_t count
    uint32_t value                      # of every sample while width is 0
    uint8_t width                       # bytes a sample: 0, 1 (number in the palette), 2 or 4
    bint palette_first                  # whether width 1 or width 2 follows 0
    uint32_t distinct                   # values in the palette
    uint32_t palette[256]
    uint16_t slots[1024]                # hash table: number in the palette + 1


cdef class Builder:                     # collects the samples of one track, in decoding order, and makes its block
    cdef Column sizes, deltas, shifts
    cdef Pile syncs, gaps, counts, run_offsets, run_samples
    cdef uint64_t payload, run_end
    cdef uint64_t end, limit            # of the bytes used so far; of the file
    cdef uint32_t placed, marked        # samples whose position, and whose sync flag, is known
    cdef uint32_t runs, sync_count
    cdef uint8_t gap_width
    cdef bint all_sync
    cdef int64_t first_dts

    cdef int add_sizes(self, uint32_t value, uint32_t count) except -1 nogil
    cdef int add_sizes_be(self, const uint8_t* table, uint32_t count, int bits) except -1 nogil
    cdef int add_deltas(self, uint32_t value, uint32_t count) except -1 nogil
    cdef uint32_t pop_delta(self) noexcept nogil
    cdef int64_t total_delta(self) noexcept nogil
    cdef int add_shifts(self, int32_t value, uint32_t count) except -1 nogil
    cdef int add_rows_be(self, Column* column, const uint8_t* rows, size_t width, uint32_t count,
                         uint64_t* total) except -1 nogil
    cdef int add_deltas_be(self, const uint8_t* table, uint32_t entries) except -1 nogil
    cdef int add_shifts_be(self, const uint8_t* table, uint32_t entries) except -1 nogil
    cdef int add_syncs(self, bint sync, uint32_t count) except -1 nogil
    cdef int add_syncs_be(self, const uint8_t* table, uint32_t entries) except -1 nogil
    cdef int add_chunks_be(self, const uint8_t* chunks, uint32_t count, int width, const uint8_t* stsc,
                           uint32_t entries) except -1 nogil
    cdef int place(self, uint64_t offset, uint32_t count) except -1 nogil
    cdef uint8_t even_run_length(self) noexcept
    cdef object block(self)
