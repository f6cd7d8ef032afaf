"""The access log: one line a request, formatted into a buffer that is handed on when it is full.

Formats: JSON, with the names that the structured log uses, or the combined format of Apache and nginx.
What must not be in a log is not written: queries, referrers, tokens; of addresses the last bits are cut (/24 and /48).
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset, strlen
from libc.time cimport gmtime_r, strftime, time_t, tm
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec

from streamgate.native.accesslog cimport Record
from streamgate.native.http1 cimport Span

cdef extern from "text.h" nogil:
    char* put_number(char* at, int64_t value, int digits)

cdef extern from "<arpa/inet.h>" nogil:
    const char* inet_ntop(int family, const void* address, char* text, unsigned int size)

cdef extern from "<sys/socket.h>" nogil:
    enum: AF_INET, AF_INET6

cdef enum:
    MAX_PATH = 1024         # of what is written; canonical paths are not longer
    MAX_AGENT = 256
    MAX_LINE = 12 * 1024    # each byte of those may become six, and the rest is short
    TRACEPARENT = 55        # bytes of version 00 (W3C Trace Context section 3.2)
    NAMED = 46              # bytes of an address as text, with its end (INET6_ADDRSTRLEN)
    SHOWN = 4               # bytes of a session's handle

cdef const char* HEX = b"0123456789abcdef"


@cython.final
cdef class AccessLog:
    def __cinit__(self, object sink, *, str format="json", double sample=1.0, bint whole_addresses=False,
                  Py_ssize_t size=65536):
        if format not in ("json", "combined"):
            raise ValueError("there are two formats: json and combined")
        if not 0 <= sample <= 1:
            raise ValueError("the sample is a part: 0 to 1")
        if size < MAX_LINE + 4096:
            raise ValueError("the buffer must hold a line")
        self.sink, self.json, self.sample, self.whole_addresses = sink, format == "json", sample, whole_addresses
        self.room, self.second = size, -1
        self.buffer = <char*> malloc(size)
        if self.buffer == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.buffer)

    cdef size_t name(self, const uint8_t* address, size_t size, char* text) noexcept:
        cdef uint8_t[16] cut
        if size != 4 and size != 16:
            return 0
        memset(cut, 0, sizeof(cut))
        memcpy(cut, address, size if self.whole_addresses else 3 if size == 4 else 6)
        if inet_ntop(AF_INET if size == 4 else AF_INET6, cut, text, NAMED) == NULL:
            return 0
        return strlen(text)

    cdef bint wanted(self) noexcept:
        self.owed += self.sample
        if self.owed < 1:
            return False
        self.owed -= 1
        return True

    cdef int write(self, const Record* record, int64_t now) except -1:
        if self.json:
            self._json(record, now)
        else:
            self._combined(record, now)
        if self.room - self.used < MAX_LINE:
            self.hand_on()
        return 0

    cdef int hand_on(self) except -1:
        if self.used:
            lines = PyBytes_FromStringAndSize(self.buffer, self.used)
            self.used = 0
            self.sink(lines)
        return 0

    def flush(self):
        self.hand_on()

    cdef void _json(self, const Record* record, int64_t now) noexcept:
        self._literal(b'{"event":"request","level":"info","timestamp":"')
        self._time(now)
        self._literal(b'","method":"')
        self._escaped(record.method.at, record.method.size, 32)
        self._literal(b'","path":"')
        self._path(record)
        self._literal(b'","route":"')
        self._literal(record.route)
        self._literal(b'","status":')
        self._number(record.status, 0)
        self._literal(b',"bytes":')
        self._number(record.sent, 0)
        self._literal(b',"seconds":')
        self._seconds(record.duration)
        if record.client_size:
            self._literal(b',"client":"')
            self._text(record.client, record.client_size)
            self._literal(b'"')
        if _is_trace(record.traceparent):
            self._literal(b',"trace_id":"')
            self._text(<const char*> record.traceparent.at + 3, 32)
            self._literal(b'","span_id":"')
            self._text(<const char*> record.traceparent.at + 36, 16)
            self._literal(b'"')
        if record.native:
            self._literal(b',"native":true')
        self._literal(b"}\n")

    cdef void _combined(self, const Record* record, int64_t now) noexcept:
        if record.client_size:
            self._text(record.client, record.client_size)
        else:
            self._literal(b"-")
        self._literal(b" - - [")
        self._time(now)
        self._literal(b'] "')
        self._escaped(record.method.at, record.method.size, 32)
        self._literal(b" ")
        self._path(record)
        self._literal(b' HTTP/1.1" ')
        self._number(record.status, 0)
        self._literal(b" ")
        self._number(record.sent, 0)
        self._literal(b' "-" "')
        if record.user_agent.size:
            self._escaped(record.user_agent.at, record.user_agent.size, MAX_AGENT)
        else:
            self._literal(b"-")
        self._literal(b'"\n')

    cdef void _literal(self, const char* text) noexcept:
        self._text(text, strlen(text))

    cdef void _text(self, const char* text, size_t size) noexcept:
        memcpy(self.buffer + self.used, text, size)
        self.used += size

    cdef void _escaped(self, const uint8_t* text, size_t size, size_t most) noexcept:
        """Text inside of quotes: what would end or break them, and what is not ASCII, as \\u00XX or \\xXX."""
        cdef size_t i
        cdef uint8_t c
        cdef char* out = self.buffer + self.used
        for i in range(min(size, most)):
            c = text[i]
            if 32 <= c < 127 and c != 34 and c != 92:
                out[0] = c
                out += 1
            elif self.json:
                memcpy(out, b"\\u00", 4)
                out[4], out[5] = HEX[c >> 4], HEX[c & 15]
                out += 6
            else:
                memcpy(out, b"\\x", 2)
                out[2], out[3] = HEX[c >> 4], HEX[c & 15]
                out += 4
        self.used = out - self.buffer

    cdef void _number(self, int64_t value, int digits) noexcept:
        """A number that is not negative, with at least ``digits`` digits."""
        self.used = put_number(self.buffer + self.used, value, digits) - self.buffer

    cdef void _seconds(self, int64_t duration) noexcept:
        cdef int64_t micros = duration // 1000
        self._number(micros // 1000000, 1)
        self._literal(b".")
        self._number(micros % 1000000, 6)

    cdef void _hex(self, const uint8_t* data, int size) noexcept:
        cdef int i
        for i in range(size):
            self.buffer[self.used + 2 * i] = HEX[data[i] >> 4]
            self.buffer[self.used + 2 * i + 1] = HEX[data[i] & 15]
        self.used += 2 * size

    cdef void _path(self, const Record* record) noexcept:
        if record.behind_token:
            self._literal(b"/t/~")
            self._hex(record.session, min(record.session_size, SHOWN))
        self._escaped(record.path.at, record.path.size, MAX_PATH)

    cdef void _time(self, int64_t now) noexcept:
        """UTC; ISO 8601 with milliseconds in JSON, the combined format's own otherwise."""
        cdef int64_t second = now // 1000000000
        cdef time_t clock = second
        cdef tm parts
        if second != self.second:
            gmtime_r(&clock, &parts)
            self.stamp_size = strftime(
                self.stamp, sizeof(self.stamp), b"%Y-%m-%dT%H:%M:%S." if self.json else b"%d/%b/%Y:%H:%M:%S +0000", &parts
            )
            self.second = second
        self._text(self.stamp, self.stamp_size)
        if self.json:
            self._number(now // 1000000 % 1000, 3)
            self._literal(b"Z")

    def add(self, *, bytes method not None, bytes path not None, bytes route not None, int status, int64_t sent,
            int64_t duration, bytes session=None, bytes address not None=b"", bytes traceparent not None=b"",
            bytes user_agent not None=b"", int64_t now=0):
        cdef Record record
        cdef timespec clock
        cdef char[NAMED] client
        if not self.wanted():
            return False
        if now == 0:
            clock_gettime(CLOCK_REALTIME, &clock)
            now = <int64_t> clock.tv_sec * 1000000000 + clock.tv_nsec
        record.method, record.path = _span(method), _span(path)
        record.behind_token = session is not None
        session = session or b""
        record.session, record.session_size = _span(session).at, len(session)
        record.route = PyBytes_AS_STRING(route[:64])
        record.status, record.sent, record.duration = max(status, 0), max(sent, 0), max(duration, 0)
        record.client, record.client_size = client, self.name(_span(address).at, len(address), client)
        record.traceparent, record.user_agent = _span(traceparent), _span(user_agent)
        record.native = False
        self.write(&record, now)
        return True


cdef Span _span(bytes text):
    cdef Span span
    span.at, span.size = <const uint8_t*> PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text)
    return span


cdef bint _is_trace(Span field) noexcept:
    """00-{32 hex}-{16 hex}-{2 hex}, in lower case."""
    cdef size_t i
    if field.size != TRACEPARENT or field.at[0] != 48 or field.at[1] != 48:
        return False
    for i in range(2, TRACEPARENT):
        if i == 2 or i == 35 or i == 52:
            if field.at[i] != 45:
                return False
        elif not (48 <= field.at[i] <= 57 or 97 <= field.at[i] <= 102):
            return False
    return True
