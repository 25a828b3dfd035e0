/* Lines of text as lines.py has them, for the parts in C that make some. */

#ifndef APPLIERS_LINES_H
#define APPLIERS_LINES_H

#include <stddef.h>

/* A value with the escapes of `lines.escape`: at most twice as long. Where it ends. */
static inline char *
put_escaped(char *out, const unsigned char *p, size_t size)
{
    for (const unsigned char *end = p + size; p < end; p++) {
        switch (*p) {
        case '\\': *out++ = '\\'; *out++ = '\\'; break;
        case '\n': *out++ = '\\'; *out++ = 'n'; break;
        case '\r': *out++ = '\\'; *out++ = 'r'; break;
        case '\t': *out++ = '\\'; *out++ = 't'; break;
        default: *out++ = (char)*p;
        }
    }
    return out;
}

#endif
