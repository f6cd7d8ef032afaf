"""C interface of what the memory tier holds."""

from libc.stdint cimport int64_t

from streamgate.native.mapped cimport Cut


cdef class Stored:
    cdef readonly bytes tag         # the ETag with its quotes
    cdef readonly bytes head        # fields of 200, 206 and 304, each with its CRLF
    cdef readonly bytes content     # fields of 200 and 206 only, each with its CRLF
    cdef readonly bytes body        # b"" where it is in a file
    cdef readonly Cut cut           # the body, where it is cut as it is sent; None: it is not
    cdef readonly int fd            # -1 where the body is in memory
    cdef readonly int64_t offset    # of the body in the file
    cdef readonly int64_t size      # bytes of the body
    cdef readonly bint gated        # the answer needs a token
    cdef readonly bint negotiable   # clients that accept a content coding get one
    cdef readonly int64_t made      # s since 1970, for Age
    cdef readonly int64_t until     # s since 1970: from then on it is not sent without a look; INT64_MAX: for ever
    cdef readonly object owner      # kept alive with it, such as the open file
    cdef int kind                   # index of ROUTES
    cdef bytes whole                # status line, fields and Content-Length of a 200
    cdef bytes unchanged            # status line and fields of a 304
