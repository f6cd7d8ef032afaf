"""How often somebody may ask: the generic cell rate algorithm (ITU-T I.371 annex A) in memory that processes share.

A table of fixed size holds one time for each address or token that asked of late. All processes of a node count in the same
table, without locks: a time is changed by compare-and-swap. Where its group of places is full, the newcomer takes the place
of who was due first, usually of one that has been quiet for long; two who race for a place may at worst be counted apart once.
"""

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy

cdef extern from "siphash.h" nogil:
    uint64_t siphash13(const uint64_t* seed, const unsigned char* data, size_t length)

cdef extern from * nogil:
    """
    static inline int swap64(uint64_t *at, uint64_t *old, uint64_t new) {
        return __atomic_compare_exchange_n(at, old, new, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    }
    static inline uint64_t load64(const uint64_t *at) { return __atomic_load_n(at, __ATOMIC_RELAXED); }
    """
    bint swap64(uint64_t* at, uint64_t* old, uint64_t new)
    uint64_t load64(const uint64_t* at)

cdef enum:
    HEAD = 64                    # the seed, on a cache line of its own
    GROUP = 8                    # places that a key may be in: two cache lines
    TRIES = 8


def room(int entries):
    """Bytes of memory for ``entries`` addresses or tokens at once, rounded up to a power of two of groups of eight."""
    cdef uint64_t groups = 1
    if not 1 <= entries <= 1 << 28:
        raise ValueError("between 1 and 2**28 entries")
    while groups * GROUP < <uint64_t> entries:
        groups *= 2
    return HEAD + groups * GROUP * sizeof(Place)


cdef class Limiter:
    """At most ``rate`` requests a second of each key, and ``burst`` of them at once.

    ``memory`` is a writable buffer of :func:`room` bytes, its first 16 the secret seed of the hashes, the rest zero at first.
    """

    def __cinit__(self, memory, double rate, int burst):
        cdef Py_buffer view
        cdef uint64_t groups
        if not 0.001 <= rate <= 1e9 or not 1 <= burst <= 1_000_000_000:
            raise ValueError("a rate of 0.001 to 1e9 a second, and a burst of 1 to 1e9")
        if burst / rate > 1e9:
            raise ValueError("a burst that lasts for more than 1e9 seconds at this rate")
        PyObject_GetBuffer(memory, &view, PyBUF_WRITABLE)
        try:
            groups = (<uint64_t> view.len - HEAD) // (GROUP * sizeof(Place)) if view.len > HEAD else 0
            if groups == 0 or groups & (groups - 1) or HEAD + groups * GROUP * sizeof(Place) != <uint64_t> view.len:
                raise ValueError("the memory is not of a size that room() gives")
            if <size_t> view.buf % sizeof(uint64_t):
                raise ValueError("the memory is not aligned to 8 bytes")
            memcpy(self._seed, view.buf, sizeof(self._seed))
            self._places = <Place*> (<unsigned char*> view.buf + HEAD)
        finally:
            PyBuffer_Release(&view)
        # Held as a memoryview, which keeps an mmap from being closed and a bytearray from being resized.
        self._memory = memoryview(memory)
        self._mask = groups - 1
        self.interval = max(<int64_t> (1e9 / rate), 1)
        self.tolerance = self.interval * (burst - 1)

    cdef int64_t admit(self, const unsigned char* key, size_t length, int64_t now) noexcept nogil:
        cdef Place* place = self._place(siphash13(self._seed, key, length) | 1, now)
        cdef uint64_t old = load64(<uint64_t*> &place.due)
        cdef int64_t due
        cdef int attempt
        for attempt in range(TRIES):
            due = <int64_t> old if <int64_t> old > now else now
            if due - now > self.tolerance:
                return due - now - self.tolerance
            if swap64(<uint64_t*> &place.due, &old, <uint64_t> (due + self.interval)):
                break
        return 0

    cdef Place* _place(self, uint64_t hash, int64_t now) noexcept nogil:
        """The key's place, or the one that it takes."""
        cdef Place* group = self._places + ((hash >> 8) & self._mask) * GROUP
        cdef Place* oldest = group
        cdef uint64_t known, due
        cdef int i
        for i in range(GROUP):
            known = load64(&group[i].key)
            if known == hash:
                return group + i
            if known == 0:
                oldest = group + i
                break
            if <int64_t> load64(<uint64_t*> &group[i].due) < <int64_t> load64(<uint64_t*> &oldest.due):
                oldest = group + i
        due = load64(<uint64_t*> &oldest.due)
        known = load64(&oldest.key)
        if swap64(&oldest.key, &known, hash) and <int64_t> due > now:
            # What the place's former owner had used up is not the newcomer's. If somebody has counted there since, let it be.
            swap64(<uint64_t*> &oldest.due, &due, <uint64_t> now)
        return oldest

    def ask(self, bytes key, int64_t now):
        """Count one request of ``key`` at ``now`` (CLOCK_MONOTONIC, ns): 0 where it may go on, else ns until it might."""
        return self.admit(key, len(key), now)
