"""Collects the samples of one track, from the tables of a container or one by one, and makes its block.

Tables are those of ISO/IEC 14496-12:2022 clause 8. Callers check that a table's entries lie within its box.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

import numpy as np

from streamgate.native.samples cimport (GROUP, RUN_LIMIT, Shape, Tables, fail, gap_of, is_time, lay_out, padded,
                                        spread, sum_sizes)


cdef extern from "bigendian.h" nogil:
    uint16_t be16(const void* p)
    uint32_t be32(const void* p)
    uint64_t be64(const void* p)
    uint32_t raw32(const void* p)


cdef int reserve(Pile* pile, size_t size) except -1 nogil:
    """Makes room for ``size`` bytes."""
    cdef size_t room
    cdef void* data
    if size <= pile.room:
        return 0
    room = max(size, pile.room * 2)
    room = max(room, <size_t>1024)
    data = realloc(pile.data, room)
    if data == NULL:
        return fail("source_too_complex", "not enough memory for the sample table")
    pile.data, pile.room = <uint8_t*>data, room
    return 0


cdef inline int palette_number(Column* c, uint32_t value) noexcept nogil:
    """The number of ``value`` in the palette, added if need be; -1 when the palette is full."""
    cdef uint32_t slot = (value * <uint32_t>2654435761) >> 22
    while c.slots[slot]:
        if c.palette[c.slots[slot] - 1] == value:
            return c.slots[slot] - 1
        slot = (slot + 1) & 1023
    if c.distinct == 256:
        return -1
    c.palette[c.distinct] = value
    c.distinct += 1
    c.slots[slot] = <uint16_t>c.distinct
    return <int>c.distinct - 1


cdef int widen(Column* c, uint8_t width) except -1 nogil:
    """Rewrites a column with ``width`` bytes a sample; one step of 0 -> 1 -> 4 or 0 -> 2 -> 4."""
    cdef Pile old = c.pile
    cdef uint32_t* wide
    cdef uint32_t i
    c.pile = Pile(NULL, 0)
    try:
        reserve(&c.pile, <size_t>c.count * width + 1024)
        if width == 1:
            memset(c.pile.data, palette_number(c, c.value), c.count)
        elif width == 2:
            for i in range(c.count):
                (<uint16_t*>c.pile.data)[i] = <uint16_t>c.value
        else:
            wide = <uint32_t*>c.pile.data
            spread(c.width, c.value, c.palette, old.data, 0, c.count, wide)
        c.width = width
    finally:
        free(old.data)
    return 0


cdef int append(Column* c, uint32_t value, uint32_t count) except -1 nogil:
    cdef int number
    cdef uint32_t i
    if count > <uint32_t>0xFFFFFFFE - c.count:
        return fail("source_too_complex", "too many samples")
    if count == 0:
        return 0
    if c.width == 0:
        if c.count == 0:
            c.value = value
        if c.value == value:
            c.count += count
            return 0
        widen(c, 1 if c.palette_first else 2 if max(c.value, value) <= 0xFFFF else 4)
    if c.width == 2 and value > 0xFFFF:
        widen(c, 4)
    if c.width == 1:
        number = palette_number(c, value)
        if number >= 0:
            reserve(&c.pile, <size_t>c.count + count)
            if count == 1:
                c.pile.data[c.count] = <uint8_t>number
            else:
                memset(c.pile.data + c.count, number, count)
            c.count += count
            return 0
        widen(c, 4)
    reserve(&c.pile, (<size_t>c.count + count) * c.width)
    if c.width == 2:
        for i in range(c.count, c.count + count):
            (<uint16_t*>c.pile.data)[i] = <uint16_t>value
    else:
        for i in range(c.count, c.count + count):
            (<uint32_t*>c.pile.data)[i] = value
    c.count += count
    return 0


cdef int begin_run(Builder b, uint64_t offset) except -1 nogil:
    """Opens an empty run at ``offset`` for the samples from ``b.placed`` on."""
    cdef uint64_t gap = offset - b.run_end if b.runs else 0
    cdef uint8_t width = 2 if gap <= 0xFFFF else 4 if gap <= <uint64_t>0xFFFFFFFF else 8
    cdef uint32_t i
    cdef Pile wider
    if width > b.gap_width:
        wider = Pile(NULL, 0)
        reserve(&wider, (<size_t>b.runs + 1) * width)
        for i in range(b.runs):
            store(wider.data, width, i, gap_of(b.gap_width, b.gaps.data, i))
        free(b.gaps.data)
        b.gaps, b.gap_width = wider, width
    reserve(&b.gaps, (<size_t>b.runs + 1) * b.gap_width)
    store(b.gaps.data, b.gap_width, b.runs, gap)
    reserve(&b.counts, <size_t>b.runs + 1)
    b.counts.data[b.runs] = 0
    if b.runs % GROUP == 0:
        reserve(&b.run_offsets, (b.runs // GROUP + 1) * 8)
        (<uint64_t*>b.run_offsets.data)[b.runs // GROUP] = offset
        reserve(&b.run_samples, (b.runs // GROUP + 1) * 4)
        (<uint32_t*>b.run_samples.data)[b.runs // GROUP] = b.placed
    b.runs += 1
    b.run_end = offset
    return 0


cdef inline void store(void* table, int width, uint32_t at, uint64_t value) noexcept nogil:
    if width == 2:
        (<uint16_t*>table)[at] = <uint16_t>value
    elif width == 4:
        (<uint32_t*>table)[at] = <uint32_t>value
    else:
        (<uint64_t*>table)[at] = value


cdef inline int put(Builder b, uint64_t offset, uint32_t count) except -1 nogil:
    """Places the next ``count`` samples, contiguous from ``offset``."""
    cdef uint32_t take
    cdef uint64_t length
    while count:
        if b.runs == 0 or offset != b.run_end or b.counts.data[b.runs - 1] == RUN_LIMIT:
            begin_run(b, offset)
        take = min(count, RUN_LIMIT - <uint32_t>b.counts.data[b.runs - 1])
        length = sum_sizes(b.sizes.width, b.sizes.value, b.sizes.pile.data, b.placed, take)
        if offset > b.limit or length > b.limit - offset:
            return fail("source_truncated", "samples lie beyond the end of the file")
        b.counts.data[b.runs - 1] += <uint8_t>take
        offset += length
        b.run_end = offset
        b.end = max(b.end, offset)
        b.payload += length
        b.placed += take
        count -= take
    return 0


cdef int reserve_runs(Builder b, uint32_t count) except -1 nogil:
    """Makes room for ``count`` more runs at once."""
    cdef size_t runs = <size_t>b.runs + count
    reserve(&b.gaps, runs * b.gap_width)
    reserve(&b.counts, runs)
    reserve(&b.run_offsets, (runs // GROUP + 1) * 8)
    return reserve(&b.run_samples, (runs // GROUP + 1) * 4)


cdef inline uint32_t room_for_runs(Builder b) noexcept nogil:
    """How many runs there may be before a table must grow."""
    return <uint32_t>min(min(b.counts.room, b.gaps.room // b.gap_width), <size_t>0xFFFFFFFF)


cdef inline uint32_t size_at(int width, uint32_t value, const void* table, uint32_t sample) noexcept nogil:
    if width == 2:
        return (<const uint16_t*>table)[sample]
    return (<const uint32_t*>table)[sample] if width == 4 else value


cdef class Builder:
    def __cinit__(self, uint64_t limit):
        self.limit = limit
        self.deltas.palette_first = self.shifts.palette_first = self.all_sync = True
        self.gap_width = 2

    def __dealloc__(self):
        free(self.sizes.pile.data)
        free(self.deltas.pile.data)
        free(self.shifts.pile.data)
        free(self.syncs.data)
        free(self.gaps.data)
        free(self.counts.data)
        free(self.run_offsets.data)
        free(self.run_samples.data)

    cdef int add_sizes(self, uint32_t value, uint32_t count) except -1 nogil:
        return append(&self.sizes, value, count)

    cdef int add_sizes_be(self, const uint8_t* table, uint32_t count, int bits) except -1 nogil:
        """The first samples' sizes from stsz or stz2: ``count`` values of 4, 8, 16 or 32 bits."""
        cdef Column* c = &self.sizes
        cdef uint32_t i, first, every = 0, other = 0
        cdef uint16_t* narrow
        cdef uint32_t* wide
        if count == 0:
            return 0
        if bits == 32:
            first = raw32(table)
            for i in range(count):
                every |= raw32(table + 4 * <size_t>i)
                other |= raw32(table + 4 * <size_t>i) ^ first
            if other == 0:
                return append(c, be32(table), count)
        c.width = 4 if be32(&every) > 0xFFFF else 2
        reserve(&c.pile, <size_t>count * c.width)
        c.count = count
        narrow = <uint16_t*>c.pile.data
        wide = <uint32_t*>c.pile.data
        if bits == 4:
            for i in range(count):
                narrow[i] = table[i // 2] & 15 if i & 1 else table[i // 2] >> 4
        elif bits == 8:
            for i in range(count):
                narrow[i] = table[i]
        elif bits == 16:
            for i in range(count):
                narrow[i] = be16(table + 2 * <size_t>i)
        elif c.width == 2:
            for i in range(count):
                narrow[i] = <uint16_t>be32(table + 4 * <size_t>i)
        else:
            for i in range(count):
                wide[i] = be32(table + 4 * <size_t>i)
        return 0

    cdef int add_deltas(self, uint32_t value, uint32_t count) except -1 nogil:
        if value > 0x7FFFFFFF:
            return fail("source_malformed", "a sample with a negative duration")
        return append(&self.deltas, value, count)

    cdef uint32_t pop_delta(self) noexcept nogil:
        """Takes back the last sample's delta."""
        cdef Column* c = &self.deltas
        cdef uint32_t value
        if c.count == 0:
            return 0
        c.count -= 1
        spread(c.width, c.value, c.palette, c.pile.data, c.count, 1, &value)
        return value

    cdef int64_t total_delta(self) noexcept nogil:
        cdef Column* c = &self.deltas
        cdef int64_t total = 0
        cdef uint32_t i, value
        if c.width == 0:
            return <int64_t>c.value * c.count
        for i in range(c.count):
            spread(c.width, c.value, c.palette, c.pile.data, i, 1, &value)
            total += value
        return total

    cdef int add_shifts(self, int32_t value, uint32_t count) except -1 nogil:
        return append(&self.shifts, <uint32_t>value, count)

    cdef int add_rows_be(self, Column* column, const uint8_t* rows, size_t width, uint32_t count,
                         uint64_t* total) except -1 nogil:
        """A column of trun: one value in each row of ``width`` bytes; adds their sum to ``total``."""
        cdef uint32_t i = 0, first, value
        while i < count:
            first = i
            value = be32(rows + i * width)
            if value > 0x7FFFFFFF and column == &self.deltas:
                return fail("source_malformed", "a sample with a negative duration")
            while i < count and be32(rows + i * width) == value:
                i += 1
            append(column, value, i - first)
            total[0] += <uint64_t>value * (i - first)
        return 0

    cdef int add_deltas_be(self, const uint8_t* table, uint32_t entries) except -1 nogil:
        """stts: pairs of count and delta; what exceeds the samples is ignored."""
        cdef uint32_t i
        for i in range(entries):
            self.add_deltas(be32(table + 4), min(be32(table), self.sizes.count - self.deltas.count))
            table += 8
        if self.deltas.count < self.sizes.count:
            return fail("source_malformed", "stts covers fewer samples than there are")
        return 0

    cdef int add_shifts_be(self, const uint8_t* table, uint32_t entries) except -1 nogil:
        """ctts: pairs of count and offset, signed in either version, as writers do; samples without one have 0."""
        cdef uint32_t i
        for i in range(entries):
            append(&self.shifts, be32(table + 4), min(be32(table), self.sizes.count - self.shifts.count))
            table += 8
        return append(&self.shifts, 0, self.sizes.count - self.shifts.count)

    cdef int add_syncs(self, bint sync, uint32_t count) except -1 nogil:
        """Marks the next ``count`` samples; nothing is listed until one is not a sync sample."""
        cdef uint32_t i
        if self.all_sync and not sync and count:
            self.all_sync = False
            reserve(&self.syncs, <size_t>self.marked * 4)
            for i in range(self.marked):
                (<uint32_t*>self.syncs.data)[i] = i
            self.sync_count = self.marked
        if sync and not self.all_sync:
            reserve(&self.syncs, (<size_t>self.sync_count + count) * 4)
            for i in range(count):
                (<uint32_t*>self.syncs.data)[self.sync_count + i] = self.marked + i
            self.sync_count += count
        self.marked += count
        return 0

    cdef int add_syncs_be(self, const uint8_t* table, uint32_t entries) except -1 nogil:
        """stss: ascending numbers from 1 of the sync samples; those beyond the last sample are ignored."""
        cdef uint32_t i, number, previous = 0
        self.all_sync = False
        reserve(&self.syncs, <size_t>entries * 4)
        for i in range(entries):
            number = be32(table + 4 * <size_t>i)
            if number <= previous:
                return fail("source_malformed", "stss does not ascend")
            if number > self.sizes.count:
                break
            (<uint32_t*>self.syncs.data)[self.sync_count] = number - 1
            self.sync_count += 1
            previous = number
        self.marked = self.sizes.count
        return 0

    cdef int add_chunks_be(self, const uint8_t* chunks, uint32_t count, int width, const uint8_t* stsc,
                           uint32_t entries) except -1 nogil:
        """Places all samples: ``count`` chunk offsets of ``width`` bytes (stco, co64), and the entries of stsc."""
        cdef uint32_t chunk, n = 0, take, entry = 0, left = self.sizes.count - self.placed
        cdef uint32_t next_first = be32(stsc) if entries else <uint32_t>0xFFFFFFFF
        cdef uint64_t offset, length, gap, run_end
        # A file interleaved sample by sample has as many runs as chunks. They are added here, out of variables of our own;
        # what is not like those before it goes through put.
        cdef uint32_t placed, run, room
        cdef uint64_t payload, end
        cdef int size_width = self.sizes.width, gap_width
        cdef const void* sizes = self.sizes.pile.data
        cdef void* gaps
        cdef uint8_t* counts
        if count and left and next_first > 1:
            return fail("source_malformed", "stsc does not start with the first chunk")
        reserve_runs(self, min(count, left))
        placed, run, run_end, payload, end = self.placed, self.runs, self.run_end, self.payload, self.end
        gaps, counts, gap_width, room = self.gaps.data, self.counts.data, self.gap_width, room_for_runs(self)
        for chunk in range(1, count + 1):
            if left == 0:
                break
            if chunk >= next_first:
                if chunk != next_first:
                    return fail("source_malformed", "stsc does not ascend")
                n = be32(stsc + 12 * <size_t>entry + 4)
                entry += 1
                next_first = be32(stsc + 12 * <size_t>entry) if entry < entries else <uint32_t>0xFFFFFFFF
            offset = be32(chunks) if width == 4 else be64(chunks)
            chunks += width
            take = min(n, left)
            left -= take
            gap = offset - run_end
            if 0 < take < 3 and run % GROUP and gap and gap_width < 8 and gap >> 8 * gap_width == 0 \
                    and run < room:
                length = size_at(size_width, self.sizes.value, sizes, placed)
                if take == 2:
                    length += size_at(size_width, self.sizes.value, sizes, placed + 1)
                if offset > self.limit or length > self.limit - offset:
                    return fail("source_truncated", "samples lie beyond the end of the file")
                store(gaps, gap_width, run, gap)
                counts[run] = <uint8_t>take
                run += 1
                placed += take
                payload += length
                run_end = offset + length
                end = max(end, run_end)
                continue
            self.placed, self.runs, self.run_end, self.payload, self.end = placed, run, run_end, payload, end
            put(self, offset, take)
            placed, run, run_end, payload, end = self.placed, self.runs, self.run_end, self.payload, self.end
            gaps, counts, gap_width, room = self.gaps.data, self.counts.data, self.gap_width, room_for_runs(self)
        self.placed, self.runs, self.run_end, self.payload, self.end = placed, run, run_end, payload, end
        if left:
            return fail("source_malformed", "samples without a chunk")
        return 0

    cdef int place(self, uint64_t offset, uint32_t count) except -1 nogil:
        if count > self.sizes.count - self.placed:
            return fail("source_malformed", "positions of samples that do not exist")
        return put(self, offset, count)

    cdef object block(self):
        """The finished table. Raises source_malformed unless every sample has a delta, an offset and a position."""
        cdef Shape s
        cdef Tables t
        cdef uint64_t total
        cdef uint8_t* out
        cdef object made
        cdef uint32_t i, n
        cdef int64_t time = self.first_dts
        memset(&s, 0, sizeof(Shape))
        s.samples = n = self.sizes.count
        if not self.deltas.count == self.shifts.count == self.placed == n or not (self.all_sync or self.marked == n):
            fail("source_malformed", "a sample without a time or a place")
        if not is_time(self.first_dts):
            fail("source_malformed", "a decoding time out of range")
        s.payload, s.end, s.first_dts = self.payload, self.end, self.first_dts
        s.runs, s.gap_width = self.runs, self.gap_width
        s.size_width, s.delta_width, s.shift_width = self.sizes.width, self.deltas.width, self.shifts.width
        s.size, s.delta, s.shift = self.sizes.value, self.deltas.value, self.shifts.value
        s.all_sync = self.all_sync or self.sync_count == n
        s.syncs = 0 if s.all_sync else self.sync_count
        s.run_length = self.even_run_length()
        total = lay_out(&s, <const uint8_t*>&s, &t)     # for the size only
        made = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>total)
        out = <uint8_t*>PyBytes_AS_STRING(made)
        lay_out(&s, out, &t)
        with nogil:
            copy(t.run_offsets, self.run_offsets.data, (<uint64_t>s.runs + GROUP - 1) // GROUP * 8)
            copy(t.run_samples, self.run_samples.data, (<uint64_t>s.runs + GROUP - 1) // GROUP * 4)
            copy(t.delta_palette, <uint8_t*>self.deltas.palette, 1024)
            copy(t.shift_palette, <uint8_t*>self.shifts.palette, 1024)
            copy(t.gaps, self.gaps.data, <uint64_t>s.runs * s.gap_width)
            copy(t.sizes, self.sizes.pile.data, <uint64_t>n * s.size_width)
            copy(t.deltas, self.deltas.pile.data, <uint64_t>n * s.delta_width)
            copy(t.shifts, self.shifts.pile.data, <uint64_t>n * s.shift_width)
            copy(t.syncs, self.syncs.data, <uint64_t>s.syncs * 4)
            copy(t.run_counts, self.counts.data, s.runs)
            if s.delta_width == 0:
                time += <int64_t>s.delta * n
            else:
                for i in range(n):
                    if i % GROUP == 0:
                        (<int64_t*>t.dts)[i // GROUP] = time
                    if s.delta_width == 1:
                        time += t.delta_palette[(<const uint8_t*>t.deltas)[i]]
                    else:
                        time += (<const uint32_t*>t.deltas)[i]
                if n % GROUP == 0:
                    (<int64_t*>t.dts)[n // GROUP] = time
            s.duration = time - s.first_dts
            memcpy(out, &s, sizeof(Shape))
        return made

    cdef uint8_t even_run_length(self) noexcept:
        """The number of samples that every run has (the last one may be shorter), or 0."""
        cdef uint8_t first = self.counts.data[0] if self.runs else 0
        cdef uint32_t i
        for i in range(1, self.runs):
            if self.counts.data[i] != first and (i + 1 < self.runs or self.counts.data[i] > first):
                return 0
        return first


cdef inline void copy(const void* to, const uint8_t* data, uint64_t size) noexcept nogil:
    """Copies a column, unless it has no place, and clears its padding."""
    if to == NULL or size == 0:
        return
    memset(<uint8_t*>to + size, 0, padded(size) - size)
    memcpy(<void*>to, data, size)


def block_from_columns(sizes, deltas, offsets, syncs, positions, first_dts):
    """The table of given samples; see Track.from_samples."""
    cdef Builder builder = Builder((1 << 63) - 1)
    cdef const uint32_t[::1] plain = column(sizes, np.uint32, None)
    cdef const int32_t[::1] signed
    cdef const uint64_t[::1] places
    cdef uint32_t i, count = <uint32_t>plain.shape[0]
    for i in range(count):
        builder.add_sizes(plain[i], 1)
    plain = column(deltas, np.uint32, count)
    for i in range(count):
        builder.add_deltas(plain[i], 1)
    signed = column(np.zeros(count) if offsets is None else offsets, np.int32, count)
    for i in range(count):
        builder.add_shifts(signed[i], 1)
    places = column(positions, np.uint64, count)
    for i in range(count):
        builder.place(places[i], 1)
    if syncs is not None:
        flags = np.zeros(count, np.bool_)
        numbers = column(syncs, np.uint32, None)
        if len(numbers) and int(numbers.max()) >= count:
            fail("source_malformed", "a sync sample that does not exist")
        flags[numbers] = True
        for i in range(count):
            builder.add_syncs(flags[i], 1)
    if not is_time(first_dts):
        fail("source_malformed", "a decoding time out of range")
    builder.first_dts = first_dts
    return builder.block()


cdef object column(values, kind, count):
    """A contiguous array of ``kind`` with exactly the given values."""
    given = np.asarray(values)
    made = np.ascontiguousarray(given, kind)
    if made.ndim != 1 or (count is not None and len(made) != count) or not np.array_equal(given, made):
        fail("source_malformed", "columns of different lengths, or values out of range")
    return made
