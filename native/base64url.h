/* base64url without padding (RFC 4648 section 5); each byte string has exactly one spelling. */
#ifndef STREAMGATE_BASE64URL_H
#define STREAMGATE_BASE64URL_H

#include <stddef.h>
#include <stdint.h>

static const int8_t base64url_digits[256] = {
    -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
    -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 62, -1, -1, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, -1, -1, -1, -1, -1, -1,
    -1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, -1, -1, -1, -1, 63,
    -1, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, -1, -1, -1, -1, -1,
    -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
    -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
    -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
    -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
};

/* Decodes `size` characters into 3/4 as many bytes; returns how many these are, or -1. Unused bits must be zero. */
static inline ptrdiff_t base64url_decode(const uint8_t *text, size_t size, uint8_t *out) {
    const int8_t *digits = base64url_digits;
    uint8_t *begin = out;
    int a, b, c, d, seen = 0;
    for (; size >= 4; size -= 4, text += 4, out += 3) {
        a = digits[text[0]], b = digits[text[1]], c = digits[text[2]], d = digits[text[3]];
        seen |= a | b | c | d; /* looked at once, at the end: a branch for each four would cost half as much again */
        out[0] = (uint8_t)((unsigned)a << 2 | (unsigned)b >> 4);
        out[1] = (uint8_t)((unsigned)b << 4 | (unsigned)c >> 2);
        out[2] = (uint8_t)((unsigned)c << 6 | (unsigned)d);
    }
    if (seen < 0 || size == 1)
        return -1;
    if (size == 0)
        return out - begin;
    a = digits[text[0]], b = digits[text[1]], c = size == 3 ? digits[text[2]] : 0;
    if ((a | b | c) < 0 || (size == 3 ? c & 3 : b & 15))
        return -1;
    *out++ = (uint8_t)(a << 2 | b >> 4);
    if (size == 3)
        *out++ = (uint8_t)(b << 4 | c >> 2);
    return out - begin;
}

#endif
