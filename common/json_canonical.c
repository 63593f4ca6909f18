/*
 * RFC 8785, JSON Canonicalization Scheme.
 */
#include <math.h>
#include <stdio.h>

#include "common/json.h"

static void write_value(struct buf *out, json_object *o);

/* Section 3.2.2.2: only the escapes JSON demands. */
static void write_string(struct buf *out, const char *s, size_t n)
{
        static const char from[] = "\b\t\n\f\r\"\\", to[] = "btnfr\"\\";

        buf_addc(out, '"');
        for (size_t i = 0; i < n; i++) {
                const char *known = s[i] ? strchr(from, s[i]) : NULL;

                if (known) {
                        buf_addc(out, '\\');
                        buf_addc(out, to[known - from]);
                } else if ((unsigned char)s[i] < 0x20) {
                        buf_addf(out, "\\u%04x", (unsigned)(unsigned char)s[i]);
                } else {
                        buf_addc(out, s[i]);
                }
        }
        buf_addc(out, '"');
}

/* Section 3.2.2.3: as ECMAScript's Number::toString has it: the shortest digits that read back as the same double. */
static void write_double(struct buf *out, double d)
{
        char text[40], digits[24];
        int exponent, n = 0;

        if (d == 0) {
                buf_addc(out, '0');
                return;
        }
        for (int precision = 0; precision < 17; precision++) {
                snprintf(text, sizeof(text), "%.*e", precision, d);
                if (strtod(text, NULL) == d)
                        break;
        }
        if (d < 0)
                buf_addc(out, '-');
        const char *e = strchr(text, 'e');
        for (const char *p = text; p < e; p++)
                if (*p >= '0' && *p <= '9')
                        digits[n++] = *p;
        exponent = (int)strtol(e + 1, NULL, 10) + 1; /* value = 0.DIGITS * 10^exponent */
        if (n <= exponent && exponent <= 21) {
                buf_add(out, digits, (size_t)n);
                for (int i = n; i < exponent; i++)
                        buf_addc(out, '0');
        } else if (0 < exponent && exponent <= 21) {
                buf_add(out, digits, (size_t)exponent);
                buf_addc(out, '.');
                buf_add(out, digits + exponent, (size_t)(n - exponent));
        } else if (-6 < exponent && exponent <= 0) {
                buf_adds(out, "0.");
                for (int i = exponent; i < 0; i++)
                        buf_addc(out, '0');
                buf_add(out, digits, (size_t)n);
        } else {
                buf_addc(out, digits[0]);
                if (n > 1) {
                        buf_addc(out, '.');
                        buf_add(out, digits + 1, (size_t)n - 1);
                }
                buf_addf(out, "e%c%d", exponent > 0 ? '+' : '-', abs(exponent - 1));
        }
}

/* Decodes one code point of valid UTF-8. */
static unsigned next_code_point(const unsigned char **p)
{
        const unsigned char *s = *p;
        size_t len = s[0] < 0x80 ? 1 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
        unsigned c = len == 1 ? s[0] : s[0] & (0xffU >> (len + 1));

        for (size_t i = 1; i < len && s[i]; i++)
                c = c << 6 | (s[i] & 0x3f);
        *p += len;
        return c;
}

/* Section 3.2.3 sorts by UTF-16 code units: a surrogate (0xd800…) sorts before U+E000…U+FFFF, unlike its code point. */
static unsigned utf16_rank(unsigned c)
{
        return c >= 0x10000 ? 0xd800 + ((c - 0x10000) >> 10) : c;
}

static int compare_keys(const void *a, const void *b)
{
        const unsigned char *x = *(const unsigned char *const *)a, *y = *(const unsigned char *const *)b;

        while (*x && *y) {
                unsigned c = next_code_point(&x), d = next_code_point(&y);
                if (c == d)
                        continue;
                if (utf16_rank(c) != utf16_rank(d))
                        return utf16_rank(c) < utf16_rank(d) ? -1 : 1;
                return c < d ? -1 : 1;
        }
        return *x ? 1 : *y ? -1 : 0;
}

static void write_object(struct buf *out, json_object *o)
{
        size_t n = (size_t)json_object_object_length(o), i = 0;
        _cleanup_free_ const char **keys = NEW_N(const char *, n);

        json_object_object_foreach (o, key, value) {
                (void)value;
                keys[i++] = key;
        }
        if (n > 1)
                qsort(keys, n, sizeof(char *), compare_keys);
        buf_addc(out, '{');
        for (i = 0; i < n; i++) {
                if (i)
                        buf_addc(out, ',');
                write_string(out, keys[i], strlen(keys[i]));
                buf_addc(out, ':');
                write_value(out, json_get(o, keys[i]));
        }
        buf_addc(out, '}');
}

static void write_array(struct buf *out, json_object *o)
{
        buf_addc(out, '[');
        for (size_t i = 0; i < json_object_array_length(o); i++) {
                if (i)
                        buf_addc(out, ',');
                write_value(out, json_object_array_get_idx(o, i));
        }
        buf_addc(out, ']');
}

static void write_value(struct buf *out, json_object *o)
{
        switch (json_object_get_type(o)) {
        case json_type_null:
                buf_adds(out, "null");
                break;
        case json_type_boolean:
                buf_adds(out, json_object_get_boolean(o) ? "true" : "false");
                break;
        case json_type_int:
                buf_addf(out, "%jd", (intmax_t)json_object_get_int64(o));
                break;
        case json_type_double:
                write_double(out, json_object_get_double(o));
                break;
        case json_type_string:
                write_string(out, json_object_get_string(o), (size_t)json_object_get_string_len(o));
                break;
        case json_type_array:
                write_array(out, o);
                break;
        case json_type_object:
                write_object(out, o);
                break;
        }
}

char *json_canonical(json_object *o)
{
        struct buf out = {0};

        write_value(&out, o);
        return buf_take(&out);
}
