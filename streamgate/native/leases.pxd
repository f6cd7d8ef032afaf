"""C interface of the leases: what a connection has shown is looked at again for each request, without allocating."""

from libc.stdint cimport int64_t, uint8_t

from streamgate.native.cat cimport Token, Verifier
from streamgate.native.claims cimport Asked
from streamgate.native.tally cimport Tally


cdef enum:
    NETWORK = 6                     # bytes of a network, at most


cdef class Lease:
    cdef public int64_t until       # CLOCK_MONOTONIC, ns; 0: it has ended
    cdef public bint used           # since somebody looked last
    cdef readonly bytes session, network
    cdef readonly tuple names       # of all whose end is this one's
    cdef bytes prefix               # of the paths that it is for


cdef class Leases:
    cdef readonly bint required     # False: no token needs any
    cdef readonly size_t most
    cdef readonly Lease free        # for tokens that need none
    cdef dict held

    # What holds for a token and an address of 4, 16 or no bytes; None where that is none. `now`: CLOCK_MONOTONIC, ns.
    cdef Lease find(self, Token token, const uint8_t* address, size_t size, int64_t now)


cdef class Shown:                   # by a connection: its last good token, and the lease that its session is held by
    cdef Token token
    cdef bytes text
    cdef Lease lease

    # Whether the token of this text is good for the request, held, and not due to be renewed (for that some requests are
    # handed on, one a second). `moving`: requests come from other addresses.
    cdef bint admits(self, Verifier verifier, Leases leases, const uint8_t* text, size_t size, const Asked* asked,
                     int64_t now, bint moving, Tally tally) except -1
    # Whether an answer that it was given may go on; that counts as a use.
    cdef bint stays(self, Verifier verifier, int64_t now) except -1


# The network of an address of 4 (/24) or 16 bytes (/48); how many bytes of it count.
cdef size_t network_size(size_t size) noexcept
