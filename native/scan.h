/* Runs of bytes without a special one, sixteen at a time, in the compiler's portable vectors. */
#ifndef STREAMGATE_SCAN_H
#define STREAMGATE_SCAN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define SCAN_STEP 16
typedef uint8_t scan_block __attribute__((vector_size(SCAN_STEP)));

static inline int scan_any(scan_block found)
{
    uint64_t halves[2];
    memcpy(halves, &found, SCAN_STEP);
    return (halves[0] | halves[1]) != 0;
}

/* How many of the first bytes are surely field-content in ASCII without control characters; the caller looks at the rest. */
static inline size_t scan_text(const unsigned char* at, size_t size)
{
    size_t done = 0;
    scan_block block;
    for (; size - done >= SCAN_STEP; done += SCAN_STEP) {
        memcpy(&block, at + done, SCAN_STEP);
        if (scan_any((scan_block) (block - 0x20 >= 0x5f)))
            break;
    }
    return done;
}

/* How many of the first bytes are surely visible ASCII, and none of them "?" or "#". */
static inline size_t scan_path(const unsigned char* at, size_t size)
{
    size_t done = 0;
    scan_block block;
    for (; size - done >= SCAN_STEP; done += SCAN_STEP) {
        memcpy(&block, at + done, SCAN_STEP);
        if (scan_any((scan_block) (block - 0x21 >= 0x5e) | (scan_block) (block == '?') | (scan_block) (block == '#')))
            break;
    }
    return done;
}

#endif
