/* CBOR (RFC 8949), strictly and without allocation: no indefinite lengths, no key twice, no depth, texts are UTF-8.
 *
 * Readers move *at behind what they read and return 0, or return -1 for what is not well-formed or not allowed.
 * Nothing beyond `end` is touched, whatever the lengths say.
 */
#ifndef STREAMGATE_CBOR_H
#define STREAMGATE_CBOR_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "bigendian.h"

#define CBOR_MAX_DEPTH 8 /* arrays, maps and tags inside each other */
#define CBOR_MAX_KEYS 64 /* of one map */
#define CBOR_NO_NUMBER INT64_MIN

enum { CBOR_UINT, CBOR_NEGATIVE, CBOR_BYTES, CBOR_TEXT, CBOR_ARRAY, CBOR_MAP, CBOR_TAG, CBOR_SIMPLE };

typedef struct {
    int major;
    int info;
    uint64_t value;
} cbor_head;

/* A key of a map: an integer or a text, whose size is then `value`. */
typedef struct {
    int major;
    uint64_t value;
    const uint8_t *text;
} cbor_label;

typedef struct {
    uint64_t left;
    int count;
    cbor_label seen[CBOR_MAX_KEYS];
} cbor_map;

static inline int cbor_read_head(const uint8_t **at, const uint8_t *end, cbor_head *head) {
    const uint8_t *p = *at;
    size_t left = (size_t)(end - p), more;
    if (left == 0)
        return -1;
    head->major = p[0] >> 5;
    head->info = p[0] & 31;
    if (head->info < 24) {
        head->value = (uint64_t)head->info;
        *at = p + 1;
        return 0;
    }
    if (head->info > 27)
        return -1;
    more = (size_t)1 << (head->info - 24);
    if (left - 1 < more)
        return -1;
    head->value = more == 1 ? p[1] : more == 2 ? be16(p + 1) : more == 4 ? be32(p + 1) : be64(p + 1);
    *at = p + 1 + more;
    return 0;
}

static inline int cbor_is_utf8(const uint8_t *p, size_t size) {
    size_t i = 0, k, more;
    uint32_t point, least;
    while (i < size) {
        if (p[i] < 0x80) {
            i++;
            continue;
        }
        if (p[i] >= 0xC2 && p[i] <= 0xDF)
            more = 1, point = p[i] & 0x1F, least = 0x80;
        else if (p[i] >= 0xE0 && p[i] <= 0xEF)
            more = 2, point = p[i] & 0x0F, least = 0x800;
        else if (p[i] >= 0xF0 && p[i] <= 0xF4)
            more = 3, point = p[i] & 0x07, least = 0x10000;
        else
            return 0;
        if (size - i <= more)
            return 0;
        for (k = 1; k <= more; k++) {
            if ((p[i + k] & 0xC0) != 0x80)
                return 0;
            point = point << 6 | (p[i + k] & 0x3F);
        }
        if (point < least || point > 0x10FFFF || (point >= 0xD800 && point <= 0xDFFF))
            return 0;
        i += more + 1;
    }
    return 1;
}

/* A byte string or a text. */
static inline int cbor_read_string(const uint8_t **at, const uint8_t *end, int major, const uint8_t **text, size_t *size) {
    cbor_head head;
    if (cbor_read_head(at, end, &head) < 0 || head.major != major || head.value > (uint64_t)(end - *at))
        return -1;
    *text = *at;
    *size = (size_t)head.value;
    *at += *size;
    return major == CBOR_BYTES || cbor_is_utf8(*text, *size) ? 0 : -1;
}

static inline int cbor_next_is(const uint8_t *at, const uint8_t *end, int major) {
    return at < end && at[0] >> 5 == major;
}

/* Into an array that is itself `depth` deep (the outermost: 1). */
static inline int cbor_open_array(const uint8_t **at, const uint8_t *end, int depth, uint64_t *count) {
    cbor_head head;
    if (depth > CBOR_MAX_DEPTH || cbor_read_head(at, end, &head) < 0 || head.major != CBOR_ARRAY)
        return -1;
    *count = head.value;
    return 0;
}

static inline int cbor_open_map(const uint8_t **at, const uint8_t *end, int depth, cbor_map *map) {
    cbor_head head;
    if (depth > CBOR_MAX_DEPTH || cbor_read_head(at, end, &head) < 0 || head.major != CBOR_MAP || head.value > CBOR_MAX_KEYS)
        return -1;
    map->left = head.value;
    map->count = 0;
    return 0;
}

