#include <ctype.h>

#include "broker/policy/schema_internal.h"
#include "common/text.h"

/*
 * ECMA-262 with the u flag, to RE2. What means the same in both passes; what means something else is rewritten; what one of them lacks is
 * refused. White space and line ends are ECMAScript's: \s has Unicode's, '.' leaves U+2028 and U+2029 out too.
 */
#define SPACE_ITEMS "\\t\\n\\v\\f\\r \\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}\\x{feff}"

struct translate {
        struct buf *out;
        const char *p, *end;
        bool in_class;
        struct err **err;
};

static int refuse(struct translate *t, const char *why)
{
        return err_set(t->err, ERR_INVALID, "the expression has %s", why);
}

static int hex(const char *p, const char *end, size_t digits, unsigned *value)
{
        *value = 0;
        if ((size_t)(end - p) < digits)
                return -1;
        for (size_t i = 0; i < digits; i++) {
                char c = p[i];
                if (!isxdigit((unsigned char)c))
                        return -1;
                *value = *value * 16 + (unsigned)(isdigit((unsigned char)c) ? c - '0' : (c | 0x20) - 'a' + 10);
        }
        return 0;
}

/* \uXXXX, also as a pair of surrogates, and \u{X…}. p stands behind "\u". */
static int unicode_escape(struct translate *t)
{
        unsigned c = 0, low;

        if (t->p < t->end && *t->p == '{') {
                size_t n = 0;
                for (t->p++; t->p + n < t->end && t->p[n] != '}'; n++)
                        ;
                if (n == 0 || n > 6 || t->p + n == t->end || hex(t->p, t->end, n, &c) < 0 || c > 0x10ffff)
                        return refuse(t, "a broken \\u{…}");
                t->p += n + 1;
        } else {
                if (hex(t->p, t->end, 4, &c) < 0)
                        return refuse(t, "a broken \\u");
                t->p += 4;
                if (c >= 0xd800 && c <= 0xdbff && t->end - t->p >= 6 && t->p[0] == '\\' && t->p[1] == 'u' &&
                    hex(t->p + 2, t->end, 4, &low) == 0 && low >= 0xdc00 && low <= 0xdfff) {
                        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
                        t->p += 6;
                }
        }
        if (c >= 0xd800 && c <= 0xdfff)
                return refuse(t, "a surrogate alone, which no text here can have");
        buf_addf(t->out, "\\x{%x}", c);
        return 0;
}

/* \p{L}, \p{Lu}, \p{Script=Greek}: RE2 knows general categories and scripts by their short and long names respectively. */
static int property_escape(struct translate *t, char kind)
{
        const char *close = t->p < t->end && *t->p == '{' ? memchr(t->p, '}', (size_t)(t->end - t->p)) : NULL;
        const char *name = t->p + 1;

        if (!close)
                return refuse(t, "a \\p without a property in braces");
        size_t n = (size_t)(close - name);
        if (n > 7 && memcmp(name, "Script=", 7) == 0) {
                name += 7;
                n -= 7;
        } else if (n == 0 || n > 2) {
                return refuse(t, "a Unicode property that is not understood here");
        }
        buf_addf(t->out, "\\%c{%.*s}", kind, (int)n, name);
        t->p = close + 1;
        return 0;
}

/* \s and \S: RE2's know fewer characters. */
static int space_escape(struct translate *t, char kind)
{
        if (kind == 'S' && t->in_class)
                return refuse(t, "\\S in a class, which is not understood here");
        if (t->in_class)
                buf_adds(t->out, SPACE_ITEMS);
        else
                buf_addf(t->out, "[%s%s]", kind == 'S' ? "^" : "", SPACE_ITEMS);
        return 0;
}

/* \xHH, \cX and \0. */
static int code_escape(struct translate *t, char kind)
{
        unsigned c = 0;

        if (kind == 'x') {
                if (hex(t->p, t->end, 2, &c) < 0)
                        return refuse(t, "a broken \\x");
                t->p += 2;
        } else if (kind == 'c') {
                if (t->p == t->end || !isalpha((unsigned char)*t->p))
                        return refuse(t, "a broken \\c");
                c = (unsigned)*t->p++ & 0x1f;
        } else if (t->p < t->end && isdigit((unsigned char)*t->p)) {
                return refuse(t, "an octal escape");
        }
        buf_addf(t->out, "\\x{%x}", c);
        return 0;
}

