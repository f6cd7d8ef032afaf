"""What a transport stream takes out of a source's decoder configuration: H.264 parameter sets and the AAC of ADTS.

ISO/IEC 14496-15 section 5.3.3.1.2 (avcC), ISO/IEC 14496-10 section 7.4.1 (NAL unit types), ISO/IEC 14496-3 sections
1.6.2.1 (AudioSpecificConfig), 4.4.1 (GASpecificConfig) and 1.A.2.2 (ADTS).
"""

from libc.stdint cimport uint8_t, uint32_t

from streamgate.errors import StreamGateError

cdef enum:
    MAX_SETS = 64               # each NAL unit that could be a copy of one is compared with all
    MAX_BYTES = 65536           # of parameter sets of one kind
    EXPLICIT_RATE = 15          # samplingFrequencyIndex: 24 bits of Hz follow
    SBR = 5                     # audio object types, table 1.17
    PS = 29
    ESCAPE = 31

# Of samplingFrequencyIndex, Hz.
cdef uint32_t[13] RATES = [96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350]
# NAL unit types of SPS, PPS and SPS extension, in avcC's order.
cdef uint8_t[3] SET_TYPES = [7, 8, 13]


cdef struct Bits:
    const uint8_t* data
    Py_ssize_t at, end          # in bits


def parameter_sets(const uint8_t[::1] avcc not None):
    cdef list found = [b"", b"", b""]
    cdef Py_ssize_t at = 5, size = avcc.shape[0], length
    cdef int kind, count, kept = 0
    if size < 7 or avcc[0] != 1:
        raise StreamGateError("source_malformed", "the avcC box is no AVCDecoderConfigurationRecord")
    if avcc[4] & 3 != 3:
        raise StreamGateError("ts_unavailable", f"NAL units have length fields of {(avcc[4] & 3) + 1} bytes, not 4")
    for kind in range(3):
        if kind == 2:
            if avcc[1] not in (100, 110, 122, 144) or size - at < 4:        # many writers leave these fields out
                break
            at += 3
        if at >= size:
            raise StreamGateError("source_malformed", "the avcC box ends early")
        count = avcc[at] & (31 if kind == 0 else 255)
        at += 1
        for _ in range(count):
            length = avcc[at] << 8 | avcc[at + 1] if size - at >= 2 else size
            at += 2
            if length > size - at:
                raise StreamGateError("source_malformed", "a parameter set overruns the avcC box")
            # What is no such set, an empty one for instance, is of no use to a decoder.
            if length and avcc[at] & 31 == SET_TYPES[kind]:
                kept += 1
                found[kind] += int(length).to_bytes(4, "big") + bytes(avcc[at:at + length])
                if kept > MAX_SETS or len(found[kind]) > MAX_BYTES:
                    raise StreamGateError("ts_unavailable", "the parameter sets are too many or too large to repeat")
            at += length
    return found[0] + found[2] + found[1]


cdef int take(Bits* bits, int count) except -1:
    cdef int value = 0
    if bits.end - bits.at < count:
        raise StreamGateError("source_malformed", "the AudioSpecificConfig ends early")
    for _ in range(count):
        value = value << 1 | bits.data[bits.at >> 3] >> (7 - (bits.at & 7)) & 1
        bits.at += 1
    return value


cdef int object_type(Bits* bits) except -1:
    cdef int kind = take(bits, 5)
    return 32 + take(bits, 6) if kind == ESCAPE else kind


cdef int frequency_index(Bits* bits) except -1:
    """samplingFrequencyIndex, or the one that means the same Hz; ``EXPLICIT_RATE`` where none does."""
    cdef int index = take(bits, 4), i
    cdef uint32_t rate
    if index == EXPLICIT_RATE:
        rate = take(bits, 24)
        for i in range(13):
            if rate == RATES[i]:
                return i
    return index


def adts_config(const uint8_t[::1] asc not None):
    cdef Bits bits
    cdef int kind, index, channels
    bits.data = &asc[0] if asc.shape[0] else NULL
    bits.at = 0
    bits.end = asc.shape[0] * 8
    kind = object_type(&bits)
    index = frequency_index(&bits)
    channels = take(&bits, 4)
    if kind == SBR or kind == PS:       # ADTS signals these implicitly: its header speaks of the core
        frequency_index(&bits)
        kind = object_type(&bits)
    if not 1 <= kind <= 4 or index > 12 or not 1 <= channels <= 7:
        raise StreamGateError(
            "ts_unavailable", f"ADTS has no header for AAC object type {kind}, frequency {index}, channels {channels}"
        )
    if take(&bits, 1) or take(&bits, 1):
        raise StreamGateError("ts_unavailable", "ADTS has no header for 960-sample or scalable AAC")
    return kind - 1, index, channels, RATES[index]
