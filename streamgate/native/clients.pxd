"""C interface of what is known of clients."""

from libc.stdint cimport uint8_t

from streamgate.native.http1 cimport Span


cdef class Client:
    cdef uint8_t[16] address
    cdef int size                   # of the address: 4, 16, or 0 where it is not known
    cdef bint trusted               # a proxy of ours itself


cdef class Clients:
    cdef object ask
    cdef dict known

    # Whom a request is from that `peer` (packed, trusted) brings with this X-Forwarded-For, which may be absent; None where
    # that is too long to be remembered.
    cdef Client find(self, bytes peer, Span field)


cdef class Places:
    cdef size_t most                # connections of one address
    cdef dict taken                 # by packed address

    # One more for an address; False where it has them all.
    cdef bint take(self, bytes address) except -1
    cdef int give_up(self, bytes address) except -1


# Whether the client's way begins encrypted, by X-Forwarded-Proto of a trusted proxy (which may be absent) and the connection.
cdef bint secure(Span told, bint tls) noexcept
