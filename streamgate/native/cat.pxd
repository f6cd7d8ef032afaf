"""C interface of the token kernel. Nothing here allocates but `verify`, for the Token that it gives back."""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from streamgate.native.claims cimport Asked, Claims     # Asked: what a request says of itself
from streamgate.native.cose cimport Envelope


cdef enum:
    MAX_TOKEN = 1024        # characters
    MAX_BYTES = 768         # what they decode to
    SESSION = 16            # bytes of a session's handle, at most


cdef enum Answer:           # indices of CODES, in the order of the checks
    ACCEPTED
    TOO_LONG
    MALFORMED
    ALGORITHM
    KEY
    SIGNATURE
    MISSING_CLAIM
    ISSUER
    AUDIENCE
    REVOKED
    EXPIRED
    NOT_YET_VALID
    METHOD
    PATH
    NETWORK
    UNSUPPORTED             # no claim says no, but one cannot be evaluated here: the slow path's matter


cdef class Key:
    cdef readonly bytes kid
    cdef readonly str issuer
    cdef readonly tuple audience, prefixes, require
    cdef readonly int algorithm     # of COSE: 5 HS256, -7 ES256, -37 PS256
    cdef readonly bint leased       # ours: its tokens count only while their session holds a lease
    cdef bytes issuer_text
    cdef tuple audience_texts, prefix_texts
    cdef uint64_t required          # bits of claims
    cdef void* states               # SHA-256 after the inner and after the outer pad; owned; NULL where it has no secret

    cdef bint authentic(self, const uint8_t* message, size_t size, const uint8_t* tag) noexcept
    cdef bytes identify(self, bytes covered)
    cdef bint covers(self, const uint8_t* path, size_t size) noexcept
    cdef bint meant(self, const uint8_t* at, const uint8_t* end) noexcept


cdef class Token:                   # its envelope, MAC, claims, issuer and audience are good
    cdef readonly Key key
    cdef readonly int64_t deadline  # s since 1970: the first second in which it no longer counts; INT64_MAX: none
    cdef public int64_t due         # s since 1970: somebody ought to renew it; INT64_MAX: nobody can
    cdef readonly int64_t start     # s since 1970: the first second in which it counts
    cdef uint64_t generation        # of the verifier's keys when it was read
    cdef uint64_t revocations       # of the verifier when it was last found not to be revoked
    cdef uint8_t handle[SESSION]    # of its session: the first bytes of cti
    cdef size_t handle_size
    cdef readonly bytes digest      # SHA-256 of its characters; None where the key is leased
    cdef bytes identity             # the same, however it is written
    cdef bytes payload
    cdef size_t catm, catu, catnip  # where in the payload their values begin; 0: absent
    cdef bint unknown               # holds something that is not evaluated here

    # Time, then method, path and network: the first "no" in that order, else UNSUPPORTED or ACCEPTED.
    # Whether its key is still there, and revocation, are the verifier's matter.
    cdef int decide(self, const Asked* asked) noexcept


cdef class Verifier:
    cdef list keys
    cdef dict sessions, kids, tokens    # what is revoked -> until when, s since 1970
    cdef dict known                 # digests of others' tokens whose signature was found right -> identity, and the key's kid and algorithm
    cdef dict ends                  # identity -> when its time since its first sight is over, s since 1970
    cdef readonly uint64_t generation, revocations
    cdef readonly Py_ssize_t remembered     # tokens of others, at most

    # None, and why, where the token is refused. ACCEPTED says nothing of time, method, path and network yet.
    cdef Token verify(self, const uint8_t* token, size_t size, int* code)
    # Whether a token that was verified earlier still stands: ACCEPTED, KEY (keys changed: verify it again) or REVOKED.
    # Two comparisons where nothing changed since.
    cdef int stands(self, Token token) except -1
    # Both of the above: what a connection that remembers a token asks for each request.
    cdef int decide(self, Token token, const Asked* asked) except -1
    cdef bint is_revoked(self, Token token) except -1
    cdef Key find(self, const Envelope* envelope)
    cdef Key open(self, const uint8_t* token, size_t size, uint8_t* raw, Envelope* envelope, int* code)
