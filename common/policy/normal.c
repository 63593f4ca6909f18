#include "common/policy/normal.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <unistr.h>

#include "common/policy/fold.h"

/* What a byte may make necessary. */
enum { SEEN_UPPER = 1, SEEN_PERCENT = 2, SEEN_BACKSLASH = 4, SEEN_WIDE = 8, SEEN_CONTROL = 16, SEEN_SPACE = 32, SEEN_SLASH = 64 };

static unsigned char_class(unsigned char c)
{
        if (c >= 0x80)
                return SEEN_WIDE;
        if (c >= 'A' && c <= 'Z')
                return SEEN_UPPER;
        if (c == '\t' || c == '\n' || c == '\r')
                return SEEN_SPACE;
        if (c < 0x20 || c == 0x7f)
                return SEEN_CONTROL;
        return c == '%' ? SEEN_PERCENT : c == '\\' ? SEEN_BACKSLASH : c == '/' ? SEEN_SLASH : 0;
}

static unsigned survey(const char *s, size_t n)
{
        static unsigned char table[256];
        static bool ready;
        unsigned seen = 0;

        if (!ready) {
                for (unsigned i = 0; i < 256; i++)
                        table[i] = (unsigned char)char_class((unsigned char)i);
                ready = true;
        }
        for (size_t i = 0; i < n; i++)
                seen |= table[(unsigned char)s[i]];
        return seen;
}

