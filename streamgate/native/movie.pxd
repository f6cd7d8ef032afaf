"""For the parser: access to boxes, and what is read from the moov."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from streamgate.native.builder cimport Builder
from streamgate.native.index cimport Index
from streamgate.native.samples cimport Track


cdef struct Box:
    uint32_t type
    uint64_t start, body, end           # of the header, the payload and the next box; in the file or in the bytes held


cdef struct Tables:                     # the boxes of one trak; end is 0 for those it lacks
    Box tkhd, elst, mdhd, hdlr, stsd, stts, ctts, stss, stsc, stsz, stco


cdef class OpenTrack:                   # a track whose samples are being collected
    cdef Track track
    cdef Builder builder
    cdef set used                       # entries of stsd that its samples use, numbered from 0
    cdef int64_t next_dts
    cdef uint32_t description, duration, size, flags    # of samples that do not have their own (trex, tfhd)


cdef class MovieReader:
    cdef bytes data                     # bytes of the file
    cdef uint64_t size                  # of the file
    cdef int64_t samples, boxes         # how many more are allowed
    cdef dict open_tracks               # by track number
    cdef Index made
    cdef bint has_movie

    cdef int count_box(self) except -1
    cdef int count_samples(self, uint32_t count) except -1
    cdef bint next_box(self, uint64_t* at, uint64_t end, Box* box) except -1
    cdef const uint8_t* body(self, const Box* box, uint64_t least) except NULL
    cdef const uint8_t* entries(self, const Box* box, uint64_t head, uint64_t width, uint32_t* count) except NULL
    cdef int read_ftyp(self, const Box* box) except -1
    cdef int read_moov(self, const Box* box) except -1
    cdef int read_mvhd(self, const Box* box) except -1
    cdef int read_mvex(self, const Box* box) except -1
    cdef int collect(self, const Box* box, Tables* found) except -1
    cdef int read_trak(self, const Box* box) except -1
    cdef int read_headers(self, Track track, const Tables* found) except -1
    cdef str language(self, uint16_t code)
    cdef int read_samples(self, OpenTrack t, const Tables* found) except -1


cdef int use_entry(OpenTrack t, uint32_t number) except -1
