"""C interface of the request-head parser. Nothing here allocates, raises or needs the GIL; pointers borrow the given bytes."""

from libc.stdint cimport int64_t


cdef enum Verdict:
    INCOMPLETE      # more bytes are needed
    PLAIN           # a complete GET or HEAD without a body, on a connection that simply stays open or closes
    OTHER           # a complete head without a body that the hot path does not answer
    BODY            # a complete head, and what follows it is not a head: a body, an upgrade, a tunnel, another version
    MALFORMED       # 400, and close
    TOO_LARGE       # 431, and close


cdef enum Method:
    ANY
    GET
    HEAD


cdef enum Selection:
    WHOLE           # no range, or one that is to be ignored
    PART
    UNSATISFIABLE


cdef struct Span:                   # at is NULL: the field is absent
    const unsigned char* at
    size_t size


cdef struct Limits:
    size_t line                     # bytes of the request line
    size_t field                    # bytes of a field's line
    size_t fields                   # their number
    size_t head                     # bytes of the whole head


cdef struct Head:
    size_t size                     # bytes of the head with its empty line
    Method method
    bint close                      # Connection: close
    bint folded                     # a field that the hot path reads came twice, or holds bytes beyond ASCII
    bint forwarded                  # there is a Forwarded, or one of the next two twice or beyond ASCII
    Span forwarded_for, forwarded_proto             # X-
    Span verb
    Span target                     # as on the request line
    Span path, query                # of the target; query without its "?"
    Span host
    Span range_, if_none_match, if_range
    Span accept_encoding
    Span origin
    Span cookie
    Span token                      # CTA-Common-Access-Token
    Span traceparent
    Span user_agent
    Span[4] reports                 # CMCD-Object, -Request, -Session, -Status; of several lines the first


cdef Verdict parse(const unsigned char* data, size_t size, const Limits* limits, Head* head) noexcept nogil
# Whether an If-None-Match names the entity tag (with its quotes), by weak comparison, or is "*" (RFC 9110 section 13.1.2).
cdef bint names(Span field, const unsigned char* tag, size_t size) noexcept nogil
# What a Range asks of `size` bytes: [first[0], end[0]) (RFC 9110 section 14.1.2).
cdef Selection select(Span field, int64_t size, int64_t* first, int64_t* end) noexcept nogil
