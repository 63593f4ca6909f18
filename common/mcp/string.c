#include <ctype.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "common/mcp/scan.h"

#ifndef __SSE2__
#define EACH(byte) (UINT64_C(0x0101010101010101) * (byte))
/* The high bit of each byte of w that is zero; bytes behind the first such one may be wrong. */
static uint64_t zero_bytes(uint64_t w)
{
        return (w - EACH(1)) & ~w & EACH(0x80);
}
#endif

static inline const char *plain_end(const char *p, const char *end)
{
#ifdef __SSE2__
        const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\'), space = _mm_set1_epi8(' ');

        for (; end - p >= 16; p += 16) {
                __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
                /* As signed bytes, what is not ASCII is below the space too. */
                __m128i stop = _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(v, quote), _mm_cmpeq_epi8(v, backslash)), _mm_cmplt_epi8(v, space));
                unsigned mask = (unsigned)_mm_movemask_epi8(stop);
                if (mask)
                        return p + __builtin_ctz(mask);
        }
#else
        for (; end - p >= 8; p += 8) {
                uint64_t w;
                memcpy(&w, p, 8);
                if (zero_bytes(w ^ EACH('"')) | zero_bytes(w ^ EACH('\\')) | (((w - EACH(0x20)) | w) & EACH(0x80)))
                        break;
        }
#endif
        while (p < end && (signed char)*p >= 0x20 && *p != '"' && *p != '\\')
                p++;
        return p;
}

const char *string_plain_end(const char *p, const char *end)
{
        return plain_end(p, end);
}

const char *string_find_either(const char *p, const char *end, char a, char b)
{
#ifdef __SSE2__
        const __m128i all_a = _mm_set1_epi8(a), all_b = _mm_set1_epi8(b);

        for (; end - p >= 16; p += 16) {
                __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
                unsigned mask = (unsigned)_mm_movemask_epi8(_mm_or_si128(_mm_cmpeq_epi8(v, all_a), _mm_cmpeq_epi8(v, all_b)));
                if (mask)
                        return p + __builtin_ctz(mask);
        }
#else
        for (; end - p >= 8; p += 8) {
                uint64_t w;
                memcpy(&w, p, 8);
                if (zero_bytes(w ^ EACH((unsigned char)a)) | zero_bytes(w ^ EACH((unsigned char)b)))
                        break;
        }
#endif
        while (p < end && *p != a && *p != b)
                p++;
        return p;
}

const char *string_end(const char *p, const char *end)
{
        for (;;) {
                p = string_find_either(p, end, '"', '\\');
                if (p == end || *p == '"')
                        return p;
                p = end - p < 2 ? end : p + 2;
        }
}

/* The length of the character of more than one byte at p (RFC 3629: no surrogates, no overlong forms), or 0. */
static size_t wide_length(const char *p, const char *end)
{
        const unsigned char *u = (const unsigned char *)p;
        size_t left = (size_t)(end - p);

        if (u[0] < 0xc2 || left < 2 || (u[1] & 0xc0) != 0x80)
                return 0;
        if (u[0] < 0xe0)
                return 2;
        if (left < 3 || (u[2] & 0xc0) != 0x80)
                return 0;
        if (u[0] < 0xf0)
                return (u[0] == 0xe0 && u[1] < 0xa0) || (u[0] == 0xed && u[1] > 0x9f) ? 0 : 3;
        if (left < 4 || (u[3] & 0xc0) != 0x80 || u[0] > 0xf4)
                return 0;
        return (u[0] == 0xf0 && u[1] < 0x90) || (u[0] == 0xf4 && u[1] > 0x8f) ? 0 : 4;
}

static unsigned hex_value(char c)
{
        return (unsigned)(isdigit((unsigned char)c) ? c - '0' : (c | 0x20) - 'a' + 10);
}

/* Four hexadecimal digits, or UINT32_MAX. */
static uint32_t hex4(const char *p, const char *end)
{
        uint32_t c = 0;

        if (end - p < 4)
                return UINT32_MAX;
        for (int i = 0; i < 4; i++) {
                if (!isxdigit((unsigned char)p[i]))
                        return UINT32_MAX;
                c = c << 4 | hex_value(p[i]);
        }
        return c;
}

/* p stands on a backslash. The length of the escape, or 0 and *why. */
static size_t escape_length(const char *p, const char *end, const char **why)
{
        uint32_t c, low;

        *why = "unknown escape in a string";
        if (end - p < 2)
                return 0;
        if (p[1] != 'u')
                return p[1] && strchr("\"\\/bfnrt", p[1]) ? 2 : 0;
        c = hex4(p + 2, end);
        if (c == UINT32_MAX)
                *why = "\\u wants four hexadecimal digits";
        else if (c == 0)
                *why = "\\u0000 is not allowed: no text here may contain NUL";
        else if (c < 0xd800 || c > 0xdfff)
                return 6;
        else if (c > 0xdbff)
                *why = "a low surrogate stands alone";
        else if (end - p < 12 || p[6] != '\\' || p[7] != 'u' || (low = hex4(p + 8, end)) < 0xdc00 || low > 0xdfff)
                *why = "a high surrogate stands alone";
        else
                return 12;
        return 0;
}

