"""The claims of a Common Access Token: their form, at every depth, and what a request makes of them.

CTA-5007; RFC 8392 (CWT), RFC 9164 (networks). Claims are yes, no or unknown (Kleene's three-valued logic), and unknown is a
refusal in the end: what is not evaluated here restricts nevertheless.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from streamgate.native.cbor cimport (
    cbor_head, cbor_label, cbor_map, cbor_next_is, cbor_next_label, cbor_open_array, cbor_open_map, cbor_read_date,
    cbor_read_head, cbor_read_label, cbor_read_string, cbor_skip, cbor_small,
)

cdef enum:
    PRIVATE = -1            # stands for all keys below -65536
    OTHER = -2              # stands for text keys, and for integers that no table holds

cdef const uint8_t* MAPPED = b"\0\0\0\0\0\0\0\0\0\0\xFF\xFF"     # ::ffff:0:0/96, RFC 4291 section 2.5.5.2


cdef int64_t key_of(const cbor_label* label) noexcept nogil:
    if label.major == 1 and label.value >= 65536:
        return PRIVATE
    return <int64_t> label.value if label.major == 0 and label.value < 65536 else OTHER


# Each reader moves `at` behind the claim's value and returns BROKEN, or what the request makes of the claim.

cdef int both(int a, int b) noexcept nogil:
    return NO if a == NO or b == NO else UNKNOWN if a == UNKNOWN or b == UNKNOWN else YES


cdef int either(int a, int b) noexcept nogil:
    return YES if a == YES or b == YES else UNKNOWN if a == UNKNOWN or b == UNKNOWN else NO


cdef bint same(const uint8_t* a, const uint8_t* b, size_t size, bint fold) noexcept nogil:
    cdef size_t i
    cdef uint8_t x, y
    if not fold:
        return memcmp(a, b, size) == 0
    for i in range(size):
        x, y = a[i], b[i]
        if x != y and ((x | 32) != (y | 32) or not 97 <= (x | 32) <= 122):
            return False
    return True


cdef int methods(const uint8_t** at, const uint8_t* end, int depth, const Asked* asked) noexcept nogil:
    cdef uint64_t left
    cdef const uint8_t* text
    cdef size_t size
    cdef int answer = NO
    if cbor_open_array(at, end, depth, &left) < 0:
        return BROKEN
    while left:
        if cbor_read_string(at, end, 3, &text, &size) < 0:
            return BROKEN
        if asked != NULL and size == asked.method_size and memcmp(text, asked.method, size) == 0:
            answer = YES
        left -= 1
    return answer


cdef size_t without_port(const uint8_t* host, size_t size) noexcept nogil:
    cdef size_t i = size
    while i and 48 <= host[i - 1] <= 57:
        i -= 1
    return i - 1 if i and host[i - 1] == 58 else size       # of ":"; an IPv6 address ends in "]"


cdef bint part_of(int64_t kind, const Asked* asked, const uint8_t** text, size_t* size) noexcept nogil:
    """A component of the request's URI; false for those that are not evaluated here."""
    if kind == 0:
        text[0], size[0] = asked.scheme, asked.scheme_size
    elif kind == 1:
        text[0], size[0] = asked.host, without_port(asked.host, asked.host_size)
    elif kind == 3:
        text[0], size[0] = asked.path, asked.path_size
    elif kind == 5:             # the path without its last slash and what follows
        text[0], size[0] = asked.path, asked.path_size
        while size[0] and text[0][size[0] - 1] != 47:
            size[0] -= 1
        size[0] -= size[0] > 0
    else:
        return False
    return True


