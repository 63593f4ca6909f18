/*
 * Running out of memory ends the helper, in every library: json-c 0.16 goes on with NULL in place of a value it could not allocate, and a
 * manifest with holes must not pass for a whole one. The runner gives the helper a small address space, so a server can bring this about.
 * Not under AddressSanitizer, which brings an allocator of its own.
 */
#include "common/macro.h"

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define OTHER_ALLOCATOR
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define OTHER_ALLOCATOR
#endif

#ifndef OTHER_ALLOCATOR
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* glibc's own, under the names it exports for programs that put something in front. */
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);

static void *checked(void *p)
{
        static const char text[] = "the server's answers need more memory than a smoke test may use\n";

        if (p)
                return p;
        (void)!write(STDERR_FILENO, text, strlen(text));
        abort();
}

void *malloc(size_t n)
{
        return checked(__libc_malloc(n));
}

void *calloc(size_t n, size_t size)
{
        return checked(__libc_calloc(n, size));
}

void *realloc(void *p, size_t n)
{
        void *q = __libc_realloc(p, n);

        return n == 0 ? q : checked(q);
}
#endif
