/* Text and numbers put into a buffer, which the caller has made large enough; each returns where it ended. */
#ifndef STREAMGATE_TEXT_H
#define STREAMGATE_TEXT_H

#include <stdint.h>
#include <string.h>

static inline char *put_text(char *at, const char *text)
{
    size_t size = strlen(text);
    memcpy(at, text, size);
    return at + size;
}

/* A number that is not negative, with at least so many digits (19 at most). */
static inline char *put_number(char *at, int64_t value, int digits)
{
    char reversed[20];
    int size = 0;

    while (value || size < digits || size == 0) {
        reversed[size++] = (char)('0' + value % 10);
        value /= 10;
    }
    while (size)
        *at++ = reversed[--size];
    return at;
}

#endif
