"""From the bytes of an MP4 or QuickTime file to its index: moov, and moof by moof when it is fragmented.

ISO/IEC 14496-12:2022 clause 8. The parser does no input: it says which bytes it wants next.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from streamgate.native.builder cimport Builder
from streamgate.native.index cimport Index
from streamgate.native.movie cimport Box, MovieReader, OpenTrack, use_entry
from streamgate.native.samples cimport Track, fail

from streamgate.errors import StreamGateError

globals().update(Index=Index, Track=Track)      # cimported names are not Python names by themselves


cdef extern from "bigendian.h" nogil:
    uint16_t be16(const void* p)
    uint32_t be32(const void* p)
    uint64_t be64(const void* p)
    uint32_t fourcc(const char* name)


cdef uint64_t HEAD = 512 << 10          # the first request: most short files' moov, and every ftyp and sidx
cdef uint64_t TAIL = 8 << 20            # what follows the media data is the moov: one request for all of it, up to this
cdef uint64_t WINDOW = 64 << 10         # a request at a moof, or at a box that is not known yet
cdef uint64_t SMALL_BOX = 1 << 20       # ftyp and sidx are never larger


cdef class Parser(MovieReader):
    cdef readonly tuple want
    cdef uint64_t index_bytes           # how many more may be read as the index
    cdef uint64_t at                    # where the next box of the file is
    cdef uint64_t base                  # where in the file the bytes held start
    cdef object failure
    cdef bint complete

    def __init__(self, size, *, max_index_bytes=268435456, max_samples=50_000_000, max_boxes=1_000_000):
        if not 0 <= size < 1 << 62:
            raise ValueError(f"a file of {size} bytes")
        self.size, self.index_bytes, self.boxes = size, max_index_bytes, max_boxes
        self.samples = min(max_samples, (1 << 32) - 2)
        self.made.size = size
        self.ask(0, HEAD)
        if size == 0:
            self.failure = StreamGateError("source_unsupported", "the file is empty")
            self.want = None

    def feed(self, data):
        if self.want is None:
            raise ValueError("nothing is wanted")
        offset, length = self.want
        self.want = None
        self.guarded(bytes(data), offset, length)

    def index(self):
        if self.failure is not None:
            raise self.failure
        if not self.complete:
            fail("source_truncated", "the index is not complete")
        if self.open_tracks:
            self.guarded(None, 0, 0)
        return self.made

    cdef int guarded(self, bytes data, uint64_t offset, uint64_t length) except -1:
        """Takes the wanted bytes or, with None, makes the tables; whatever fails ends the parser."""
        try:
            if data is None:
                self.close_tracks()
            elif <uint64_t>len(data) < length:
                fail("source_truncated", "the file is shorter than its size")
            else:
                self.data, self.base = data, offset
                self.advance()
        except StreamGateError as error:
            self.failure = error
        except MemoryError:
            self.failure = StreamGateError("source_too_complex", "not enough memory for the index")
        if self.failure is not None:
            self.want = None
            self.data = b""
            self.open_tracks.clear()
            raise self.failure
        return 0

    # --- The boxes of the file --------------------------------------------------------------------------------------

    cdef int ask(self, uint64_t offset, uint64_t length) except -1:
        self.want = (offset, min(length, self.size - offset))
        self.data = b""             # what is held is not needed while the next bytes are read
        return 0

    cdef bint holds(self, uint64_t offset, uint64_t length) noexcept:
        cdef uint64_t held = <uint64_t>PyBytes_GET_SIZE(self.data)
        return self.base <= offset and offset - self.base <= held and length <= held - (offset - self.base)

    cdef int advance(self) except -1:
        """Reads boxes until bytes are missing or the index is complete."""
        cdef Box box
        cdef uint64_t left
        while not self.complete:
            left = self.size - self.at
            if left == 0:
                return self.finish()
            if not self.holds(self.at, min(left, 16)):
                return self.ask(self.at, left if left <= TAIL and not self.has_movie else WINDOW)
            self.top_box(&box)
            if box.type == fourcc(b"moov") or box.type == fourcc(b"moof"):
                if box.end - box.start > self.index_bytes:
                    return fail("source_too_complex", "the file's index is larger than the limit")
            elif box.type == fourcc(b"ftyp") or box.type == fourcc(b"sidx"):
                if box.end - box.start > SMALL_BOX:
                    return fail("source_malformed", "a ftyp or sidx box of more than a megabyte")
            else:
                self.at = box.end
                continue
            if not self.holds(box.start, box.end - box.start):
                return self.ask(box.start, box.end - box.start)
            self.at = box.end
            box.start -= self.base
            box.body -= self.base
            box.end -= self.base
            if box.type == fourcc(b"ftyp"):
                self.read_ftyp(&box)
            elif box.type == fourcc(b"sidx"):
                self.read_sidx(&box)
            else:
                self.index_bytes -= box.end - box.start
                if box.type == fourcc(b"moof"):
                    self.read_moof(&box)
                elif not self.has_movie:
                    self.read_moov(&box)
                if not self.made.fragmented:
                    return self.finish()
        return 0

    cdef int top_box(self, Box* box) except -1:
        """The box at ``self.at``, whose first 16 bytes (or all there are) are held."""
        cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(self.data) + (self.at - self.base)
        cdef uint64_t left = self.size - self.at, size
        cdef bint first = self.at == 0
        self.count_box()
        box.type = be32(p + 4) if left >= 8 else 0
        if first and not may_be_first(box.type):
            return fail("source_unsupported", "neither an MP4 nor a QuickTime file")
        if left < 8:
            return fail("source_truncated", "the file ends within a box header")
        size = be32(p)
        box.start, box.body = self.at, self.at + 8
        if size == 0:
            size = left
        elif size == 1:
            if left < 16:
                return fail("source_truncated", "the file ends within a box header")
            size = be64(p + 8)
            box.body = self.at + 16
        if size < box.body - box.start:
            return fail("source_malformed", "a box smaller than its header")
        if size > left:
            return fail("source_truncated", "a box reaches beyond the end of the file")
        box.end = self.at + size
        return 0

    cdef int read_sidx(self, const Box* box) except -1:
        """Only the extent of what it refers to counts (8.16.3): each moof says where the next one is, in the same read.
        A file that was cut off between two fragments is noticed here."""
        cdef const uint8_t* p = self.body(box, 12)
        cdef uint64_t head = 24 if p[0] == 0 else 32, end = self.at
        cdef uint32_t i
        p = self.body(box, head)
        cdef uint32_t count = be16(p + head - 2)
        if <uint64_t>count * 12 > box.end - box.body - head:
            return fail("source_malformed", "a table claims more entries than its box holds")
        cdef uint64_t skip = be32(p + 16) if p[0] == 0 else be64(p + 20)
        if skip > self.size - end:
            return fail("source_truncated", "the segment index reaches beyond the end of the file")
        end += skip
        for i in range(count):
            end += be32(p + head + 12 * <uint64_t>i) & 0x7FFFFFFF
        if end > self.size:
            return fail("source_truncated", "the segment index reaches beyond the end of the file")
        return 0

    # --- moof -------------------------------------------------------------------------------------------------------

    cdef int read_moof(self, const Box* box) except -1:
        cdef uint64_t at = box.body, data = self.base + box.start       # where the next traf's data start by default
        cdef Box child
        if not self.has_movie:
            return fail("source_unsupported", "a media segment without its moov")
        while self.next_box(&at, box.end, &child):
            if child.type == fourcc(b"traf"):
                self.read_traf(&child, self.base + box.start, &data)
        return 0

    cdef int read_traf(self, const Box* box, uint64_t moof, uint64_t* data) except -1:
        """8.8.6 to 8.8.8, 8.8.12. ``data``: the end of the previous traf's samples, then of this one's."""
        cdef OpenTrack t = None
        cdef OpenTrack own = OpenTrack.__new__(OpenTrack)
        cdef const uint8_t* p
        cdef const uint8_t* end
        cdef uint32_t flags, need
        cdef uint64_t at = box.body
        cdef int64_t time = -1
        cdef Box child
        while self.next_box(&at, box.end, &child):
            if child.type == fourcc(b"tfhd"):
                p = self.body(&child, 8)
                flags = be32(p)
                t = self.open_tracks.get(be32(p + 4))
                if t is None:
                    return fail("source_malformed", "a fragment of a track that does not exist")
                need = 8 * (flags & 1) + 4 * ((flags >> 1 & 1) + (flags >> 3 & 1) + (flags >> 4 & 1) + (flags >> 5 & 1))
                self.body(&child, 8 + need)
                p += 8
                own.description, own.duration, own.size, own.flags = t.description, t.duration, t.size, t.flags
                if flags & 1:
                    data[0] = be64(p)
                    p += 8
                elif flags & 0x20000:
                    data[0] = moof
                if flags & 2:
                    own.description = be32(p)
                    p += 4
                if flags & 8:
                    own.duration = be32(p)
                    p += 4
                if flags & 16:
                    own.size = be32(p)
                    p += 4
                if flags & 32:
                    own.flags = be32(p)
            elif child.type == fourcc(b"tfdt"):
                p = self.body(&child, 8)
                time = be32(p + 4) if p[0] == 0 else <int64_t>be64(self.body(&child, 12) + 4)
                if not 0 <= time <= <int64_t>1 << 60:
                    return fail("source_malformed", "a decoding time out of range")
        if t is None:
            return fail("source_malformed", "a traf without tfhd")
        if time >= 0:
            self.set_time(t, time)
        own.track, own.builder = t.track, t.builder
        cdef uint64_t base = data[0]
        cdef int64_t boxes = self.boxes                 # those of the second round were counted already
        at = box.body
        while self.next_box(&at, box.end, &child):
            if child.type == fourcc(b"trun"):
                if self.read_trun(own, &child, base, data):
                    use_entry(t, own.description)
        self.boxes = boxes
        t.next_dts += own.next_dts
        return 0

    cdef int set_time(self, OpenTrack t, int64_t time) except -1:
        """tfdt: a gap before it makes the previous sample last longer, an overlap shorter."""
        cdef int64_t last
        if t.builder.sizes.count == 0:
            t.builder.first_dts = time
        elif time != t.next_dts:
            last = <int64_t>t.builder.pop_delta() + time - t.next_dts
            if not 0 <= last <= 0x7FFFFFFF:
                return fail("source_malformed", "a fragment starts before the previous one, or years after it")
            t.builder.add_deltas(<uint32_t>last, 1)
        t.next_dts = time
        return 0

    cdef uint32_t read_trun(self, OpenTrack own, const Box* box, uint64_t base, uint64_t* data) except? 0xFFFFFFFF:
        """8.8.8: a run of contiguous samples; returns how many. ``own``: the traf's defaults, its sum of durations."""
        cdef Builder b = own.builder
        cdef const uint8_t* p = self.body(box, 8)
        cdef uint32_t flags = be32(p), count = be32(p + 4), first, i
        cdef uint64_t head = 8 + 4 * ((flags & 1) + (flags >> 2 & 1)), offset = data[0]
        cdef uint64_t row = 4 * ((flags >> 8 & 1) + (flags >> 9 & 1) + (flags >> 10 & 1) + (flags >> 11 & 1))
        cdef uint64_t time = 0, unused = 0
        cdef uint32_t first_flags = own.flags
        cdef bint audio = own.track.handler == "soun"       # every frame is one to start with; flags are often copied
        self.body(box, head)
        if <uint64_t>count * row > box.end - box.body - head:
            return fail("source_malformed", "a table claims more entries than its box holds")
        p += 8
        if flags & 1:
            offset = base + <int64_t><int32_t>be32(p)
            p += 4
        if flags & 4:
            first_flags = be32(p)
            p += 4
        if count == 0:
            return 0
        self.count_samples(count)
        with nogil:
            if flags & 0x100:
                b.add_rows_be(&b.deltas, p, row, count, &time)
                p += 4
            else:
                b.add_deltas(own.duration, count)
                time = <uint64_t>own.duration * count
            if flags & 0x200:
                b.add_rows_be(&b.sizes, p, row, count, &unused)
                p += 4
            else:
                b.add_sizes(own.size, count)
            if audio:
                b.add_syncs(True, count)
            elif flags & 0x400:
                b.add_syncs(is_sync(first_flags if flags & 4 else be32(p)), 1)
                first = 1
                while first < count:
                    i = first
                    while i < count and is_sync(be32(p + i * row)) == is_sync(be32(p + first * row)):
                        i += 1
                    b.add_syncs(is_sync(be32(p + first * row)), i - first)
                    first = i
            else:
                b.add_syncs(is_sync(first_flags), 1)
                b.add_syncs(is_sync(own.flags), count - 1)
            if flags & 0x400:
                p += 4
            if flags & 0x800:
                b.add_rows_be(&b.shifts, p, row, count, &unused)
            else:
                b.add_shifts(0, count)
            b.place(offset, count)
        own.next_dts += <int64_t>time
        data[0] = b.run_end
        return count

    cdef int finish(self) except -1:
        """All was read; the tables are made when the index is asked for, and the bytes read are no longer held."""
        if not self.has_movie:
            return fail("source_truncated", "the file ends without a moov")
        self.complete = True
        self.data = b""
        return 0

    cdef int close_tracks(self) except -1:
        cdef OpenTrack t
        cdef Track track
        tracks = []
        longest = 0
        for t in self.open_tracks.values():
            track = t.track
            track.entries_used = tuple(sorted(t.used))
            track.adopt(t.builder.block(), False)
            t.builder = None
            tracks.append(track)
            longest = max(longest, -(-<object>track.duration * <object>self.made.timescale // <object>track.timescale))
        if longest >> 63:
            return fail("source_malformed", "a duration out of range")
        self.made.duration = self.made.duration or longest
        self.made.tracks = tuple(tracks)
        self.open_tracks.clear()
        return 0


cdef bint may_be_first(uint32_t kind) noexcept:
    """Whether MP4 and QuickTime files start with such a box; nothing else distinguishes them from other files."""
    for known in (b"ftyp", b"styp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"uuid", b"sidx", b"moof",
                  b"emsg", b"prft", b"junk"):
        if kind == fourcc(known):
            return True
    return False


cdef inline bint is_sync(uint32_t flags) noexcept nogil:
    """8.8.3.1: neither sample_is_non_sync_sample nor sample_depends_on = 1."""
    return flags & 0x01010000 == 0


def read_index(read, size, **limits):
    cdef Parser parser = Parser(size, **limits)
    while parser.want is not None:
        parser.feed(read(*parser.want))
    return parser.index()