cdef int matcher(const uint8_t** at, const uint8_t* end, int depth, int64_t how, bint known, const uint8_t* part,
                 size_t part_size, bint fold) noexcept nogil:
    """One matcher: 0 exact, 1 prefix, 2 suffix. Others are not evaluated here: 3 contains, 4 regex, -1 and -2 digests."""
    cdef const uint8_t* text
    cdef size_t size
    if how < -2 or how > 3:
        return BROKEN if cbor_skip(at, end, depth) < 0 else UNKNOWN
    if cbor_read_string(at, end, 3 if how >= 0 else 2, &text, &size) < 0:
        return BROKEN
    if not known or how < 0 or how == 3:
        return UNKNOWN
    if size > part_size or (how == 0 and size != part_size):
        return NO
    return YES if size == 0 or same(text, part + (part_size - size if how == 2 else 0), size, fold) else NO


cdef int components(const uint8_t** at, const uint8_t* end, int depth, const Asked* asked) noexcept nogil:
    """catu: every matcher of every component must hold. One without any matcher is no restriction that anybody meant."""
    cdef cbor_map parts, matchers
    cdef cbor_label label
    cdef int64_t kind
    cdef const uint8_t* part = NULL
    cdef size_t size = 0
    cdef bint known
    cdef int one, answer = YES
    if cbor_open_map(at, end, depth, &parts) < 0 or parts.left == 0:
        return BROKEN
    while parts.left:
        if cbor_next_label(at, end, &parts, &label) < 0:
            return BROKEN
        kind = cbor_small(&label)
        if asked != NULL:
            known = part_of(kind, asked, &part, &size)
        else:
            known, size = kind in (0, 1, 3, 5), 0
        if cbor_open_map(at, end, depth + 1, &matchers) < 0 or matchers.left == 0:
            return BROKEN
        while matchers.left:
            if cbor_next_label(at, end, &matchers, &label) < 0:
                return BROKEN
            one = matcher(at, end, depth + 2, cbor_small(&label), known, part, size, kind < 2)
            if one == BROKEN:
                return BROKEN
            # Without a request nothing is a no, but that something is not evaluated shows already.
            answer = both(answer, YES if asked == NULL and one == NO else one)
    return answer


cdef int fields(const uint8_t** at, const uint8_t* end, int depth) noexcept nogil:
    """cath: its form only, which is catu's with names of header fields in the place of components."""
    cdef cbor_map names, matchers
    cdef cbor_label label
    if cbor_open_map(at, end, depth, &names) < 0 or names.left == 0:
        return BROKEN
    while names.left:
        if cbor_next_label(at, end, &names, &label) < 0 or label.major != 3:
            return BROKEN
        if cbor_open_map(at, end, depth + 1, &matchers) < 0 or matchers.left == 0:
            return BROKEN
        while matchers.left:
            if cbor_next_label(at, end, &matchers, &label) < 0:
                return BROKEN
            if matcher(at, end, depth + 2, cbor_small(&label), False, NULL, 0, False) == BROKEN:
                return BROKEN
    return UNKNOWN


cdef int network(const uint8_t** at, const uint8_t* end, int depth, const uint8_t* address, int size) noexcept nogil:
    """An address or [prefix length, bytes], tagged 52 or 54 (RFC 9164). Of bytes trailing zeros may be left out, as there, or not.

    A network's number (ASN) is unknown: there is no database.
    """
    cdef cbor_head head
    cdef const uint8_t* begin = at[0]
    cdef const uint8_t* text
    cdef uint8_t full[16]
    cdef uint8_t mask
    cdef size_t length, i, width
    cdef uint64_t bits, count
    cdef int answer = YES
    if cbor_read_head(at, end, &head) < 0 or (head.major != 0 and head.major != 6):
        return BROKEN
    if head.major == 0:
        return UNKNOWN
    if head.value != 52 and head.value != 54:
        at[0] = begin
        return BROKEN if cbor_skip(at, end, depth) < 0 else UNKNOWN
    width = 4 if head.value == 52 else 16
    bits = 8 * width
    if cbor_next_is(at[0], end, 4):
        if cbor_open_array(at, end, depth + 1, &count) < 0 or count != 2 or cbor_read_head(at, end, &head) < 0 or head.major != 0:
            return BROKEN
        if head.value > bits or cbor_read_string(at, end, 2, &text, &length) < 0 or length > width:
            return BROKEN
        bits = head.value
    elif cbor_read_string(at, end, 2, &text, &length) < 0 or length != width:
        return BROKEN
    memset(full, 0, 16)
    memcpy(full, text, length)
    for i in range(width):
        mask = 0xFF if bits >= 8 * (i + 1) else 0 if bits <= 8 * i else <uint8_t> (0xFF00 >> (bits - 8 * i))
        if full[i] & ~mask:         # section 3.1.2: what lies behind the prefix is zero
            return BROKEN
        if <size_t> size == width and address[i] & mask != full[i]:
            answer = NO
    return UNKNOWN if size == 0 else answer if <size_t> size == width else NO


