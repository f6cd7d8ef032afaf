"""Sending: an answer is one ``sendmsg`` of head and body straight to the socket, or ``sendfile`` from the cache's file.

What the kernel does not take now waits here, not in the transport: the transport is given one piece, and tells when it could
send it. Where there is no descriptor to write to, under TLS above all, every byte goes through the transport.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport EAGAIN, EINTR, EIO, errno
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memset
from posix.time cimport CLOCK_MONOTONIC
from posix.unistd cimport pread

from streamgate.native.http1 cimport Span
from streamgate.native.sender cimport clock, iovec, part
from streamgate.native.stored cimport Stored
from streamgate.native.tally cimport ABORTED_CLIENT, ABORTED_SOURCE, name_of

cdef extern from "<sys/socket.h>" nogil:
    enum: MSG_NOSIGNAL, MSG_MORE
    struct msghdr:
        iovec* msg_iov
        size_t msg_iovlen
    ssize_t sendmsg(int fd, const msghdr* message, int flags)
    ssize_t c_send "send"(int fd, const void* data, size_t size, int flags)

cdef extern from "<sys/sendfile.h>" nogil:
    ssize_t sendfile(int out, int source, int64_t* offset, size_t size)

cdef enum:
    PIECE = 64 * 1024           # bytes that the transport gets at a time
    PROGRESS = 256 * 1024       # bytes that a client must take within the send timeout


cdef class Sender:
    cdef int send(self, Stored stored, iovec* parts, int count) except -1:
        """Send head and body as far as the kernel takes them; the rest follows when it takes more."""
        cdef msghdr message
        cdef ssize_t sent = 0
        cdef int64_t head = 0, body = self.stop - self.first
        cdef bint direct = self.fd >= 0 and (not self.shared or self.transport.get_write_buffer_size() == 0)
        cdef int i
        for i in range(count):
            head += parts[i].iov_len
        if direct:
            if body and stored.fd < 0:
                part(&parts[count], PyBytes_AS_STRING(stored.body) + self.first, body)
            memset(&message, 0, sizeof(message))
            message.msg_iov, message.msg_iovlen = parts, count + (body and stored.fd < 0)
            sent = sendmsg(self.fd, &message, MSG_NOSIGNAL | (MSG_MORE if body and stored.fd >= 0 else 0))
            if sent == head + body:
                self.quiet_since = self.began
                self.leave(stored, body)
                return self.close() if self.last else 0
            if sent < 0:
                if errno != EAGAIN and errno != EINTR:
                    self.leave(stored, 0)
                    self.tally.row[ABORTED_CLIENT] += 1
                    return self.give_up()
                sent = 0
        self.out = stored
        self.keep()
        self.moved, self.moved_since = 0, self.began
        self.position = self.first
        if sent < head:
            self.rest = _tail(parts, count, sent)
        else:
            self.position += sent - head
        if not self.unbuffered:
            # Under TLS a high water of 0 would be reached by nothing.
            self.transport.set_write_buffer_limits(*((0, 0) if self.fd >= 0 else (1, 0)))
            self.unbuffered = True
        self.pump()
        return self.close() if self.out is None and self.last and not self.ended else 0

    cdef int keep(self) except -1:
        """Copy what the log will say of the request, which may go with the bytes it came in."""
        cdef const char* at
        cdef Span* fields[4]
        cdef int i
        fields[0], fields[1] = &self.record.method, &self.record.path
        fields[2], fields[3] = &self.record.traceparent, &self.record.user_agent
        self.kept = b"".join([PyBytes_FromStringAndSize(<const char*> fields[i].at, fields[i].size) for i in range(4)])
        at = PyBytes_AS_STRING(self.kept)
        for i in range(4):
            fields[i].at = <const uint8_t*> at
            at += fields[i].size
        return 0

    cdef int pump(self) except -1:
        """Send on until the client takes no more, or all is sent."""
        cdef int64_t sent
        while not self.paused:
            if self.rest is not None:
                if self.fd < 0 and self.position < self.stop:
                    # One record of TLS for a small answer, not two.
                    self.rest += self.read_piece()
                    if self.out is None:
                        return 0
                self.transport.write(self.rest)
                self.rest = None
            elif self.position == self.stop:
                return self.finish()
            else:
                sent = self.push() if self.fd >= 0 else 0
                if sent == 0:
                    piece = self.read_piece()
                    if piece is not None:
                        self.transport.write(piece)
                elif sent > 0:
                    self.move(sent)
            if self.out is None:
                return 0
        return 0

    cdef int64_t push(self) except -2:
        """Give the kernel what it takes of the body: bytes, 0 where it takes none, -1 where the connection had to be cut."""
        cdef Stored stored = self.out
        cdef int64_t offset = stored.offset + self.position, left = self.stop - self.position
        cdef ssize_t sent
        if stored.fd < 0:
            sent = c_send(self.fd, PyBytes_AS_STRING(stored.body) + self.position, left, MSG_NOSIGNAL)
        else:
            sent = sendfile(self.fd, stored.fd, &offset, left)
        if sent > 0:
            return sent
        if sent < 0 and (errno == EAGAIN or errno == EINTR):
            return 0
        # A file that ends too early gives nothing; the client must not take what it got for the whole.
        self.cut(ABORTED_SOURCE if sent == 0 or errno == EIO else ABORTED_CLIENT)
        return -1

    cdef object read_piece(self):
        """The next piece of the body, for the transport; None where the connection had to be cut."""
        cdef Stored stored = self.out
        cdef int64_t size = min(self.stop - self.position, <int64_t> PIECE)
        cdef bytes block
        cdef ssize_t got
        if stored.fd < 0:
            piece = memoryview(stored.body)[self.position:self.position + size]
        else:
            block = PyBytes_FromStringAndSize(NULL, size)
            got = pread(stored.fd, PyBytes_AS_STRING(block), size, stored.offset + self.position)
            if got != size:
                self.cut(ABORTED_SOURCE)
                return None
            piece = block
        self.move(size)
        return piece

    cdef void move(self, int64_t size) noexcept:
        self.position += size
        self.moved += size
        if self.moved >= PROGRESS:
            self.moved, self.moved_since = 0, clock(CLOCK_MONOTONIC)

    cdef int finish(self) except -1:
        """The answer under way has left, or never will."""
        cdef Stored stored = self.out
        cdef int64_t sent = self.position - self.first
        self.out = self.rest = None
        self.leave(stored, sent)
        self.kept = None
        self.quiet_since = clock(CLOCK_MONOTONIC)
        return 0

    cdef int leave(self, Stored stored, int64_t sent) except -1:
        """Count and log an answer."""
        cdef int64_t duration = clock(CLOCK_MONOTONIC) - self.began
        self.tally.answer(stored.kind, self.record.status, sent, duration)
        if self.log is not None and self.log.wanted():
            self.record.route, self.record.native = name_of(stored.kind), True
            self.record.sent, self.record.duration = sent, duration
            if self.record.client == NULL:
                self.record.client = self.shown
                self.record.client_size = self.log.name(self.address, self.address_size, self.shown)
            self.log.write(&self.record, self.now)
        return 0

    cdef int cut(self, int cause) except -1:
        """End the connection in the middle of an answer."""
        self.tally.row[cause] += 1
        self.finish()
        return self.give_up()

    cdef int give_up(self) except -1:
        self.ended, self.fd = True, -1
        self.moved_since = clock(CLOCK_MONOTONIC)
        self.loop.call_soon(self.transport.abort)
        return 0

    cdef int close(self) except -1:
        self.ended, self.fd = True, -1
        self.moved_since = clock(CLOCK_MONOTONIC)
        self.transport.close()
        return 0


cdef bytes _tail(const iovec* parts, int count, size_t skip):
    """All bytes of the parts but the first ``skip``."""
    cdef bytes tail = b""
    cdef int i
    for i in range(count):
        if skip < parts[i].iov_len:
            tail += PyBytes_FromStringAndSize(<const char*> parts[i].iov_base + skip, parts[i].iov_len - skip)
            skip = 0
        else:
            skip -= parts[i].iov_len
    return tail