static inline int cbor_read_label(const uint8_t **at, const uint8_t *end, cbor_label *label) {
    const uint8_t *begin = *at;
    size_t size;
    cbor_head head;
    if (cbor_read_head(at, end, &head) < 0)
        return -1;
    label->major = head.major;
    label->value = head.value;
    label->text = NULL;
    if (head.major == CBOR_TEXT) {
        *at = begin;
        return cbor_read_string(at, end, CBOR_TEXT, &label->text, &size);
    }
    return head.major == CBOR_UINT || head.major == CBOR_NEGATIVE ? 0 : -1;
}

/* The next key of a map that has some left. The same key a second time, in whatever encoding, is refused. */
static inline int cbor_next_label(const uint8_t **at, const uint8_t *end, cbor_map *map, cbor_label *label) {
    int i;
    if (cbor_read_label(at, end, label) < 0)
        return -1;
    for (i = 0; i < map->count; i++) {
        const cbor_label *other = &map->seen[i];
        if (other->major == label->major && other->value == label->value &&
            (label->major != CBOR_TEXT || memcmp(other->text, label->text, (size_t)label->value) == 0))
            return -1;
    }
    map->seen[map->count++] = *label;
    map->left--;
    return 0;
}

/* The number of a key where it is small; CBOR_NO_NUMBER for texts and large ones. */
static inline int64_t cbor_small(const cbor_label *label) {
    if (label->major == CBOR_TEXT || label->value > 65535)
        return CBOR_NO_NUMBER;
    return label->major == CBOR_UINT ? (int64_t)label->value : -1 - (int64_t)label->value;
}

/* Any one item, at every depth. */
static int cbor_skip(const uint8_t **at, const uint8_t *end, int depth) {
    const uint8_t *begin = *at, *text;
    size_t size;
    uint64_t left;
    cbor_head head;
    cbor_label label;
    if (cbor_read_head(at, end, &head) < 0)
        return -1;
    switch (head.major) {
    case CBOR_BYTES:
    case CBOR_TEXT:
        *at = begin;
        return cbor_read_string(at, end, head.major, &text, &size);
    case CBOR_ARRAY:
        *at = begin;
        if (cbor_open_array(at, end, depth, &left) < 0)
            return -1;
        for (; left; left--)
            if (cbor_skip(at, end, depth + 1) < 0)
                return -1;
        return 0;
    case CBOR_MAP: {
        cbor_map map;
        *at = begin;
        if (cbor_open_map(at, end, depth, &map) < 0)
            return -1;
        while (map.left)
            if (cbor_next_label(at, end, &map, &label) < 0 || cbor_skip(at, end, depth + 1) < 0)
                return -1;
        return 0;
    }
    case CBOR_TAG:
        return depth > CBOR_MAX_DEPTH ? -1 : cbor_skip(at, end, depth + 1);
    case CBOR_SIMPLE:
        return head.info == 24 && head.value < 32 ? -1 : 0;
    default:
        return 0;
    }
}

/* The value of a binary16, binary32 or binary64 that `head` begins; NaN for anything else. */
static inline double cbor_float(const cbor_head *head) {
    double value;
    if (head->major == CBOR_SIMPLE && head->info == 25) {
        int exponent = (int)(head->value >> 10 & 31), fraction = (int)(head->value & 1023);
        if (exponent == 31)
            value = fraction ? NAN : INFINITY;
        else
            value = exponent ? ldexp(fraction + 1024, exponent - 25) : ldexp(fraction, -24);
        return head->value >> 15 ? -value : value;
    }
    if (head->major == CBOR_SIMPLE && head->info == 26) {
        uint32_t bits = (uint32_t)head->value;
        float single;
        memcpy(&single, &bits, 4);
        return single;
    }
    if (head->major != CBOR_SIMPLE || head->info != 27)
        return NAN;
    memcpy(&value, &head->value, 8);
    return value;
}

/* A NumericDate (RFC 8392 section 2): the first whole second at or after it. Negative ones and those beyond 2^53 are none. */
static inline int cbor_read_date(const uint8_t **at, const uint8_t *end, int64_t *seconds) {
    cbor_head head;
    double value;
    if (cbor_read_head(at, end, &head) < 0)
        return -1;
    if (head.major == CBOR_UINT && head.value <= (uint64_t)1 << 53) {
        *seconds = (int64_t)head.value;
        return 0;
    }
    value = cbor_float(&head);
    if (!(value >= 0 && value <= 9007199254740992.0))
        return -1;
    *seconds = (int64_t)ceil(value);
    return 0;
}

#endif
