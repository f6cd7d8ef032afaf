"""C interface of the envelopes of tokens."""

from libc.stdint cimport int64_t, uint8_t


cdef enum:
    COVERED = 32            # bytes that `put_covered` may add to those of the envelope


cdef struct Envelope:
    int tag                 # 17 COSE_Mac0, 18 COSE_Sign1
    const uint8_t* protected
    size_t protected_size
    const uint8_t* unprotected
    bint has_algorithm
    int64_t algorithm       # 0: none that a small number names
    const uint8_t* kid      # NULL: none
    size_t kid_size
    const uint8_t* payload
    size_t payload_size
    const uint8_t* mac      # or the signature
    size_t mac_size
    bint unknown            # a header that must be understood is not


# 0; -1 where the bytes are not one envelope and nothing else. Pointers are into what was read.
cdef int read_envelope(const uint8_t* at, const uint8_t* end, Envelope* e) noexcept nogil
# What its MAC or signature covers; its size.
cdef size_t put_covered(uint8_t* out, const Envelope* e) noexcept nogil
