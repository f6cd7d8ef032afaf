"""The head of an HTTP/1.1 request, parsed strictly (RFC 9112), and the fields that select a representation (RFC 9110).

Strict means: what two servers in a row could read in two ways is refused, never repaired (RFC 9112 sections 2.2, 3, 5, 6.3, 11.2).
What is well-formed but not for the hot path is told apart by what follows its head: another head, or anything else.
Parsing stops at the first fault, so that a broken head is refused before it is complete.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcmp, memset

from streamgate.native.http1 cimport Head, Limits, Method, Selection, Span, Verdict

cdef extern from "scan.h" nogil:
    size_t scan_text(const unsigned char* at, size_t size)
    size_t scan_path(const unsigned char* at, size_t size)

cdef enum:
    TCHAR = 1           # token (RFC 9110 section 5.6.2)
    TARGET = 2          # visible ASCII: what a request target may hold for any reader
    TEXT = 4            # field-content with its blanks; the bytes beyond ASCII too
    HOST = 8            # uri-host and port (RFC 3986 section 3.2)
    PATH = 16           # what ends neither a path nor a target

cdef enum:
    SP = 32
    HTAB = 9
    CR = 13
    LF = 10

cdef uint8_t KIND[256]

cdef int64_t HUGE = 10 ** 18    # longer than any body: what numbers of more than 18 digits count as


cdef void _classify():
    cdef int c
    for c in range(256):
        KIND[c] = 0
        if c == HTAB or (c >= 32 and c != 127):
            KIND[c] |= TEXT
        if 33 <= c <= 126:
            KIND[c] |= TARGET
            if c != 63 and c != 35:
                KIND[c] |= PATH
    for c in b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ":
        KIND[c] |= TCHAR
    for c in b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-._~%!$&'()*+,;=:":
        KIND[c] |= HOST
    for c in b"[]":
        KIND[c] |= HOST


_classify()


cdef struct Seen:               # what decides how the message is framed
    bint length, coding, other, rest


cdef inline bint _is(const unsigned char* at, size_t size, const char* lower, size_t length) noexcept nogil:
    """Whether a field's name or value is ``lower``, in any case of its letters."""
    cdef size_t i
    if size != length:
        return False
    for i in range(size):
        if (at[i] | 32 if 65 <= at[i] <= 90 else at[i]) != <unsigned char> lower[i]:
            return False
    return True


cdef Verdict parse(const unsigned char* data, size_t size, const Limits* limits, Head* head) noexcept nogil:
    cdef const unsigned char* at = data
    cdef const unsigned char* end = data + size
    cdef const unsigned char* line
    cdef Seen seen
    cdef Verdict verdict
    cdef size_t fields = 0
    memset(head, 0, sizeof(Head))
    memset(&seen, 0, sizeof(Seen))
    verdict = _request_line(&at, end, limits, head, &seen)
    while verdict == Verdict.PLAIN:
        if at == end:
            verdict = Verdict.INCOMPLETE
        elif at[0] == CR:
            if at + 1 == end:
                verdict = Verdict.INCOMPLETE
            elif at[1] != LF:
                verdict = Verdict.MALFORMED
            else:
                at += 2
                break
        else:
            fields += 1
            line = at
            verdict = _field(&at, end, limits, head, &seen)
            if verdict != Verdict.MALFORMED and (fields > limits.fields or <size_t> (at - line) > limits.field):
                verdict = Verdict.TOO_LARGE
    if verdict != Verdict.MALFORMED and <size_t> (at - data) > limits.head:
        return Verdict.TOO_LARGE
    if verdict != Verdict.PLAIN:
        return verdict
    head.size = at - data
    if seen.length and seen.coding:
        return Verdict.MALFORMED
    if seen.length or seen.coding or seen.rest:
        return Verdict.BODY
    if seen.other or head.folded or head.method == Method.ANY or head.host.at == NULL:
        return Verdict.OTHER
    return Verdict.PLAIN


