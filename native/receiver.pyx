"""Receiving: the sockets that are written to directly are read directly too, all of them by one epoll of their own.

A loop enters Python for each socket that is ready, with a new object for what came. Here the loop watches a single
descriptor, an epoll, and is entered once for all; what came is looked at in the one buffer that all share. The transport
stays paused; it is given its socket back before anybody else reads from it.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset
from posix.unistd cimport close as c_close

cdef extern from "<sys/epoll.h>" nogil:
    enum: EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLLIN, EPOLLRDHUP, EPOLLET
    union epoll_data:
        void* ptr
    struct epoll_event:
        uint32_t events
        epoll_data data
    int epoll_create1(int flags)
    int epoll_ctl(int fd, int operation, int watched, epoll_event* event)
    int epoll_wait(int fd, epoll_event* events, int most, int timeout)

cdef extern from "<sys/socket.h>" nogil:
    enum: AF_INET, AF_INET6
    ssize_t recv(int fd, void* data, size_t size, int flags)

cdef extern from "<arpa/inet.h>" nogil:
    int inet_pton(int family, const char* text, void* address)

cdef enum:
    AT_ONCE = 256               # sockets; then the loop's other callbacks have their turn
    ROOM = 64 * 1024            # bytes that are taken from one of them


@cython.final
cdef class Poller:
    def __cinit__(self, object loop not None):
        self.loop, self.known, self.fd = loop, set(), epoll_create1(EPOLL_CLOEXEC)
        self.buffer = <uint8_t*> malloc(ROOM)
        if self.fd < 0:
            raise OSError(errno, "no epoll")
        if self.buffer == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.buffer)
        if self.fd >= 0:
            c_close(self.fd)

    def ready(self):
        cdef epoll_event[AT_ONCE] events
        cdef Receiver one
        cdef int i, count = epoll_wait(self.fd, events, AT_ONCE, 0)
        for i in range(count):
            Py_INCREF(<object> events[i].data.ptr)      # it may end while another is read
        for i in range(count):
            one = <Receiver> events[i].data.ptr
            Py_DECREF(one)
            if not one.watched:
                continue
            try:
                # A short read has emptied the socket, unless there is an end or a fault behind it (epoll(7)).
                if one.read(self.buffer) == ROOM or events[i].events != EPOLLIN:
                    self.watch(one)
            except BaseException as error:
                # As a loop does with what a protocol raises.
                self.loop.call_exception_handler({"message": "a connection failed", "exception": error, "protocol": one})
                self.forget(one)
                if one.transport is not None:
                    one.transport.abort()

    cdef int add(self, Receiver one) except -1:
        if not self.known:
            self.loop.add_reader(self.fd, self.ready)
        self.known.add(one)
        return self.watch(one)

    cdef int forget(self, Receiver one) except -1:
        self.unwatch(one)
        one.poller = None
        self.known.discard(one)
        if not self.known:
            self.loop.remove_reader(self.fd)
        return 0

    cdef int watch(self, Receiver one) except -1:
        """Be told of it, at once if it is ready."""
        cdef epoll_event event
        if one.poller is None or one.held:
            return 0
        memset(&event, 0, sizeof(event))
        # By edges: by levels the kernel would look at each socket once more to find it empty.
        event.events, event.data.ptr = EPOLLIN | EPOLLRDHUP | EPOLLET, <void*> one
        if epoll_ctl(self.fd, EPOLL_CTL_MOD if one.watched else EPOLL_CTL_ADD, one.source, &event) < 0:
            raise OSError(errno, "a socket cannot be watched")
        one.watched = True
        return 0

    cdef int unwatch(self, Receiver one) except -1:
        if one.watched:
            one.watched = False
            epoll_ctl(self.fd, EPOLL_CTL_DEL, one.source, NULL)
        return 0


cdef class Receiver(Sender):
    cdef int receive(self, const uint8_t* data, size_t size) except -1:
        raise NotImplementedError

    def take_over(self, Poller poller not None):
        if self.ended or self.shared or self.held or self.fd < 0 or self.transport.is_closing():
            return
        self.transport.pause_reading()
        self.source, self.poller = self.fd, poller
        poller.add(self)

    cdef ssize_t read(self, uint8_t* buffer) except -1:
        """Read once; how much there was, as far as that is known."""
        cdef ssize_t got
        if self.ended:
            self.poller.forget(self)
            return 0
        got = recv(self.source, buffer, ROOM, 0)
        if got > 0:
            self.receive(buffer, got)
            return got
        if got < 0 and (errno == EAGAIN or errno == EINTR):
            return ROOM if errno == EINTR else 0
        self.poller.forget(self)
        if got < 0:
            self.transport.abort()
        elif not self.eof_received():
            self.transport.close()
        return 0

    cdef int give_back(self) except -1:
        cdef Poller poller = self.poller
        if poller is not None:
            poller.forget(self)
            if not self.held and not self.ended:
                self.transport.resume_reading()
        return 0

    cdef int hold(self) except -1:
        if not self.held:
            self.held = True
            if self.poller is None:
                self.transport.pause_reading()
            else:
                self.poller.unwatch(self)
        return 0

    cdef int release(self) except -1:
        if self.held:
            self.held = False
            if self.poller is None:
                self.transport.resume_reading()
            else:
                self.poller.watch(self)
        return 0


cdef bytes packed(bytes text):
    """An address as a socket names it, without its zone; b"" where it is none."""
    cdef uint8_t[16] address
    if inet_pton(AF_INET, PyBytes_AS_STRING(text), address) == 1:
        return address[:4]
    if inet_pton(AF_INET6, PyBytes_AS_STRING(text), address) == 1:
        return address[:16]
    return b""
