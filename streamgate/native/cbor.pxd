"""Declarations of native/cbor.h, for the kernels that read tokens; there is no module of this name at run time."""

from libc.stdint cimport int64_t, uint8_t, uint64_t

cdef extern from "cbor.h" nogil:
    ctypedef struct cbor_head:
        int major
        int info
        uint64_t value
    ctypedef struct cbor_label:
        int major
        uint64_t value
        const uint8_t* text
    ctypedef struct cbor_map:
        uint64_t left
    int cbor_read_head(const uint8_t** at, const uint8_t* end, cbor_head* head)
    int cbor_read_string(const uint8_t** at, const uint8_t* end, int major, const uint8_t** text, size_t* size)
    bint cbor_next_is(const uint8_t* at, const uint8_t* end, int major)
    int cbor_open_array(const uint8_t** at, const uint8_t* end, int depth, uint64_t* count)
    int cbor_open_map(const uint8_t** at, const uint8_t* end, int depth, cbor_map* map)
    int cbor_read_label(const uint8_t** at, const uint8_t* end, cbor_label* label)
    int cbor_next_label(const uint8_t** at, const uint8_t* end, cbor_map* map, cbor_label* label)
    int64_t cbor_small(const cbor_label* label)
    int cbor_skip(const uint8_t** at, const uint8_t* end, int depth)
    int cbor_read_date(const uint8_t** at, const uint8_t* end, int64_t* seconds)
    double cbor_float(const cbor_head* head)