cdef Verdict _request_line(const unsigned char** cursor, const unsigned char* end, const Limits* limits, Head* head,
                           Seen* seen) noexcept nogil:
    """Method, target and version (RFC 9112 section 3); moves ``cursor`` as far as it was read."""
    cdef const unsigned char* at = cursor[0]
    cdef const unsigned char* start = at
    while at < end and KIND[at[0]] & TCHAR:
        at += 1
    head.verb.at, head.verb.size = start, at - start
    cursor[0] = at
    if at == end:
        return Verdict.TOO_LARGE if <size_t> (at - start) > limits.line else Verdict.INCOMPLETE
    if at == start or at[0] != SP:
        return Verdict.MALFORMED
    at += 1
    head.target.at = head.path.at = at
    at += scan_path(at, end - at)
    while at < end and KIND[at[0]] & PATH:
        at += 1
    head.path.size = at - head.path.at
    if at < end and at[0] == 63:
        head.query.at = at + 1
        while at < end and KIND[at[0]] & TARGET and at[0] != 35:
            at += 1
        head.query.size = at - head.query.at
    while at < end and (KIND[at[0]] & TARGET or at[0] > 127):
        # A fragment, or a byte beyond ASCII: somebody else finds the words for it.
        seen.other = True
        at += 1
    head.target.size = at - head.target.at
    cursor[0] = at
    if <size_t> (at - start) > limits.line:
        return Verdict.TOO_LARGE
    if at == end:
        return Verdict.INCOMPLETE
    if at == head.target.at or at[0] != SP:
        return Verdict.MALFORMED
    if head.path.size == 0 or head.path.at[0] != 47:
        seen.other = True                       # absolute, authority or asterisk form
    at += 1
    cursor[0] = at
    verdict = _version(&cursor[0], end, seen)
    if verdict != Verdict.PLAIN:
        return verdict
    if head.verb.size == 3 and memcmp(start, "GET", 3) == 0:
        head.method = Method.GET
    elif head.verb.size == 4 and memcmp(start, "HEAD", 4) == 0:
        head.method = Method.HEAD
    elif head.verb.size == 7 and memcmp(start, "CONNECT", 7) == 0:
        seen.rest = True
    return Verdict.PLAIN


cdef inline Verdict _version(const unsigned char** cursor, const unsigned char* end, Seen* seen) noexcept nogil:
    """HTTP-version and the end of the line; other versions than 1.1 are somebody else's, with all that follows."""
    cdef const unsigned char* at = cursor[0]
    cdef size_t i
    for i in range(10):
        if at + i == end:
            return Verdict.INCOMPLETE
        if i < 5 or i == 6 or i > 7:
            if at[i] != <unsigned char> b"HTTP/x.x\r\n"[i]:
                return Verdict.MALFORMED
        elif not 48 <= at[i] <= 57:
            return Verdict.MALFORMED
    if at[5] != 49 or at[7] != 49:
        seen.rest = True
    cursor[0] = at + 10
    return Verdict.PLAIN


cdef Verdict _field(const unsigned char** cursor, const unsigned char* end, const Limits* limits, Head* head,
                    Seen* seen) noexcept nogil:
    """One field's line (RFC 9112 section 5): no blank before the colon, no folding, no control characters."""
    cdef const unsigned char* at = cursor[0]
    cdef const unsigned char* name = at
    cdef const unsigned char* value
    cdef const unsigned char* last
    cdef size_t length
    cdef unsigned char high = 0
    while at < end and KIND[at[0]] & TCHAR:
        at += 1
    cursor[0] = at
    if at == end:
        return Verdict.INCOMPLETE
    length = at - name
    if length == 0 or at[0] != 58:
        return Verdict.MALFORMED
    at += 1
    while at < end and (at[0] == SP or at[0] == HTAB):
        at += 1
    value = at
    at += scan_text(at, end - at)
    while at < end and KIND[at[0]] & TEXT:
        high |= at[0]
        at += 1
    cursor[0] = at
    if at == end:
        return Verdict.INCOMPLETE
    if at[0] != CR:
        return Verdict.MALFORMED
    if at + 1 == end:
        return Verdict.INCOMPLETE
    if at[1] != LF:
        return Verdict.MALFORMED
    cursor[0] = at + 2
    last = at
    while last > value and ((last - 1)[0] == SP or (last - 1)[0] == HTAB):
        last -= 1
    return _take(name, length, value, last - value, high > 127, head, seen)


cdef inline Verdict _once(Span* field, const unsigned char* value, size_t size, bint high, Head* head) noexcept nogil:
    """Keep a field of which the hot path reads one line in ASCII only."""
    if field.at != NULL or high:
        head.folded = True
    field.at, field.size = value, size
    return Verdict.PLAIN


cdef void _first(Span* field, const unsigned char* value, size_t size) noexcept nogil:
    """Keep a field whose further lines do not matter."""
    if field.at == NULL:
        field.at, field.size = value, size


cdef void _said(Span* field, const unsigned char* value, size_t size, bint high, Head* head) noexcept nogil:
    """Keep what a proxy says in one line of ASCII; of a stranger it does not matter."""
    if field.at != NULL or high:
        head.forwarded = True
    field.at, field.size = value, size


