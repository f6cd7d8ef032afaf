"""C interface of the hot path."""

from libc.stdint cimport int64_t, uint8_t

from streamgate.native.accesslog cimport AccessLog
from streamgate.native.cat cimport Verifier
from streamgate.native.clients cimport Clients, Places
from streamgate.native.cmcd cimport CmcdLog
from streamgate.native.http1 cimport Head, Limits
from streamgate.native.leases cimport Leases, Shown
from streamgate.native.limiter cimport Limiter
from streamgate.native.receiver cimport Poller, Receiver
from streamgate.native.s3fifo cimport Cache
from streamgate.native.stored cimport Stored
from streamgate.native.tally cimport Tally


cdef class Factory:
    cdef readonly Cache cache
    cdef readonly Verifier verifier
    cdef readonly Leases leases
    cdef public object open_assets  # a set of ids as bytes; None: every asset is open
    cdef readonly set connections
    cdef public object emptied      # called when the last connection has ended; None: nobody asks
    cdef object loop, health, fallback, problem, unsatisfiable, negotiate, trusts, cutter
    cdef tuple plain
    cdef AccessLog log
    cdef CmcdLog reports
    cdef Clients clients
    cdef Poller poller
    cdef Limiter by_address, by_token
    cdef Tally tally
    cdef Limits limits
    cdef size_t most                # connections
    cdef Places places
    cdef int64_t head_timeout, keepalive_timeout, send_timeout, tick     # ns
    cdef bint by_origin
    cdef dict codings               # what `negotiate` said of an Accept-Encoding: ";br" and so on, b"" for identity
    cdef object timer
    cdef int64_t date_second
    cdef char[40] date              # the Date field with its CRLF

    cdef bytes coding(self, const uint8_t* accepted, size_t size)
    cdef bint is_open(self, const uint8_t* path, size_t size) except -1
    cdef void set_date(self, int64_t second) noexcept
    cdef int add(self, Protocol connection) except -1
    cdef int discard(self, Protocol connection) except -1


cdef class Protocol(Receiver):
    cdef Factory factory
    cdef object handler             # the fallback's, once there was something for it
    cdef readonly bytes peer        # packed address of the client; b"": not known
    cdef bint introduced            # by whoever accepted the connection, not by the socket
    cdef bint counted               # among those of its address
    cdef bint behind_proxy          # the peer is a proxy whose word on the client counts
    cdef bint unlimited             # requests from there are not counted: the client is a proxy of ours
    cdef bint tls, https            # the connection is encrypted; the client's way here begins so
    cdef bint surrendered           # all bytes are the handler's, for good
    cdef bint handler_paused        # and the handler was told so
    cdef bint half_closed           # by the client, which waits for what it asked for
    cdef bint heard                 # a request came
    cdef str refusal                # what is wrong with the next head; told once the handler is done
    cdef bytes begun                # a head that is not complete
    cdef bytes stash                # what came while an answer was leaving
    cdef int64_t head_since         # ns; a head is begun; 0: none is
    cdef Shown shown                # its last good token; None: there was none yet

    cdef bint owes(self) except -1
    cdef int feed(self, const uint8_t* at, size_t left) except -1
    cdef int hand(self, const uint8_t* data, size_t size) except -1
    cdef int put_aside(self, const uint8_t* data, size_t size) except -1
    cdef int take_up(self) except -1
    cdef int refuse(self, str code) except -1
    cdef int answer(self, const Head* head) except -1
    cdef bint told(self, const Head* head) except -1
    cdef bint permitted(self, const Head* head, const uint8_t* token, size_t token_size, const uint8_t* path,
                        size_t size) except -1
    cdef bint admitted(self, bint with_token) noexcept
    cdef int respond(self, const Head* head, Stored stored) except -1
    cdef size_t write_fields(self, Stored stored, char* start) noexcept
    cdef int check(self, int64_t now) except -1
    cdef int set_address(self, bytes packed) except -1
