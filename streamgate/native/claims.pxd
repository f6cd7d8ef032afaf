"""C interface of the claims: their form once, and what a request makes of those that depend on it each time."""

from libc.stdint cimport int64_t, uint8_t, uint64_t


cdef enum Logic:            # Kleene's three values, and what is no claim at all
    BROKEN = -1
    NO
    YES
    UNKNOWN


cdef struct Asked:          # what a request says of itself; pointers are borrowed for the call
    const uint8_t* method       # as on the request line
    size_t method_size
    const uint8_t* scheme       # "http" or "https", as the client sees it
    size_t scheme_size
    const uint8_t* host         # the Host field, with or without a port; size 0: there is none
    size_t host_size
    const uint8_t* path         # canonical, behind /t/{token}, without a query
    size_t path_size
    const uint8_t* address      # the client's, in network byte order
    int address_size            # 4 or 16 (IPv4-mapped counts as IPv4); 0: not known
    int64_t now                 # s since 1970


cdef struct Claims:         # pointers into the payload; NULL: absent
    uint64_t present        # bits, see bit_of
    const uint8_t* iss
    size_t iss_size
    const uint8_t* cti
    size_t cti_size
    const uint8_t* aud      # of this and the next three, where the value begins
    const uint8_t* catm
    const uint8_t* catu
    const uint8_t* catnip
    int64_t exp, nbf        # s since 1970, rounded up
    bint unknown            # one of them restricts and is not evaluated here, whatever the request


# A claim's bit; 0 for keys that no table holds.
cdef uint64_t bit_of(int64_t key) noexcept nogil
# A map of claims; -1 where it, or anything in it, has not the right form. `depth` of the outermost: 1.
cdef int read_claims(const uint8_t** at, const uint8_t* end, int depth, Claims* claims) noexcept nogil
# Where a claim's value begins; Logic. Without a request (NULL) only the form, and whether all can be evaluated.
cdef int methods(const uint8_t** at, const uint8_t* end, int depth, const Asked* asked) noexcept nogil
cdef int components(const uint8_t** at, const uint8_t* end, int depth, const Asked* asked) noexcept nogil
cdef int networks(const uint8_t** at, const uint8_t* end, int depth, const Asked* asked) noexcept nogil