cdef Verdict _take(const unsigned char* name, size_t length, const unsigned char* value, size_t size, bint high,
                   Head* head, Seen* seen) noexcept nogil:
    """Note what the field means for framing, for the connection and for the answer; most fields mean nothing."""
    cdef size_t i
    if length == 4:
        if _is(name, length, "host", 4):
            if head.host.at != NULL:
                return Verdict.MALFORMED
            for i in range(size):
                if not KIND[value[i]] & HOST:
                    seen.other = True
            return _once(&head.host, value, size, high, head)
    elif length == 5:
        if _is(name, length, "range", 5):
            return _once(&head.range_, value, size, high, head)
    elif length == 6:
        if _is(name, length, "cookie", 6):
            return _once(&head.cookie, value, size, False, head)
        if _is(name, length, "origin", 6):
            return _once(&head.origin, value, size, high, head)
        if _is(name, length, "expect", 6):
            seen.other = True
    elif length == 7:
        if _is(name, length, "upgrade", 7):
            seen.rest = True
    elif length == 8:
        if _is(name, length, "if-range", 8):
            return _once(&head.if_range, value, size, high, head)
        if _is(name, length, "if-match", 8):
            seen.other = True
    elif length == 9:
        if _is(name, length, "forwarded", 9):
            head.forwarded = True
    elif length == 10:
        if _is(name, length, "connection", 10):
            if _is(value, size, "close", 5):
                head.close = True
            elif not _is(value, size, "keep-alive", 10):
                seen.rest = True                # options that may change what follows
        elif _is(name, length, "user-agent", 10):
            head.user_agent.at, head.user_agent.size = value, size
    elif length == 11:
        if _is(name, length, "traceparent", 11):
            head.traceparent.at, head.traceparent.size = value, size
        elif _is(name, length, "cmcd-object", 11):
            _first(&head.reports[0], value, size)
        elif _is(name, length, "cmcd-status", 11):
            _first(&head.reports[3], value, size)
    elif length == 12:
        if _is(name, length, "cmcd-request", 12):
            _first(&head.reports[1], value, size)
        elif _is(name, length, "cmcd-session", 12):
            _first(&head.reports[2], value, size)
    elif length == 13:
        if _is(name, length, "if-none-match", 13):
            return _once(&head.if_none_match, value, size, high, head)
    elif length == 14:
        if _is(name, length, "content-length", 14):
            if seen.length or size == 0 or size > 18:
                return Verdict.MALFORMED
            for i in range(size):
                if not 48 <= value[i] <= 57:
                    return Verdict.MALFORMED
            seen.length = True
    elif length == 15:
        if _is(name, length, "accept-encoding", 15):
            return _once(&head.accept_encoding, value, size, high, head)
        if _is(name, length, "x-forwarded-for", 15):
            _said(&head.forwarded_for, value, size, high, head)
    elif length == 17:
        if _is(name, length, "transfer-encoding", 17):
            if seen.coding or not _chunked_last(value, size):
                return Verdict.MALFORMED
            seen.coding = True
        elif _is(name, length, "x-forwarded-proto", 17):
            _said(&head.forwarded_proto, value, size, high, head)
    elif length == 23:
        if _is(name, length, "cta-common-access-token", 23):
            return _once(&head.token, value, size, high, head)
    return Verdict.PLAIN


cdef bint _chunked_last(const unsigned char* value, size_t size) noexcept nogil:
    """Whether a Transfer-Encoding is a list of names that ends in "chunked", and has it nowhere else (RFC 9112 section 6.1)."""
    cdef size_t i = 0, start, stop
    cdef bint chunked = False
    while True:
        while i < size and (value[i] == SP or value[i] == HTAB):
            i += 1
        start = i
        while i < size and KIND[value[i]] & TCHAR:
            i += 1
        stop = i
        while i < size and (value[i] == SP or value[i] == HTAB):
            i += 1
        if stop == start or chunked or (i < size and value[i] != 44):
            return False
        chunked = _is(value + start, stop - start, "chunked", 7)
        if i == size:
            return chunked
        i += 1


cdef bint names(Span field, const unsigned char* tag, size_t size) noexcept nogil:
    cdef size_t i = 0, start
    if field.size == 1 and field.at[0] == 42:
        return True
    while i < field.size:
        if field.at[i] != 34:
            i += 1
            continue
        start = i
        i += 1
        while i < field.size and (field.at[i] == 33 or (field.at[i] >= 35 and field.at[i] != 127)):
            i += 1
        if i == field.size or field.at[i] != 34:
            continue                            # not a tag; one may begin here
        i += 1
        if i - start == size and memcmp(field.at + start, tag, size) == 0:
            return True
    return False


