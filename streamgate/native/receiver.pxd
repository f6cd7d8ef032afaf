"""C interface of the receiver: one epoll for all connections whose sockets are read directly."""

from libc.stdint cimport uint8_t

from streamgate.native.sender cimport Sender


cdef class Poller:
    cdef object loop
    cdef int fd                     # of the epoll
    cdef set known                  # the receivers that are read here, whether they are held or not
    cdef uint8_t* buffer

    cdef int add(self, Receiver one) except -1
    cdef int forget(self, Receiver one) except -1
    cdef int watch(self, Receiver one) except -1
    cdef int unwatch(self, Receiver one) except -1


cdef class Receiver(Sender):
    cdef Poller poller              # None: what comes, comes by the transport
    cdef int source                 # descriptor that is read
    cdef bint watched               # its epoll tells of it
    cdef bint held                  # nothing is read for now

    # What came. `data` is borrowed for the call.
    cdef int receive(self, const uint8_t* data, size_t size) except -1
    cdef ssize_t read(self, uint8_t* buffer) except -1
    # Leave reading to the transport, for good.
    cdef int give_back(self) except -1
    # Read nothing; read again.
    cdef int hold(self) except -1
    cdef int release(self) except -1


# An address of an IP socket by its text.
cdef bytes packed(bytes text)
