"""Envelopes of tokens (RFC 9052 sections 3, 4 and 6): COSE_Mac0 and COSE_Sign1, and the bytes that a MAC or a signature covers."""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from streamgate.native.cbor cimport (
    cbor_head, cbor_label, cbor_map, cbor_next_label, cbor_open_array, cbor_open_map, cbor_read_head, cbor_read_label,
    cbor_read_string, cbor_skip, cbor_small,
)


cdef int read_headers(const uint8_t** at, const uint8_t* end, bint protected, Envelope* e) noexcept nogil:
    cdef cbor_map headers
    cdef cbor_label label
    cdef const uint8_t* text
    cdef size_t size
    cdef uint64_t count
    cdef int64_t key
    if cbor_open_map(at, end, 1, &headers) < 0:
        return -1
    while headers.left:
        if cbor_next_label(at, end, &headers, &label) < 0:
            return -1
        key = cbor_small(&label)
        if key == 1:
            # Never in both (RFC 9052 section 3); an unprotected one does not count.
            if (not protected and e.has_algorithm) or cbor_read_label(at, end, &label) < 0:
                return -1
            if protected:
                e.has_algorithm = True
                e.algorithm = cbor_small(&label) if label.major != 3 else 0
        elif key == 2:                              # crit: keys of headers that must be understood
            if not protected or cbor_open_array(at, end, 2, &count) < 0 or count == 0:
                return -1
            while count:
                if cbor_read_label(at, end, &label) < 0:
                    return -1
                e.unknown = e.unknown or cbor_small(&label) not in (1, 4)
                count -= 1
        elif key == 4:
            if cbor_read_string(at, end, 2, &text, &size) < 0:
                return -1
            if e.kid != NULL and (size != e.kid_size or memcmp(text, e.kid, size) != 0):
                return -1
            e.kid = text
            e.kid_size = size
        elif cbor_skip(at, end, 2) < 0:
            return -1
    return 0


cdef int read_envelope(const uint8_t* at, const uint8_t* end, Envelope* e) noexcept nogil:
    cdef cbor_head head
    cdef uint64_t count
    cdef const uint8_t* inside
    memset(e, 0, sizeof(Envelope))
    if cbor_read_head(&at, end, &head) < 0 or head.major != 6:
        return -1
    if head.value == 61 and (cbor_read_head(&at, end, &head) < 0 or head.major != 6):
        return -1
    if head.value != 17 and head.value != 18:
        return -1
    e.tag = <int> head.value
    if cbor_open_array(&at, end, 1, &count) < 0 or count != 4:
        return -1
    if cbor_read_string(&at, end, 2, &e.protected, &e.protected_size) < 0:
        return -1
    inside = e.protected
    if e.protected_size:        # an empty one is an empty map
        if read_headers(&inside, e.protected + e.protected_size, True, e) < 0 or inside != e.protected + e.protected_size:
            return -1
    e.unprotected = at
    if read_headers(&at, end, False, e) < 0:
        return -1
    if cbor_read_string(&at, end, 2, &e.payload, &e.payload_size) < 0:
        return -1
    if cbor_read_string(&at, end, 2, &e.mac, &e.mac_size) < 0:
        return -1
    return 0 if at == end else -1


cdef size_t put_string(uint8_t* out, const uint8_t* text, size_t size) noexcept nogil:
    """A byte string in its shortest form, as MACs want it (RFC 9052 section 9); it is below 64 KiB."""
    cdef size_t n = 1
    if size < 24:
        out[0] = <uint8_t> (0x40 | size)
    elif size < 256:
        out[0] = 0x58
        out[1] = <uint8_t> size
        n = 2
    else:
        out[0] = 0x59
        out[1] = <uint8_t> (size >> 8)
        out[2] = <uint8_t> size
        n = 3
    memcpy(out + n, text, size)
    return n + size


cdef size_t put_covered(uint8_t* out, const Envelope* e) noexcept nogil:
    cdef size_t n
    if e.tag == 17:                 # MAC_structure, section 6.3
        memcpy(out, b"\x84\x64MAC0", 6)
        n = 6
    else:                           # Sig_structure, section 4.4
        memcpy(out, b"\x84\x6aSignature1", 12)
        n = 12
    n += put_string(out + n, e.protected, e.protected_size)
    out[n] = 0x40                   # nothing is added from outside
    n += 1
    return n + put_string(out + n, e.payload, e.payload_size)
