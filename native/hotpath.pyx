"""The hot path: answers GET and HEAD of objects in the cache without leaving C, and hands everything else on.

A connection's bytes are cut into heads here. A head that this file can answer is answered; any other goes, untouched, to a
handler (aiohttp's) that is made when the first such head comes. The handler gets one head after another, each whole, so
that it never holds half a head; what is followed by a body is its own with all that comes after it. While it is at work,
heads go to it, so that answers leave in the order of the requests.

Only the transports named in ``plain`` have a descriptor to write to (:mod:`streamgate.native.sender`); under TLS there is none.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport INT64_MAX, int64_t, uint8_t
from libc.string cimport memchr, memcmp, memcpy, strlen
from libc.time cimport gmtime_r, strftime, time_t, tm
from posix.time cimport CLOCK_MONOTONIC

from streamgate.native.accesslog cimport AccessLog
from streamgate.native.cat cimport Verifier
from streamgate.native.claims cimport Asked
from streamgate.native.clients cimport Client, Clients, Places, secure
from streamgate.native.cmcd cimport CmcdLog
from streamgate.native.http1 cimport Head, Limits, Method, Selection, Span, Verdict, names, parse, select
from streamgate.native.leases cimport Leases, Shown
from streamgate.native.limiter cimport Limiter
from streamgate.native.receiver cimport Poller, Receiver, packed
from streamgate.native.s3fifo cimport Cache
from streamgate.native.sender cimport NS, clock, iovec, lines, part
from streamgate.native.stored cimport Stored
from streamgate.native.tally cimport (
    ABORTED_CLIENT, ABORTED_TIMEOUT, HANDED, HITS, MISSES, REFUSED, Tally,
)

from streamgate.native import stored as _stored
from streamgate.native.tally import COUNTERS, LATENCIES, ROUTES, STATUSES

# For Python too: a cimported type is no name of the module.
globals()["Stored"] = _stored.Stored

cdef extern from "<time.h>" nogil:
    enum: CLOCK_REALTIME_COARSE

cdef extern from "text.h" nogil:
    char* put_text(char* at, const char* text)
    char* put_number(char* at, int64_t value, int digits)

cdef extern from "<string.h>" nogil:
    void* memmem(const void* data, size_t size, const void* wanted, size_t length)

cdef enum:
    MAX_KEY = 1024              # bytes of a canonical path
    MAX_CODING = 16
    MAX_FIELDS = 400            # bytes of the fields that are made anew for each answer
    TICKS = 8                   # looks at a connection within its shortest time limit

cdef const char* TOKEN_NAME = b"CTA-Common-Access-Token"
cdef const char* COOKIE_NAME = b"cta-common-access-token"     # our own spelling; the other one counts, too
cdef bytes MAPPED = bytes(10) + b"\xff\xff"
cdef const char* HTTPS = b"https"
cdef const char* END = b"\r\n\r\n"
cdef const char* LAST = b"\r\nConnection: close\r\n\r\n"
cdef const char* PARTIAL = b"HTTP/1.1 206 Partial Content\r\n"
cdef const char* UNSATISFIED = b"HTTP/1.1 416 Range Not Satisfiable\r\n"


cdef inline const uint8_t* raw(bytes data) noexcept:
    return <const uint8_t*> PyBytes_AS_STRING(data)


@cython.final
cdef class Factory:
    def __cinit__(self, object loop, *, Cache cache not None, Verifier verifier=None, Leases leases=None, object open_assets=None,
                  object health not None, object fallback not None, object problem not None,
                  object unsatisfiable not None, object negotiate not None, object counters not None,
                  object trusts=None, object client=None, object cutter=None, Limiter by_address=None, Limiter by_token=None, AccessLog log=None,
                  CmcdLog reports=None, tuple plain=(), bint by_origin=False, size_t per_address=1024,
                  size_t line=8190, size_t field=8190, size_t fields=100, size_t head=65536, size_t connections=10000,
                  double head_timeout=10, double keepalive_timeout=75, double send_timeout=60):
        self.loop, self.cache, self.verifier, self.open_assets = loop, cache, verifier, open_assets
        self.health, self.fallback, self.problem, self.unsatisfiable = health, fallback, problem, unsatisfiable
        self.negotiate, self.trusts, self.log, self.plain, self.cutter = negotiate, trusts, log, plain, cutter
        self.limits.line, self.limits.field, self.limits.fields, self.limits.head = line, field, fields, head
        self.by_origin, self.by_address, self.by_token, self.most = by_origin, by_address, by_token, connections
        self.head_timeout, self.keepalive_timeout = <int64_t> (head_timeout * NS), <int64_t> (keepalive_timeout * NS)
        self.send_timeout = <int64_t> (send_timeout * NS)
        self.tick = min(max(min(self.head_timeout, self.keepalive_timeout, self.send_timeout) // TICKS, NS // 100), NS // 2)
        self.leases = Leases(1, required=False) if leases is None else leases
        self.connections, self.codings, self.date_second, self.tally = set(), {}, -1, Tally(counters)
        self.poller, self.clients, self.reports, self.places = Poller(loop), Clients(client), reports, Places(per_address)

    def __call__(self, bytes peer=None):
        cdef Protocol made = Protocol(self)
        if peer is not None:
            made.set_address(peer)
            made.introduced = True
        return made

    cdef bytes coding(self, const uint8_t* accepted, size_t size):
        cdef bytes field = PyBytes_FromStringAndSize(<const char*> accepted, size)
        known = self.codings.get(field)
        if known is None:
            if len(self.codings) >= 256:
                self.codings.clear()
            name = self.negotiate(field.decode("ascii"))
            known = self.codings[field] = b"" if name == "identity" else b";" + name.encode()
        return known

    cdef bint is_open(self, const uint8_t* path, size_t size) except -1:
        """Whether the asset of a path below /v/ may be seen without a token; those that do not exist may not."""
        cdef const uint8_t* end
        if not self.open_assets:
            return self.open_assets is None
        end = <const uint8_t*> memchr(path + 3, 47, size - 3)
        if end == NULL:
            return False
        return PyBytes_FromStringAndSize(<const char*> path + 3, end - path - 3) in self.open_assets

    cdef void set_date(self, int64_t second) noexcept:
        cdef time_t now = second
        cdef tm parts
        gmtime_r(&now, &parts)
        strftime(self.date, sizeof(self.date), b"Date: %a, %d %b %Y %H:%M:%S GMT\r\n", &parts)
        self.date_second = second

    cdef int add(self, Protocol connection) except -1:
        self.connections.add(connection)
        if self.timer is None:
            self.timer = self.loop.call_later(self.tick / <double> NS, self.sweep)
        return 0

    cdef int discard(self, Protocol connection) except -1:
        self.connections.discard(connection)
        if connection.counted:
            connection.counted = False
            self.places.give_up(connection.peer)
        if not self.connections and self.emptied is not None:
            self.emptied()
        return 0

    def sweep(self):
        """Look at every connection's time limits; while there are connections, again after a while."""
        cdef Protocol connection
        cdef int64_t now = clock(CLOCK_MONOTONIC)
        self.timer = None
        for connection in list(self.connections):
            connection.check(now)
        if self.log is not None:
            self.log.hand_on()
        if self.reports is not None: self.reports.hand_on()
        if self.connections:
            self.timer = self.loop.call_later(self.tick / <double> NS, self.sweep)


