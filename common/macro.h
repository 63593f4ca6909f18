/*
 * Compiler attributes and ownership macros used everywhere. No code of its own.
 */
#pragma once

#include <stddef.h>

#define _cleanup_(f)   __attribute__((cleanup(f)))
#define _printf_(a, b) __attribute__((format(printf, a, b)))
#define _unused_       __attribute__((unused))
#define _must_check_   __attribute__((warn_unused_result))
#define _noreturn_     __attribute__((noreturn))

#define ELEMENTSOF(x) (sizeof(x) / sizeof((x)[0]))
#define MIN(a, b)     ((a) < (b) ? (a) : (b))
#define MAX(a, b)     ((a) > (b) ? (a) : (b))

/* Hands the value of a pointer variable over and leaves NULL behind. */
#define TAKE_PTR(p)                                                                                                                        \
        ({                                                                                                                                 \
                __typeof__(p) *_pp = &(p);                                                                                                 \
                __typeof__(p) _v = *_pp;                                                                                                   \
                *_pp = NULL;                                                                                                               \
                _v;                                                                                                                        \
        })
/* The same for a file descriptor, leaving -1. */
#define TAKE_FD(fd)                                                                                                                        \
        ({                                                                                                                                 \
                int _v = fd;                                                                                                               \
                fd = -1;                                                                                                                   \
                _v;                                                                                                                        \
        })

/* Defines `FREEp`, for _cleanup_(FREEp), from a free function that takes the pointer. */
#define DEFINE_FREEP(type, free_fn)                                                                                                        \
        static inline _unused_ void free_fn##p(type *p)                                                                                    \
        {                                                                                                                                  \
                if (*p)                                                                                                                    \
                        free_fn(*p);                                                                                                       \
        }
