"""A representation ready to be sent: made once, sent often, shared by all connections."""

cimport cython
from libc.stdint cimport INT64_MAX, int64_t

from streamgate.native.mapped cimport Cut

from streamgate.native.tally import ROUTES


@cython.final
cdef class Stored:
    def __cinit__(self, bytes tag not None, bytes head not None, bytes content not None, object body not None, *,
                  str route not None, bint gated=False, bint negotiable=False, int64_t made=0, object until=None,
                  object owner=None):
        for lines in (head, content):
            if lines and not lines.endswith(b"\r\n") or b"\r\n\r\n" in lines or lines.startswith(b"\r\n"):
                raise ValueError("each line of a head ends in CRLF, and none is empty")
        if route not in ROUTES:
            raise ValueError(f"{route} is no route of the hot path")
        self.tag, self.head, self.content, self.owner, self.kind = tag, head, content, owner, ROUTES.index(route)
        if isinstance(body, bytes):
            self.body, self.fd, self.size = body, -1, len(body)
        elif isinstance(body, Cut):
            self.cut, self.body, self.fd, self.size = body, b"", -1, body.size
        else:
            self.body = b""
            self.fd, self.offset, self.size = body
            if self.fd < 0 or self.offset < 0 or self.size < 0:
                raise ValueError("no part of a file")
        self.gated, self.negotiable, self.made = gated, negotiable, made
        self.until = INT64_MAX if until is None else until
        self.whole = b"HTTP/1.1 200 OK\r\n" + head + content + b"Content-Length: %d\r\n" % self.size
        self.unchanged = b"HTTP/1.1 304 Not Modified\r\n" + head

    @property
    def route(self):
        return ROUTES[self.kind]