cdef int networks(const uint8_t** at, const uint8_t* end, int depth, const Asked* asked) noexcept nogil:
    cdef uint64_t left
    cdef int one, answer = NO
    cdef const uint8_t* address = NULL
    cdef int size = 0
    if asked != NULL:
        address, size = asked.address, asked.address_size
        if size == 16 and memcmp(address, MAPPED, 12) == 0:
            address, size = address + 12, 4
    if cbor_open_array(at, end, depth, &left) < 0:
        return BROKEN
    while left:
        one = network(at, end, depth + 1, address, size)
        if one == BROKEN:
            return BROKEN
        answer = either(answer, one)
        left -= 1
    return answer


cdef int renewal(const uint8_t** at, const uint8_t* end, int depth) noexcept nogil:
    """catr: its form only. Type and seconds must be there."""
    cdef cbor_map parts
    cdef cbor_label label
    cdef cbor_head head
    cdef const uint8_t* text
    cdef size_t size
    cdef int64_t key
    cdef int needed = 0
    if cbor_open_map(at, end, depth, &parts) < 0:
        return BROKEN
    while parts.left:
        if cbor_next_label(at, end, &parts, &label) < 0:
            return BROKEN
        key = cbor_small(&label)
        if key in (0, 1, 2, 7):
            if cbor_read_head(at, end, &head) < 0 or head.major != 0 or (key == 0 and head.value > 3):
                return BROKEN
            needed |= 1 << key & 3
        elif key == 3 or key == 4:
            if cbor_read_string(at, end, 3, &text, &size) < 0:
                return BROKEN
        elif cbor_skip(at, end, depth + 1) < 0:
            return BROKEN
    return YES if needed == 3 else BROKEN


cdef int critical(const uint8_t** at, const uint8_t* end, int depth) noexcept nogil:
    """crit: keys of claims that must be understood, which are those evaluated here and those that restrict nothing by nature."""
    cdef uint64_t left
    cdef cbor_label label
    cdef int answer = YES
    if cbor_open_array(at, end, depth, &left) < 0 or left == 0:
        return BROKEN
    while left:
        if cbor_read_label(at, end, &label) < 0:
            return BROKEN
        if cbor_small(&label) not in (1, 2, 3, 4, 5, 6, 7, 308, 310, 311, 312, 313):
            answer = UNKNOWN
        left -= 1
    return answer


cdef uint64_t bit_of(int64_t key) noexcept nogil:
    """A claim's place among those that may be required."""
    if 1 <= key <= 8:
        return <uint64_t> 1 << key
    if 41 <= key <= 45:
        return <uint64_t> 1 << (key - 32)
    if 308 <= key <= 324:
        return <uint64_t> 1 << (key - 288)
    return 1 if key == 282 else 0


cdef int nested(const uint8_t** at, const uint8_t* end, int depth) noexcept nogil:
    """or, nor, and: claims of good form, which are not evaluated here."""
    cdef uint64_t left
    cdef Claims inner
    if cbor_open_array(at, end, depth, &left) < 0 or left == 0:
        return BROKEN
    while left:
        if read_claims(at, end, depth + 1, &inner) < 0:
            return BROKEN
        left -= 1
    return UNKNOWN