/* -- decoding ------------------------------------------------------------------------------------------------------------------ */
static int hex_digit(char c)
{
        if (c >= '0' && c <= '9')
                return c - '0';
        c = (char)(c | 0x20);
        return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* n hexadecimal digits at s, or -1. */
static int hex_number(const char *s, const char *end, int n)
{
        int value = 0;

        if (end - s < n)
                return -1;
        for (int i = 0; i < n; i++) {
                int digit = hex_digit(s[i]);
                if (digit < 0)
                        return -1;
                value = value * 16 + digit;
        }
        return value;
}

/* Appends a character; surrogates that stand for nothing become U+FFFD. */
static void add_character(struct buf *out, ucs4_t c)
{
        uint8_t bytes[6];
        int n = u8_uctomb(bytes, (c >= 0xd800 && c <= 0xdfff) || c > 0x10ffff ? 0xfffd : c, sizeof(bytes));

        buf_add(out, bytes, n > 0 ? (size_t)n : 0);
}

/* Percent signs and, when `escapes`, backslashes with u or x. Bytes may come out that are not UTF-8. */
static void decode_once(struct buf *out, const char *s, size_t n, bool escapes)
{
        const char *end = s + n;

        while (s < end) {
                bool percent = *s == '%', backslash = escapes && *s == '\\';
                int value;

                if ((percent || backslash) && end - s > 1 && (s[1] | 0x20) == 'u' && (value = hex_number(s + 2, end, 4)) >= 0) {
                        add_character(out, (ucs4_t)value);
                        s += 6;
                } else if (percent && (value = hex_number(s + 1, end, 2)) >= 0) {
                        buf_addc(out, (char)value);
                        s += 3;
                } else if (backslash && end - s > 1 && (s[1] | 0x20) == 'x' && (value = hex_number(s + 2, end, 2)) >= 0) {
                        add_character(out, (ucs4_t)value);
                        s += 4;
                } else {
                        buf_addc(out, *s++);
                }
        }
}

/* The character at s, in the way of a careless decoder: overlong forms count. *used bytes. */
static ucs4_t lax_character(const unsigned char *s, size_t left, size_t *used)
{
        size_t length = s[0] < 0x80 ? 1 : s[0] < 0xc0 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf8 ? 4 : 0;
        ucs4_t c = length == 1 ? s[0] : length == 0 ? 0xfffd : s[0] & (0x7fU >> length);

        *used = 1;
        if (length == 0 || length > left)
                return length == 1 ? c : 0xfffd;
        for (size_t i = 1; i < length; i++) {
                if ((s[i] & 0xc0) != 0x80)
                        return 0xfffd;
                c = c << 6 | (s[i] & 0x3f);
        }
        *used = length;
        return c;
}

static void make_utf8(struct buf *out, const struct buf *in)
{
        for (size_t i = 0, used; i < in->len; i += used)
                add_character(out, lax_character((const unsigned char *)in->data + i, in->len - i, &used));
}

static void fold_ascii(struct buf *text)
{
        for (size_t i = 0; i < text->len; i++)
                text->data[i] = (char)(text->data[i] >= 'A' && text->data[i] <= 'Z' ? text->data[i] | 0x20 : text->data[i]);
}

/* Takes out control characters of plain ASCII. */
static void strip_controls(struct buf *text)
{
        size_t kept = 0;

        for (size_t i = 0; i < text->len; i++)
                if (char_class((unsigned char)text->data[i]) != SEEN_CONTROL)
                        text->data[kept++] = text->data[i];
        text->len = kept;
}

/* One round. 0: a further one would change nothing; 1: it could; -1: to be refused, and *why. */
static int decode_round(struct normal *out, struct buf *text, bool escapes, const char **why)
{
        struct buf *work = &out->work;
        unsigned seen = survey(text->data, text->len);
        bool decode = (seen & SEEN_PERCENT) || (escapes && (seen & SEEN_BACKSLASH));

        if (decode) {
                work->len = 0;
                decode_once(work, text->data, text->len, escapes);
                text->len = 0;
                make_utf8(text, work);
                if (text->len > 0 && memchr(text->data, '\0', text->len)) {
                        *why = "holds an encoded NUL";
                        return -1;
                }
                seen = survey(text->data, text->len);
        }
        if (seen & SEEN_WIDE) {
                if (!fold_text(text, work, &out->budget)) {
                        *why = "holds more text than can be folded to one case";
                        return -1;
                }
        } else {
                if (seen & SEEN_UPPER)
                        fold_ascii(text);
                if (seen & SEEN_CONTROL)
                        strip_controls(text);
        }
        return decode || (seen & (SEEN_WIDE | SEEN_CONTROL)) ? 1 : 0;
}

/* -- the forms ----------------------------------------------------------------------------------------------------------------- */
/* Where a path begins that ".." cannot climb out of: behind the authority of a URL. */
static size_t root_length(const char *s, size_t n)
{
        size_t i = 0;

        while (i < n && (isalnum((unsigned char)s[i]) || strchr("+.-", s[i])))
                i++;
        if (i == 0 || n - i < 3 || memcmp(s + i, "://", 3) != 0)
                return 0;
        for (i += 3; i < n && s[i] != '/';)
                i++;
        return i;
}

static bool is_dots(const char *s, size_t n, size_t dots)
{
        return n == dots && memcmp(s, "..", dots) == 0;
}

/* Adds one segment with its slash in front; start: where the path begins in out. */
static void add_segment(struct buf *out, size_t start, const char *s, size_t n, bool absolute)
{
        if (n == 0 || is_dots(s, n, 1))
                return;
        if (is_dots(s, n, 2)) {
                size_t last = out->len;

                while (last > start && out->data[last - 1] != '/')
                        last--;
                if (out->len > start && !is_dots(out->data + last, out->len - last, 2)) {
                        out->len = last > start ? last - 1 : start;
                        return;
                }
                if (absolute)
                        return;
        }
        if (absolute || out->len > start)
                buf_addc(out, '/');
        buf_add(out, s, n);
}

void normal_resolve(struct buf *out, const char *s, size_t n)
{
        _cleanup_buf_ struct buf unified = {0};
        size_t begin = out->len, root, start;

        buf_add(&unified, s, n);
        for (size_t i = 0; i < n; i++)
                if (unified.data[i] == '\\')
                        unified.data[i] = '/';
        root = root_length(unified.data, n);
        buf_add(out, unified.data, root);
        start = out->len;
        bool absolute = root > 0 || (n > 0 && unified.data[0] == '/');
        for (size_t i = root; i < n;) {
                const char *slash = memchr(unified.data + i, '/', n - i);
                size_t length = slash ? (size_t)(slash - unified.data) - i : n - i;

                add_segment(out, start, unified.data + i, length, absolute);
                i += length + 1;
        }
        bool slash_at_end = n > root && unified.data[n - 1] == '/';
        if ((absolute && root == 0 && out->len == begin) || (slash_at_end && out->len > begin && out->data[out->len - 1] != '/'))
                buf_addc(out, '/');
        buf_reserve(out, 1);
        out->data[out->len] = '\0';
}

static void add_form(struct normal *out, const char *s, size_t n, unsigned kinds)
{
        for (size_t i = 0; i < out->n_forms; i++) {
                if (out->forms[i].n == n && memcmp(out->forms[i].s, s, n) == 0) {
                        out->forms[i].kinds |= kinds;
                        return;
                }
        }
        out->forms[out->n_forms++] = (struct normal_form){s, n, kinds};
}

/* Without tabs and line ends, then resolved. */
static void make_path(struct normal *out, struct buf *path, const struct buf *plain)
{
        const char *s = plain->data;
        size_t n = plain->len;

        if (survey(s, n) & SEEN_SPACE) {
                out->work.len = 0;
                for (size_t i = 0; i < n; i++)
                        if (s[i] != '\t' && s[i] != '\n' && s[i] != '\r')
                                buf_addc(&out->work, s[i]);
                s = out->work.data;
                n = out->work.len;
        }
        path->len = 0;
        if (n > 0)
                normal_resolve(path, s, n);
        add_form(out, path->len ? path->data : "", path->len, NORMAL_PATH);
}

static int make_forms(struct normal *out, size_t which, const char *s, size_t n, bool escapes, const char **why)
{
        struct buf *plain = &out->plain[which];
        int rounds = 0;

        plain->len = 0;
        buf_add(plain, s, n);
        for (int more = 1; more == 1; rounds++) {
                out->before.len = 0;
                buf_add(&out->before, plain->data, plain->len);
                more = decode_round(out, plain, escapes, why);
                if (more == 1 && plain->len == out->before.len && memcmp(plain->data, out->before.data, plain->len) == 0)
                        break;
                if (more < 0)
                        return -1;
                if (rounds == NORMAL_ROUNDS) {
                        *why = "is encoded too many times over";
                        return -1;
                }
        }
        for (size_t i = 0; i < plain->len; i++)
                if (plain->data[i] == '\\')
                        plain->data[i] = '/';
        add_form(out, plain->len ? plain->data : "", plain->len, NORMAL_PLAIN);
        make_path(out, &out->path[which], plain);
        return 0;
}

/* Shortest text of the number that s is as a whole. false: it is none. */
static bool make_number(struct normal *out, const char *s, size_t n)
{
        char text[64], *stop;
        double value;

        if (n == 0 || n >= sizeof(text) || !(isdigit((unsigned char)s[0]) || (n > 1 && strchr("+-.", s[0]))))
                return false;
        memcpy(text, s, n);
        text[n] = '\0';
        value = strtod(text, &stop);
        if (*stop || !isfinite(value))
                return false;
        if (value == 0)
                value = 0; /* not -0 */
        if (fabs(value) < 1e16 && value == trunc(value))
                snprintf(out->number, sizeof(out->number), "%.0f", value);
        else
                for (int digits = 15; digits <= 17; digits++) {
                        snprintf(out->number, sizeof(out->number), "%.*g", digits, value);
                        if (strtod(out->number, NULL) == value)
                                break;
                }
        add_form(out, out->number, strlen(out->number), NORMAL_NUMBER);
        return true;
}

/* Does anything stand here that the path form would change, when nothing had to be decoded? */
static bool needs_path(const char *s, size_t n)
{
        for (size_t i = 0; i < n; i++)
                if (s[i] == '/' && i + 1 < n && (s[i + 1] == '/' || s[i + 1] == '.'))
                        return true;
        return n > 0 && s[0] == '.';
}

static bool has_escapes(const char *s, size_t n)
{
        for (const char *p = s, *end = s + n; (p = memchr(p, '\\', (size_t)(end - p))); p++)
                if (end - p > 3 && ((p[1] | 0x20) == 'u' || (p[1] | 0x20) == 'x'))
                        return true;
        return false;
}

int normal_forms(struct normal *out, const char *s, size_t n, const char **why)
{
        unsigned seen = survey(s, n);

        bool same = (seen & ~(unsigned)SEEN_SLASH) == 0 && !needs_path(s, n);

        out->n_forms = 0;
        add_form(out, s, n, same ? NORMAL_RAW | NORMAL_PLAIN | NORMAL_PATH : NORMAL_RAW);
        if (n == 0)
                return 0;
        bool number = make_number(out, s, n);
        if (same)
                return 0;
        if (make_forms(out, 0, s, n, false, why) < 0)
                return -1;
        if (!number)
                make_number(out, out->plain[0].data, out->plain[0].len);
        return has_escapes(s, n) ? make_forms(out, 1, s, n, true, why) : 0;
}

void normal_begin(struct normal *out)
{
        out->budget = FOLD_BUDGET;
}

void normal_deinit(struct normal *out)
{
        for (size_t i = 0; i < 2; i++) {
                buf_deinit(&out->plain[i]);
                buf_deinit(&out->path[i]);
        }
        buf_deinit(&out->work);
        buf_deinit(&out->before);
}

char *normal_path(const char *s)
{
        _cleanup_buf_ struct buf out = {0};

        normal_resolve(&out, s, strlen(s));
        return buf_take(&out);
}

char *normal_path_folded(const char *s)
{
        struct normal normal = {0};
        const char *why;
        char *path = NULL;

        normal_begin(&normal);
        if (normal_forms(&normal, s, strlen(s), &why) == 0)
                for (size_t i = 0; i < normal.n_forms && !path; i++)
                        if (normal.forms[i].kinds & NORMAL_PATH)
                                path = mem_strndup(normal.forms[i].s, normal.forms[i].n);
        normal_deinit(&normal);
        return path;
}
