/* SipHash-1-3 (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012), as in CPython's and Rust's tables:
 * keys come from URLs, and nobody who does not know the seed can choose some that fall into one place. */
#ifndef STREAMGATE_SIPHASH_H
#define STREAMGATE_SIPHASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define SIP_ROTATE(x, b) (((x) << (b)) | ((x) >> (64 - (b))))
#define SIP_ROUND(a, b, c, d)                                                                         \
    do {                                                                                              \
        a += b; b = SIP_ROTATE(b, 13); b ^= a; a = SIP_ROTATE(a, 32);                                 \
        c += d; d = SIP_ROTATE(d, 16); d ^= c;                                                        \
        a += d; d = SIP_ROTATE(d, 21); d ^= a;                                                        \
        c += b; b = SIP_ROTATE(b, 17); b ^= c; c = SIP_ROTATE(c, 32);                                 \
    } while (0)

/* Little-endian reading, as the paper has it, is left out: hashes never leave the process. */
static inline uint64_t siphash13(const uint64_t seed[2], const unsigned char *data, size_t length)
{
    uint64_t a = seed[0] ^ UINT64_C(0x736f6d6570736575), b = seed[1] ^ UINT64_C(0x646f72616e646f6d);
    uint64_t c = seed[0] ^ UINT64_C(0x6c7967656e657261), d = seed[1] ^ UINT64_C(0x7465646279746573);
    uint64_t word, last = (uint64_t)length << 56;
    const unsigned char *end = data + (length & ~(size_t)7);

    for (; data != end; data += 8) {
        memcpy(&word, data, 8);
        d ^= word;
        SIP_ROUND(a, b, c, d);
        a ^= word;
    }
    word = 0;
    memcpy(&word, data, length & 7);
    last ^= word;
    d ^= last;
    SIP_ROUND(a, b, c, d);
    a ^= last;
    c ^= 0xff;
    SIP_ROUND(a, b, c, d);
    SIP_ROUND(a, b, c, d);
    SIP_ROUND(a, b, c, d);
    return a ^ b ^ c ^ d;
}

#endif