/* p stands behind the backslash. */
static int translate_escape(struct translate *t)
{
        if (t->p == t->end)
                return refuse(t, "a backslash at its end");
        char e = *t->p++;
        if (e == 's' || e == 'S')
                return space_escape(t, e);
        if (e == 'p' || e == 'P')
                return property_escape(t, e);
        if (e == 'u')
                return unicode_escape(t);
        if (e == 'x' || e == 'c' || e == '0')
                return code_escape(t, e);
        if (isdigit((unsigned char)e))
                return refuse(t, "a backreference, which cannot be matched in linear time");
        if (e == 'b' && t->in_class)
                return buf_adds(t->out, "\\x08"), 0;
        if (!strchr("dDwWtnrfvbB", e) && (isalpha((unsigned char)e) || (unsigned char)e >= 0x80 || e == '\0'))
                return refuse(t, "an escape that is not understood here");
        if (e == 'B' && t->in_class)
                return refuse(t, "\\B in a class");
        buf_addf(t->out, "\\%c", e);
        return 0;
}

/* p stands behind "[". An empty class is written otherwise in RE2. */
static int translate_class(struct translate *t)
{
        bool negated = t->p < t->end && *t->p == '^';

        t->p += negated;
        if (t->p < t->end && *t->p == ']') {
                t->p++;
                buf_adds(t->out, negated ? "(?s:.)" : "[^\\x00-\\x{10ffff}]");
                return 0;
        }
        buf_adds(t->out, negated ? "[^" : "[");
        t->in_class = true;
        while (t->p < t->end && *t->p != ']') {
                char c = *t->p++;

                if (c == '\\') {
                        if (translate_escape(t) < 0)
                                return -1;
                } else if (c == '[' || c == '^') {
                        buf_addf(t->out, "\\%c", c); /* or RE2 could see "[:alpha:]" */
                } else {
                        buf_addc(t->out, c);
                }
        }
        if (t->p == t->end)
                return refuse(t, "a class that is not closed");
        t->p++;
        t->in_class = false;
        buf_addc(t->out, ']');
        return 0;
}

/* p stands behind "(". */
static int translate_group(struct translate *t)
{
        static const char *const names = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";

        if (t->p == t->end || *t->p != '?') {
                buf_adds(t->out, "(?:");
                return 0;
        }
        if (t->end - t->p > 1 && t->p[1] == ':') {
                t->p += 2;
                buf_adds(t->out, "(?:");
                return 0;
        }
        const char *close = t->end - t->p > 2 && t->p[1] == '<' ? memchr(t->p, '>', (size_t)(t->end - t->p)) : NULL;
        if (!close || strspn(t->p + 2, names) != (size_t)(close - t->p) - 2 || close == t->p + 2)
                return refuse(t, "look-around or a group of a kind that cannot be matched in linear time");
        t->p = close + 1;
        buf_adds(t->out, "(?:");
        return 0;
}

static int translate_next(struct translate *t)
{
        char c = *t->p++;

        switch (c) {
        case '\\':
                return translate_escape(t);
        case '[':
                return translate_class(t);
        case '(':
                return translate_group(t);
        case '.':
                buf_adds(t->out, "[^\\n\\r\\x{2028}\\x{2029}]");
                return 0;
        case ']':
        case '}':
                return refuse(t, "a bracket that closes nothing");
        case '{': {
                const char *close = memchr(t->p, '}', (size_t)(t->end - t->p));
                for (const char *p = t->p; close && p < close; p++)
                        if (!isdigit((unsigned char)*p) && *p != ',')
                                close = NULL;
                if (!close || close == t->p || *t->p == ',')
                        return refuse(t, "a brace that is no repetition");
                buf_add(t->out, t->p - 1, (size_t)(close - t->p) + 2);
                t->p = close + 1;
                return 0;
        }
        default:
                buf_addc(t->out, c);
                return 0;
        }
}

int ecma_translate(struct buf *out, struct mcp_slice expression, struct err **err)
{
        struct translate t = {out, expression.at, expression.at + expression.n, false, err};

        if (expression.n > PATTERN_MAX_BYTES)
                return err_set(err, ERR_LIMIT, "the expression is longer than %u bytes", PATTERN_MAX_BYTES);
        buf_reserve(out, 1);
        out->data[out->len] = '\0';
        while (t.p < t.end)
                if (translate_next(&t) < 0)
                        return -1;
        return 0;
}
