"""Sample tables for other kernels: ``from streamgate.native.samples cimport Track, Range``."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef struct Range:
    uint64_t offset
    uint64_t length


# How many samples, runs and bytes a block has; it starts with this (see samples.pyx).
cdef struct Shape:
    uint64_t payload        # sum of all sizes
    int64_t first_dts
    int64_t duration        # sum of all deltas
    uint64_t end            # the end of the last byte any sample uses
    uint32_t samples
    uint32_t size           # the size of every sample when size_width is 0
    uint32_t delta          # the delta of every sample when delta_width is 0
    uint32_t shift          # the composition offset (two's complement) of every sample when shift_width is 0
    uint32_t syncs          # how many sync samples are listed; none when all_sync
    uint32_t runs
    uint8_t size_width      # bytes a sample: 0, 2 or 4
    uint8_t delta_width     # 0, 1 (number in the palette) or 4
    uint8_t shift_width     # 0, 1 (number in the palette) or 4
    uint8_t gap_width       # bytes a run: 2, 4 or 8
    uint8_t run_length      # samples of every run but the last; 0: each run has its own count
    uint8_t all_sync
    uint8_t reserved[2]


cdef struct Tables:
    const uint64_t* run_offsets     # of every 64th run
    const uint32_t* run_samples     # first sample of every 64th run; NULL when run_length is set
    const int64_t* dts              # of every 64th sample; NULL when all deltas are equal
    const uint32_t* delta_palette
    const uint32_t* shift_palette
    const void* gaps
    const void* sizes
    const void* deltas
    const void* shifts
    const uint32_t* syncs
    const uint8_t* run_counts


cdef class Track:
    cdef readonly uint32_t id, timescale, samples
    cdef readonly bint enabled, all_sync
    cdef readonly str handler, language, name
    cdef readonly double width, height
    cdef readonly tuple matrix, entries, entries_used, edits
    cdef readonly int64_t first_dts, duration
    cdef readonly uint64_t payload
    cdef readonly uint64_t end          # of the last byte that any sample uses
    cdef object block                   # the bytes of all tables; immutable
    cdef const uint8_t[::1] bytes       # the same, held
    cdef Shape shape
    cdef Tables tables

    # Fills plain arrays for samples [first, first + count); any pointer may be NULL.
    cdef int expand(self, uint32_t first, uint32_t count, uint32_t* sizes, uint32_t* deltas, int32_t* offsets,
                    uint8_t* syncs) except -1 nogil
    # The dts of a sample; that of sample number ``samples`` is the end of the last one.
    cdef int64_t dts_at(self, uint32_t sample) noexcept nogil
    # Merged byte ranges of samples [first, first + count): returns how many there are, fills at most capacity.
    cdef int64_t ranges_of(self, uint32_t first, uint32_t count, Range* out, uint32_t capacity) except -1 nogil
    # Uses a block as the tables; ``check`` proves first that they are consistent (they come from outside).
    cdef int adopt(self, object block, bint check) except -1
    cdef object view(self, const void* table, object kind, uint32_t count)
    cdef tuple span(self, object first, object last)


# For the builder.
cdef enum:
    GROUP = 64                          # runs, or samples, between two absolute values
    RUN_LIMIT = 255                     # samples a run

cdef int fail(const char* code, const char* detail) except -1 nogil
cdef uint64_t lay_out(const Shape* shape, const uint8_t* base, Tables* tables) noexcept nogil
cdef void spread(int width, uint32_t value, const uint32_t* palette, const void* table, uint32_t first, uint32_t count,
                 uint32_t* out) noexcept nogil


cdef inline bint is_time(int64_t ticks) noexcept nogil:
    """Whether a decoding time is small enough that no sum of times overflows."""
    return -(<int64_t>1 << 60) <= ticks <= <int64_t>1 << 60


cdef inline uint64_t padded(uint64_t size) noexcept nogil:
    return (size + 7) & ~<uint64_t>7


cdef inline uint64_t sum_sizes(int width, uint32_t value, const void* table, uint32_t first,
                               uint32_t count) noexcept nogil:
    cdef uint64_t total = 0
    cdef uint32_t i
    cdef const uint16_t* narrow
    cdef const uint32_t* wide
    if width == 0:
        return <uint64_t>value * count
    if width == 2:
        narrow = <const uint16_t*>table + first
        for i in range(count):
            total += narrow[i]
    else:
        wide = <const uint32_t*>table + first
        for i in range(count):
            total += wide[i]
    return total


cdef inline uint64_t gap_of(int width, const void* gaps, uint32_t run) noexcept nogil:
    if width == 2:
        return (<const uint16_t*>gaps)[run]
    if width == 4:
        return (<const uint32_t*>gaps)[run]
    return (<const uint64_t*>gaps)[run]
