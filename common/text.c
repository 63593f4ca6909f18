#include "common/text.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <wchar.h>

#include "common/mem.h"

/* Decodes one UTF-8 sequence. Returns its length, 0 when it is not valid. */
static size_t utf8_decode(const unsigned char *s, size_t n, uint32_t *ret)
{
        static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
        size_t len = s[0] < 0x80 ? 1 : s[0] < 0xc0 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf8 ? 4 : 0;
        uint32_t c;

        if (len == 0 || len > n)
                return 0;
        c = len == 1 ? s[0] : s[0] & (0xffU >> (len + 1));
        for (size_t i = 1; i < len; i++) {
                if ((s[i] & 0xc0) != 0x80)
                        return 0;
                c = c << 6 | (s[i] & 0x3f);
        }
        if (c < least[len] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
                return 0;
        *ret = c;
        return len;
}

/* Characters that change how a line looks without being seen. Unicode categories Cc, Cf, Zl, Zp and private tags. */
static bool is_unsafe(uint32_t c)
{
        static const struct {
                uint32_t first, last;
        } ranges[] = {
                {0x00, 0x1f},     {0x7f, 0x9f},       {0xad, 0xad},       {0x34f, 0x34f},   {0x600, 0x605},   {0x61c, 0x61c},
                {0x6dd, 0x6dd},   {0x70f, 0x70f},     {0x115f, 0x1160},   {0x17b4, 0x17b5}, {0x180b, 0x180f}, {0x200b, 0x200f},
                {0x2028, 0x202e}, {0x2060, 0x206f},   {0x3164, 0x3164},   {0xfe00, 0xfe0f}, {0xfeff, 0xfeff}, {0xffa0, 0xffa0},
                {0xfff0, 0xfffb}, {0x1d173, 0x1d17a}, {0xe0000, 0xe0fff},
        };

        for (size_t i = 0; i < ELEMENTSOF(ranges); i++)
                if (c >= ranges[i].first && c <= ranges[i].last)
                        return true;
        return false;
}

char *text_escape(const char *s)
{
        const unsigned char *p = (const unsigned char *)s;
        size_t left = strlen(s);
        struct buf out = {0};

        while (left) {
                uint32_t c = 0;
                size_t len = utf8_decode(p, left, &c);

                if (len == 0) {
                        buf_addf(&out, "\\x%02x", p[0]);
                        len = 1;
                } else if (c == '\\') {
                        buf_adds(&out, "\\\\");
                } else if (is_unsafe(c)) {
                        if (c < 0x100)
                                buf_addf(&out, "\\x%02x", c);
                        else
                                buf_addf(&out, "\\u{%04x}", c);
                } else {
                        buf_add(&out, p, len);
                }
                p += len;
                left -= len;
        }
        return buf_take(&out);
}

bool text_is_utf8(const char *s, size_t n)
{
        const unsigned char *p = (const unsigned char *)s;
        uint32_t c;

        while (n) {
                size_t len = utf8_decode(p, n, &c);
                if (len == 0 || c == 0)
                        return false;
                p += len;
                n -= len;
        }
        return true;
}

size_t text_width(const char *s)
{
        const unsigned char *p = (const unsigned char *)s;
        size_t left = strlen(s), width = 0;

        while (left) {
                uint32_t c = 0;
                size_t len = utf8_decode(p, left, &c);
                int w = len ? wcwidth((wchar_t)c) : 1;

                len = len ? len : 1;
                width += w < 0 ? len : (size_t)w;
                p += len;
                left -= len;
        }
        return width;
}

/* Reads decimal digits; returns what follows them, NULL when there are none or too many. */
static const char *parse_digits(uint64_t *ret, const char *s)
{
        const char *p = s;
        uint64_t v = 0;

        for (; isdigit((unsigned char)*p) && p - s < 17; p++)
                v = v * 10 + (uint64_t)(*p - '0');
        if (p == s || isdigit((unsigned char)*p))
                return NULL;
        *ret = v;
        return p;
}

struct unit {
        const char *suffix;
        uint64_t factor;
};

static int parse_with_unit(uint64_t *ret, const char *s, const struct unit *units, uint64_t max)
{
        uint64_t v = 0;
        const char *rest = parse_digits(&v, s);

        for (; rest && units->suffix; units++) {
                if (strcmp(units->suffix, rest) != 0)
                        continue;
                if (__builtin_mul_overflow(v, units->factor, &v) || v > max)
                        return -1;
                *ret = v;
                return 0;
        }
        return -1;
}

int text_parse_size(uint64_t *ret, const char *s, struct err **err)
{
        static const struct unit units[] = {
                {"", 1}, {"k", 1U << 10}, {"m", 1U << 20}, {"g", 1U << 30}, {NULL, 0},
        };

        if (parse_with_unit(ret, s, units, UINT64_C(1) << 53) < 0 || *ret == 0)
                return err_set(err, ERR_INVALID, "\"%.40s\" is not a size: write a number of bytes or a suffix k, m or g, such as \"256m\"",
                               s);
        return 0;
}

int text_parse_duration(uint64_t *ret_ms, const char *s, struct err **err)
{
        static const struct unit units[] = {
                {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}, {NULL, 0},
        };

        if (parse_with_unit(ret_ms, s, units, UINT64_C(3660) * 86400000) < 0)
                return err_set(err, ERR_INVALID,
                               "\"%.40s\" is not a duration: write a number and ms, s, m, h or d, such as \"10m\"; 3660d at most", s);
        return 0;
}

int text_parse_time(time_t *ret, const char *s, struct err **err)
{
        struct tm tm = {0};
        char again[TEXT_TIME_MAX];
        const char *end = strptime(s, "%Y-%m-%dT%H:%M:%SZ", &tm);

        if (end && *end == '\0' && strlen(s) == 20) {
                *ret = timegm(&tm);
                /* strptime accepts the 31st of February: a time that does not print as it was written is none. */
                if (strcmp(text_format_time(again, *ret), s) == 0)
                        return 0;
        }
        return err_set(err, ERR_INVALID, "\"%.40s\" is not a time: write RFC 3339 in UTC, such as 2026-11-20T10:00:00Z", s);
}

const char *text_format_time(char out[TEXT_TIME_MAX], time_t t)
{
        struct tm tm;

        if (!gmtime_r(&t, &tm) || strftime(out, TEXT_TIME_MAX, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
                out[0] = '\0';
        return out;
}

const char *text_format_span(char out[32], uint64_t s)
{
        if (s < 60)
                snprintf(out, 32, "%" PRIu64 "s", s);
        else if (s < 3600)
                snprintf(out, 32, "%" PRIu64 "m %" PRIu64 "s", s / 60, s % 60);
        else if (s < 86400)
                snprintf(out, 32, "%" PRIu64 "h %" PRIu64 "m", s / 3600, s / 60 % 60);
        else
                snprintf(out, 32, "%" PRIu64 "d %" PRIu64 "h", s / 86400, s / 3600 % 24);
        return out;
}
