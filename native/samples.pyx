"""The compact sample table of a track.

A table is one block of bytes: a ``Shape``, then columns, each padded to 8 bytes, in the order of ``lay_out``.
A column holds one value a sample as a constant, as 1-byte numbers in a palette of 256 values, or as plain integers.
Byte positions are runs of at most 255 contiguous samples: the gap before each run (modulo 2^64, so that a run may lie
before its predecessor) and its count, with an absolute position each 64 runs. Decoding times are summed from deltas,
with an absolute time each 64 samples. So a block is stored as it is, and used where it lies.
Integers are in the machine's order: a block made on a machine of the other order fails its checks.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

import numpy as np

from streamgate.errors import StreamGateError

IDENTITY = (65536, 0, 0, 0, 65536, 0, 0, 0, 1073741824)


cdef int fail(const char* code, const char* detail) except -1 nogil:
    with gil:
        raise StreamGateError(code.decode(), detail.decode())


cdef uint64_t lay_out(const Shape* shape, const uint8_t* base, Tables* tables) noexcept nogil:
    """Points ``tables`` into a block at ``base``; returns the block's size."""
    cdef uint64_t at = padded(sizeof(Shape))
    cdef uint64_t samples = shape.samples, groups = (<uint64_t>shape.runs + GROUP - 1) // GROUP
    memset(tables, 0, sizeof(Tables))
    tables.run_offsets = <const uint64_t*>(base + at)
    at += groups * 8
    if shape.run_length == 0:
        tables.run_samples = <const uint32_t*>(base + at)
        at += padded(groups * 4)
    if shape.delta_width:
        tables.dts = <const int64_t*>(base + at)
        at += (samples // GROUP + 1) * 8
    if shape.delta_width == 1:
        tables.delta_palette = <const uint32_t*>(base + at)
        at += 1024
    if shape.shift_width == 1:
        tables.shift_palette = <const uint32_t*>(base + at)
        at += 1024
    tables.gaps = base + at
    at += padded(<uint64_t>shape.runs * shape.gap_width)
    tables.sizes = base + at
    at += padded(samples * shape.size_width)
    tables.deltas = base + at
    at += padded(samples * shape.delta_width)
    tables.shifts = base + at
    at += padded(samples * shape.shift_width)
    tables.syncs = <const uint32_t*>(base + at)
    at += padded(<uint64_t>shape.syncs * 4)
    if shape.run_length == 0:
        tables.run_counts = base + at
        at += padded(shape.runs)
    return at


cdef void spread(int width, uint32_t value, const uint32_t* palette, const void* table, uint32_t first, uint32_t count,
                 uint32_t* out) noexcept nogil:
    """Writes a column's values of samples [first, first + count)."""
    cdef uint32_t i
    if width == 0:
        for i in range(count):
            out[i] = value
    elif width == 1:
        for i in range(count):
            out[i] = palette[(<const uint8_t*>table)[first + i]]
    elif width == 2:
        for i in range(count):
            out[i] = (<const uint16_t*>table)[first + i]
    else:
        memcpy(out, <const uint32_t*>table + first, <size_t>count * 4)


cdef inline uint32_t run_count(const Shape* shape, const Tables* tables, uint32_t run) noexcept nogil:
    if shape.run_length == 0:
        return tables.run_counts[run]
    if run + 1 == shape.runs:
        return shape.samples - run * <uint32_t>shape.run_length
    return shape.run_length


cdef uint32_t lower_bound(const uint32_t* table, uint32_t count, uint32_t value) noexcept nogil:
    """How many values of an ascending table are below ``value``."""
    cdef uint32_t low = 0, high = count, middle
    while low < high:
        middle = low + (high - low) // 2
        if table[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


cdef int prove(const Shape* s, const Tables* t) except -1 nogil:
    """Recomputes everything that is derived, so that a block from outside can neither mislead nor crash."""
    cdef uint32_t run, n, i, sample = 0
    cdef uint64_t offset, length, end = 0, furthest = 0, payload = 0
    cdef int64_t time
    for run in range(s.runs):
        if s.run_length == 0:
            n = t.run_counts[run]
        else:
            n = min(<uint32_t>s.run_length, s.samples - sample)
        if n == 0 or n > s.samples - sample:
            return fail("source_malformed", "sample table: wrong runs")
        offset = end + gap_of(s.gap_width, t.gaps, run)
        if run % GROUP == 0:
            if run and t.run_offsets[run // GROUP] != offset:
                return fail("source_malformed", "sample table: wrong positions")
            if s.run_length == 0 and t.run_samples[run // GROUP] != sample:
                return fail("source_malformed", "sample table: wrong runs")
            offset = t.run_offsets[run // GROUP]
        length = sum_sizes(s.size_width, s.size, t.sizes, sample, n)
        if offset > s.end or length > s.end - offset:
            return fail("source_malformed", "sample table: wrong positions")
        end = offset + length
        furthest = max(furthest, end)
        payload += length
        sample += n
    if sample != s.samples or payload != s.payload or furthest != s.end:
        return fail("source_malformed", "sample table: wrong sums")
    if not is_time(s.first_dts):
        return fail("source_malformed", "sample table: wrong times")
    time = s.first_dts
    if s.delta_width == 0:
        time += <int64_t>s.samples * s.delta
    else:
        for i in range(s.samples + 1):
            if i % GROUP == 0 and t.dts[i // GROUP] != time:
                return fail("source_malformed", "sample table: wrong times")
            if i == s.samples:
                break
            if s.delta_width == 1:
                time += t.delta_palette[(<const uint8_t*>t.deltas)[i]]
            else:
                time += (<const uint32_t*>t.deltas)[i]
    if time - s.first_dts != s.duration:
        return fail("source_malformed", "sample table: wrong times")
    for i in range(s.syncs):
        if s.all_sync or t.syncs[i] >= s.samples or (i and t.syncs[i] <= t.syncs[i - 1]):
            return fail("source_malformed", "sample table: wrong sync samples")
    return 0


cdef class Track:
    def __cinit__(self):
        memset(&self.shape, 0, sizeof(Shape))
        memset(&self.tables, 0, sizeof(Tables))
        self.block = b""

    def __init__(self):
        raise TypeError("tracks come from an index or from Track.from_samples")

    cdef int adopt(self, object block, bint check) except -1:
        """Uses ``block`` as the tables; ``check`` proves first that they are consistent (they come from outside)."""
        cdef const uint8_t[::1] data = block
        cdef uint64_t size = data.shape[0]
        cdef Shape shape
        cdef Tables tables
        if size < padded(sizeof(Shape)):
            return fail("source_malformed", "sample table: too short")
        if <size_t>&data[0] & 7 or not memoryview(block).readonly:
            block = bytes(block)
            data = block
        memcpy(&shape, &data[0], sizeof(Shape))
        if check and (shape.size_width not in (0, 2, 4) or shape.delta_width not in (0, 1, 4)
                      or shape.shift_width not in (0, 1, 4) or shape.gap_width not in (2, 4, 8) or shape.all_sync > 1
                      or shape.runs > shape.samples or shape.syncs > shape.samples):
            return fail("source_malformed", "sample table: impossible shape")
        if lay_out(&shape, &data[0], &tables) != size:
            return fail("source_malformed", "sample table: wrong size")
        if check:
            with nogil:
                prove(&shape, &tables)
        self.block, self.bytes, self.shape, self.tables = block, data, shape, tables
        self.samples, self.payload, self.end = shape.samples, shape.payload, shape.end
        self.first_dts, self.duration, self.all_sync = shape.first_dts, shape.duration, shape.all_sync
        return 0

    cdef int expand(self, uint32_t first, uint32_t count, uint32_t* sizes, uint32_t* deltas, int32_t* offsets,
                    uint8_t* syncs) except -1 nogil:
        cdef Shape* s = &self.shape
        cdef uint32_t at
        if first > s.samples or count > s.samples - first:
            return out_of_range()
        if sizes != NULL:
            spread(s.size_width, s.size, NULL, self.tables.sizes, first, count, sizes)
        if deltas != NULL:
            spread(s.delta_width, s.delta, self.tables.delta_palette, self.tables.deltas, first, count, deltas)
        if offsets != NULL:
            spread(s.shift_width, s.shift, self.tables.shift_palette, self.tables.shifts, first, count,
                   <uint32_t*>offsets)
        if syncs != NULL:
            memset(syncs, s.all_sync, count)
            at = lower_bound(self.tables.syncs, s.syncs, first)
            while at < s.syncs and self.tables.syncs[at] - first < count:
                syncs[self.tables.syncs[at] - first] = 1
                at += 1
        return 0

    cdef int64_t dts_at(self, uint32_t sample) noexcept nogil:
        cdef Shape* s = &self.shape
        cdef int64_t time
        cdef uint32_t i
        if sample > s.samples:
            sample = s.samples
        if s.delta_width == 0:
            return s.first_dts + <int64_t>s.delta * sample
        time = self.tables.dts[sample // GROUP]
        for i in range(sample // GROUP * GROUP, sample):
            if s.delta_width == 1:
                time += self.tables.delta_palette[(<const uint8_t*>self.tables.deltas)[i]]
            else:
                time += (<const uint32_t*>self.tables.deltas)[i]
        return time

    cdef int64_t ranges_of(self, uint32_t first, uint32_t count, Range* out, uint32_t capacity) except -1 nogil:
        cdef Shape* s = &self.shape
        cdef Tables* t = &self.tables
        cdef uint32_t run, sample, n, skip, take
        cdef uint64_t offset, length, end = 0
        cdef int64_t found = 0
        if first > s.samples or count > s.samples - first:
            return out_of_range()
        if count == 0:
            return 0
        if s.run_length:
            run = first // s.run_length // GROUP
            sample = run * GROUP * s.run_length
        else:
            run = lower_bound(t.run_samples, (s.runs + GROUP - 1) // GROUP, first + 1) - 1
            sample = t.run_samples[run]
        offset = t.run_offsets[run]
        run *= GROUP
        while count:
            n = run_count(s, t, run)
            if sample + n <= first:
                offset += sum_sizes(s.size_width, s.size, t.sizes, sample, n)
            else:
                skip = first - sample
                take = min(n - skip, count)
                if skip:
                    offset += sum_sizes(s.size_width, s.size, t.sizes, sample, skip)
                length = sum_sizes(s.size_width, s.size, t.sizes, first, take)
                if length and found and offset == end:
                    end += length
                    if found <= capacity:
                        out[found - 1].length += length
                elif length:
                    if found < capacity:
                        out[found].offset, out[found].length = offset, length
                    found += 1
                    end = offset + length
                offset += length
                first += take
                count -= take
            sample += n
            run += 1
            if count:
                offset += gap_of(s.gap_width, t.gaps, run)
        return found

    cdef object view(self, const void* table, object kind, uint32_t count):
        if count == 0:
            return np.empty(0, kind)
        return np.frombuffer(self.block, kind, count, <const uint8_t*>table - &self.bytes[0])

    @property
    def sizes(self):
        if self.shape.size_width == 0:
            return np.broadcast_to(np.uint32(self.shape.size), (self.samples,))
        return self.view(self.tables.sizes, np.uint16 if self.shape.size_width == 2 else np.uint32, self.samples)

    @property
    def keyframes(self):
        if self.all_sync:
            return np.arange(self.samples, dtype=np.uint32)
        return self.view(self.tables.syncs, np.uint32, self.shape.syncs)

    def dts(self, first=0, last=None):
        cdef uint32_t start, count, i
        start, count = self.span(first, last)
        cdef uint32_t[::1] deltas = np.empty(count, np.uint32)
        cdef int64_t[::1] out = np.empty(count, np.int64)
        if count:
            with nogil:
                self.expand(start, count, NULL, &deltas[0], NULL, NULL)
                out[0] = self.dts_at(start)
                for i in range(1, count):
                    out[i] = out[i - 1] + deltas[i - 1]
        return np.asarray(out)

    def deltas(self, first=0, last=None):
        cdef uint32_t start, count
        start, count = self.span(first, last)
        cdef uint32_t[::1] out = np.empty(count, np.uint32)
        if count:
            self.expand(start, count, NULL, &out[0], NULL, NULL)
        return np.asarray(out)

    def composition_offsets(self, first=0, last=None):
        cdef uint32_t start, count
        start, count = self.span(first, last)
        cdef int32_t[::1] out = np.empty(count, np.int32)
        if count:
            self.expand(start, count, NULL, NULL, &out[0], NULL)
        return np.asarray(out)

    def ranges(self, first, last):
        cdef uint32_t start, count
        start, count = self.span(first, last)
        cdef int64_t found = self.ranges_of(start, count, NULL, 0)
        cdef uint64_t[:, ::1] out = np.empty((found, 2), np.uint64)
        if found:
            self.ranges_of(start, count, <Range*>&out[0, 0], <uint32_t>found)
        return np.asarray(out)

    cdef tuple span(self, first, last):
        last = self.samples if last is None else last
        if not 0 <= first <= last <= self.samples:
            raise IndexError(f"samples [{first}, {last}) of {self.samples}")
        return first, last - first

    def __repr__(self):
        return f"Track(id={self.id}, handler={self.handler!r}, timescale={self.timescale}, samples={self.samples})"

    @staticmethod
    def from_samples(*, id=1, handler="vide", timescale, entries, sizes, deltas, offsets=None, syncs=None, positions,
                     first_dts=0, language="und", name="", width=0.0, height=0.0, matrix=IDENTITY, edits=(),
                     enabled=True):
        from streamgate.native.builder import block_from_columns    # which builds on this module

        cdef Track track = Track.__new__(Track)
        if not timescale or len(matrix) != 9:
            fail("source_malformed", "a track without a timescale, or with a matrix of a wrong shape")
        track.id, track.handler, track.timescale, track.enabled = id, handler, timescale, enabled
        track.language, track.name, track.width, track.height = language, name, width, height
        track.matrix, track.entries, track.edits = tuple(matrix), tuple(entries), tuple(edits)
        track.adopt(block_from_columns(sizes, deltas, offsets, syncs, positions, first_dts), False)
        track.entries_used = (0,) if track.samples else ()
        return track


cdef int out_of_range() except -1 nogil:
    with gil:
        raise IndexError("there are no such samples")