cdef Selection select(Span field, int64_t size, int64_t* first, int64_t* end) noexcept nogil:
    cdef const unsigned char* at = field.at
    cdef const unsigned char* stop = at + field.size
    cdef const unsigned char* one = NULL
    cdef const unsigned char* start
    cdef const unsigned char* last
    cdef const unsigned char* one_end = NULL
    cdef int64_t low, high
    first[0], end[0] = 0, size
    while at < stop and at[0] != 61:
        at += 1
    if at == stop:
        return Selection.WHOLE
    start, last = field.at, at
    _strip(&start, &last)
    if not _is(start, last - start, "bytes", 5):
        return Selection.WHOLE
    while at < stop:
        at += 1
        start = at
        while at < stop and at[0] != 44:
            at += 1
        last = at
        _strip(&start, &last)
        if last > start:                        # empty elements are allowed (RFC 9110 section 5.6.1.2)
            if one != NULL:
                return Selection.WHOLE          # several ranges are answered with the whole
            one, one_end = start, last
    if one == NULL or not _number(&one, one_end, &low) or one == one_end or one[0] != 45:
        return Selection.WHOLE
    one += 1
    if not _number(&one, one_end, &high) or one != one_end or (low < 0 and high < 0):
        return Selection.WHOLE
    if low < 0:
        if high == 0:
            return Selection.UNSATISFIABLE
        if size == 0:
            return Selection.WHOLE              # satisfiable, but no Content-Range can say so
        first[0] = size - high if high < size else 0
        return Selection.PART
    if 0 <= high < low:
        return Selection.WHOLE
    if low >= size:
        return Selection.UNSATISFIABLE
    first[0] = low
    if 0 <= high < size - 1:
        end[0] = high + 1
    return Selection.PART


cdef inline void _strip(const unsigned char** start, const unsigned char** end) noexcept nogil:
    while start[0] < end[0] and (start[0][0] == SP or start[0][0] == HTAB):
        start[0] += 1
    while start[0] < end[0] and ((end[0] - 1)[0] == SP or (end[0] - 1)[0] == HTAB):
        end[0] -= 1


cdef inline bint _number(const unsigned char** cursor, const unsigned char* end, int64_t* value) noexcept nogil:
    """Digits, if any: their value, HUGE where they are too many, -1 where there are none; ``cursor`` is moved behind them."""
    cdef size_t digits = 0
    value[0] = -1
    while cursor[0] < end and 48 <= cursor[0][0] <= 57:
        if value[0] < 0:
            value[0] = 0
        if value[0] or cursor[0][0] != 48:
            digits += 1
        value[0] = HUGE if digits > 18 else value[0] * 10 + (cursor[0][0] - 48)
        cursor[0] += 1
    return True


VERDICTS = ("incomplete", "plain", "other", "body", "malformed", "too large")
_METHODS = ("", "GET", "HEAD")
_SELECTIONS = ("whole", "part", "unsatisfiable")


cdef object _text(Span field):
    return None if field.at == NULL else (<const char*> field.at)[:field.size]


def parse_head(const unsigned char[::1] data not None, *, size_t line=8190, size_t field=8190, size_t fields=100,
               size_t head=65536):
    cdef Head found
    cdef Limits limits
    limits.line, limits.field, limits.fields, limits.head = line, field, fields, head
    cdef Verdict verdict = parse(&data[0] if data.shape[0] else NULL, data.shape[0], &limits, &found)
    if verdict in (Verdict.INCOMPLETE, Verdict.MALFORMED, Verdict.TOO_LARGE):
        return VERDICTS[<int> verdict], {}
    return VERDICTS[<int> verdict], {
        "size": found.size, "method": _METHODS[<int> found.method], "close": found.close,
        "verb": _text(found.verb), "target": _text(found.target), "path": _text(found.path), "query": _text(found.query),
        "host": _text(found.host), "range": _text(found.range_), "if-none-match": _text(found.if_none_match),
        "if-range": _text(found.if_range), "accept-encoding": _text(found.accept_encoding), "origin": _text(found.origin),
        "cookie": _text(found.cookie), "cta-common-access-token": _text(found.token), "forwarded": found.forwarded,
        "x-forwarded-for": _text(found.forwarded_for), "x-forwarded-proto": _text(found.forwarded_proto),
        "traceparent": _text(found.traceparent), "user-agent": _text(found.user_agent),
        "cmcd-object": _text(found.reports[0]), "cmcd-request": _text(found.reports[1]),
        "cmcd-session": _text(found.reports[2]), "cmcd-status": _text(found.reports[3]),
    }


def select_range(bytes field not None, int64_t size):
    cdef int64_t first = 0, end = 0
    cdef Selection found = select(_span(field), size, &first, &end)
    return _SELECTIONS[<int> found], first, end


def names_tag(bytes field not None, bytes tag not None):
    return names(_span(field), <const unsigned char*> PyBytes_AS_STRING(tag), PyBytes_GET_SIZE(tag))


cdef Span _span(bytes field):
    cdef Span span
    span.at, span.size = <const unsigned char*> PyBytes_AS_STRING(field), PyBytes_GET_SIZE(field)
    return span
