"""What the hot path counts: plain numbers in a row that somebody else names, adds up and publishes."""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport INT64_MAX, int64_t, uint64_t

ROUTES = (
    "multivariant", "multivariant_ts", "mpd", "media_playlist", "iframe_playlist", "init", "segment", "keyframe",
    "ts_playlist", "ts_segment", "text_segment", "text",
)
STATUSES = (200, 206, 304, 416)
LATENCIES = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
COUNTERS = (
    *(f"requests/{route}/{status}" for route in ROUTES for status in STATUSES),
    *(f"response_bytes/{route}" for route in ROUTES),
    *(f"request_seconds/{route}/{bound}" for route in ROUTES for bound in (*LATENCIES, "inf")),
    *(f"request_ns/{route}" for route in ROUTES),
    "cache_lookups/hit", "cache_lookups/miss", "native_answers", "native_handed_on", "connections_refused",
    "native_tokens_read", "native_tokens_remembered",
    "requests_aborted/client", "requests_aborted/timeout", "requests_aborted/source",
)
assert len(COUNTERS) == N_COUNTERS and len(ROUTES) == N_ROUTES and len(STATUSES) == N_STATUSES

cdef int64_t BOUNDS[N_BUCKETS]      # ns
cdef tuple _ENCODED = tuple([route.encode() for route in ROUTES])
cdef const char* NAMES[N_ROUTES]

for _i in range(N_ROUTES):
    NAMES[_i] = PyBytes_AS_STRING(_ENCODED[_i])
for _i in range(N_BUCKETS - 1):
    BOUNDS[_i] = <int64_t> (LATENCIES[_i] * 1e9)
BOUNDS[N_BUCKETS - 1] = INT64_MAX


@cython.final
cdef class Tally:
    def __cinit__(self, object counters not None):
        cdef Py_buffer view
        # A memoryview holds a buffer in its place; a pointer into it is what counting needs.
        self.memory = memoryview(counters)
        PyObject_GetBuffer(self.memory, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
        self.row = <uint64_t*> view.buf
        large = view.len >= <Py_ssize_t> (N_COUNTERS * sizeof(uint64_t)) and <size_t> view.buf % sizeof(uint64_t) == 0
        PyBuffer_Release(&view)
        if not large:
            raise ValueError(f"{len(COUNTERS)} counters do not fit, or are not aligned")

    cdef void answer(self, int route, int status, int64_t sent, int64_t duration) noexcept:
        """Count one answer: its status (one of STATUSES), bytes of its body, ns that it took."""
        cdef int bucket = 0
        cdef int place = 0 if status == 200 else 1 if status == 206 else 2 if status == 304 else 3
        while duration > BOUNDS[bucket]:
            bucket += 1
        self.row[REQUESTS + route * N_STATUSES + place] += 1
        self.row[BYTES + route] += sent
        self.row[SECONDS + route * N_BUCKETS + bucket] += 1
        self.row[NANOSECONDS + route] += duration
        self.row[NATIVE] += 1


cdef const char* name_of(int route) noexcept:
    return NAMES[route]
