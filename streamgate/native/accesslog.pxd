"""C interface of the access log: the hot path adds lines here without building Python objects."""

from libc.stdint cimport int64_t, uint8_t

from streamgate.native.http1 cimport Span


cdef struct Record:             # one request; spans are borrowed for the call
    Span method
    Span path                   # behind the token, without the query
    bint behind_token           # the token was in the path
    const uint8_t* session      # of the token; only its first bytes are written
    int session_size            # 0: there was none that counted
    const char* route
    int status
    int64_t sent                # bytes of the body
    int64_t duration            # ns
    const char* client          # its address as AccessLog.name wrote it
    size_t client_size          # 0: not known
    Span traceparent            # W3C Trace Context; written if it is one
    Span user_agent
    bint native


cdef class AccessLog:
    cdef object sink
    cdef bint json, whole_addresses
    cdef double sample, owed
    cdef char* buffer
    cdef size_t used, room
    cdef int64_t second         # of `stamp`
    cdef char[32] stamp
    cdef size_t stamp_size

    # How the log shows an address of 4 or 16 bytes: written to `text`, which has 46; how many bytes. Once a connection: it is slow.
    cdef size_t name(self, const uint8_t* address, size_t size, char* text) noexcept
    # Whether the next request is to be logged; asked once for each, before `write`.
    cdef bint wanted(self) noexcept
    # Writes one line; hands the buffer on when it is full. `now`: ns since 1970.
    cdef int write(self, const Record* record, int64_t now) except -1
    cdef int hand_on(self) except -1
    cdef void _literal(self, const char* text) noexcept
    cdef void _text(self, const char* text, size_t size) noexcept
    cdef void _escaped(self, const uint8_t* text, size_t size, size_t most) noexcept
    cdef void _number(self, int64_t value, int digits) noexcept
    cdef void _seconds(self, int64_t duration) noexcept
    cdef void _hex(self, const uint8_t* data, int size) noexcept
    cdef void _path(self, const Record* record) noexcept
    cdef void _time(self, int64_t now) noexcept
    cdef void _json(self, const Record* record, int64_t now) noexcept
    cdef void _combined(self, const Record* record, int64_t now) noexcept
