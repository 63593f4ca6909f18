#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "common/mcp/scan.h"

/* Text that was checked before. If it was not after all, the walk goes wrong, but never out of the slice. */

static const char *skip_space(const char *p, const char *end)
{
        while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
                p++;
        return p;
}

/* The first quote, bracket or brace. */
static const char *next_mark(const char *p, const char *end)
{
#ifdef __SSE2__
        /* With this bit set, brackets are braces; a quote has it already. */
        const __m128i bit = _mm_set1_epi8(0x20), quote = _mm_set1_epi8('"'), open = _mm_set1_epi8('{'), close = _mm_set1_epi8('}');

        for (; end - p >= 16; p += 16) {
                __m128i v = _mm_or_si128(_mm_loadu_si128((const __m128i *)(const void *)p), bit);
                __m128i stop = _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(v, open), _mm_cmpeq_epi8(v, close)), _mm_cmpeq_epi8(v, quote));
                unsigned mask = (unsigned)_mm_movemask_epi8(stop);
                if (mask)
                        return p + __builtin_ctz(mask);
        }
#endif
        while (p < end && *p != '"' && *p != '{' && *p != '}' && *p != '[' && *p != ']')
                p++;
        return p;
}

static const char *container_end(const char *p, const char *end)
{
        size_t depth = 0;

        while ((p = next_mark(p, end)) < end) {
                char c = *p++;

                if (c == '"') {
                        p = string_end(p, end);
                        p += p < end;
                } else if (c == '{' || c == '[') {
                        depth++;
                } else if (--depth == 0) {
                        break;
                }
        }
        return p;
}

/* p stands on the value; returns the place behind it. */
static const char *value_end(const char *p, const char *end)
{
        if (p == end)
                return end;
        if (*p == '"') {
                p = string_end(p + 1, end);
                return p + (p < end);
        }
        if (*p == '{' || *p == '[')
                return container_end(p, end);
        while (p < end && *p != ',' && *p != '}' && *p != ']' && *p != ' ' && *p != '\n' && *p != '\r' && *p != '\t')
                p++;
        return p;
}

/* Behind the opening bracket or the last item: where the next one begins, or NULL at the end. */
static const char *next_item(struct mcp_slice container, size_t pos, char open)
{
        const char *end, *p;

        if (!container.at || container.n < 2 || container.at[0] != open || pos >= container.n)
                return NULL;
        end = container.at + container.n;
        p = skip_space(container.at + (pos ? pos : 1), end);
        if (p < end && *p == ',')
                p = skip_space(p + 1, end);
        return p == end || *p == '}' || *p == ']' ? NULL : p;
}

int mcp_array_next(struct mcp_slice array, size_t *pos, struct mcp_slice *value)
{
        const char *start = next_item(array, *pos, '['), *stop;

        if (!start)
                return 0;
        stop = value_end(start, array.at + array.n);
        *value = (struct mcp_slice){start, (size_t)(stop - start)};
        *pos = (size_t)(stop - array.at);
        return 1;
}

int mcp_object_next(struct mcp_slice object, size_t *pos, struct mcp_slice *key, struct mcp_slice *value)
{
        const char *start = next_item(object, *pos, '{'), *end, *stop;

        if (!start || *start != '"')
                return 0;
        end = object.at + object.n;
        stop = string_end(start + 1, end);
        *key = (struct mcp_slice){start + 1, (size_t)(stop - start) - 1};
        start = skip_space(stop + (stop < end), end);
        start = skip_space(start + (start < end), end);
        stop = value_end(start, end);
        *value = (struct mcp_slice){start, (size_t)(stop - start)};
        *pos = (size_t)(stop - object.at);
        return 1;
}

bool mcp_key_is(struct mcp_slice key, const char *name)
{
        /* Escapes only make a key longer. */
        if (key.n < strlen(name) || !key.at)
                return false;
        return memchr(key.at, '\\', key.n) ? string_is(key, name) : mcp_is(key, name);
}

bool mcp_key_begins(struct mcp_slice key, const char *prefix)
{
        _cleanup_buf_ struct buf plain = {0};
        size_t n = strlen(prefix);

        if (key.n < n || !key.at)
                return false;
        if (!memchr(key.at, '\\', key.n))
                return memcmp(key.at, prefix, n) == 0;
        string_decode(&plain, key.at, key.at + key.n);
        return plain.len >= n && memcmp(plain.data, prefix, n) == 0;
}

struct mcp_slice mcp_object_get(struct mcp_slice object, const char *name)
{
        struct mcp_slice key, value;

        for (size_t pos = 0; mcp_object_next(object, &pos, &key, &value);)
                if (mcp_key_is(key, name))
                        return value;
        return (struct mcp_slice){0};
}

int mcp_batch_next(struct mcp_slice *item, const char *text, size_t n, size_t *pos)
{
        const char *start = skip_space(text, text + n);
        struct mcp_slice batch = {start, n - (size_t)(start - text)};

        if (!mcp_is_array(batch))
                return -1;
        return mcp_array_next(batch, pos, item);
}

bool mcp_is_object(struct mcp_slice s)
{
        return s.n > 0 && s.at[0] == '{';
}

bool mcp_is_array(struct mcp_slice s)
{
        return s.n > 0 && s.at[0] == '[';
}

bool mcp_is_string(struct mcp_slice s)
{
        return s.n > 1 && s.at[0] == '"';
}

bool mcp_is_integer(struct mcp_slice s)
{
        size_t sign = s.n > 0 && s.at[0] == '-';

        for (size_t i = sign; i < s.n; i++)
                if (s.at[i] < '0' || s.at[i] > '9')
                        return false;
        return s.n > sign;
}

bool mcp_is_true(struct mcp_slice s)
{
        return mcp_is(s, "true");
}

bool mcp_same(struct mcp_slice a, struct mcp_slice b)
{
        return a.n == b.n && !a.at == !b.at && (!a.at || memcmp(a.at, b.at, a.n) == 0);
}

char *mcp_string(struct mcp_slice s)
{
        _cleanup_buf_ struct buf b = {0};

        if (!mcp_is_string(s))
                return NULL;
        string_decode(&b, s.at + 1, s.at + s.n - 1);
        return buf_take(&b);
}
