"""The boxes of an MP4 or QuickTime file, and its moov: tracks, their headers and sample tables.

ISO/IEC 14496-12:2022 clause 8, QuickTime File Format. Every count is checked against the bytes that remain before
anything is made for it; all arithmetic on offsets is done in 64 bits on values below 2^63.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from streamgate.native.builder cimport Builder
from streamgate.native.index cimport Index
from streamgate.native.samples cimport Track, fail


cdef extern from "bigendian.h" nogil:
    uint16_t be16(const void* p)
    uint32_t be32(const void* p)
    uint64_t be64(const void* p)
    uint32_t fourcc(const char* name)


MACINTOSH = ("eng fra deu ita nld swe spa dan por nor heb jpn ara fin ell isl mlt tur hrv zho urd hin tha kor lit pol "
             "hun est lav sme fao fas rus zho nld gle sqi ron ces slk slv yid srp mkd bul ukr bel").split()


cdef enum:
    MOST_TRACKS = 1024                  # in a file
    MOST_EDITS = 65536                  # in a track


cdef class MovieReader:
    def __cinit__(self, *args, **limits):
        self.data = b""
        self.open_tracks = {}
        self.made = Index.__new__(Index)
        self.made.brands = self.made.tracks = ()

    cdef int count_box(self) except -1:
        self.boxes -= 1
        if self.boxes < 0:
            return fail("source_too_complex", "more boxes than the limit")
        return 0

    cdef bint next_box(self, uint64_t* at, uint64_t end, Box* box) except -1:
        """The box at ``at`` inside another one that ends at ``end``; False when there is none. QuickTime may end a
        list with 4 zero bytes."""
        cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(self.data) + at[0]
        cdef uint64_t left = end - at[0], size
        if left < 8 or be32(p) == 0:
            return False
        self.count_box()
        size = be32(p)
        box.type, box.start, box.body = be32(p + 4), at[0], at[0] + 8
        if size == 1 and left >= 16:
            size = be64(p + 8)
            box.body += 8
        if size < box.body - box.start or size > left:
            return fail("source_malformed", "a box does not fit into the one around it")
        box.end = at[0] = box.start + size
        return True

    cdef const uint8_t* body(self, const Box* box, uint64_t least) except NULL:
        """The payload of a box, which must have ``least`` bytes."""
        if box.end - box.body < least:
            fail("source_malformed", "a box shorter than its fields")
        return <const uint8_t*>PyBytes_AS_STRING(self.data) + box.body

    cdef const uint8_t* entries(self, const Box* box, uint64_t head, uint64_t width, uint32_t* count) except NULL:
        """The table of a box whose count ends its ``head`` bytes of fields; all its entries lie within the box."""
        cdef const uint8_t* p = self.body(box, head)
        count[0] = be32(p + head - 4)
        if <uint64_t>count[0] * width > box.end - box.body - head:
            fail("source_malformed", "a table claims more entries than its box holds")
        return p + head

    cdef int count_samples(self, uint32_t count) except -1:
        self.samples -= count
        if self.samples < 0:
            return fail("source_too_complex", "more samples than the limit")
        return 0

    cdef int read_ftyp(self, const Box* box) except -1:
        cdef const uint8_t* p = self.body(box, 8)
        brands = [text(p)]
        for at in range(8, (box.end - box.body) // 4 * 4, 4):
            brands.append(text(p + <uint64_t>at))
        self.made.brands = tuple(dict.fromkeys(brands))
        return 0

    cdef int read_moov(self, const Box* box) except -1:
        cdef uint64_t at = box.body
        cdef Box child
        cdef OpenTrack t
        self.has_movie = True
        while self.next_box(&at, box.end, &child):
            if child.type == fourcc(b"mvhd"):
                self.read_mvhd(&child)
            elif child.type == fourcc(b"trak"):
                self.read_trak(&child)
            elif child.type == fourcc(b"cmov"):
                return fail("source_unsupported", "a compressed moov")
        at = box.body
        while self.next_box(&at, box.end, &child):      # after all traks, to which it adds defaults
            if child.type == fourcc(b"mvex"):
                self.made.fragmented = True
                self.read_mvex(&child)
        for t in self.open_tracks.values():
            t.next_dts = t.builder.total_delta()
        if self.made.timescale == 0:
            return fail("source_malformed", "a movie without a timescale")
        return 0

    cdef int read_mvhd(self, const Box* box) except -1:
        cdef const uint8_t* p = self.body(box, 20)
        if p[0] == 0:
            self.made.timescale, self.made.duration = be32(p + 12), be32(p + 16)
            if self.made.duration == 0xFFFFFFFF:
                self.made.duration = 0
        else:
            p = self.body(box, 32)
            self.made.timescale, self.made.duration = be32(p + 20), be64(p + 24)
            if self.made.duration == <uint64_t>-1:
                self.made.duration = 0
        return 0

    cdef int read_mvex(self, const Box* box) except -1:
        cdef uint64_t at = box.body
        cdef const uint8_t* p
        cdef Box child
        cdef OpenTrack t
        while self.next_box(&at, box.end, &child):
            if child.type == fourcc(b"trex"):
                p = self.body(&child, 24)
                t = self.open_tracks.get(be32(p + 4))
                if t is not None:
                    t.description, t.duration, t.size, t.flags = be32(p + 8), be32(p + 12), be32(p + 16), be32(p + 20)
            elif child.type == fourcc(b"mehd") and self.made.duration == 0:
                p = self.body(&child, 8)
                self.made.duration = be32(p + 4) if p[0] == 0 else be64(self.body(&child, 12) + 4)
        return 0

    cdef int collect(self, const Box* box, Tables* found) except -1:
        """Finds the boxes of a trak at their places: trak > edts, mdia > minf > stbl."""
        cdef uint64_t at = box.body
        cdef Box child
        while self.next_box(&at, box.end, &child):
            if box.type == fourcc(b"trak"):
                if child.type == fourcc(b"tkhd"):
                    found.tkhd = child
                elif child.type == fourcc(b"edts") or child.type == fourcc(b"mdia"):
                    self.collect(&child, found)
            elif box.type == fourcc(b"edts"):
                if child.type == fourcc(b"elst"):
                    found.elst = child
            elif box.type == fourcc(b"mdia"):
                if child.type == fourcc(b"mdhd"):
                    found.mdhd = child
                elif child.type == fourcc(b"hdlr"):
                    found.hdlr = child
                elif child.type == fourcc(b"minf"):
                    self.collect(&child, found)
            elif box.type == fourcc(b"minf"):
                if child.type == fourcc(b"stbl"):
                    self.collect(&child, found)
            elif child.type == fourcc(b"stsd"):
                found.stsd = child
            elif child.type == fourcc(b"stts"):
                found.stts = child
            elif child.type == fourcc(b"ctts"):
                found.ctts = child
            elif child.type == fourcc(b"stss"):
                found.stss = child
            elif child.type == fourcc(b"stsc"):
                found.stsc = child
            elif child.type == fourcc(b"stsz") or child.type == fourcc(b"stz2"):
                found.stsz = child
            elif child.type == fourcc(b"stco") or child.type == fourcc(b"co64"):
                found.stco = child
        return 0

    cdef int read_trak(self, const Box* box) except -1:
        cdef OpenTrack t = OpenTrack.__new__(OpenTrack)
        cdef Tables found
        memset(&found, 0, sizeof(Tables))
        self.collect(box, &found)
        if found.tkhd.end == 0 or found.mdhd.end == 0 or found.hdlr.end == 0 or found.stsd.end == 0:
            return fail("source_malformed", "a track lacks tkhd, mdhd, hdlr or stsd")
        t.track, t.builder, t.used, t.description = Track.__new__(Track), Builder(self.size), set(), 1
        self.read_headers(t.track, &found)
        if len(self.open_tracks) == MOST_TRACKS:
            return fail("source_too_complex", "more tracks than the limit")
        if t.track.id in self.open_tracks:
            return fail("source_malformed", "two tracks of the same number")
        self.open_tracks[t.track.id] = t
        return self.read_samples(t, &found)

    cdef int read_headers(self, Track track, const Tables* found) except -1:
        cdef const uint8_t* p = self.body(&found.tkhd, 84)
        cdef uint32_t count, i
        cdef uint64_t at
        cdef bint wide
        cdef Box child
        track.enabled = p[3] & 1
        if p[0] == 0:
            track.id = be32(p + 12)
            p += 40
        else:
            p = self.body(&found.tkhd, 96)
            track.id = be32(p + 20)
            p += 52
        track.matrix = tuple([<int32_t>be32(p + 4 * i) for i in range(9)])
        track.width, track.height = be32(p + 36) / 65536.0, be32(p + 40) / 65536.0
        p = self.body(&found.mdhd, 22)
        if p[0]:
            p = self.body(&found.mdhd, 34) + 12
            track.timescale = be32(p + 8)
        else:
            track.timescale = be32(p + 12)
        if track.timescale == 0:
            return fail("source_malformed", "a track without a timescale")
        track.language = self.language(be16(p + 20))
        p = self.body(&found.hdlr, 12)
        track.handler = text(p + 8)
        track.name = handler_name(self.data[min(found.hdlr.body + 24, found.hdlr.end):found.hdlr.end], be32(p + 4) != 0)
        track.edits = ()
        if found.elst.end:
            wide = self.body(&found.elst, 8)[0] != 0
            p = self.entries(&found.elst, 8, 20 if wide else 12, &count)
            if count > MOST_EDITS:
                return fail("source_too_complex", "more edits than the limit")
            if wide:
                track.edits = tuple([(be64(p + 20 * i), <int64_t>be64(p + 20 * i + 8), <int32_t>be32(p + 20 * i + 16))
                                     for i in range(count)])
            else:
                track.edits = tuple([(be32(p + 12 * i), <int32_t>be32(p + 12 * i + 4), <int32_t>be32(p + 12 * i + 8))
                                     for i in range(count)])
        entries = []
        self.entries(&found.stsd, 8, 8, &count)
        at = found.stsd.body + 8
        while len(entries) < count and self.next_box(&at, found.stsd.end, &child):
            entries.append(self.data[child.start:child.end])
        if len(entries) < count:
            return fail("source_malformed", "stsd lacks sample entries")
        track.entries = tuple(entries)
        return 0

    cdef str language(self, uint16_t code):
        """mdhd: three letters of 5 bits; QuickTime: a Macintosh language code (QuickTime File Format)."""
        if code < 0x400:
            if (not self.made.brands or "qt  " in self.made.brands) and code < len(MACINTOSH):
                return MACINTOSH[code]
            return "und"
        letters = "".join([chr((code >> shift & 31) + 0x60) for shift in (10, 5, 0)])
        return letters if letters.isalpha() and letters.isascii() else "und"

    cdef int read_samples(self, OpenTrack t, const Tables* found) except -1:
        """Fills the builder from stbl (8.5 to 8.7)."""
        cdef Builder b = t.builder
        cdef const uint8_t* sizes
        cdef const uint8_t* stts = NULL
        cdef const uint8_t* ctts = NULL
        cdef const uint8_t* stss = NULL
        cdef const uint8_t* stsc = NULL
        cdef const uint8_t* stco = NULL
        cdef uint32_t count = 0, size = 0, bits = 0, deltas = 0, shifts = 0, syncs = 0, spans = 0, chunks = 0, i
        cdef int width = 8 if found.stco.type == fourcc(b"co64") else 4
        if found.stsz.end == 0:
            return 0
        sizes = self.body(&found.stsz, 12)
        count = be32(sizes + 8)
        if found.stsz.type == fourcc(b"stz2"):
            bits = sizes[7]
            if bits != 4 and bits != 8 and bits != 16:
                return fail("source_malformed", "stz2 with sizes of an unknown width")
        else:
            size = be32(sizes + 4)
            bits = 0 if size else 32
        if (<uint64_t>count * bits + 7) // 8 > found.stsz.end - found.stsz.body - 12:
            return fail("source_malformed", "a table claims more entries than its box holds")
        if count == 0:
            return 0
        self.count_samples(count)
        if found.stts.end:
            stts = self.entries(&found.stts, 8, 8, &deltas)
        if found.ctts.end:
            ctts = self.entries(&found.ctts, 8, 8, &shifts)
        if found.stss.end:
            stss = self.entries(&found.stss, 8, 4, &syncs)
        if found.stsc.end:
            stsc = self.entries(&found.stsc, 8, 12, &spans)
        if found.stco.end:
            stco = self.entries(&found.stco, 8, width, &chunks)
        with nogil:
            if bits:
                b.add_sizes_be(sizes + 12, count, <int>bits)
            else:
                b.add_sizes(size, count)
            b.add_deltas_be(stts, deltas)
            b.add_shifts_be(ctts, shifts)
            if stss != NULL:
                b.add_syncs_be(stss, syncs)
            else:
                b.add_syncs(True, count)
            b.add_chunks_be(stco, chunks, width, stsc, spans)
        size = 0
        for i in range(spans):
            if be32(stsc + 12 * <uint64_t>i) > chunks:
                break
            if i == 0 or be32(stsc + 12 * <uint64_t>i + 8) != size:
                size = be32(stsc + 12 * <uint64_t>i + 8)
                use_entry(t, size)
        return 0


cdef int use_entry(OpenTrack t, uint32_t number) except -1:
    """Notes that samples use a sample description, numbered from 1."""
    if not 1 <= number <= len(t.track.entries):
        return fail("source_malformed", "samples with a description that does not exist")
    t.used.add(number - 1)
    return 0


cdef str text(const uint8_t* p):
    return p[:4].decode("latin-1")


cdef str handler_name(bytes raw, bint quicktime):
    """hdlr's name: a C string, or a Pascal string as in QuickTime files (and in some MP4 files)."""
    raw = raw.rstrip(b"\0")
    if raw and (raw[0] == len(raw) - 1 or (quicktime and raw[0] < len(raw))):
        raw = raw[1:1 + raw[0]]
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace").strip()
