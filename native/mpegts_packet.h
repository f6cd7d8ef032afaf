/* Transport packets, PES packets and H.264 byte streams (ISO/IEC 13818-1, ISO/IEC 14496-10 annex B): bytes only, no policy. */

#ifndef STREAMGATE_MPEGTS_PACKET_H
#define STREAMGATE_MPEGTS_PACKET_H

#include <stdint.h>
#include <string.h>

#define TS_PACKET 188
#define TS_ROOM 184 /* of it, behind the header */
#define NAL_MALFORMED UINT64_MAX

static const uint8_t ts_start_code[4] = {0, 0, 0, 1};

/* A PES packet on its way into transport packets. */
typedef struct {
    uint8_t *out;     /* where the next byte goes */
    uint64_t room;    /* bytes that the current packet still takes */
    uint64_t left;    /* bytes that no packet was begun for */
    uint64_t packets; /* packets not yet begun */
    uint16_t pid;
    uint8_t counter; /* of the next packet */
} ts_pes;

static inline void ts_put16(uint8_t *out, uint32_t value) {
    out[0] = (uint8_t)(value >> 8);
    out[1] = (uint8_t)value;
}

/* `time` at 90 kHz, rounded down; `rest` of `timescale` is left over. */
static inline int64_t ts_scale(int64_t time, uint32_t timescale, int64_t *rest) {
    int64_t scale = timescale, whole = 0, part = time;
    if (time > INT64_MAX / 90000 || time < INT64_MIN / 90000) {
        whole = time / scale;
        part = time % scale;
    }
    part *= 90000;
    int64_t down = part / scale;
    *rest = part - down * scale;
    if (*rest < 0) {
        *rest += scale;
        down -= 1;
    }
    return whole * 90000 + down;
}

static inline int64_t ts_ticks_down(int64_t time, uint32_t timescale) {
    int64_t rest;
    return ts_scale(time, timescale, &rest);
}

static inline int64_t ts_ticks_up(int64_t time, uint32_t timescale) {
    int64_t rest, down = ts_scale(time, timescale, &rest);
    return down + (rest > 0);
}

/* `time` at 90 kHz, rounded half up. */
static inline int64_t ts_ticks(int64_t time, uint32_t timescale) {
    int64_t rest, down = ts_scale(time, timescale, &rest);
    return down + (2 * rest >= timescale);
}

/* flags: 0x10 payload, 0x20 adaptation field */
static inline void ts_put_header(uint8_t *out, uint32_t pid, int flags, uint8_t counter) {
    out[0] = 0x47;
    ts_put16(out + 1, pid);
    out[3] = (uint8_t)(flags | (counter & 15));
}

/* PTS or DTS (2.4.3.7): 33 bits, so they wrap after 26.5 hours. */
static inline void ts_put_timestamp(uint8_t *out, int prefix, int64_t time) {
    uint64_t bits = (uint64_t)time;
    out[0] = (uint8_t)(prefix << 4 | (bits >> 29 & 0x0E) | 1);
    ts_put16(out + 1, (uint32_t)(bits >> 14 & 0xFFFE) | 1);
    ts_put16(out + 3, (uint32_t)(bits << 1 & 0xFFFE) | 1);
}

/* program_clock_reference (2.4.3.5): 33 bits at 90 kHz, 6 reserved ones, an extension of 0. */
static inline void ts_put_pcr(uint8_t *out, int64_t time) {
    uint64_t bits = (uint64_t)time;
    ts_put16(out, (uint32_t)(bits >> 17 & 0xFFFF));
    ts_put16(out + 2, (uint32_t)(bits >> 1 & 0xFFFF));
    out[4] = (uint8_t)((bits & 1) << 7 | 0x7E);
    out[5] = 0;
}

/* A packet without payload that carries a PCR. */
static inline void ts_put_lone_pcr(uint8_t *out, uint32_t pid, uint8_t counter, int64_t pcr) {
    ts_put_header(out, pid, 0x20, counter);
    out[4] = TS_ROOM - 1;
    out[5] = 0x10;
    ts_put_pcr(out + 6, pcr);
    memset(out + 12, 0xFF, TS_PACKET - 12);
}

/* A PES header with PTS, and DTS where it differs; returns its bytes. */
static inline int ts_pes_header(uint8_t *out, int stream_id, int aligned, uint32_t length, int64_t pts, int64_t dts) {
    out[0] = out[1] = 0;
    out[2] = 1;
    out[3] = (uint8_t)stream_id;
    ts_put16(out + 4, length);
    out[6] = aligned ? 0x84 : 0x80;
    out[7] = pts == dts ? 0x80 : 0xC0;
    out[8] = pts == dts ? 5 : 10;
    ts_put_timestamp(out + 9, pts == dts ? 2 : 3, pts);
    if (pts == dts)
        return 14;
    ts_put_timestamp(out + 14, 1, dts);
    return 19;
}

/* Begin the first packet of a PES packet of `size` bytes that shall fill exactly `packets` packets.
 * What is too much room is stuffed from the last packet backwards, so that each still has a byte of payload:
 * only packets with payload count for the continuity counter. */
