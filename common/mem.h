/*
 * Memory, strings, string lists and growing buffers. Every allocation succeeds or aborts: a program that
 * guards a machine must not continue on a half-built value. Used by every program.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "common/macro.h"

void *mem_alloc(size_t size);                      /* zeroed */
void *mem_realloc(void *p, size_t n, size_t size); /* n * size, overflow aborts; new bytes are not zeroed */
char *mem_strdup(const char *s);                   /* NULL gives NULL */
char *mem_strndup(const char *s, size_t n);
void *mem_dup(const void *p, size_t n);
char *mem_printf(const char *fmt, ...) _printf_(1, 2);

#define NEW(type)      ((type *)mem_alloc(sizeof(type)))
#define NEW_N(type, n) ((type *)mem_realloc(NULL, (n), sizeof(type)))

static inline void mem_freep(void *p)
{
        free(*(void **)p);
}
#define _cleanup_free_ _cleanup_(mem_freep)

/* Replaces *p by v (owned), freeing what was there. */
void mem_replace(char **p, char *v);

static inline bool str_eq(const char *a, const char *b)
{
        return a == b || (a && b && strcmp(a, b) == 0);
}
bool str_has_prefix(const char *s, const char *prefix);
bool str_has_suffix(const char *s, const char *suffix);
/* Are all characters of s in `set`? The empty string is. */
bool str_in_charset(const char *s, const char *set);
/* A hexadecimal string of exactly n lower-case digits. */
bool str_is_hex(const char *s, size_t n);
/* "sha256:" + 64 lower-case hex digits. */
bool str_is_digest(const char *s);
/* out needs 2 * n + 1 bytes. */
void hex_encode(char *out, const void *data, size_t n);

/* NULL-terminated lists of owned strings. */
char **strv_append(char **v, const char *s); /* returns the moved list; v may be NULL */
size_t strv_len(char *const *v);
bool strv_contains(char *const *v, const char *s);
bool strv_equal(char *const *a, char *const *b); /* the absent list is not the empty one */
char *strv_join(char *const *v, const char *separator);
char **strv_dup(char *const *v);
void strv_sort(char **v);
char **strv_free(char **v);
DEFINE_FREEP(char **, strv_free)
#define _cleanup_strv_ _cleanup_(strv_freep)

/* A growing byte buffer, always NUL-terminated when not empty. */
struct buf {
        char *data;
        size_t len;
        size_t cap;
};
void buf_reserve(struct buf *b, size_t more); /* room for so many bytes without moving again */
void buf_add(struct buf *b, const void *data, size_t n);
void buf_adds(struct buf *b, const char *s);
void buf_addc(struct buf *b, char c);
void buf_addu(struct buf *b, uint64_t n); /* in decimal digits, without a formatter */
void buf_addf(struct buf *b, const char *fmt, ...) _printf_(2, 3);
/* Removes n bytes from the front. */
void buf_drop(struct buf *b, size_t n);
/* Hands the bytes over as a C string ("" when empty). */
char *buf_take(struct buf *b);
void buf_deinit(struct buf *b);
#define _cleanup_buf_ _cleanup_(buf_deinit)
