"""MPEG-2 transport stream segments of H.264 and AAC, for HLS players that know no fMP4.

ISO/IEC 13818-1 (packets, PES, PSI, PCR), RFC 8216 section 3.2 (what a segment holds), ISO/IEC 14496-15 (samples),
ISO/IEC 14496-10 annex B (byte stream), ISO/IEC 14496-3 section 1.A.2.2 (ADTS).

A segment must continue its predecessor's continuity counters though nobody ever made that predecessor here.
So the number of packets of every PES packet follows from the index alone: it is the number that the longest form of the access
unit needs (delimiter and parameter sets added, nothing dropped), and a shorter form is stuffed up to it.
`walk` is the one place that lays packets out; it either counts them or writes them.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

import numpy as np

from streamgate.errors import StreamGateError
from streamgate.native.mpegts_config import adts_config, parameter_sets
from streamgate.native.samples cimport Track

cdef extern from "mpegts_packet.h" nogil:
    enum:
        PACKET "TS_PACKET"
        ROOM "TS_ROOM"
    uint64_t MALFORMED "NAL_MALFORMED"
    ctypedef struct Pes "ts_pes":
        pass
    int64_t ticks "ts_ticks"(int64_t time, uint32_t timescale)
    int64_t ticks_down "ts_ticks_down"(int64_t time, uint32_t timescale)
    int64_t ticks_up "ts_ticks_up"(int64_t time, uint32_t timescale)
    void put_lone_pcr "ts_put_lone_pcr"(uint8_t* out, uint32_t pid, uint8_t counter, int64_t pcr)
    int pes_header "ts_pes_header"(uint8_t* out, int stream_id, bint aligned, uint32_t length, int64_t pts, int64_t dts)
    void open_pes "ts_open"(Pes* pes, uint8_t* out, uint32_t pid, uint8_t counter, uint64_t size, uint64_t packets, bint key,
                            bint clock, int64_t pcr)
    void put "ts_put"(Pes* pes, const uint8_t* data, uint64_t size)
    uint64_t nal_kept(const uint8_t* data, uint64_t size, const uint8_t* sets, uint64_t sets_size)
    void put_nals "nal_put"(Pes* pes, const uint8_t* data, uint64_t size, const uint8_t* sets, uint64_t sets_size)
    uint32_t checksum "ts_checksum"(const uint8_t* data, size_t size)

cdef enum:
    PROGRAM_PID = 0x1000
    VIDEO_PID = 0x100
    AUDIO_PID = 0x101
    H264 = 0x1B                 # stream types, ISO/IEC 13818-1 table 2-34
    AAC_ADTS = 0x0F
    # PCRs may be 100 ms apart (2.7.2). They lag behind the DTS by as much, because a byte arrives between the PCR before it
    # and the PCR after it: so all of an access unit is there when it is to be decoded.
    PCR_STEP = 9000
    PCR_LAG = 9000
    GROUP_TIME = 9000           # AAC frames share a PES packet for at most 100 ms, and ...
    GROUP_BYTES = 16 * ROOM     # ... unless they are huge, at most 16 packets
    ADTS_HEADER = 7
    MAX_FRAME = 8191 - ADTS_HEADER      # the field has 13 bits
    MAX_SAMPLES = 1 << 20       # in a segment
    MAX_LONE_PCRS = 36000       # in a segment: an hour without a picture
    MAX_OVERHEAD = 1 << 26      # bytes of a segment beyond twice its payload
    CHUNK = 4096                # samples looked at together

# Sums of three such times do not overflow, neither in ticks of the track nor at 90 kHz.
cdef int64_t MAX_TICKS = <int64_t> 1 << 60
cdef int64_t MAX_SECONDS = <int64_t> 1 << 31
cdef const uint8_t* DELIMITER = b"\x00\x00\x00\x01\x09\xf0"      # any primary_pic_type


cdef struct Unit:               # one PES packet
    int64_t dts                 # 90 kHz, not wrapped
    int64_t pts
    uint64_t start              # where its samples lie in the segment's payload
    uint64_t payload            # bytes of its samples
    uint64_t bound              # bytes of the PES packet in its longest form
    uint32_t first              # number of its first sample in the segment
    uint32_t count
    bint key                    # a decoder can start here
    bint sets                   # parameter sets are written here


cdef struct Writer:
    uint8_t* out                # where the next packet goes; NULL: only count
    uint64_t packets
    uint64_t lone_pcrs
    uint8_t counters[2]         # of video and audio: of the next packet with payload


cdef class Scratch:
    """The PES packets of one segment; owns its memory."""

    cdef Unit* units[2]         # of video and audio, each in order of dts
    cdef uint32_t counts[2]
    cdef uint64_t payloads[2]
    cdef uint32_t* sizes[2]     # of every sample
    cdef uint32_t* deltas
    cdef int32_t* offsets
    cdef uint8_t* syncs

    def __cinit__(self, uint32_t video, uint32_t audio):
        cdef uint32_t most = max(video, audio) + 1
        self.units[0] = <Unit*> malloc((video + 1) * sizeof(Unit))
        self.units[1] = <Unit*> malloc((audio + 1) * sizeof(Unit))
        self.sizes[0] = <uint32_t*> malloc((video + 1) * 4)
        self.sizes[1] = <uint32_t*> malloc((audio + 1) * 4)
        self.deltas = <uint32_t*> malloc(most * 4)
        self.offsets = <int32_t*> malloc(most * 4)
        self.syncs = <uint8_t*> malloc(most)
        if (self.units[0] == NULL or self.units[1] == NULL or self.sizes[0] == NULL or self.sizes[1] == NULL
                or self.deltas == NULL or self.offsets == NULL or self.syncs == NULL):
            raise MemoryError

    def __dealloc__(self):
        for i in range(2):
            free(self.units[i])
            free(self.sizes[i])
        free(self.deltas)
        free(self.offsets)
        free(self.syncs)


cdef inline int64_t reference(int64_t dts) noexcept nogil:
    """The PCR (90 kHz part) of a PES packet: PCR_LAG before its DTS, but not below zero.

    A presentation may start at DTS 0, where there is no room for a lag: there the clock starts at 0 as well and takes the first
    2 * PCR_LAG at half speed. Clamping it at 0 instead would make it stand still. No presentation has a DTS below 0; there it
    would be the clock.
    """
    if dts <= 0:
        return dts
    return dts - (dts >> 1 if dts < 2 * PCR_LAG else PCR_LAG)


cdef bytes section_packet(int pid, int table, bytes body):
    """A whole transport packet that holds one section, of number 1; its continuity counter is 0."""
    section = bytes((table, 0xB0, 5 + len(body) + 4, 0, 1, 0xC1, 0, 0)) + body
    section += checksum(section, len(section)).to_bytes(4, "big")
    return (bytes((0x47, 0x40 | pid >> 8, pid & 0xFF, 0x10, 0)) + section).ljust(PACKET, b"\xff")


cdef object boundaries(Track track, object starts, Py_ssize_t segments):
    """``starts`` as segments + 1 sample numbers: zeros without a track, the last one repeated where the track ends early."""
    cdef Py_ssize_t known = 0 if track is None else len(starts)
    numbers = np.zeros(segments + 1, np.int64)
    if track is not None:
        if known == 0:
            raise StreamGateError("internal", "a track has no boundaries of segments")
        numbers[:known] = starts
        numbers[known:] = numbers[known - 1]
        steps = np.diff(numbers)
        if numbers[0] < 0 or (steps < 0).any() or numbers[segments] > track.samples:
            raise StreamGateError("internal", "the boundaries of segments are no ascending sample numbers")
        if (steps > MAX_SAMPLES).any():
            raise StreamGateError("ts_unavailable", "a segment has too many samples")
    return numbers.astype(np.uint32)


cdef int check_times(Track track, const uint32_t[::1] starts, int64_t shift) except -1:
    cdef int64_t limit
    if track.timescale == 0:
        raise StreamGateError("source_malformed", "a track has the timescale 0")
    limit = min(MAX_TICKS, MAX_SECONDS * track.timescale)
    for time in (track.dts_at(starts[0]), track.dts_at(starts[starts.shape[0] - 1]), shift):
        if not -limit <= time <= limit:
            raise StreamGateError("ts_unavailable", "the times of a track are beyond any clock")
    return 0


cdef int offset_range(Track track, uint32_t first, uint32_t last, int32_t* lowest, int32_t* highest) except -1 nogil:
    """The extremes of the composition offsets of samples [first, last); 0 without any."""
    cdef int32_t[CHUNK] offsets
    cdef uint32_t count, i
    if first < last:
        track.expand(first, 1, NULL, NULL, offsets, NULL)
    else:
        offsets[0] = 0
    lowest[0] = highest[0] = offsets[0]
    while first < last:
        count = min(<uint32_t> CHUNK, last - first)
        track.expand(first, count, NULL, NULL, offsets, NULL)
        for i in range(count):
            lowest[0] = min(lowest[0], offsets[i])
            highest[0] = max(highest[0], offsets[i])
        first += count
    return 0


@cython.final
cdef class Muxer:

    cdef Track video, audio
    cdef const uint32_t[::1] video_starts, audio_starts
    cdef int64_t video_shift, audio_shift
    cdef int64_t lead                   # added to a video sample's dts, so that none lies behind its pts; <= 0
    cdef uint8_t[2 * 188] tables        # the packets of PAT and PMT
    cdef bytes sets_kept                # parameter sets as in a sample: each behind its length
    cdef const uint8_t* sets            # the same
    cdef uint64_t sets_size
    cdef uint8_t[ADTS_HEADER] adts      # with a frame length of 0
    cdef uint32_t rate                  # of the core AAC, Hz
    cdef readonly Py_ssize_t segments
    cdef int64_t[::1] begins            # 90 kHz: no dts of a segment or of any behind it is lower
    cdef uint64_t[::1] packets          # of each segment
    cdef uint8_t[:, ::1] counters       # continuity counters of video and audio when a segment begins

    def __init__(self, Track video, Track audio, *, avcc, asc, video_starts, audio_starts, int64_t video_shift,
                 int64_t audio_shift):
        if video is None and audio is None:
            raise StreamGateError("ts_unavailable", "there is neither video nor audio")
        self.video, self.audio = video, audio
        self.segments = max(1 if video is None else len(video_starts), 1 if audio is None else len(audio_starts)) - 1
        self.video_starts = boundaries(video, video_starts, self.segments)
        self.audio_starts = boundaries(audio, audio_starts, self.segments)
        self.video_shift, self.audio_shift = video_shift, audio_shift
        self.sets_kept = b"" if video is None else parameter_sets(avcc)
        self.sets = <const uint8_t*> PyBytes_AS_STRING(self.sets_kept)
        self.sets_size = len(self.sets_kept)
        if video is not None:
            self.check_video()
        if audio is not None:
            self.check_audio(adts_config(asc))
        self.make_tables()
        self.measure()

    cdef int check_video(self) except -1:
        """Times, and whether composition offsets are negative: a transport stream's DTS may not lie behind its PTS."""
        cdef int32_t lowest, highest
        check_times(self.video, self.video_starts, self.video_shift)
        offset_range(self.video, self.video_starts[0], self.video_starts[self.segments], &lowest, &highest)
        self.lead = min(0, lowest)
        return 0

    cdef int check_audio(self, tuple config) except -1:
        cdef int32_t lowest, highest
        profile, index, channels, self.rate = config
        self.adts = [0xFF, 0xF1, profile << 6 | index << 2 | channels >> 2, (channels & 3) << 6, 0, 0x1F, 0xFC]
        check_times(self.audio, self.audio_starts, self.audio_shift)
        offset_range(self.audio, self.audio_starts[0], self.audio_starts[self.segments], &lowest, &highest)
        if lowest != highest:
            raise StreamGateError("ts_unavailable", "the audio frames are not in the order of their times")
        self.audio_shift += lowest
        return 0

    cdef int make_tables(self) except -1:
        """PAT and PMT (ISO/IEC 13818-1 sections 2.4.4.3 and 2.4.4.8)."""
        pcr_pid = AUDIO_PID if self.video is None else VIDEO_PID
        streams = b""
        if self.video is not None:
            streams += bytes((H264, 0xE0 | VIDEO_PID >> 8, VIDEO_PID & 0xFF, 0xF0, 0))
        if self.audio is not None:
            streams += bytes((AAC_ADTS, 0xE0 | AUDIO_PID >> 8, AUDIO_PID & 0xFF, 0xF0, 0))
        tables = section_packet(0, 0, bytes((0, 1, 0xE0 | PROGRAM_PID >> 8, PROGRAM_PID & 0xFF)))
        tables += section_packet(PROGRAM_PID, 2, bytes((0xE0 | pcr_pid >> 8, pcr_pid & 0xFF, 0xF0, 0)) + streams)
        memcpy(self.tables, PyBytes_AS_STRING(tables), 2 * PACKET)
        return 0

    cdef int measure(self) except -1:
        """Lay every segment out once: its packets, and the counters it begins with."""
        cdef Py_ssize_t n
        cdef Writer w
        cdef Scratch scratch = Scratch(
            np.diff(self.video_starts).max(initial=0), np.diff(self.audio_starts).max(initial=0)
        )
        self.begins = np.empty(self.segments + 1, np.int64)
        self.packets = np.empty(self.segments, np.uint64)
        self.counters = np.empty((self.segments, 2), np.uint8)
        memset(&w, 0, sizeof(Writer))
        with nogil:
            for n in range(self.segments + 1):
                self.begins[n] = self.begin_of(n)
            for n in range(self.segments):
                self.plan(scratch, n)
                self.counters[n, 0] = w.counters[0]
                self.counters[n, 1] = w.counters[1]
                w.packets = w.lone_pcrs = 0
                self.walk(scratch, n, &w, NULL, NULL)
                if w.lone_pcrs > MAX_LONE_PCRS:
                    with gil:
                        raise StreamGateError("ts_unavailable", f"segment {n} has no picture for too long")
                if w.packets * PACKET > 2 * (scratch.payloads[0] + scratch.payloads[1]) + MAX_OVERHEAD:
                    with gil:
                        raise StreamGateError("ts_unavailable", f"segment {n} would be nearly all headers")
                self.packets[n] = w.packets
        return 0

    cdef int64_t begin_of(self, Py_ssize_t n) noexcept nogil:
        cdef int64_t begin = INT64_MAX
        if self.video_starts[n] < self.video_starts[self.segments]:
            begin = ticks(self.video.dts_at(self.video_starts[n]) + self.video_shift + self.lead, self.video.timescale)
        if self.audio_starts[n] < self.audio_starts[self.segments]:
            begin = min(begin, ticks(self.audio.dts_at(self.audio_starts[n]) + self.audio_shift, self.audio.timescale))
        return begin

    cdef int plan(self, Scratch scratch, Py_ssize_t n) except -1 nogil:
        """Split segment ``n`` into PES packets."""
        self.plan_video(scratch, self.video_starts[n], self.video_starts[n + 1] - self.video_starts[n])
        self.plan_audio(scratch, self.audio_starts[n], self.audio_starts[n + 1] - self.audio_starts[n])
        return 0

    cdef int plan_video(self, Scratch scratch, uint32_t first, uint32_t count) except -1 nogil:
        cdef uint32_t* sizes = scratch.sizes[0]
        cdef Unit* unit = scratch.units[0]
        cdef uint64_t start = 0
        cdef int64_t time
        cdef uint32_t timescale, i
        scratch.counts[0] = 0
        scratch.payloads[0] = 0
        if count == 0:
            return 0
        timescale = self.video.timescale
        time = self.video.dts_at(first) + self.video_shift
        self.video.expand(first, count, sizes, scratch.deltas, scratch.offsets, scratch.syncs)
        for i in range(count):
            if sizes[i]:                # an empty sample is no access unit
                unit.dts = ticks(time + self.lead, timescale)
                unit.pts = ticks(time + scratch.offsets[i], timescale)
                unit.start = start
                unit.payload = sizes[i]
                unit.key = scratch.syncs[i]
                unit.sets = unit.key or start == 0
                unit.bound = (14 if unit.pts == unit.dts else 19) + 6 + unit.payload
                if unit.sets:
                    unit.bound += self.sets_size
                unit += 1
            start += sizes[i]
            time += scratch.deltas[i]
        scratch.counts[0] = unit - scratch.units[0]
        scratch.payloads[0] = start
        return 0

    cdef int plan_audio(self, Scratch scratch, uint32_t first, uint32_t count) except -1 nogil:
        cdef uint32_t* sizes = scratch.sizes[1]
        cdef Unit* unit = scratch.units[1]
        cdef uint64_t start = 0
        cdef int64_t time, now
        cdef uint32_t timescale, i, made = 0
        cdef bint joins = False
        scratch.counts[1] = 0
        scratch.payloads[1] = 0
        if count == 0:
            return 0
        timescale = self.audio.timescale
        time = self.audio.dts_at(first) + self.audio_shift
        self.audio.expand(first, count, sizes, scratch.deltas, NULL, NULL)
        for i in range(count):
            if sizes[i] > MAX_FRAME:
                with gil:
                    raise StreamGateError("ts_unavailable", f"audio sample {first + i} is too large for ADTS")
            if sizes[i] == 0:
                joins = False
            else:
                now = ticks(time, timescale)
                if not (joins and self.follows(unit, time) and unit.bound + ADTS_HEADER + sizes[i] <= GROUP_BYTES):
                    unit = &scratch.units[1][made]
                    made += 1
                    unit.dts = unit.pts = now
                    unit.start = start
                    unit.payload = 0
                    unit.bound = 14
                    unit.first = i
                    unit.count = 0
                    unit.key = start == 0 and self.video is None
                    unit.sets = False
                    joins = True
                unit.count += 1
                unit.payload += sizes[i]
                unit.bound += ADTS_HEADER + sizes[i]
            start += sizes[i]
            time += scratch.deltas[i]
        scratch.counts[1] = made
        scratch.payloads[1] = start
        return 0

    cdef inline bint follows(self, Unit* unit, int64_t time) noexcept nogil:
        """Whether a reader finds the ``time`` of a further frame in the PES packet to within a tick.

        It has only the packet's PTS and the number of frames since, and may round their duration up or down.
        """
        cdef int64_t samples = <int64_t> unit.count * 1024
        return (unit.pts + ticks_up(samples, self.rate) - 1 <= ticks_down(time, self.audio.timescale)
                and unit.pts + ticks_down(samples, self.rate) + 1 >= ticks_up(time, self.audio.timescale)
                and ticks_down(samples + 1024, self.rate) <= GROUP_TIME)

    cdef int walk(self, Scratch scratch, Py_ssize_t n, Writer* w, const uint8_t* video, const uint8_t* audio) noexcept nogil:
        """Lay out the packets of segment ``n``, and write them unless ``w.out`` is NULL; -1 where a sample is malformed.

        PES packets go in the order of their DTS. Those of the PCR PID carry a PCR; where none comes for PCR_STEP, a packet
        without payload does. No PCR reaches the next segment's first, whose DTS may be lower than this one's last audio's.
        """
        cdef int64_t start = reference(self.begins[n]), end = reference(self.begins[n + 1])
        cdef int64_t now, last = start
        cdef uint32_t[2] done = [0, 0]
        cdef uint64_t packets
        cdef Unit* unit
        cdef int kind
        cdef bint begun = False, clock
        w.packets += 2
        if w.out != NULL:
            memcpy(w.out, self.tables, 2 * PACKET)
            w.out[3] |= n & 15
            w.out[PACKET + 3] |= n & 15
            w.out += 2 * PACKET
        while done[0] < scratch.counts[0] or done[1] < scratch.counts[1]:
            kind = 0
            if done[0] == scratch.counts[0] or (done[1] < scratch.counts[1]
                                                and scratch.units[1][done[1]].dts < scratch.units[0][done[0]].dts):
                kind = 1
            unit = &scratch.units[kind][done[kind]]
            done[kind] += 1
            now = min(reference(unit.dts), end)
            clock = kind == 0 or self.video is None
            if not begun and not (clock and now == start):
                self.lone_pcr(w, start)
                begun = True
            if begun:
                last = self.keep_time(w, last, now)
                clock = clock and last < now < end
            if clock:
                last = now
            begun = True
            packets = ((8 if clock else 2 if unit.key else 0) + unit.bound + ROOM - 1) // ROOM
            if w.out != NULL:
                if kind == 1:
                    self.write_frames(w, unit, scratch.sizes[1], audio + unit.start, packets, clock, now)
                elif self.write_picture(w, unit, video + unit.start, packets, clock, now) < 0:
                    return -1
                w.out += packets * PACKET
            w.counters[kind] += <uint8_t> packets
            w.packets += packets
        if not begun and start < end:
            self.lone_pcr(w, start)
        if self.begins[n + 1] != INT64_MAX:
            self.keep_time(w, last, end)
        return 0

    cdef inline int64_t keep_time(self, Writer* w, int64_t last, int64_t now) noexcept nogil:
        """Let no more than PCR_STEP pass between the PCRs ``last`` and ``now``; returns the last one then sent."""
        cdef int64_t missing = (now - last - 1) // PCR_STEP if now > last else 0
        if w.out == NULL:
            w.lone_pcrs += missing
            w.packets += missing
            return last + missing * PCR_STEP
        for _ in range(missing):
            last += PCR_STEP
            self.lone_pcr(w, last)
        return last

    cdef void lone_pcr(self, Writer* w, int64_t pcr) noexcept nogil:
        """A packet with nothing but a PCR; it repeats its predecessor's continuity counter (2.4.3.3)."""
        cdef int kind = 1 if self.video is None else 0
        w.packets += 1
        if w.out != NULL:
            put_lone_pcr(w.out, AUDIO_PID if kind else VIDEO_PID, w.counters[kind] - 1, pcr)
            w.out += PACKET

    cdef int write_picture(self, Writer* w, Unit* unit, const uint8_t* data, uint64_t packets, bint clock,
                           int64_t pcr) noexcept nogil:
        cdef uint64_t sets_size = self.sets_size if unit.sets else 0
        cdef uint8_t[25] head
        cdef uint64_t size, kept, padding = 0
        cdef Pes pes
        size = pes_header(head, 0xE0, True, 0, unit.pts, unit.dts)
        memcpy(head + size, DELIMITER, 6)
        size += 6
        kept = nal_kept(data, unit.payload, self.sets, sets_size)
        if kept == MALFORMED:
            return -1
        # Where almost all of a sample was dropped, the first packet shall still hold the PES header, and each of the others
        # a byte: there trailing_zero_8bits (annex B) fill up.
        if sets_size + kept < packets - 1:
            padding = packets - 1 - sets_size - kept
        open_pes(&pes, w.out, VIDEO_PID, w.counters[0], size + sets_size + kept + padding, packets, unit.key, clock, pcr)
        put(&pes, head, size)
        put_nals(&pes, self.sets, sets_size, NULL, 0)
        put_nals(&pes, data, unit.payload, self.sets, sets_size)
        for _ in range(padding):
            put(&pes, DELIMITER, 1)
        return 0

    cdef void write_frames(self, Writer* w, Unit* unit, const uint32_t* sizes, const uint8_t* data, uint64_t packets,
                           bint clock, int64_t pcr) noexcept nogil:
        cdef uint8_t[19] head
        cdef uint8_t[ADTS_HEADER] adts
        cdef uint32_t i, length
        cdef Pes pes
        open_pes(&pes, w.out, AUDIO_PID, w.counters[1], unit.bound, packets, unit.key, clock, pcr)
        put(&pes, head, pes_header(head, 0xC0, False, unit.bound - 6, unit.pts, unit.dts))
        memcpy(adts, self.adts, ADTS_HEADER)
        for i in range(unit.first, unit.first + unit.count):
            length = sizes[i] + ADTS_HEADER
            adts[3] = self.adts[3] | length >> 11
            adts[4] = length >> 3 & 0xFF
            adts[5] = self.adts[5] | (length & 7) << 5
            put(&pes, adts, ADTS_HEADER)
            put(&pes, data, sizes[i])
            data += sizes[i]

    def segment(self, Py_ssize_t n, const uint8_t[::1] video, const uint8_t[::1] audio):
        cdef Scratch scratch
        cdef Writer w
        cdef bytes out
        cdef int status
        if not 0 <= n < self.segments:
            raise StreamGateError("segment_not_found", f"there is no segment {n}")
        scratch = Scratch(self.video_starts[n + 1] - self.video_starts[n], self.audio_starts[n + 1] - self.audio_starts[n])
        self.plan(scratch, n)
        if video.shape[0] != <Py_ssize_t> scratch.payloads[0] or audio.shape[0] != <Py_ssize_t> scratch.payloads[1]:
            raise StreamGateError(
                "source_truncated",
                f"segment {n} takes {scratch.payloads[0]} bytes of video and {scratch.payloads[1]} of audio, "
                f"not {video.shape[0]} and {audio.shape[0]}",
            )
        out = PyBytes_FromStringAndSize(NULL, self.packets[n] * PACKET)
        memset(&w, 0, sizeof(Writer))
        w.out = <uint8_t*> PyBytes_AS_STRING(out)
        w.counters[0] = self.counters[n, 0]
        w.counters[1] = self.counters[n, 1]
        with nogil:
            status = self.walk(scratch, n, &w, &video[0] if video.shape[0] else NULL, &audio[0] if audio.shape[0] else NULL)
        if status < 0:
            raise StreamGateError("source_malformed", f"a NAL unit in segment {n} overruns its sample")
        if w.out != <uint8_t*> PyBytes_AS_STRING(out) + self.packets[n] * PACKET:
            raise StreamGateError("internal", f"segment {n} has another size than was counted")
        return out

    def sizes(self):
        return np.asarray(self.packets) * np.uint64(PACKET)
