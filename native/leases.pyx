"""Leases: a session is served only while one is held for it and the network that it is used from.

The table belongs to one process. A lease that is extended stays the same object, so that a connection that remembers it has
one number to compare; one that ends is out of the table at once, and its number is 0.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport INT64_MAX, int64_t, uint8_t
from libc.string cimport memcmp

from streamgate.native.cat cimport Answer, MAX_TOKEN, Token, Verifier
from streamgate.native.claims cimport Asked
from streamgate.native.tally cimport TOKENS_READ, TOKENS_REMEMBERED, Tally


cdef enum:
    AGAIN = 1               # s after which a connection hands on a request for the sake of renewal once more


cdef size_t network_size(size_t size) noexcept:
    return 3 if size == 4 else 6 if size == 16 else 0


def network(bytes address not None):
    if PyBytes_GET_SIZE(address) not in (0, 4, 16):
        raise ValueError("an address has 4 or 16 bytes")
    return address[:network_size(PyBytes_GET_SIZE(address))]


cdef bytes key_of(const uint8_t* session, size_t session_size, const uint8_t* address, size_t size):
    """Networks differ in length, so what is in front of one cannot be taken for a part of it."""
    return (
        PyBytes_FromStringAndSize(<const char*> address, size) + b"|"
        + PyBytes_FromStringAndSize(<const char*> session, session_size)
    )


cdef inline bint within(const Asked* asked, bytes prefix) noexcept:
    cdef size_t size = PyBytes_GET_SIZE(prefix)
    return asked.path_size >= size and memcmp(asked.path, PyBytes_AS_STRING(prefix), size) == 0


cdef inline bint from_there(const Asked* asked, bytes place) noexcept:
    cdef size_t size = network_size(asked.address_size)
    return <size_t> PyBytes_GET_SIZE(place) == size and memcmp(asked.address, PyBytes_AS_STRING(place), size) == 0


@cython.final
@cython.no_gc
cdef class Lease:
    def __init__(self, *args, **kwargs):
        raise TypeError("a table of leases makes them")

    @property
    def asset(self):
        return self.prefix[3:PyBytes_GET_SIZE(self.prefix) - 1].decode()


cdef Lease make(bytes session, bytes place, int64_t until, bytes prefix, tuple names):
    cdef Lease lease = Lease.__new__(Lease)
    lease.session, lease.network, lease.prefix, lease.names = session, place, prefix, names
    lease.until, lease.used = until, True
    return lease


@cython.final
cdef class Leases:
    def __cinit__(self, size_t most=50_000, *, bint required=True):
        if most < 1:
            raise ValueError("a table has room for one lease at least")
        self.most, self.required, self.held = most, required, {}
        self.free = make(b"", b"", INT64_MAX, b"", ())

    def __len__(self):
        return len(self.held)

    cdef Lease find(self, Token token, const uint8_t* address, size_t size, int64_t now):
        cdef Lease lease
        if not self.required or not token.key.leased:
            return self.free
        lease = self.held.get(key_of(token.handle, token.handle_size, address, network_size(size)))
        return lease if lease is not None and lease.until > now else None

    def hold(self, Token token not None, str asset not None, bytes address not None, int64_t now):
        cdef Lease lease
        network(address)
        lease = self.find(token, <const uint8_t*> PyBytes_AS_STRING(address), PyBytes_GET_SIZE(address), now)
        if lease is None or lease is not self.free and lease.asset != asset:
            return None
        lease.used = True
        return lease

    def get(self, bytes session not None, bytes place not None):
        return self.held.get(place + b"|" + session)

    def grant(self, bytes session not None, bytes place not None, int64_t until, *, str asset not None, tuple names=()):
        cdef bytes key = place + b"|" + session, prefix = b"/v/" + asset.encode() + b"/"
        # What is granted last comes last, so that the first of all is the first to end.
        cdef Lease lease = self.held.pop(key, None)
        if lease is not None and (lease.prefix != prefix or lease.names != names):
            lease.until, lease = 0, None
        if lease is None:
            lease = make(session, place, until, prefix, names)
        lease.until = until
        while <size_t> len(self.held) >= self.most:
            self.end(next(iter(self.held.values())))
        self.held[key] = lease
        return lease

    def end(self, Lease lease not None):
        lease.until = 0
        self.held.pop(lease.network + b"|" + lease.session, None)

    def end_named(self, names not None):
        cdef Lease lease
        cdef list found = [lease for lease in self.held.values() if not names.isdisjoint(lease.names)]
        for lease in found:
            self.end(lease)
        return len(found)

    def used(self, int64_t now):
        cdef Lease lease
        cdef list found = []
        for lease in list(self.held.values()):
            if lease.until <= now:
                self.end(lease)
            elif lease.used:
                lease.used = False
                found.append(lease)
        return found


@cython.final
@cython.no_gc
@cython.freelist(256)
cdef class Shown:
    cdef bint admits(self, Verifier verifier, Leases leases, const uint8_t* text, size_t size, const Asked* asked,
                     int64_t now, bint moving, Tally tally) except -1:
        cdef Token found
        cdef int code = Answer.KEY
        if size > MAX_TOKEN:
            return False
        if (
            self.token is not None
            and <size_t> PyBytes_GET_SIZE(self.text) == size
            and memcmp(PyBytes_AS_STRING(self.text), text, size) == 0
        ):
            code = verifier.decide(self.token, asked)
            tally.row[TOKENS_REMEMBERED] += code != Answer.KEY
        if code == Answer.KEY:
            tally.row[TOKENS_READ] += 1
            found = verifier.verify(text, size, &code)
            if found is None:
                return False
            self.token, self.text, self.lease = found, PyBytes_FromStringAndSize(<const char*> text, size), None
            code = verifier.decide(found, asked)
        if code != Answer.ACCEPTED:
            return False
        if asked.now >= self.token.due:     # somebody may renew it, but not with each request of a burst
            self.token.due = asked.now + AGAIN
            return False
        if self.lease is None or self.lease.until <= now or moving and not from_there(asked, self.lease.network):
            self.lease = leases.find(self.token, asked.address, asked.address_size, now)
            if self.lease is None:
                return False
        self.lease.used = True
        return within(asked, self.lease.prefix)

    cdef bint stays(self, Verifier verifier, int64_t now) except -1:
        cdef int code = verifier.stands(self.token)
        self.lease.used = True
        if code == Answer.KEY and verifier.verify(
            <const uint8_t*> PyBytes_AS_STRING(self.text), PyBytes_GET_SIZE(self.text), &code
        ) is None:
            return False
        return code == Answer.ACCEPTED and self.lease.until > now
