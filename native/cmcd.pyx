"""What players report with a request (CTA-5004), put down as it came: parsing it is work for a thread, not for the hot path.

An entry is a line of columns between tabs; a blank stands for a tab that was in a field. Nothing else can be in what the
parser of heads lets pass that would end a line.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcmp, memcpy, memset, strlen
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec

from streamgate.native.accesslog cimport Record
from streamgate.native.cmcd cimport Told
from streamgate.native.http1 cimport Head, Span

cdef extern from "text.h" nogil:
    char* put_number(char* at, int64_t value, int digits)

cdef enum:
    MAX_PATH = 1024         # of what is written; canonical paths are not longer
    MAX_TEXT = 4097         # of each report: one byte more than is ever parsed tells that there was more
    MAX_LINE = MAX_PATH + 5 * MAX_TEXT + 256
    SHOWN = 4               # bytes of a session's handle
    TAB = 9
    LF = 10

cdef const char* HEX = b"0123456789abcdef"
cdef const char* PARAMETER = b"CMCD="

COLUMNS = ("now", "path", "session", "status", "bytes", "duration", "tier", "query", "object", "request", "session_field",
           "status_field")


@cython.final
cdef class CmcdLog:
    def __cinit__(self, object sink, *, double sample=1.0, Py_ssize_t size=65536):
        if not 0 <= sample <= 1:
            raise ValueError("the sample is a part: 0 to 1")
        if size < MAX_LINE + 4096:
            raise ValueError("the buffer must hold an entry")
        self.sink, self.sample, self.room = sink, sample, size
        self.buffer = <char*> malloc(size)
        if self.buffer == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.buffer)

    cdef bint wanted(self) noexcept:
        self.owed += self.sample
        if self.owed < 1:
            return False
        self.owed -= 1
        return True

    cdef void take(self, const Head* head, Told* told, bint hit, bint disk) noexcept:
        cdef int i
        told.query = _parameter(head.query)
        told.any = told.query.at != NULL
        for i in range(4):
            told.fields[i] = head.reports[i]
            told.any = told.any or head.reports[i].size > 0
        told.any = told.any and self.wanted()
        told.tier = b"" if not hit else b"disk" if disk else b"memory"

    cdef int write(self, const Told* told, const Record* record, int64_t now) except -1:
        cdef int i
        self._number(now)
        self._put(record.path.at, record.path.size, MAX_PATH)
        self._end(TAB)
        for i in range(min(record.session_size, SHOWN)):
            self.buffer[self.used] = HEX[record.session[i] >> 4]
            self.buffer[self.used + 1] = HEX[record.session[i] & 15]
            self.used += 2
        self._end(TAB)
        self._number(record.status)
        self._number(record.sent)
        self._number(record.duration // 1000)
        self._put(<const uint8_t*> told.tier, strlen(told.tier), 32)
        self._end(TAB)
        self._put(told.query.at, told.query.size, MAX_TEXT)
        for i in range(4):
            self._end(TAB)
            self._put(told.fields[i].at, told.fields[i].size, MAX_TEXT)
        self._end(LF)
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

    cdef void _put(self, const uint8_t* at, size_t size, size_t most) noexcept:
        """Text, without what would end a column or a line."""
        cdef char* out = self.buffer + self.used
        cdef size_t i
        size = min(size, most)
        for i in range(size):
            out[i] = 32 if at[i] < 32 else at[i]
        self.used += size

    cdef void _number(self, int64_t value) noexcept:
        """A number that is not negative, and the end of its column."""
        self.used = put_number(self.buffer + self.used, value, 1) - self.buffer
        self._end(TAB)

    cdef void _end(self, char end) noexcept:
        self.buffer[self.used] = end
        self.used += 1

    def add(self, *, bytes path not None, int status, int64_t sent, int64_t duration, bytes session not None=b"",
            bytes tier not None=b"", bytes query not None=b"", tuple fields not None=(b"", b"", b"", b""), int64_t now=0):
        cdef Record record
        cdef Told told
        cdef timespec clock
        cdef bytes field
        cdef int i
        if len(fields) != 4:
            raise ValueError("there are four fields")
        memset(&record, 0, sizeof(record))
        told.query = _parameter(_span(query))
        told.any = told.query.at != NULL
        for i in range(4):
            field = fields[i]
            told.fields[i] = _span(field)
            told.any = told.any or told.fields[i].size > 0
        if not told.any or not self.wanted():
            return False
        if now == 0:
            clock_gettime(CLOCK_REALTIME, &clock)
            now = <int64_t> clock.tv_sec * 1000000000 + clock.tv_nsec
        told.tier = PyBytes_AS_STRING(tier)
        record.path, record.session, record.session_size = _span(path), _span(session).at, len(session)
        record.status, record.sent, record.duration = max(status, 0), max(sent, 0), max(duration, 0)
        self.write(&told, &record, now)
        return True


cdef Span _parameter(Span query) noexcept:
    """The value of the first CMCD= of a query."""
    cdef Span found
    cdef const uint8_t* at = query.at
    cdef const uint8_t* stop
    cdef const uint8_t* end
    found.at, found.size = NULL, 0
    if at == NULL:
        return found
    end = at + query.size
    while at < end:
        stop = <const uint8_t*> memchr(at, 38, end - at)
        if stop == NULL:
            stop = end
        if stop - at > 5 and memcmp(at, PARAMETER, 5) == 0:
            found.at, found.size = at + 5, stop - at - 5
            break
        at = stop + 1
    return found


cdef Span _span(bytes text):
    cdef Span span
    span.at, span.size = <const uint8_t*> PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text)
    return span