@cython.final
cdef class Protocol(Receiver):
    def __cinit__(self, Factory factory not None):
        self.factory, self.fd, self.peer = factory, -1, b""
        self.tally, self.log, self.loop, self.reports = factory.tally, factory.log, factory.loop, factory.reports

    # What a transport calls (asyncio.Protocol).

    def connection_made(self, object transport):
        cdef Factory factory = self.factory
        self.transport = transport
        self.quiet_since = clock(CLOCK_MONOTONIC)
        if <size_t> len(factory.connections) >= factory.most:
            self.tally.row[REFUSED] += 1
            self.refuse("overloaded")
            return
        factory.add(self)
        if not self.introduced:
            peer = transport.get_extra_info("peername")
            if isinstance(peer, tuple):
                self.set_address(packed(peer[0].partition("%")[0].encode("ascii", "replace")))
        self.behind_proxy = self.unlimited = factory.trusts is not None and factory.trusts(self.peer)
        if self.address_size and not self.behind_proxy:
            self.counted = factory.places.take(self.peer)
            if not self.counted:
                self.tally.row[REFUSED] += 1
                self.refuse("overloaded")
                return
        self.tls = self.https = transport.get_extra_info("sslcontext") is not None
        # By exact type: whatever encrypts, or only wraps, has no descriptor here.
        if type(transport) in factory.plain:
            self.fd = transport.get_extra_info("socket").fileno()
            self.loop.call_soon(self.take_over, factory.poller)     # transports begin to read after this

    cdef int set_address(self, bytes packed) except -1:
        """The client's address, or none; an IPv4 one inside of IPv6 (RFC 4291 section 2.5.5.2) is what it is."""
        if PyBytes_GET_SIZE(packed) == 16 and packed.startswith(MAPPED):
            packed = packed[12:]
        if PyBytes_GET_SIZE(packed) not in (0, 4, 16):
            raise ValueError("an address has 4 or 16 bytes")
        self.peer = packed
        self.address_size = PyBytes_GET_SIZE(packed)
        memcpy(self.address, raw(packed), self.address_size)
        return 0

    def connection_lost(self, object exc):
        self.fd = -1
        self.ended = True
        self.give_back()
        self.factory.discard(self)
        if self.out is not None:
            self.tally.row[ABORTED_CLIENT] += 1
            self.finish()
        if self.handler is not None:
            self.handler.connection_lost(exc)
        self.transport = self.handler = self.stash = self.begun = None

    def eof_received(self):
        # It will say no more, but it still listens; under TLS nobody does.
        self.half_closed = not self.tls
        if self.half_closed and self.owes():
            return True
        return self.handler.eof_received() if self.handler is not None else None

    cdef bint owes(self) except -1:
        """Whether answers are under way, or to come; the handler's becomes its last."""
        if self.out is not None or self.stash is not None:
            return True
        if self.handler is None or self.handler.idle or self.surrendered:
            return False
        self.handler.end()
        return True

    def pause_writing(self):
        self.paused = True
        if self.handler is not None and self.out is None:
            self.handler_paused = True
            self.handler.pause_writing()

    def resume_writing(self):
        self.paused = False
        if self.handler_paused:
            self.handler_paused = False
            self.handler.resume_writing()
        if self.out is not None:
            self.pump()
            if self.out is None:
                # Not now: a transport may not be closed while it tells of room (asyncio would lose the connection twice).
                self.loop.call_soon(self.go_on)

    def go_on(self):
        """After an answer that took its time: end, or take up what was put aside."""
        last = self.last
        if not self.ended and not last:
            self.take_up()
        if not self.ended and (last or self.half_closed and not self.owes()):
            self.close()

    def data_received(self, bytes data not None):
        self.receive(raw(data), PyBytes_GET_SIZE(data))

    cdef int receive(self, const uint8_t* data, size_t size) except -1:
        if self.ended:
            return 0
        self.began = clock(CLOCK_MONOTONIC)
        if self.surrendered:
            self.quiet_since = self.began
            self.handler.data_received(PyBytes_FromStringAndSize(<const char*> data, size))
        elif self.out is not None or self.stash is not None or self.refusal is not None:
            self.put_aside(data, size)
        else:
            self.feed(data, size)
        return 0

    # What the server calls.

    def again(self, bytes data not None):
        """Answer a head after all that the handler was given, in its turn; False: it stays the handler's."""
        cdef Head head
        if self.ended or self.surrendered or self.out is not None or self.stash is not None or self.refusal is not None:
            return False
        return parse(raw(data), PyBytes_GET_SIZE(data), &self.factory.limits, &head) == Verdict.PLAIN and self.answer(&head) == 1

    @property
    def direct(self):
        return self.fd >= 0

    def end(self):
        """End the connection: now if it is idle, else with the answer under way."""
        if self.out is not None:
            self.last = True
        elif self.handler is not None:
            self.handler.end()
        elif not self.ended:
            self.close()

    def abort(self):
        """Cut the connection, whatever it is doing."""
        if self.handler is not None:
            self.handler.abort()
        if self.transport is not None:
            self.transport.abort()

    # Heads.

    cdef int feed(self, const uint8_t* at, size_t left) except -1:
        """Take the heads one by one."""
        cdef Factory factory = self.factory
        cdef Head head
        cdef Verdict verdict
        cdef bytes data
        if self.begun is not None:
            data, self.begun = self.begun + PyBytes_FromStringAndSize(<const char*> at, left), None
            if <size_t> PyBytes_GET_SIZE(data) <= factory.limits.head and memchr(at, 10, left) == NULL:
                self.begun = data
                return 0            # no line has come to its end, so no head has
            at, left = raw(data), PyBytes_GET_SIZE(data)
        while left:
            if at[0] == 13 and left < 3 and (left == 1 or at[1] == 10):
                verdict = Verdict.INCOMPLETE
                if left == 2:
                    self.head_since = 0
                    return 0
            elif at[0] == 13 and at[1] == 10:
                at += 2             # empty lines in front of a request (RFC 9112 section 2.2)
                left -= 2
                continue
            else:
                verdict = parse(at, left, &factory.limits, &head)
            if verdict == Verdict.INCOMPLETE:
                self.begun = PyBytes_FromStringAndSize(<const char*> at, left)
                if not self.head_since:
                    self.head_since = self.began
                return 0
            self.head_since = 0
            if verdict == Verdict.MALFORMED or verdict == Verdict.TOO_LARGE:
                self.refusal = "request_malformed" if verdict == Verdict.MALFORMED else "head_too_large"
                if self.handler is None or self.handler.idle:
                    return self.refuse(self.refusal)
                return self.put_aside(at, left)
            self.heard = True
            if verdict == Verdict.BODY:
                self.surrendered = True
                return self.hand(at, left)
            if (
                verdict == Verdict.OTHER
                or (self.handler is not None and not self.handler.idle)
                or not self.answer(&head)
            ):
                self.hand(head.verb.at, head.size)
            at += head.size
            left -= head.size
            if self.ended:
                return 0
            if self.out is not None:
                return self.put_aside(at, left) if left else 0
        return 0

    cdef int hand(self, const uint8_t* data, size_t size) except -1:
        """Give the handler a whole head, or all that is left."""
        if self.handler is None:
            self.shared = True
            self.give_back()
            self.handler = self.factory.fallback(self.peer)
            self.handler.connection_made(self.transport)
        if self.unbuffered:
            self.transport.set_write_buffer_limits()
            self.unbuffered = False
        self.tally.row[HANDED] += 1
        self.handler.data_received(PyBytes_FromStringAndSize(<const char*> data, size))
        return 0

    cdef int put_aside(self, const uint8_t* data, size_t size) except -1:
        """Keep what came behind an answer that is leaving, and read no more for now; a client with too much of it is let go."""
        cdef size_t kept = 0 if self.stash is None else PyBytes_GET_SIZE(self.stash)
        if self.refusal is not None:
            pass                    # it will never be read
        elif kept + size > self.factory.limits.head:
            self.stash, self.last = None, True
        elif not self.last:
            self.stash = (self.stash or b"") + PyBytes_FromStringAndSize(<const char*> data, size)
        return self.hold()

    cdef int take_up(self) except -1:
        """Go on with what was put aside."""
        cdef bytes data = self.stash
        self.stash = None
        if self.ended:
            return 0
        self.release()
        if data is not None:
            self.began = clock(CLOCK_MONOTONIC)
            self.feed(raw(data), PyBytes_GET_SIZE(data))
        return 0

    cdef int refuse(self, str code) except -1:
        """Answer what is no whole request, and end the connection."""
        if not self.transport.is_closing():
            self.transport.write(self.factory.problem(code))
        return self.close()

    cdef int check(self, int64_t now) except -1:
        """End the connection where it has kept us waiting for too long."""
        cdef Factory factory = self.factory
        if self.out is not None:
            if now - self.moved_since > factory.send_timeout or (
                self.record.session_size and not self.shown.stays(factory.verifier, now)
            ):
                self.cut(ABORTED_TIMEOUT)
            return 0
        if self.ended:
            if self.transport is not None and now - self.moved_since > factory.send_timeout:
                self.transport.abort()      # it does not take the last answer
            return 0
        if self.handler is not None:
            if not self.handler.idle:
                self.quiet_since = now
                if self.head_since:
                    self.head_since = now
                return 0
            if self.refusal is not None:
                return self.refuse(self.refusal)
        if self.begun is not None:
            if now - self.head_since > factory.head_timeout:
                self.refuse("head_timeout")
        elif now - self.quiet_since > (factory.keepalive_timeout if self.heard else factory.head_timeout):
            # Browsers open connections ahead of need: one that never said a word gets none.
            self.close()
        return 0

    # Answers.

    cdef int answer(self, const Head* head) except -1:
        """Answer if the object is at hand and the client may have it; 0: somebody else must."""
        cdef Factory factory = self.factory
        cdef const uint8_t* path = head.path.at
        cdef const uint8_t* token = head.token.at
        cdef const uint8_t* end
        cdef size_t size = head.path.size, token_size = head.token.size
        cdef uint8_t[MAX_KEY + MAX_CODING] key
        cdef Stored stored
        cdef bytes suffix
        cdef bint open_to_all, hit
        if factory.by_origin and head.origin.at != NULL or self.behind_proxy and not self.told(head):
            return 0
        if head.cookie.at != NULL and (
            memmem(head.cookie.at, head.cookie.size, TOKEN_NAME, strlen(TOKEN_NAME)) != NULL
            or memmem(head.cookie.at, head.cookie.size, COOKIE_NAME, strlen(COOKIE_NAME)) != NULL
        ):
            return 0
        if head.query.at != NULL and memmem(head.query.at, head.query.size, TOKEN_NAME, strlen(TOKEN_NAME)) != NULL:
            return 0
        if size > 3 and memcmp(path, b"/t/", 3) == 0:
            end = <const uint8_t*> memchr(path + 3, 47, size - 3)
            if end == NULL or end == path + 3 or token != NULL:
                return 0
            token, token_size = path + 3, end - (path + 3)
            path, size = end, size - (end - path)
        # No key of a coded form has a spelling as a path.
        if size < 4 or size > MAX_KEY or memcmp(path, b"/v/", 3) != 0 or memchr(path, 59, size) != NULL:
            return 0
        # Some ms late: what is told of time is told in seconds, but for the log.
        self.now = clock(CLOCK_REALTIME_COARSE)
        open_to_all = factory.is_open(path, size)
        if not open_to_all:
            if token == NULL or factory.verifier is None or not self.permitted(head, token, token_size, path, size):
                return 0
        stored = factory.cache.find(path, size)
        hit = stored is not None
        if (
            not hit and factory.cutter is not None and head.method == Method.GET and head.range_.at == NULL
            and head.if_none_match.at == NULL
        ):
            stored = factory.cutter(PyBytes_FromStringAndSize(<const char*> path, size), not open_to_all)
        if stored is None:
            return 0
        if stored.negotiable and head.accept_encoding.at != NULL and not (
            head.method == Method.GET and head.range_.at != NULL
        ):
            suffix = factory.coding(head.accept_encoding.at, head.accept_encoding.size)
            if PyBytes_GET_SIZE(suffix):
                memcpy(key, path, size)
                memcpy(key + size, raw(suffix), PyBytes_GET_SIZE(suffix))
                stored = factory.cache.find(key, size + PyBytes_GET_SIZE(suffix))
                if stored is None:
                    return 0
        # An asset that was gated or opened since is answered by those who know how.
        if stored.gated == open_to_all:
            return 0
        if stored.until <= self.now // NS or not self.admitted(not open_to_all):
            return 0
        if stored.until != INT64_MAX and stored.made > self.now // NS + 1:  # the clock was set back, and that end with it
            return 0
        self.tally.row[HITS if hit else MISSES] += 1
        self.record.method, self.record.traceparent = head.verb, head.traceparent
        self.record.user_agent = head.user_agent
        self.record.path.at, self.record.path.size = path, size
        self.record.behind_token = path != head.path.at
        self.record.session_size = 0
        if not open_to_all:
            self.record.session, self.record.session_size = self.shown.token.handle, self.shown.token.handle_size
        if self.reports is not None: self.reports.take(head, &self.reported, hit, stored.fd >= 0)
        self.respond(head, stored)
        return 1

    cdef bint told(self, const Head* head) except -1:
        """Take the proxy's word on its client; 0: somebody else must read it."""
        cdef Client client = None if head.forwarded else self.factory.clients.find(self.peer, head.forwarded_for)
        if client is None:
            return False
        self.address_size, self.unlimited, self.record.client = client.size, client.trusted, NULL
        memcpy(self.address, client.address, client.size)
        self.https = secure(head.forwarded_proto, self.tls)
        return True

    cdef bint permitted(self, const Head* head, const uint8_t* token, size_t token_size, const uint8_t* path,
                        size_t size) except -1:
        """Whether the token is good, good for this request, and its session is held; the last good one is remembered."""
        cdef Factory factory = self.factory
        cdef Asked asked
        asked.method, asked.method_size = head.verb.at, head.verb.size
        asked.scheme, asked.scheme_size = <const uint8_t*> HTTPS, 5 if self.https else 4
        asked.host, asked.host_size = head.host.at, head.host.size
        asked.path, asked.path_size = path, size
        asked.address, asked.address_size = self.address, self.address_size
        asked.now = self.now // NS
        if self.shown is None:
            self.shown = Shown()
        return self.shown.admits(
            factory.verifier, factory.leases, token, token_size, &asked, self.began, self.behind_proxy, self.tally
        )

    cdef bint admitted(self, bint with_token) noexcept:
        """Whether the client may ask so often. Last of all: what is handed on is counted by those who get it."""
        cdef Factory factory = self.factory
        if (
            factory.by_address is not None and self.address_size and not self.unlimited
            and factory.by_address.admit(self.address, self.address_size, self.began)
        ):
            return False
        return not with_token or factory.by_token is None or not factory.by_token.admit(
            self.shown.token.handle, self.shown.token.handle_size, self.began
        )

    cdef int respond(self, const Head* head, Stored stored) except -1:
        """Conditions in their order (RFC 9110 section 13.2.2), then a range, then the answer.

        Representations have no modification date, so If-Modified-Since means nothing (section 13.1.3), and neither does an
        If-Range with a date (section 13.1.5).
        """
        cdef iovec[6] parts
        cdef char[MAX_FIELDS] fields
        cdef int count = 1, status = 200
        cdef bint get = head.method == Method.GET
        cdef Selection selection = Selection.WHOLE
        self.first, self.stop = 0, stored.size if get else 0
        if head.if_none_match.at != NULL and names(head.if_none_match, raw(stored.tag), PyBytes_GET_SIZE(stored.tag)):
            status, self.stop = 304, 0
        elif get and head.range_.at != NULL and (head.if_range.at == NULL or stored.tag == head.if_range.at[:head.if_range.size]):
            selection = select(head.range_, stored.size, &self.first, &self.stop)
        if selection == Selection.UNSATISFIABLE:
            stored = self.factory.unsatisfiable(stored.size, stored.route, stored.fd >= 0)
            status, self.first, self.stop = 416, 0, stored.size
            part(&parts[0], UNSATISFIED, strlen(UNSATISFIED))
            lines(&parts[1], stored.head)
            count = 2
        elif selection == Selection.PART:
            status = 206
            part(&parts[0], PARTIAL, strlen(PARTIAL))
            lines(&parts[1], stored.head)
            lines(&parts[2], stored.content)
            count = 3
        else:
            lines(&parts[0], stored.whole if status == 200 else stored.unchanged)
        self.last = head.close or self.factory.health.state == "stopping"
        self.record.status = status
        part(&parts[count], fields, self.write_fields(stored, fields))
        return self.send(stored, parts, count + 1)

    cdef size_t write_fields(self, Stored stored, char* start) noexcept:
        """The fields that differ between answers, and the empty line; how many bytes."""
        cdef Factory factory = self.factory
        cdef char* at = start
        cdef int64_t second = self.now // NS, spent = (clock(CLOCK_MONOTONIC) - self.began) // 1000
        if second != factory.date_second:
            factory.set_date(second)
        if self.record.status == 206:
            at = put_number(put_text(at, b"Content-Range: bytes "), self.first, 1)
            at = put_number(put_text(at, b"-"), self.stop - 1, 1)
            at = put_number(put_text(at, b"/"), stored.size, 1)
            at = put_number(put_text(at, b"\r\nContent-Length: "), self.stop - self.first, 1)
            at = put_text(at, b"\r\n")
        elif self.record.status == 416:
            at = put_text(put_number(put_text(at, b"Content-Length: "), stored.size, 1), b"\r\n")
        at = put_text(at, factory.date)
        if stored.made:
            at = put_text(put_number(put_text(at, b"Age: "), second - stored.made if second > stored.made else 0, 1), b"\r\n")
        # In ms; W3C Server Timing.
        at = put_number(put_text(at, b"Server-Timing: native;dur="), spent // 1000, 1)
        at[0], at[1], at[2], at[3] = 46, 48 + spent // 100 % 10, 48 + spent // 10 % 10, 48 + spent % 10
        at = put_text(at + 4, LAST if self.last else END)
        return at - start
