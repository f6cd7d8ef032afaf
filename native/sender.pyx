"""Sending: an answer is one ``send`` or ``sendmsg`` of head and body straight to the socket, or ``sendfile`` from the cache's file.

What is cut from a file in memory is sent from there but for its last byte, which goes out once the file has proved unchanged:
who has the whole body has the body that its name promises.

What the kernel does not take now waits here, not in the transport: the transport is given one piece, and tells when it could
send it. Where there is no descriptor to write to, under TLS above all, every byte goes through the transport.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport EAGAIN, EFAULT, EINTR, EIO, errno
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_MONOTONIC
from posix.unistd cimport pread

from streamgate.errors import StreamGateError
from streamgate.native.http1 cimport Span
from streamgate.native.mapped cimport Cut
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
    SMALL = 2048                # bytes of an answer that is put together before it is sent
    MAX_PARTS = 1024            # of one sendmsg (IOV_MAX of Linux)


cdef class Sender:
    cdef int send(self, Stored stored, iovec* parts, int count) except -1:
        """Send head and body as far as the kernel takes them; the rest follows when it takes more."""
        cdef ssize_t sent = 0
        cdef int64_t head = _size(parts, count), body = self.stop - self.first
        cdef char[SMALL] room
        cdef iovec whole
        if stored.cut is not None and body:
            return self.send_cut(stored, parts, count)
        if self.writable():
            if body and stored.fd < 0:
                part(&parts[count], PyBytes_AS_STRING(stored.body) + self.first, body)
            if stored.fd < 0 and head + body <= SMALL:
                # One piece costs the kernel less than those that it is made of.
                part(&whole, room, _put_together(parts, count + (body > 0), room))
                sent = self.give(&whole, 1, False)
            else:
                sent = self.give(parts, count + (body and stored.fd < 0), stored.fd >= 0 and body)
            if sent == head + body:
                self.quiet_since = self.began
                self.leave(stored, body)
                return self.close() if self.last else 0
            if sent < 0:
                return self.fail(stored, 0, ABORTED_CLIENT)
        self.position = self.first + max(sent - head, 0)
        return self.wait(stored, _tail(parts, count, sent) if sent < head else None)

    cdef int send_cut(self, Stored stored, iovec* parts, int count) except -1:
        """As :meth:`send`, of a body that is cut from a file in memory; parts of one are read first."""
        cdef iovec[MAX_PARTS] every
        cdef Cut cut = stored.cut
        cdef int64_t head = _size(parts, count), start = self.first, body = self.stop - start, gone
        cdef ssize_t sent = 0
        cdef int more
        memcpy(every, parts, count * sizeof(iovec))
        more = cut.fill(every + count, MAX_PARTS - count) if body == cut.size and self.writable() else 0
        if more:
            every[count + more - 1].iov_len -= 1
            sent = self.give(every, count + more, True)
            if sent < 0:
                return self.fail(stored, 0, ABORTED_CLIENT)
            if sent == head + body - 1 and cut.source.same():
                part(&every[0], <char*> every[count + more - 1].iov_base + every[count + more - 1].iov_len, 1)
                if self.give(every, 1, False) == 1:
                    self.quiet_since = self.began
                    self.leave(stored, body)
                    return self.close() if self.last else 0
        # What is left waits for the client in memory of ours; `owner` has counted it.
        gone = max(sent - head, 0)
        try:
            rest = cut.rest(start + gone, body - gone)
        except StreamGateError:
            return self.fail(stored, gone, ABORTED_SOURCE)
        self.first, self.position, self.stop = -gone, 0, body - gone
        stored = Stored(b"", b"", b"", rest, route=stored.route, owner=stored.owner)
        return self.wait(stored, _tail(parts, count, sent) if sent < head else None)

    cdef bint writable(self) except -1:
        """Whether what is written to the socket itself comes behind all that was written before."""
        return self.fd >= 0 and (not self.shared or self.transport.get_write_buffer_size() == 0)

    cdef ssize_t give(self, iovec* parts, int count, bint more) noexcept:
        """Hand the parts to the kernel; the bytes that it took, -1 where the connection is of no use any more."""
        cdef msghdr message
        cdef ssize_t sent
        cdef int flags = MSG_NOSIGNAL | (MSG_MORE if more else 0)
        if count == 1:
            sent = c_send(self.fd, parts.iov_base, parts.iov_len, flags)
        else:
            memset(&message, 0, sizeof(message))
            message.msg_iov, message.msg_iovlen = parts, count
            sent = sendmsg(self.fd, &message, flags)
        return 0 if sent < 0 and (errno == EAGAIN or errno == EINTR or errno == EFAULT) else sent

    cdef int fail(self, Stored stored, int64_t sent, int cause) except -1:
        """An answer of which no more can be ``sent``."""
        self.leave(stored, sent)
        self.tally.row[cause] += 1
        return self.give_up()

    cdef int wait(self, Stored stored, bytes rest) except -1:
        """Send the rest of a head, and of the body what is behind `position`, as the client takes it."""
        self.out, self.rest = stored, rest
        self.keep()
        self.moved, self.moved_since = 0, self.began
        if not self.unbuffered:
            # Under TLS a high water of 0 would be reached by nothing.
            self.transport.set_write_buffer_limits(*((0, 0) if self.fd >= 0 else (1, 0)))
            self.unbuffered = True
        self.pump()
        return self.close() if self.out is None and self.last and not self.ended else 0

    cdef int keep(self) except -1:
        """Copy what the log will say of the request, which may go with the bytes it came in."""
        cdef const char* at
        cdef Span* fields[9]
        cdef int i, count = 4
        fields[0], fields[1] = &self.record.method, &self.record.path
        fields[2], fields[3] = &self.record.traceparent, &self.record.user_agent
        if self.reported.any:
            fields[4], count = &self.reported.query, 9
            for i in range(4):
                fields[5 + i] = &self.reported.fields[i]
        self.kept = b"".join([PyBytes_FromStringAndSize(<const char*> fields[i].at, fields[i].size) for i in range(count)])
        at = PyBytes_AS_STRING(self.kept)
        for i in range(count):
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
                    piece = self.read_piece()
                    if piece is None:
                        return 0
                    self.rest += piece
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
        self.record.sent, self.record.duration = sent, duration
        if self.reported.any:
            self.reports.write(&self.reported, &self.record, self.now)
        if self.log is not None and self.log.wanted():
            self.record.route, self.record.native = name_of(stored.kind), True
            if self.record.client == NULL:
                self.record.client = self.shown
                self.record.client_size = self.log.name(self.address, self.address_size, self.shown)
            self.log.write(&self.record, self.now)
        return 0

    cdef int cut(self, int cause) except -1:
        """End the connection in the middle of an answer."""
        cdef object failed
        self.tally.row[cause] += 1
        if cause == ABORTED_SOURCE and self.out.fd >= 0:
            # Whoever keeps the file should know that it is not what it was; that may block.
            failed = getattr(self.out.owner, "failed", None)
            if failed is not None:
                self.loop.run_in_executor(None, failed)
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


cdef int64_t _size(const iovec* parts, int count) noexcept:
    cdef int64_t size = 0
    cdef int i
    for i in range(count):
        size += parts[i].iov_len
    return size


cdef size_t _put_together(const iovec* parts, int count, char* room) noexcept:
    cdef size_t size = 0
    cdef int i
    for i in range(count):
        memcpy(room + size, parts[i].iov_base, parts[i].iov_len)
        size += parts[i].iov_len
    return size


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
