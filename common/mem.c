#include "common/mem.h"

#include <stdarg.h>
#include <stdio.h>

#define SMALL 1024U /* bytes */

static _noreturn_ void out_of_memory(void)
{
        static const char msg[] = "<2>out of memory\n";
        (void)!fwrite(msg, 1, sizeof(msg) - 1, stderr);
        abort();
}

/* libc's calloc passes by the thread's cache of small blocks, which costs several times what clearing them does. */
void *mem_alloc(size_t size)
{
        void *p = size <= SMALL ? malloc(size ? size : 1) : calloc(1, size);

        if (!p)
                out_of_memory();
        return size <= SMALL ? memset(p, 0, size) : p;
}

void *mem_realloc(void *p, size_t n, size_t size)
{
        void *q = reallocarray(p, n ? n : 1, size);
        if (!q)
                out_of_memory();
        return q;
}

char *mem_strdup(const char *s)
{
        return s ? mem_strndup(s, strlen(s)) : NULL;
}

char *mem_strndup(const char *s, size_t n)
{
        size_t len = strnlen(s, n);
        char *p = mem_realloc(NULL, len + 1, 1);

        memcpy(p, s, len);
        p[len] = '\0';
        return p;
}

void *mem_dup(const void *p, size_t n)
{
        void *q = mem_realloc(NULL, n, 1);

        if (n)
                memcpy(q, p, n);
        return q;
}

char *mem_printf(const char *fmt, ...)
{
        va_list ap;
        char *s = NULL;

        va_start(ap, fmt);
        int r = vasprintf(&s, fmt, ap);
        va_end(ap);
        if (r < 0)
                out_of_memory();
        return s;
}

void mem_replace(char **p, char *v)
{
        free(*p);
        *p = v;
}

bool str_has_prefix(const char *s, const char *prefix)
{
        return strncmp(s, prefix, strlen(prefix)) == 0;
}

bool str_has_suffix(const char *s, const char *suffix)
{
        size_t n = strlen(s), m = strlen(suffix);

        return n >= m && strcmp(s + n - m, suffix) == 0;
}

bool str_in_charset(const char *s, const char *set)
{
        return s[strspn(s, set)] == '\0';
}

bool str_is_hex(const char *s, size_t n)
{
        return s && strlen(s) == n && str_in_charset(s, "0123456789abcdef");
}

bool str_is_digest(const char *s)
{
        return s && str_has_prefix(s, "sha256:") && str_is_hex(s + 7, 64);
}

void hex_encode(char *out, const void *data, size_t n)
{
        static const char digits[] = "0123456789abcdef";
        const unsigned char *p = data;

        for (size_t i = 0; i < n; i++) {
                out[2 * i] = digits[p[i] >> 4];
                out[2 * i + 1] = digits[p[i] & 15];
        }
        out[2 * n] = '\0';
}

char **strv_append(char **v, const char *s)
{
        size_t n = strv_len(v);

        v = mem_realloc(v, n + 2, sizeof(char *));
        v[n] = mem_strdup(s);
        v[n + 1] = NULL;
        return v;
}

size_t strv_len(char *const *v)
{
        size_t n = 0;

        while (v && v[n])
                n++;
        return n;
}

bool strv_contains(char *const *v, const char *s)
{
        for (; v && *v; v++)
                if (strcmp(*v, s) == 0)
                        return true;
        return false;
}

bool strv_equal(char *const *a, char *const *b)
{
        if (!a || !b)
                return a == b;
        for (; *a && *b; a++, b++)
                if (!str_eq(*a, *b))
                        return false;
        return *a == *b;
}

char *strv_join(char *const *v, const char *separator)
{
        struct buf b = {0};

        for (size_t i = 0; v && v[i]; i++) {
                if (i)
                        buf_adds(&b, separator);
                buf_adds(&b, v[i]);
        }
        return buf_take(&b);
}

char **strv_dup(char *const *v)
{
        char **w = NULL;

        for (; v && *v; v++)
                w = strv_append(w, *v);
        return w;
}

static int compare_strings(const void *a, const void *b)
{
        return strcmp(*(char *const *)a, *(char *const *)b);
}

void strv_sort(char **v)
{
        size_t n = strv_len(v);

        if (n > 1)
                qsort(v, n, sizeof(char *), compare_strings);
}

char **strv_free(char **v)
{
        for (size_t i = 0; v && v[i]; i++)
                free(v[i]);
        free(v);
        return NULL;
}

void buf_reserve(struct buf *b, size_t more)
{
        size_t need;

        if (__builtin_add_overflow(b->len, more, &need) || __builtin_add_overflow(need, 1, &need))
                out_of_memory();
        if (need <= b->cap)
                return;
        b->cap = MAX(need, b->cap < (1U << 20) ? 2 * b->cap : b->cap + b->cap / 2);
        b->data = mem_realloc(b->data, b->cap, 1);
}

void buf_add(struct buf *b, const void *data, size_t n)
{
        /* Mostly there is room: of cap, one byte is the NUL's. */
        if (n >= b->cap - b->len)
                buf_reserve(b, n);
        if (n)
                memcpy(b->data + b->len, data, n);
        b->len += n;
        b->data[b->len] = '\0';
}

void buf_adds(struct buf *b, const char *s)
{
        buf_add(b, s, strlen(s));
}

void buf_addc(struct buf *b, char c)
{
        buf_add(b, &c, 1);
}

void buf_addu(struct buf *b, uint64_t n)
{
        char digits[20];
        size_t at = sizeof(digits);

        do {
                digits[--at] = (char)('0' + n % 10);
                n /= 10;
        } while (n);
        buf_add(b, digits + at, sizeof(digits) - at);
}

void buf_addf(struct buf *b, const char *fmt, ...)
{
        _cleanup_free_ char *s = NULL;
        va_list ap;

        va_start(ap, fmt);
        int r = vasprintf(&s, fmt, ap);
        va_end(ap);
        if (r < 0)
                out_of_memory();
        buf_add(b, s, (size_t)r);
}

void buf_drop(struct buf *b, size_t n)
{
        if (n >= b->len) {
                b->len = 0;
                return;
        }
        memmove(b->data, b->data + n, b->len - n + 1);
        b->len -= n;
}

char *buf_take(struct buf *b)
{
        char *p = b->data ? TAKE_PTR(b->data) : mem_strdup("");

        *b = (struct buf){0};
        return p;
}

void buf_deinit(struct buf *b)
{
        free(b->data);
        *b = (struct buf){0};
}