cdef int audience(const uint8_t** at, const uint8_t* end, int depth) noexcept nogil:
    cdef const uint8_t* text
    cdef size_t size
    cdef uint64_t left = 1
    if cbor_next_is(at[0], end, 4) and cbor_open_array(at, end, depth, &left) < 0:
        return BROKEN
    while left:
        if cbor_read_string(at, end, 3, &text, &size) < 0:
            return BROKEN
        left -= 1
    return YES


cdef int number(const uint8_t** at, const uint8_t* end, uint64_t yes) noexcept nogil:
    """A claim that restricts nothing with one value, and is not evaluated with others."""
    cdef cbor_head head
    if cbor_read_head(at, end, &head) < 0 or head.major > 1:
        return BROKEN
    return YES if head.major == 0 and head.value == yes else UNKNOWN


cdef int read_claim(const uint8_t** at, const uint8_t* end, int depth, int64_t key, Claims* claims) noexcept nogil:
    cdef const uint8_t* begin = at[0]
    cdef const uint8_t* text
    cdef size_t size
    cdef int64_t seconds
    cdef int answer = UNKNOWN
    if key == 1:
        return BROKEN if cbor_read_string(at, end, 3, &claims.iss, &claims.iss_size) < 0 else YES
    if key == 2:
        return BROKEN if cbor_read_string(at, end, 3, &text, &size) < 0 else YES
    if key == 3:
        claims.aud = begin
        return audience(at, end, depth)
    if key == 4:
        return BROKEN if cbor_read_date(at, end, &claims.exp) < 0 else YES
    if key == 5:
        return BROKEN if cbor_read_date(at, end, &claims.nbf) < 0 else YES
    if key == 6:
        return BROKEN if cbor_read_date(at, end, &seconds) < 0 else YES
    if key == 7:                # one without a byte would be no handle
        return BROKEN if cbor_read_string(at, end, 2, &claims.cti, &claims.cti_size) < 0 or claims.cti_size == 0 else YES
    if 41 <= key <= 43:
        return nested(at, end, depth)
    if key == 45:
        return critical(at, end, depth)
    if key == 308:
        return number(at, end, 0)
    if key == 310:
        return number(at, end, 1)
    if key == 311:
        claims.catnip = begin
        # Whether a number of a network matters depends on the request.
        return BROKEN if networks(at, end, depth, NULL) == BROKEN else YES
    if key == 312:
        claims.catu = begin
        return components(at, end, depth, NULL)
    if key == 313:
        claims.catm = begin
        return BROKEN if methods(at, end, depth, NULL) == BROKEN else YES
    if key == 315:
        return fields(at, end, depth)
    if key == 316:              # as aud, a text or some; where the viewer is, is not known here
        return BROKEN if audience(at, end, depth) == BROKEN else UNKNOWN
    if key == 323:
        return renewal(at, end, depth)
    if key == 320 or key == 322:
        if not cbor_next_is(at[0], end, 5):
            return BROKEN
        answer = YES
    if key == PRIVATE:
        answer = YES
    return BROKEN if cbor_skip(at, end, depth) < 0 else answer


cdef int read_claims(const uint8_t** at, const uint8_t* end, int depth, Claims* claims) noexcept nogil:
    cdef cbor_map parts
    cdef cbor_label label
    cdef int64_t key
    cdef int answer
    memset(claims, 0, sizeof(Claims))
    if cbor_open_map(at, end, depth, &parts) < 0:
        return -1
    while parts.left:
        if cbor_next_label(at, end, &parts, &label) < 0:
            return -1
        key = key_of(&label)
        answer = read_claim(at, end, depth + 1, key, claims)
        if answer == BROKEN:
            return -1
        claims.present |= bit_of(key)
        claims.unknown = claims.unknown or answer == UNKNOWN
    return 0
