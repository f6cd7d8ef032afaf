"""Who the clients are: how many connections each has, and whom a request is from that a trusted proxy brings."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcpy

from streamgate.native.http1 cimport Span

cdef extern from "<strings.h>" nogil:
    int strncasecmp(const char* one, const char* other, size_t size)

cdef enum:
    MOST = 4096                 # spellings that are remembered
    LONGEST = 256               # bytes of one


@cython.final
cdef class Client:
    def __cinit__(self, bytes packed not None, bint trusted):
        if PyBytes_GET_SIZE(packed) not in (0, 4, 16):
            raise ValueError("an address has 4 or 16 bytes")
        self.size, self.trusted = PyBytes_GET_SIZE(packed), trusted
        memcpy(self.address, PyBytes_AS_STRING(packed), self.size)


@cython.final
cdef class Clients:
    def __cinit__(self, object ask):
        self.ask, self.known = ask, {}

    cdef Client find(self, bytes peer, Span field):
        cdef bytes key, said
        if field.size > LONGEST:
            return None
        said = PyBytes_FromStringAndSize(<const char*> field.at, field.size) if field.at != NULL else b""
        key = peer + b" " + said
        found = self.known.get(key)
        if found is None:
            if len(self.known) >= MOST:
                self.known.clear()
            found = self.known[key] = Client(*self.ask(peer, said.decode("latin-1")))
        return found


@cython.final
cdef class Places:
    def __cinit__(self, size_t most):
        self.most, self.taken = most, {}

    cdef bint take(self, bytes address) except -1:
        cdef size_t known = self.taken.get(address, 0)
        if known >= self.most:
            return False
        self.taken[address] = known + 1
        return True

    cdef int give_up(self, bytes address) except -1:
        cdef size_t known = self.taken.pop(address) - 1
        if known:
            self.taken[address] = known
        return 0


cdef bint secure(Span told, bint tls) noexcept:
    if told.size == 5 and strncasecmp(<const char*> told.at, b"https", 5) == 0:
        return True
    return tls and not (told.size == 4 and strncasecmp(<const char*> told.at, b"http", 4) == 0)
