"""The index of a source: its tracks; and the whole as bytes.

The bytes are a header, which holds a CRC-32 of the rest, then the movie's fields, then for each track its fields and,
on the next multiple of 8, its table as it lies in memory. Fields are little-endian, tables in the machine's order.
"""

import struct
import zlib

from libc.stdint cimport uint32_t, uint64_t

from streamgate.native.samples cimport Track, fail

from streamgate.errors import StreamGateError

FORMAT_VERSION = 1

MAGIC = b"SGIX"
HEADER = struct.Struct("<4sII")             # magic, FORMAT_VERSION, CRC-32 of the rest
MOVIE = struct.Struct("<QIQ?II")            # size, timescale, duration, fragmented; how many brands and tracks
TRACK = struct.Struct("<II?dd9iIIIQ")       # id, timescale, enabled, width, height, matrix; how many entries,
                                            # descriptions used and edits; bytes of the table
EDIT = struct.Struct("<Qqi")
NUMBER = struct.Struct("<I")


cdef class Index:
    def __init__(self):
        raise TypeError("an index comes from read_index, Parser or Index.loads")

    def dumps(self):
        cdef Track track
        parts = [MOVIE.pack(self.size, self.timescale, self.duration, self.fragmented,
                            len(self.brands), len(self.tracks))]
        parts += [sized(brand.encode()) for brand in self.brands]
        size = HEADER.size + sum(map(len, parts))
        for track in self.tracks:
            fields = b"".join([
                TRACK.pack(track.id, track.timescale, track.enabled, track.width, track.height, *track.matrix,
                           len(track.entries), len(track.entries_used), len(track.edits), len(track.block)),
                sized(track.handler.encode()), sized(track.language.encode()), sized(track.name.encode()),
                *map(sized, track.entries), *map(NUMBER.pack, track.entries_used),
                *[EDIT.pack(*edit) for edit in track.edits],
            ])
            padding = bytes(-(size + len(fields)) % 8)
            parts += [fields, padding, track.block]
            size += len(fields) + len(padding) + len(track.block)
        crc = 0
        for part in parts:
            crc = zlib.crc32(part, crc)
        return b"".join([HEADER.pack(MAGIC, FORMAT_VERSION, crc), *parts])

    @staticmethod
    def loads(data):
        reader = Reader(memoryview(data).cast("B"))
        try:
            magic, version, crc = reader.fields(HEADER)
            if magic != MAGIC or version != FORMAT_VERSION or crc != zlib.crc32(reader.data[HEADER.size:]):
                fail("source_malformed", "not a stored index, or a damaged one, or one of another format")
            return reader.index()
        except (struct.error, ValueError, OverflowError, MemoryError) as error:
            raise StreamGateError("source_malformed", f"stored index: {error}") from None

    def __repr__(self):
        return f"Index(size={self.size}, fragmented={self.fragmented}, tracks={self.tracks})"


cdef bytes sized(bytes value):
    return NUMBER.pack(len(value)) + value


cdef class Reader:
    """Takes the fields of a stored index, in order."""

    cdef readonly object data
    cdef Py_ssize_t at

    def __init__(self, data):
        self.data = data

    cdef object take(self, uint64_t size):
        if size > <uint64_t>(len(self.data) - self.at):
            fail("source_malformed", "a stored index that is too short")
        self.at += <Py_ssize_t>size
        return self.data[self.at - <Py_ssize_t>size:self.at]

    def fields(self, layout):
        return layout.unpack(self.take(layout.size))

    cdef bytes sized(self):
        return bytes(self.take(self.fields(NUMBER)[0]))

    cdef Index index(self):
        cdef Index index = Index.__new__(Index)
        index.size, index.timescale, index.duration, index.fragmented, brands, tracks = self.fields(MOVIE)
        index.brands = tuple([self.sized().decode() for _ in range(brands)])
        index.tracks = tuple([self.track(index.size) for _ in range(tracks)])
        if self.at != len(self.data) or index.timescale == 0:
            fail("source_malformed", "a stored index with wrong fields")
        return index

    def track(self, size):
        cdef Track track = Track.__new__(Track)
        (track.id, track.timescale, track.enabled, track.width, track.height, *matrix, entries, used, edits,
         table) = self.fields(TRACK)
        track.matrix = tuple(matrix)
        track.handler, track.language, track.name = [self.sized().decode() for _ in range(3)]
        track.entries = tuple([self.sized() for _ in range(entries)])
        track.entries_used = tuple([self.fields(NUMBER)[0] for _ in range(used)])
        track.edits = tuple([self.fields(EDIT) for _ in range(edits)])
        self.take((8 - self.at % 8) % 8)
        track.adopt(self.take(table), True)
        if track.end > size or track.timescale == 0 or max(track.entries_used, default=-1) >= entries:
            fail("source_malformed", "a stored track with wrong fields")
        return track
