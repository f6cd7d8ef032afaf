/* Unaligned loads of big-endian integers. */
#ifndef STREAMGATE_BIGENDIAN_H
#define STREAMGATE_BIGENDIAN_H

#include <stdint.h>
#include <string.h>

static inline uint32_t raw32(const void *p) { uint32_t v; memcpy(&v, p, 4); return v; }  /* in the machine's order */
static inline uint16_t be16(const void *p) { uint16_t v; memcpy(&v, p, 2); return __builtin_bswap16(v); }
static inline uint32_t be32(const void *p) { return __builtin_bswap32(raw32(p)); }
static inline uint64_t be64(const void *p) { uint64_t v; memcpy(&v, p, 8); return __builtin_bswap64(v); }
static inline uint32_t fourcc(const char *name) { return be32(name); }  /* folded at compile time for a literal */

#endif
