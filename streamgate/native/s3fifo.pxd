"""C interface of the cache index: the hot path looks objects up here without leaving C."""

from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef struct Node:                # an object in the cache, a link in the chain of its queue
    uint64_t hash
    uint64_t size
    PyObject* key                # bytes
    PyObject* value
    uint32_t older
    uint32_t newer
    uint8_t queue
    uint8_t frequency


cdef struct Queue:
    uint64_t bytes
    uint32_t oldest
    uint32_t newest


cdef struct Ghost:               # the hash of an object that left the small queue
    uint64_t hash
    uint64_t size


cdef class Cache:
    cdef Node* _nodes
    cdef uint32_t _made          # nodes ever taken into use
    cdef uint32_t _room          # nodes allocated
    cdef uint32_t _free          # head of the chain of unused ones
    cdef uint32_t _count
    cdef uint32_t* _table        # open addressing: node number + 1, 0 for none
    cdef uint32_t _mask
    cdef Queue[2] _queues
    cdef uint64_t _small
    cdef bint _full
    cdef Ghost* _ghosts          # a ring, and a table of places in it
    cdef uint32_t _ghost_room
    cdef uint32_t _ghost_at
    cdef uint32_t _ghost_count
    cdef uint64_t _ghost_bytes
    cdef uint32_t* _ghost_table
    cdef uint32_t _ghost_mask
    cdef uint64_t[2] _seed
    cdef object _evicted
    cdef readonly uint64_t capacity
    cdef readonly uint64_t bytes
    cdef readonly uint64_t hits
    cdef readonly uint64_t misses
    cdef readonly uint64_t evictions

    # The value of the key (a new reference) or None; counts a hit, never a miss; no allocation.
    cdef object find(self, const unsigned char* key, size_t length)

    cdef int _set_capacity(self, object capacity) except -1
    cdef bint _replace(self, uint32_t at, bytes key, object value, uint64_t size) except -1
    cdef uint32_t _at(self, uint64_t hash, const unsigned char* key, size_t length) noexcept
    cdef uint32_t _take(self) except? 0
    cdef int _grow(self) except -1
    cdef void _index(self, uint32_t node) noexcept
    cdef void _unindex(self, uint32_t node) noexcept
    cdef void _append(self, uint32_t node, uint8_t queue) noexcept
    cdef void _unchain(self, uint32_t node) noexcept
    cdef int _evict(self) except -1
    cdef int _drop(self, uint32_t node) except -1
    cdef int _remember(self, uint64_t hash, uint64_t size) except -1
    cdef bint _recall(self, uint64_t hash) noexcept
    cdef uint32_t _ghost_place(self, uint64_t hash) noexcept
    cdef void _ghost_index(self, uint32_t at) noexcept
    cdef void _ghost_forget(self, uint32_t at) noexcept
    cdef void _ghost_trim(self) noexcept
    cdef int _ghost_grow(self) except -1
