"""S3-FIFO: which objects stay in a cache of so many bytes.

Yang, Zhang, Qiu, Yue, Vinayak: "FIFO queues are all you need for cache eviction" (SOSP 2023).
What is new enters a small queue, a tenth of the bytes; what was not asked for again leaves it soon, and only its hash
is remembered, in a ghost queue. What was asked for again, or is in the ghost queue, enters the main queue, where
each object has a 2-bit counter and is given another round while that is not zero.
So a hit is a counter that grows by one: nothing moves, nothing is allocated.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdint cimport UINT32_MAX, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memset

from streamgate.native.s3fifo cimport Ghost, Node

cdef extern from "<sys/random.h>" nogil:
    ssize_t getrandom(void* buffer, size_t length, unsigned int flags)

cdef extern from "siphash.h" nogil:
    uint64_t siphash13(const uint64_t* seed, const unsigned char* data, size_t length)

cdef enum:
    SMALL = 0
    MAIN = 1
    SMALL_PART = 10          # the small queue has a tenth of the capacity
    PROMOTED = 2             # hits in the small queue that bring an object into the main one
    MOST = 3                 # of a counter of 2 bits
    FIRST_ROOM = 64

cdef uint32_t NONE = UINT32_MAX
cdef uint64_t LARGEST = <uint64_t> 1 << 62


cdef class Cache:
    """The index of a cache of ``capacity`` bytes, and what leaves it.

    Values are held, but not traversed by the garbage collector: they must not refer to the cache.
    """

    def __cinit__(self, object capacity, object evicted=None):
        self._free = self._queues[SMALL].oldest = self._queues[SMALL].newest = NONE
        self._queues[MAIN].oldest = self._queues[MAIN].newest = NONE
        self._evicted = evicted
        if getrandom(&self._seed, sizeof(self._seed), 0) != sizeof(self._seed):
            raise OSError("no random bytes for a seed")
        self._set_capacity(capacity)
        self._table = <uint32_t*> calloc(2 * FIRST_ROOM, sizeof(uint32_t))
        self._ghost_table = <uint32_t*> calloc(2 * FIRST_ROOM, sizeof(uint32_t))
        self._nodes = <Node*> calloc(FIRST_ROOM, sizeof(Node))
        self._ghosts = <Ghost*> calloc(FIRST_ROOM, sizeof(Ghost))
        if not (self._table and self._ghost_table and self._nodes and self._ghosts):
            raise MemoryError
        self._room = self._ghost_room = FIRST_ROOM
        self._mask = self._ghost_mask = 2 * FIRST_ROOM - 1

    def __dealloc__(self):
        cdef uint32_t i
        if self._nodes:
            for i in range(self._made):
                if self._nodes[i].value:
                    Py_DECREF(<object> self._nodes[i].key)
                    Py_DECREF(<object> self._nodes[i].value)
        free(self._nodes)
        free(self._table)
        free(self._ghosts)
        free(self._ghost_table)

    cdef object find(self, const unsigned char* key, size_t length):
        cdef uint32_t at = self._at(siphash13(self._seed, key, length), key, length)
        if at == NONE:
            return None
        self.hits += 1
        if self._nodes[at].frequency < MOST:
            self._nodes[at].frequency += 1
        return <object> self._nodes[at].value

    def get(self, bytes key not None):
        found = self.find(<const unsigned char*> PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
        if found is None:
            self.misses += 1
        return found

    def peek(self, bytes key not None):
        cdef const unsigned char* text = <const unsigned char*> PyBytes_AS_STRING(key)
        cdef size_t length = PyBytes_GET_SIZE(key)
        cdef uint32_t at = self._at(siphash13(self._seed, text, length), text, length)
        return <object> self._nodes[at].value if at != NONE else None

    def put(self, bytes key not None, object value not None, object size):
        cdef const unsigned char* text = <const unsigned char*> PyBytes_AS_STRING(key)
        cdef size_t length = PyBytes_GET_SIZE(key)
        cdef uint64_t taken = _checked(size, 1)
        cdef uint64_t hash = siphash13(self._seed, text, length)
        cdef uint32_t at = self._at(hash, text, length)
        cdef uint8_t queue = SMALL
        if at != NONE:
            return self._replace(at, key, value, taken)
        if self._recall(hash):
            queue = MAIN
        if taken > self.capacity - self._small:
            return False
        if queue == SMALL and taken >= self._small:
            # Too large for a trial in the small queue: whoever asks a second time vouches for it.
            self._remember(hash, taken)
            return False
        while self.bytes + taken > self.capacity:
            self._evict()
        at = self._at(hash, text, length)
        if at != NONE:    # put there by whoever was told of an eviction
            return self._replace(at, key, value, taken)
        if queue == SMALL and not self._full and self._queues[SMALL].bytes >= self._small:
            queue = MAIN
        at = self._take()
        Py_INCREF(key)
        Py_INCREF(value)
        self._nodes[at].hash = hash
        self._nodes[at].size = taken
        self._nodes[at].key = <PyObject*> key
        self._nodes[at].value = <PyObject*> value
        self._nodes[at].frequency = 0
        self._append(at, queue)
        self._index(at)
        self._count += 1
        self.bytes += taken
        return True

    def remove(self, bytes key not None):
        cdef const unsigned char* text = <const unsigned char*> PyBytes_AS_STRING(key)
        cdef size_t length = PyBytes_GET_SIZE(key)
        cdef uint32_t at = self._at(siphash13(self._seed, text, length), text, length)
        if at == NONE:
            return False
        self._drop(at)
        return True

    def clear(self):
        cdef int queue
        for queue in range(2):
            while self._queues[queue].oldest != NONE:
                self._drop(self._queues[queue].oldest)
        self._ghost_at = self._ghost_count = 0
        self._ghost_bytes = 0
        memset(self._ghost_table, 0, (<size_t> self._ghost_mask + 1) * sizeof(uint32_t))

    def resize(self, object capacity):
        self._set_capacity(capacity)
        while self.bytes > self.capacity:
            self._evict()

    def keys(self, bytes prefix not None=b""):
        found = []
        cdef const char* text = PyBytes_AS_STRING(prefix)
        cdef Py_ssize_t length = PyBytes_GET_SIZE(prefix)
        cdef int queue
        cdef uint32_t at
        for queue in range(2):
            at = self._queues[queue].oldest
            while at != NONE:
                key = <object> self._nodes[at].key
                if PyBytes_GET_SIZE(key) >= length and memcmp(PyBytes_AS_STRING(key), text, length) == 0:
                    found.append(key)
                at = self._nodes[at].newer
        return found

    def __len__(self):
        return self._count

    def __contains__(self, bytes key not None):
        cdef const unsigned char* text = <const unsigned char*> PyBytes_AS_STRING(key)
        cdef size_t length = PyBytes_GET_SIZE(key)
        return self._at(siphash13(self._seed, text, length), text, length) != NONE

    cdef int _set_capacity(self, object capacity) except -1:
        self.capacity = _checked(capacity, 0)
        self._small = self.capacity // SMALL_PART
        return 0

    cdef bint _replace(self, uint32_t at, bytes key, object value, uint64_t size) except -1:
        """New value, old place; its hits still count."""
        cdef Node* node = &self._nodes[at]
        cdef PyObject* before = node.value
        if size > self.capacity - self._small:
            self._drop(at)
            return False
        Py_INCREF(value)
        node.value = <PyObject*> value
        self.bytes += size - node.size
        self._queues[node.queue].bytes += size - node.size
        node.size = size
        # What goes may run code that uses the cache: everything is in order before.
        Py_DECREF(<object> before)
        while self.bytes > self.capacity:
            self._evict()
        return key in self

    # --- the table of nodes

    cdef uint32_t _at(self, uint64_t hash, const unsigned char* key, size_t length) noexcept:
        """The node of ``key``, or NONE."""
        cdef uint32_t place = <uint32_t> hash & self._mask
        cdef Node* node
        while self._table[place]:
            node = &self._nodes[self._table[place] - 1]
            if (
                node.hash == hash
                and <size_t> PyBytes_GET_SIZE(<object> node.key) == length
                and memcmp(PyBytes_AS_STRING(<object> node.key), key, length) == 0
            ):
                return self._table[place] - 1
            place = (place + 1) & self._mask
        return NONE

    cdef void _index(self, uint32_t node) noexcept:
        cdef uint32_t place = <uint32_t> self._nodes[node].hash & self._mask
        while self._table[place]:
            place = (place + 1) & self._mask
        self._table[place] = node + 1

    cdef void _unindex(self, uint32_t node) noexcept:
        """Take the node out and close the gap (Knuth, TAOCP 3, section 6.4, algorithm R)."""
        cdef uint32_t place = <uint32_t> self._nodes[node].hash & self._mask
        cdef uint32_t other, home
        while self._table[place] != node + 1:
            place = (place + 1) & self._mask
        other = place
        while True:
            other = (other + 1) & self._mask
            if not self._table[other]:
                break
            home = <uint32_t> self._nodes[self._table[other] - 1].hash & self._mask
            if ((other - home) & self._mask) >= ((other - place) & self._mask):
                self._table[place] = self._table[other]
                place = other
        self._table[place] = 0

    cdef uint32_t _take(self) except? 0:
        """An unused node."""
        cdef uint32_t node = self._free
        if node != NONE:
            self._free = self._nodes[node].newer
            return node
        if self._made == self._room:
            self._grow()
        self._made += 1
        return self._made - 1

    cdef int _grow(self) except -1:
        """Twice as many nodes, in a table that stays half empty."""
        cdef uint32_t room = 2 * self._room
        cdef uint32_t i
        if room > <uint32_t> 1 << 29:
            raise MemoryError
        cdef uint32_t* table = <uint32_t*> calloc(2 * <size_t> room, sizeof(uint32_t))
        cdef Node* nodes = <Node*> realloc(self._nodes, room * sizeof(Node))
        if nodes:
            self._nodes = nodes
        if not table or not nodes:
            free(table)
            raise MemoryError
        free(self._table)
        self._table = table
        self._room, self._mask = room, 2 * room - 1
        for i in range(self._made):
            if self._nodes[i].value:
                self._index(i)
        return 0

    # --- the queues

    cdef void _append(self, uint32_t at, uint8_t queue) noexcept:
        """The newest of ``queue``."""
        cdef Node* node = &self._nodes[at]
        node.queue, node.older, node.newer = queue, self._queues[queue].newest, NONE
        if node.older == NONE:
            self._queues[queue].oldest = at
        else:
            self._nodes[node.older].newer = at
        self._queues[queue].newest = at
        self._queues[queue].bytes += node.size

    cdef void _unchain(self, uint32_t at) noexcept:
        cdef Node* node = &self._nodes[at]
        if node.older == NONE:
            self._queues[node.queue].oldest = node.newer
        else:
            self._nodes[node.older].newer = node.newer
        if node.newer == NONE:
            self._queues[node.queue].newest = node.older
        else:
            self._nodes[node.newer].older = node.older
        self._queues[node.queue].bytes -= node.size

    cdef int _evict(self) except -1:
        """One object leaves; of those in front of it some get another round, or into the main queue."""
        cdef uint32_t at
        cdef Node* node
        self._full = True
        while True:
            if self._queues[MAIN].bytes > self.capacity - self._small or self._queues[SMALL].oldest == NONE:
                at = self._queues[MAIN].oldest
                node = &self._nodes[at]
                if node.frequency == 0:
                    break
                self._unchain(at)
                node.frequency -= 1
            else:
                at = self._queues[SMALL].oldest
                node = &self._nodes[at]
                if node.frequency < PROMOTED:
                    self._remember(node.hash, node.size)
                    break
                self._unchain(at)
                node.frequency = 0
            self._append(at, MAIN)
        self.evictions += 1
        if self._evicted is None:
            return self._drop(at)
        key, value = <object> node.key, <object> node.value
        self._drop(at)
        self._evicted(key, value)
        return 0

    cdef int _drop(self, uint32_t at) except -1:
        cdef Node* node = &self._nodes[at]
        cdef PyObject* key = node.key
        cdef PyObject* value = node.value
        self._unchain(at)
        self._unindex(at)
        self._count -= 1
        self.bytes -= node.size
        node.key = node.value = NULL
        node.newer = self._free
        self._free = at
        # What goes may run code that uses the cache: everything is in order before.
        Py_DECREF(<object> key)
        Py_DECREF(<object> value)
        return 0

    # --- the ghosts

    cdef int _remember(self, uint64_t hash, uint64_t size) except -1:
        """Note that this left the small queue; the oldest notes are forgotten beyond the main queue's bytes."""
        cdef uint32_t at
        if self._ghost_place(hash) != NONE:
            return 0
        if self._ghost_count == self._ghost_room:
            self._ghost_grow()
        while self._ghost_count and self._ghost_bytes + size > self.capacity - self._small:
            self._ghost_forget(self._ghost_at)
            self._ghost_trim()
        at = (self._ghost_at + self._ghost_count) & (self._ghost_room - 1)
        self._ghosts[at].hash, self._ghosts[at].size = hash, size
        self._ghost_count += 1
        self._ghost_bytes += size
        self._ghost_index(at)
        return 0

    cdef bint _recall(self, uint64_t hash) noexcept:
        """Whether this left the small queue a while ago; asked once, it is forgotten."""
        cdef uint32_t place = self._ghost_place(hash)
        if place == NONE:
            return False
        self._ghost_forget(self._ghost_table[place] - 1)
        self._ghost_trim()
        return True

    cdef uint32_t _ghost_place(self, uint64_t hash) noexcept:
        """Where the table of ghosts has ``hash``, or NONE."""
        cdef uint32_t place = <uint32_t> hash & self._ghost_mask
        while self._ghost_table[place]:
            if self._ghosts[self._ghost_table[place] - 1].hash == hash:
                return place
            place = (place + 1) & self._ghost_mask
        return NONE

    cdef void _ghost_index(self, uint32_t at) noexcept:
        cdef uint32_t place = <uint32_t> self._ghosts[at].hash & self._ghost_mask
        while self._ghost_table[place]:
            place = (place + 1) & self._ghost_mask
        self._ghost_table[place] = at + 1

    cdef void _ghost_forget(self, uint32_t at) noexcept:
        """Leave a hole in the ring, and close the gap in the table."""
        cdef uint32_t place = self._ghost_place(self._ghosts[at].hash)
        cdef uint32_t other = place
        cdef uint32_t home
        self._ghost_bytes -= self._ghosts[at].size
        self._ghosts[at].size = 0
        while True:
            other = (other + 1) & self._ghost_mask
            if not self._ghost_table[other]:
                break
            home = <uint32_t> self._ghosts[self._ghost_table[other] - 1].hash & self._ghost_mask
            if ((other - home) & self._ghost_mask) >= ((other - place) & self._ghost_mask):
                self._ghost_table[place] = self._ghost_table[other]
                place = other
        self._ghost_table[place] = 0

    cdef void _ghost_trim(self) noexcept:
        """No hole is the oldest."""
        while self._ghost_count and self._ghosts[self._ghost_at].size == 0:
            self._ghost_at = (self._ghost_at + 1) & (self._ghost_room - 1)
            self._ghost_count -= 1

    cdef int _ghost_grow(self) except -1:
        """A ring without holes that is half empty at most, and its table."""
        cdef uint32_t i, at
        cdef uint32_t held = 0
        cdef uint32_t room = FIRST_ROOM
        for i in range(self._ghost_count):
            held += self._ghosts[(self._ghost_at + i) & (self._ghost_room - 1)].size != 0
        while room < 2 * held and room < <uint32_t> 1 << 29:
            room *= 2
        if room <= held:
            raise MemoryError
        cdef Ghost* ring = <Ghost*> calloc(room, sizeof(Ghost))
        cdef uint32_t* table = <uint32_t*> calloc(2 * <size_t> room, sizeof(uint32_t))
        if not ring or not table:
            free(ring)
            free(table)
            raise MemoryError
        held = 0
        for i in range(self._ghost_count):
            at = (self._ghost_at + i) & (self._ghost_room - 1)
            if self._ghosts[at].size:
                ring[held] = self._ghosts[at]
                held += 1
        free(self._ghosts)
        free(self._ghost_table)
        self._ghosts, self._ghost_table = ring, table
        self._ghost_room, self._ghost_mask = room, 2 * room - 1
        self._ghost_at, self._ghost_count = 0, held
        for i in range(held):
            self._ghost_index(i)
        return 0


cdef uint64_t _checked(object size, uint64_t least) except? 0:
    if not least <= size <= LARGEST:
        raise ValueError(f"{size} bytes: at least {least}, at most 2**62")
    return size
