# What mpegts.pyx takes out of a source's decoder configuration; a part of that kernel.

cdef enum:
    MAX_SETS = 65536            # bytes of parameter sets of one kind

cdef uint32_t[13] RATES = [96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350]


cdef bytes parameter_sets(bytes avcc):
    """The parameter sets of an AVCDecoderConfigurationRecord (ISO/IEC 14496-15 section 5.3.3.1.2), each behind its length."""
    cdef Py_ssize_t at = 5
    cdef list found = [b"", b"", b""]           # SPS, PPS, SPS extension
    if len(avcc) < 7 or avcc[0] != 1:
        raise StreamGateError("source_malformed", "the avcC box is no AVCDecoderConfigurationRecord")
    if avcc[4] & 3 != 3:
        raise StreamGateError("ts_unavailable", f"NAL units have length fields of {(avcc[4] & 3) + 1} bytes, not 4")
    for kind in range(3):
        if kind == 2:
            if avcc[1] not in (100, 110, 122, 144) or len(avcc) - at < 4:   # many writers leave these fields out
                break
            at += 3
        if at >= len(avcc):
            raise StreamGateError("source_malformed", "the avcC box ends early")
        count = avcc[at] & (31 if kind == 0 else 255)
        at += 1
        for _ in range(count):
            length = int.from_bytes(avcc[at:at + 2], "big")
            at += 2 + length
            if at > len(avcc):
                raise StreamGateError("source_malformed", "a parameter set overruns the avcC box")
            found[kind] += length.to_bytes(4, "big") + avcc[at - length:at]
            if len(found[kind]) > MAX_SETS:
                raise StreamGateError("ts_unavailable", "the parameter sets are too large to repeat")
    return found[0] + found[2] + found[1]


cdef int take(list bits, int count) except -1:
    cdef int value = 0
    if len(bits) < count:
        raise StreamGateError("source_malformed", "the AudioSpecificConfig ends early")
    for _ in range(count):
        value = value << 1 | <int> bits.pop()
    return value


cdef int object_type(list bits) except -1:
    cdef int kind = take(bits, 5)
    return 32 + take(bits, 6) if kind == 31 else kind


cdef int frequency_index(list bits) except -1:
    cdef int index = take(bits, 4)
    cdef int rate = take(bits, 24) if index == 15 else 0
    for i in range(13):
        if rate == <int> RATES[i]:
            return i
    return index


cdef tuple adts_config(bytes asc):
    """ADTS profile, sampling frequency index and channel configuration of the core AAC (ISO/IEC 14496-3 section 1.6.2.1)."""
    cdef list bits = [byte >> n & 1 for byte in reversed(asc[:64]) for n in range(8)]      # the first one is last
    kind = object_type(bits)
    index = frequency_index(bits)
    channels = take(bits, 4)
    if kind in (5, 29):         # ADTS signals SBR and PS implicitly: its header speaks of the core
        frequency_index(bits)
        kind = object_type(bits)
    if not 1 <= kind <= 4 or index > 12 or not 1 <= channels <= 7:
        raise StreamGateError(
            "ts_unavailable", f"ADTS has no header for AAC object type {kind}, frequency {index}, channels {channels}"
        )
    if take(bits, 1) or take(bits, 1):
        raise StreamGateError("ts_unavailable", "ADTS has no header for 960-sample or scalable AAC")
    return kind - 1, index, channels
