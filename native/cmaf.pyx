"""CMAF: init segments and the heads of media segments (ISO/IEC 23000-19, boxes of ISO/IEC 14496-12).

A segment is ``styp moof mdat`` with one ``traf``. Which fields its ``tfhd`` and ``trun`` carry is decided for each
segment by :c:func:`layout_of`; the writer and the size estimate both follow that layout, so they cannot disagree.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport INT32_MAX, INT64_MAX, UINT32_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

import re
from functools import lru_cache
from struct import pack

import numpy as np

from streamgate.errors import StreamGateError
from streamgate.native.gather cimport Plan, make_plan
from streamgate.native.samples cimport Range, Track

# Raise it whenever the same input gives other bytes: rendition names depend on it.
FORMAT_VERSION = 1

cdef enum:
    # ISO/IEC 14496-12 section 8.8.3.1: sample_depends_on, sample_is_depended_on, sample_is_non_sync_sample.
    SYNC_FLAGS = 0x02000000
    NON_SYNC_FLAGS = 0x01010000
    # Section 8.8.7, tfhd.
    TF_DURATION = 0x000008
    TF_SIZE = 0x000010
    TF_FLAGS = 0x000020
    TF_BASE_IS_MOOF = 0x020000
    # Section 8.8.8, trun.
    TR_DATA_OFFSET = 0x000001
    TR_FIRST_FLAGS = 0x000004
    TR_DURATION = 0x000100
    TR_SIZE = 0x000200
    TR_FLAGS = 0x000400
    TR_OFFSET = 0x000800
    STACK_SAMPLES = 512         # a segment of 4 s needs no allocation
    STACK_RANGES = 512


cdef struct Samples:
    uint32_t count
    uint32_t* sizes
    uint32_t* durations
    int32_t* offsets
    uint8_t* syncs


cdef struct Layout:
    uint64_t payload
    uint64_t moof               # bytes of the moof box
    uint32_t mdat               # bytes of the mdat box's header
    uint32_t duration           # the defaults of tfhd, where its flags say that they are there
    uint32_t size
    uint32_t flags
    uint32_t first_flags
    uint32_t tf
    uint32_t tr


cdef inline void arrange(Samples* samples, char* memory, uint32_t count) noexcept nogil:
    """Lay the four arrays out in ``memory``, 13 bytes a sample."""
    samples.count = count
    samples.sizes = <uint32_t*> memory
    samples.durations = samples.sizes + count
    samples.offsets = <int32_t*> (samples.durations + count)
    samples.syncs = <uint8_t*> (samples.offsets + count)


cdef inline uint32_t flags_of(uint8_t sync) noexcept nogil:
    return SYNC_FLAGS if sync else NON_SYNC_FLAGS


cdef Layout layout_of(const Samples* samples) noexcept nogil:
    """Decide which fields the segment needs; what is constant becomes a default, what is zero is left out."""
    cdef Layout layout
    cdef uint32_t i, count = samples.count, fields = 0, sizes = 0, durations = 0, offsets = 0
    cdef uint32_t size = samples.sizes[0], duration = samples.durations[0]
    cdef uint8_t syncs = 0, rest = samples.syncs[count > 1]
    cdef uint64_t payload = 0
    for i in range(count):
        payload += samples.sizes[i]
        sizes |= samples.sizes[i] ^ size
    for i in range(count):
        durations |= samples.durations[i] ^ duration
    for i in range(count):
        offsets |= <uint32_t> samples.offsets[i]
    for i in range(1, count):
        syncs |= samples.syncs[i] ^ rest
    layout.payload = payload
    layout.mdat = 8 if payload < <uint64_t> UINT32_MAX + 1 - 8 else 16
    layout.duration = duration
    layout.size = size
    layout.flags = flags_of(rest)
    layout.first_flags = flags_of(samples.syncs[0])
    layout.tf = TF_BASE_IS_MOOF
    layout.tr = TR_DATA_OFFSET
    # mfhd 16, tfdt 20, tfhd 16 and trun 20 without options, traf 8, moof 8
    layout.moof = 88
    if durations:
        layout.tr |= TR_DURATION
        fields += 1
    else:
        layout.tf |= TF_DURATION
        layout.moof += 4
    if sizes:
        layout.tr |= TR_SIZE
        fields += 1
    else:
        layout.tf |= TF_SIZE
        layout.moof += 4
    if syncs:
        layout.tr |= TR_FLAGS
        fields += 1
    else:
        layout.tf |= TF_FLAGS
        layout.moof += 4
        if layout.first_flags != layout.flags:
            layout.tr |= TR_FIRST_FLAGS
            layout.moof += 4
    if offsets:
        layout.tr |= TR_OFFSET
        fields += 1
    layout.moof += <uint64_t> count * 4 * fields
    return layout


cdef inline char* put32(char* p, uint32_t value) noexcept nogil:
    p[0] = <char> (value >> 24)
    p[1] = <char> (value >> 16)
    p[2] = <char> (value >> 8)
    p[3] = <char> value
    return p + 4


cdef inline char* put64(char* p, uint64_t value) noexcept nogil:
    return put32(put32(p, <uint32_t> (value >> 32)), <uint32_t> value)


cdef inline char* put_box(char* p, uint32_t size, const char* kind) noexcept nogil:
    p = put32(p, size)
    memcpy(p, kind, 4)
    return p + 4


cdef char* put_head(char* p, const Layout* layout, const Samples* samples, uint32_t track_id, uint32_t sequence,
                    uint64_t decode_time) noexcept nogil:
    """Write moof and the header of mdat; returns the position behind them."""
    cdef uint32_t i, moof = <uint32_t> layout.moof, tr = layout.tr, tf = layout.tf
    cdef uint32_t tfhd = 16 + 4 * (((tf & TF_DURATION) != 0) + ((tf & TF_SIZE) != 0) + ((tf & TF_FLAGS) != 0))
    p = put_box(p, moof, b"moof")
    p = put_box(p, 16, b"mfhd")
    p = put32(p, 0)
    p = put32(p, sequence)
    p = put_box(p, moof - 24, b"traf")

    p = put_box(p, tfhd, b"tfhd")
    p = put32(p, tf)
    p = put32(p, track_id)
    if tf & TF_DURATION:
        p = put32(p, layout.duration)
    if tf & TF_SIZE:
        p = put32(p, layout.size)
    if tf & TF_FLAGS:
        p = put32(p, layout.flags)

    p = put_box(p, 20, b"tfdt")
    p = put32(p, 1 << 24)
    p = put64(p, decode_time)

    p = put_box(p, moof - 52 - tfhd, b"trun")
    p = put32(p, 1 << 24 | tr)
    p = put32(p, samples.count)
    p = put32(p, moof + layout.mdat)
    if tr & TR_FIRST_FLAGS:
        p = put32(p, layout.first_flags)
    if tr & (TR_DURATION | TR_SIZE | TR_FLAGS | TR_OFFSET):
        for i in range(samples.count):
            if tr & TR_DURATION:
                p = put32(p, samples.durations[i])
            if tr & TR_SIZE:
                p = put32(p, samples.sizes[i])
            if tr & TR_FLAGS:
                p = put32(p, flags_of(samples.syncs[i]))
            if tr & TR_OFFSET:
                p = put32(p, <uint32_t> samples.offsets[i])

    if layout.mdat == 8:
        return put_box(p, <uint32_t> (layout.payload + 8), b"mdat")
    return put64(put_box(p, 1, b"mdat"), layout.payload + 16)


cdef bytes head_of(const Samples* samples, uint32_t track_id, uint32_t sequence, int64_t time, int64_t shift,
                   tuple brands):
    """styp, moof and the header of mdat; ``time + shift`` is the baseMediaDecodeTime."""
    cdef Layout layout = layout_of(samples)
    cdef bytes styp = _type_box(b"styp", brands) if brands else b""
    cdef Py_ssize_t ahead = len(styp)
    cdef bytes head
    cdef char* p
    if time <= -1 - shift:      # neither side can overflow, as the sum could
        raise StreamGateError("source_malformed", f"a segment begins before time zero: at {time} + {shift} ticks")
    if shift > 0 and time > INT64_MAX - shift:
        raise StreamGateError("source_malformed", "a decoding time does not fit 63 bits")
    if layout.moof + layout.mdat > <uint64_t> INT32_MAX:
        raise StreamGateError("source_too_complex", f"a segment of {samples.count} samples")
    head = PyBytes_FromStringAndSize(NULL, ahead + <Py_ssize_t> layout.moof + layout.mdat)
    p = PyBytes_AS_STRING(head)
    memcpy(p, PyBytes_AS_STRING(styp), ahead)
    put_head(p + ahead, &layout, samples, track_id, sequence, <uint64_t> (time + shift))
    return head


cdef Plan plan_of(bytes head, Track track, uint32_t first, uint32_t count):
    cdef Range some[STACK_RANGES]
    cdef Range* ranges = some
    cdef int64_t found = track.ranges_of(first, count, some, STACK_RANGES)
    if found <= STACK_RANGES:
        return make_plan(head, some, found)
    ranges = <Range*> malloc(found * sizeof(Range))
    if ranges == NULL:
        raise MemoryError
    try:
        track.ranges_of(first, count, ranges, <uint32_t> found)
        return make_plan(head, ranges, found)
    finally:
        free(ranges)


def segment(Track track not None, int64_t first, int64_t last, *, uint32_t track_id, uint32_t sequence, int64_t shift,
            tuple brands not None):
    cdef char some[STACK_SAMPLES * 13]
    cdef char* memory = some
    cdef Samples samples
    if first < 0 or first >= last or last > track.samples:
        raise StreamGateError("segment_not_found", f"samples {first} to {last} of {track.samples}")
    if last - first > STACK_SAMPLES:
        memory = <char*> malloc((last - first) * 13)
        if memory == NULL:
            raise MemoryError
    try:
        arrange(&samples, memory, <uint32_t> (last - first))
        track.expand(first, samples.count, samples.sizes, samples.durations, samples.offsets, samples.syncs)
        head = head_of(&samples, track_id, sequence, track.dts_at(first), shift, brands)
    finally:
        if memory != some:
            free(memory)
    return plan_of(head, track, first, <uint32_t> (last - first))


def keyframe_segment(Track track not None, int64_t sample, int64_t duration, *, uint32_t track_id, uint32_t sequence,
                     int64_t shift, tuple brands not None):
    cdef char memory[13]
    cdef Samples samples
    cdef int64_t time
    if sample < 0 or sample >= track.samples:
        raise StreamGateError("segment_not_found", f"sample {sample} of {track.samples}")
    if duration < 0 or duration > <int64_t> UINT32_MAX:
        raise StreamGateError("source_malformed", f"a sample of {duration} ticks")
    arrange(&samples, memory, 1)
    track.expand(sample, 1, samples.sizes, NULL, samples.offsets, samples.syncs)
    if not samples.syncs[0]:
        raise StreamGateError("segment_not_found", f"sample {sample} is no keyframe")
    time = track.dts_at(sample) + samples.offsets[0]
    samples.durations[0] = <uint32_t> duration
    samples.offsets[0] = 0
    return plan_of(head_of(&samples, track_id, sequence, time, shift, brands), track, sample, 1)


def segment_sizes(Track track not None, const uint32_t[::1] starts not None, *, tuple brands not None):
    cdef Py_ssize_t i, count = max(starts.shape[0] - 1, 0)
    cdef uint64_t styp = len(_type_box(b"styp", brands)) if brands else 0
    cdef uint32_t longest = 0
    cdef Samples samples
    cdef Layout layout
    cdef char* memory
    sizes = np.empty(count, np.uint64)
    cdef uint64_t[::1] out = sizes
    for i in range(count):
        if starts[i] >= starts[i + 1] or starts[i + 1] > track.samples:
            raise StreamGateError("segment_not_found", f"samples {starts[i]} to {starts[i + 1]} of {track.samples}")
        longest = max(longest, starts[i + 1] - starts[i])
    memory = <char*> malloc(<size_t> longest * 13 + 1)
    if memory == NULL:
        raise MemoryError
    try:
        with nogil:
            for i in range(count):
                arrange(&samples, memory, starts[i + 1] - starts[i])
                track.expand(starts[i], samples.count, samples.sizes, samples.durations, samples.offsets, samples.syncs)
                layout = layout_of(&samples)
                out[i] = styp + layout.moof + layout.mdat + layout.payload
    finally:
        free(memory)
    return sizes


# The init segment. It is made once a rendition, so plain Python serves.

cdef bytes fourcc(str code):
    held = code.encode("ascii", "replace")
    if len(held) != 4:
        raise StreamGateError("internal", f"{code!r} is not a code of four characters")
    return held


def _box(bytes kind not None, *content):
    body = b"".join(content)
    return pack(">I4s", 8 + len(body), kind) + body


def _full_box(bytes kind not None, int version, int flags, *content):
    return _box(kind, pack(">I", version << 24 | flags), *content)


@lru_cache(maxsize=64)
def _type_box(bytes kind not None, tuple brands not None):
    """ftyp or styp (ISO/IEC 14496-12 sections 4.3 and 8.16.2): the major brand is the first, compatible are all."""
    codes = [fourcc(brand) for brand in brands]
    return _box(kind, codes[0], bytes(4), *codes)


cdef object _language_tag = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")


cdef tuple packed_language(str language):
    """ISO 639-2 in three times five bits for mdhd, and an elng box for what does not fit (sections 8.4.2 and 8.4.6)."""
    code = language if re.fullmatch("[a-z]{3}", language) else "und"
    a, b, c = (ord(letter) - 0x60 for letter in code)
    tagged = code != language and _language_tag.fullmatch(language)
    return a << 10 | b << 5 | c, _full_box(b"elng", 0, 0, language.encode("ascii"), b"\0") if tagged else b""


cdef object fixed16(double value):
    if not 0 <= value < 65536:
        raise StreamGateError("source_malformed", f"a picture of {value} pixels")
    return min(round(value * 65536), 0xFFFFFFFF)


def init_segment(*, uint32_t track_id, str handler not None, uint32_t timescale, bytes entry not None,
                 str language not None, str name not None, double width, double height, tuple matrix not None,
                 tuple brands not None):
    if track_id == 0 or not brands:
        raise StreamGateError("internal", "an init segment needs a track id and a brand")
    if timescale == 0:
        raise StreamGateError("source_malformed", "a track without a timescale")
    if len(entry) < 16 or int.from_bytes(entry[:4], "big") != len(entry):
        raise StreamGateError("source_malformed", "a sample entry whose size is not its box's")
    kind = fourcc(handler)
    language_bits, elng = packed_language(language)
    label = name.encode("utf-8", "replace").split(b"\0")[0] + b"\0"
    volume = 0x0100 if handler == "soun" else 0
    identity = pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)

    mvhd = _full_box(b"mvhd", 0, 0, pack(">IIIIIH10x", 0, 0, timescale, 0, 0x10000, 0x0100), identity, bytes(24),
                     pack(">I", min(<int64_t> track_id + 1, UINT32_MAX)))
    # track_enabled, track_in_movie, track_in_preview
    tkhd = _full_box(b"tkhd", 0, 7, pack(">IIIII8xHHHH", 0, 0, track_id, 0, 0, 0, 0, volume, 0), pack(">9i", *matrix),
                     pack(">II", fixed16(width), fixed16(height)))
    mdhd = _full_box(b"mdhd", 0, 0, pack(">IIIIHH", 0, 0, timescale, 0, language_bits, 0))
    hdlr = _full_box(b"hdlr", 0, 0, pack(">I4s12x", 0, kind), label)
    if handler == "vide":
        header = _full_box(b"vmhd", 0, 1, bytes(8))
    elif handler == "soun":
        header = _full_box(b"smhd", 0, 0, bytes(4))
    else:
        header = _full_box(b"sthd" if handler == "subt" else b"nmhd", 0, 0)
    dinf = _box(b"dinf", _full_box(b"dref", 0, 0, pack(">I", 1), _full_box(b"url ", 0, 1)))
    stbl = _box(
        b"stbl",
        _full_box(b"stsd", 0, 0, pack(">I", 1), entry),
        _full_box(b"stts", 0, 0, bytes(4)),
        _full_box(b"stsc", 0, 0, bytes(4)),
        _full_box(b"stsz", 0, 0, bytes(8)),
        _full_box(b"stco", 0, 0, bytes(4)),
    )
    trak = _box(b"trak", tkhd, _box(b"mdia", mdhd, hdlr, elng, _box(b"minf", header, dinf, stbl)))
    trex = _full_box(b"trex", 0, 0, pack(">IIIII", track_id, 1, 0, 0, 0))
    return _type_box(b"ftyp", brands) + _box(b"moov", mvhd, trak, _box(b"mvex", trex))