static inline void ts_open(ts_pes *pes, uint8_t *out, uint32_t pid, uint8_t counter, uint64_t size, uint64_t packets,
                           int key, int clock, int64_t pcr) {
    uint64_t field = clock ? 8 : key ? 2 : 0;
    uint64_t payload = size - (packets - 1);
    if (payload > TS_ROOM - field)
        payload = TS_ROOM - field;
    uint64_t adaptation = TS_ROOM - payload;
    ts_put_header(out, pid | 0x4000, adaptation ? 0x30 : 0x10, counter);
    if (adaptation)
        out[4] = (uint8_t)(adaptation - 1);
    if (adaptation > 1) {
        out[5] = (uint8_t)((key ? 0x40 : 0) | (clock ? 0x10 : 0));
        memset(out + 6, 0xFF, adaptation - 2);
    }
    if (clock)
        ts_put_pcr(out + 6, pcr);
    pes->out = out + 4 + adaptation;
    pes->room = payload;
    pes->left = size - payload;
    pes->packets = packets - 1;
    pes->pid = (uint16_t)pid;
    pes->counter = (uint8_t)(counter + 1);
}

static inline void ts_continue(ts_pes *pes) {
    uint64_t payload = pes->left - (pes->packets - 1);
    if (payload > TS_ROOM)
        payload = TS_ROOM;
    uint64_t stuffing = TS_ROOM - payload;
    ts_put_header(pes->out, pes->pid, stuffing ? 0x30 : 0x10, pes->counter);
    if (stuffing)
        pes->out[4] = (uint8_t)(stuffing - 1);
    if (stuffing > 1) {
        pes->out[5] = 0;
        memset(pes->out + 6, 0xFF, stuffing - 2);
    }
    pes->out += 4 + stuffing;
    pes->room = payload;
    pes->left -= payload;
    pes->packets -= 1;
    pes->counter += 1;
}

static inline void ts_put(ts_pes *pes, const uint8_t *data, uint64_t size) {
    while (size > pes->room) {
        memcpy(pes->out, data, pes->room);
        pes->out += pes->room;
        data += pes->room;
        size -= pes->room;
        /* Whole packets: nearly all bytes go through here. */
        uint8_t *out = pes->out;
        while (size > TS_ROOM && pes->left - (pes->packets - 1) >= TS_ROOM) {
            ts_put_header(out, pes->pid, 0x10, pes->counter++);
            memcpy(out + 4, data, TS_ROOM);
            out += TS_PACKET;
            data += TS_ROOM;
            size -= TS_ROOM;
            pes->left -= TS_ROOM;
            pes->packets -= 1;
        }
        pes->out = out;
        ts_continue(pes);
    }
    memcpy(pes->out, data, size);
    pes->out += size;
    pes->room -= size;
}

static inline uint64_t nal_size(const uint8_t *data) {
    return (uint64_t)data[0] << 24 | (uint64_t)data[1] << 16 | (uint64_t)data[2] << 8 | data[3];
}

/* Whether a NAL unit is left out: empty ones, access unit delimiters, copies of the parameter `sets` written before. */
static inline int nal_dropped(const uint8_t *nal, uint64_t size, const uint8_t *sets, uint64_t sets_size) {
    if (size == 0)
        return 1;
    int kind = nal[0] & 31;
    if (kind != 7 && kind != 8 && kind != 13)
        return kind == 9;
    for (uint64_t at = 0; at < sets_size; at += 4 + nal_size(sets + at))
        if (nal_size(sets + at) == size && memcmp(sets + at + 4, nal, size) == 0)
            return 1;
    return 0;
}

/* Bytes that nal_put will write; NAL_MALFORMED where a length runs over the sample's end. */
static inline uint64_t nal_kept(const uint8_t *data, uint64_t size, const uint8_t *sets, uint64_t sets_size) {
    uint64_t kept = 0;
    for (uint64_t at = 0; at < size;) {
        if (size - at < 4 || nal_size(data + at) > size - at - 4)
            return NAL_MALFORMED;
        uint64_t length = nal_size(data + at);
        if (!nal_dropped(data + at + 4, length, sets, sets_size))
            kept += 4 + length;
        at += 4 + length;
    }
    return kept;
}

/* Write the NAL units of a sample (each behind its length in 4 bytes) as a byte stream (annex B). */
static inline void nal_put(ts_pes *pes, const uint8_t *data, uint64_t size, const uint8_t *sets, uint64_t sets_size) {
    for (uint64_t at = 0; at < size;) {
        uint64_t length = nal_size(data + at);
        if (!nal_dropped(data + at + 4, length, sets, sets_size)) {
            ts_put(pes, ts_start_code, 4);
            ts_put(pes, data + at + 4, length);
        }
        at += 4 + length;
    }
}

/* CRC-32 of PSI sections (annex A); made twice a muxer, so without a table. */
static inline uint32_t ts_checksum(const uint8_t *data, size_t size) {
    uint32_t crc = 0xFFFFFFFFu;
    while (size--) {
        crc ^= (uint32_t)*data++ << 24;
        for (int bit = 0; bit < 8; bit++)
            crc = crc << 1 ^ (crc >> 31 ? 0x04C11DB7u : 0);
    }
    return crc;
}

#endif