/* p stands on what is not plain. The length of what it is, or 0. */
static size_t special_length(const char *p, const char *end, struct string_note *note)
{
        note->at = p;
        if (*p == '\\') {
                note->escaped = true;
                return escape_length(p, end, &note->why);
        }
        if ((unsigned char)*p < 0x20) {
                note->why = "a control character stands in a string: write it as an escape";
                return 0;
        }
        note->why = "a string is not valid UTF-8";
        return wide_length(p, end);
}

const char *string_check(const char *p, const char *end, struct string_note *note)
{
        const char *start = p - 1;

        note->escaped = false;
        for (;;) {
                size_t n;

                p = plain_end(p, end);
                if (p == end) {
                        note->at = start;
                        note->why = "a string is not closed";
                        return NULL;
                }
                if (*p == '"')
                        return p;
                n = special_length(p, end, note);
                if (n == 0)
                        return NULL;
                /* Characters that are not ASCII come in runs. */
                do {
                        p += n;
                } while (p < end && (unsigned char)*p >= 0x80 && (n = wide_length(p, end)) > 0);
        }
}

/* p stands on a backslash, in a checked string. */
static uint32_t escaped_character(const char *p, const char *end, size_t *n)
{
        static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
        const char *known;
        uint32_t c;

        *n = 2;
        if (end - p < 2)
                return '\\';
        known = strchr(from, p[1]);
        if (known && *known)
                return (uint32_t)to[known - from];
        if (p[1] != 'u')
                return (unsigned char)p[1];
        *n = 6;
        c = hex4(p + 2, end);
        if (c < 0xd800 || c > 0xdbff || end - p < 12)
                return c;
        *n = 12;
        return 0x10000 + ((c - 0xd800) << 10) + (hex4(p + 8, end) - 0xdc00);
}

static uint32_t wide_character(const char *p, const char *end, size_t *n)
{
        const unsigned char *u = (const unsigned char *)p;
        uint32_t c;

        *n = wide_length(p, end);
        c = u[0] & (*n == 2 ? 0x1f : *n == 3 ? 0x0f : 0x07);
        for (size_t i = 1; i < *n; i++)
                c = c << 6 | (u[i] & 0x3f);
        return c;
}

/* The character of a checked string at *p, which moves behind it. Where the text was not checked, *p moves to the end at most. */
static uint32_t next_character(const char **p, const char *end, bool escapes)
{
        uint32_t c = (unsigned char)**p;
        size_t n = 1;

        if (c == '\\' && escapes)
                c = escaped_character(*p, end, &n);
        else if (c >= 0x80)
                c = wide_character(*p, end, &n);
        *p = n == 0 || n > (size_t)(end - *p) ? end : *p + n;
        return c;
}

static void add_character(struct buf *out, uint32_t c)
{
        char b[4];
        size_t n = 0;

        if (c < 0x80) {
                b[n++] = (char)c;
        } else if (c < 0x800) {
                b[n++] = (char)(0xc0 | c >> 6);
        } else if (c < 0x10000) {
                b[n++] = (char)(0xe0 | c >> 12);
                b[n++] = (char)(0x80 | (c >> 6 & 0x3f));
        } else {
                b[n++] = (char)(0xf0 | (c >> 18 & 7));
                b[n++] = (char)(0x80 | (c >> 12 & 0x3f));
                b[n++] = (char)(0x80 | (c >> 6 & 0x3f));
        }
        if (c >= 0x80)
                b[n++] = (char)(0x80 | (c & 0x3f));
        buf_add(out, b, n);
}

void string_decode(struct buf *out, const char *p, const char *end)
{
        while (p < end) {
                const char *escape = memchr(p, '\\', (size_t)(end - p));
                const char *stop = escape ? escape : end;

                buf_add(out, p, (size_t)(stop - p));
                p = stop;
                if (escape)
                        add_character(out, next_character(&p, end, true));
        }
}

static bool same_characters(struct mcp_slice a, struct mcp_slice b, bool escapes_in_b)
{
        const char *p = a.at, *q = b.at, *p_end = p + a.n, *q_end = q + b.n;

        while (p < p_end && q < q_end)
                if (next_character(&p, p_end, true) != next_character(&q, q_end, escapes_in_b))
                        return false;
        return p == p_end && q == q_end;
}

bool string_same(struct mcp_slice a, struct mcp_slice b)
{
        return same_characters(a, b, true);
}

bool string_is(struct mcp_slice s, const char *text)
{
        return same_characters(s, mcp_slice_of(text), false);
}
