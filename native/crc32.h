/* CRC-32 as zlib has it (polynomial 0x04c11db7, reflected), 64 bytes at a time by carry-less multiplication.
 *
 * After Gopal, Ozturk, Guilford and others, "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ
 * Instruction", Intel 2009; its constants are powers of x modulo the polynomial.
 */

#ifndef STREAMGATE_CRC32_H
#define STREAMGATE_CRC32_H

#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__)
#include <immintrin.h>

static int crc32_is_fast(void) { return __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1"); }

#define CRC32_FOLD(x, k) \
    _mm_xor_si128(_mm_clmulepi64_si128(x, k, 0x00), _mm_clmulepi64_si128(x, k, 0x11))
#define CRC32_LOAD(at) _mm_loadu_si128((const __m128i *) (at))

/* The register (not inverted) after ``size`` more bytes: at least 64, and a multiple of 16. */
__attribute__((target("pclmul,sse4.1")))
static uint32_t crc32_folded(uint32_t crc, const uint8_t *data, size_t size)
{
    const __m128i by_64 = _mm_set_epi64x(0x1c6e41596, 0x154442bd4);     /* x^(512-32), x^(512+32) */
    const __m128i by_16 = _mm_set_epi64x(0x0ccaa009e, 0x1751997d0);     /* x^(128-32), x^(128+32) */
    const __m128i by_8 = _mm_set_epi64x(0, 0x163cd6124);                /* x^64 */
    const __m128i barrett = _mm_set_epi64x(0x1f7011641, 0x1db710641);   /* the quotient, the polynomial */
    const __m128i low = _mm_setr_epi32(-1, 0, -1, 0);
    __m128i a = _mm_xor_si128(CRC32_LOAD(data), _mm_cvtsi32_si128((int) crc));
    __m128i b = CRC32_LOAD(data + 16), c = CRC32_LOAD(data + 32), d = CRC32_LOAD(data + 48), t;

    for (data += 64, size -= 64; size >= 64; data += 64, size -= 64) {
        a = _mm_xor_si128(CRC32_FOLD(a, by_64), CRC32_LOAD(data));
        b = _mm_xor_si128(CRC32_FOLD(b, by_64), CRC32_LOAD(data + 16));
        c = _mm_xor_si128(CRC32_FOLD(c, by_64), CRC32_LOAD(data + 32));
        d = _mm_xor_si128(CRC32_FOLD(d, by_64), CRC32_LOAD(data + 48));
    }
    a = _mm_xor_si128(CRC32_FOLD(a, by_16), b);
    a = _mm_xor_si128(CRC32_FOLD(a, by_16), c);
    a = _mm_xor_si128(CRC32_FOLD(a, by_16), d);
    for (; size >= 16; data += 16, size -= 16)
        a = _mm_xor_si128(CRC32_FOLD(a, by_16), CRC32_LOAD(data));

    a = _mm_xor_si128(_mm_srli_si128(a, 8), _mm_clmulepi64_si128(a, by_16, 0x10));                 /* 128 to 96 bits */
    t = _mm_srli_si128(a, 4);
    a = _mm_xor_si128(_mm_clmulepi64_si128(_mm_and_si128(a, low), by_8, 0x00), t);                 /* to 64 */
    t = _mm_clmulepi64_si128(_mm_and_si128(a, low), barrett, 0x10);                                /* to 32 */
    t = _mm_clmulepi64_si128(_mm_and_si128(t, low), barrett, 0x00);
    return (uint32_t) _mm_extract_epi32(_mm_xor_si128(a, t), 1);
}

#else

static int crc32_is_fast(void) { return 0; }
static uint32_t crc32_folded(uint32_t crc, const uint8_t *data, size_t size) { (void) data; (void) size; return crc; }

#endif

/* Bit by bit, for what is left over. */
static uint32_t crc32_bitwise(uint32_t crc, const uint8_t *data, size_t size)
{
    while (size--) {
        crc ^= *data++;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (0xedb88320u & -(crc & 1));
    }
    return crc;
}

#endif
