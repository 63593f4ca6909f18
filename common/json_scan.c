#include "common/json_scan.h"

#include <ctype.h>

#include <stdio.h>

#include "common/text.h"

struct scan {
        const char *text, *p, *end;
        const char *name;
        unsigned depth, max_depth;
        struct json_locations *loc;
        struct buf pointer; /* of the value being read; kept only with loc */
        struct err **err;
        const char *counted; /* line and column are those of this place */
        unsigned line, column;
};

static int scan_value(struct scan *s);

/* Counts on from the last place asked for: places come in the order of the text, so that a whole file costs one walk. */
static void place_of(struct scan *s, const char *at, unsigned *line, unsigned *column)
{
        if (at < s->counted) {
                s->counted = s->text;
                s->line = s->column = 1;
        }
        for (; s->counted < at; s->counted++) {
                if (*s->counted == '\n') {
                        s->line++;
                        s->column = 1;
                } else if (((unsigned char)*s->counted & 0xc0) != 0x80) {
                        s->column++;
                }
        }
        *line = s->line;
        *column = s->column;
}

static int fail_at(struct scan *s, const char *at, const char *reason)
{
        unsigned line, column;

        place_of(s, at, &line, &column);
        return err_set(s->err, ERR_INVALID, "%s:%u:%u: %s", s->name, line, column, reason);
}

static void skip_space(struct scan *s)
{
        while (s->p < s->end && (*s->p == ' ' || *s->p == '\t' || *s->p == '\n' || *s->p == '\r'))
                s->p++;
}

static int hex4(const char *p, const char *end, unsigned *ret)
{
        *ret = 0;
        if (end - p < 4)
                return -1;
        for (int i = 0; i < 4; i++) {
                unsigned char c = (unsigned char)p[i];
                if (!isxdigit(c))
                        return -1;
                *ret = *ret << 4 | (unsigned)(isdigit(c) ? c - '0' : (c | 0x20) - 'a' + 10);
        }
        return 0;
}

static void utf8_append(struct buf *out, unsigned c)
{
        if (c < 0x80) {
                buf_addc(out, (char)c);
        } else if (c < 0x800) {
                buf_addc(out, (char)(0xc0 | c >> 6));
                buf_addc(out, (char)(0x80 | (c & 0x3f)));
        } else if (c < 0x10000) {
                buf_addc(out, (char)(0xe0 | c >> 12));
                buf_addc(out, (char)(0x80 | (c >> 6 & 0x3f)));
                buf_addc(out, (char)(0x80 | (c & 0x3f)));
        } else {
                buf_addc(out, (char)(0xf0 | c >> 18));
                buf_addc(out, (char)(0x80 | (c >> 12 & 0x3f)));
                buf_addc(out, (char)(0x80 | (c >> 6 & 0x3f)));
                buf_addc(out, (char)(0x80 | (c & 0x3f)));
        }
}

/* s->p stands behind "\u". */
static int scan_unicode_escape(struct scan *s, struct buf *out)
{
        const char *at = s->p - 2;
        unsigned c, low;

        if (hex4(s->p, s->end, &c) < 0)
                return fail_at(s, at, "\\u wants four hexadecimal digits");
        s->p += 4;
        if (c == 0)
                return fail_at(s, at, "\\u0000 is not allowed: no value here may contain NUL");
        if (c >= 0xdc00 && c <= 0xdfff)
                return fail_at(s, at, "a low surrogate stands alone");
        if (c >= 0xd800 && c <= 0xdbff) {
                if (s->end - s->p < 6 || s->p[0] != '\\' || s->p[1] != 'u' || hex4(s->p + 2, s->end, &low) < 0 || low < 0xdc00 ||
                    low > 0xdfff)
                        return fail_at(s, at, "a high surrogate stands alone");
                s->p += 6;
                c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        }
        utf8_append(out, c);
        return 0;
}

static int scan_escape(struct scan *s, struct buf *out)
{
        static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
        const char *known;

        if (s->end - s->p < 2)
                return fail_at(s, s->p, "the text ends inside a string");
        if (s->p[1] == 'u') {
                s->p += 2;
                return scan_unicode_escape(s, out);
        }
        known = s->p[1] ? strchr(from, s->p[1]) : NULL;
        if (!known)
                return fail_at(s, s->p, "unknown escape in a string");
        buf_addc(out, to[known - from]);
        s->p += 2;
        return 0;
}

/* s->p stands on the opening quote. The decoded string goes to out. */
static int scan_string(struct scan *s, struct buf *out)
{
        const char *start = s->p++;

        while (s->p < s->end && *s->p != '"') {
                const char *run = s->p;

                while (s->p < s->end && *s->p != '"' && *s->p != '\\' && (unsigned char)*s->p >= 0x20)
                        s->p++;
                if (!text_is_utf8(run, (size_t)(s->p - run)))
                        return fail_at(s, run, "a string is not valid UTF-8");
                buf_add(out, run, (size_t)(s->p - run));
                if (s->p == s->end || *s->p == '"')
                        continue;
                if (*s->p != '\\')
                        return fail_at(s, s->p, "a control character stands in a string: write it as an escape");
                if (scan_escape(s, out) < 0)
                        return -1;
        }
        if (s->p == s->end)
                return fail_at(s, start, "a string is not closed");
        s->p++;
        return 0;
}

static const char *skip_digits(const char *p, const char *end)
{
        while (p < end && isdigit((unsigned char)*p))
                p++;
        return p;
}

static int scan_number(struct scan *s)
{
        const char *start = s->p, *digits = *start == '-' ? start + 1 : start, *p = skip_digits(digits, s->end);
        bool integer = true;

        if (p == digits || (*digits == '0' && p - digits > 1))
                return fail_at(s, start, "not a JSON value");
        if (p < s->end && *p == '.') {
                const char *fraction = p + 1;
                integer = false;
                p = skip_digits(fraction, s->end);
                if (p == fraction)
                        return fail_at(s, start, "a number wants digits behind its point");
        }
        if (p < s->end && (*p == 'e' || *p == 'E')) {
                const char *exponent = p + 1;
                integer = false;
                if (exponent < s->end && (*exponent == '+' || *exponent == '-'))
                        exponent++;
                p = skip_digits(exponent, s->end);
                if (p == exponent || p - exponent > 3)
                        return fail_at(s, start, "a number's exponent is not one");
        }
        /* 2^53 = 9007199254740992: beyond it a double, and so another reader, sees another number. */
        size_t n = (size_t)(p - digits);
        if (integer && (n > 16 || (n == 16 && strncmp(digits, "9007199254740992", 16) > 0)))
                return fail_at(s, start, "an integer is beyond 2^53 and cannot be represented: write it as a string or make it smaller");
        if (n > 64)
                return fail_at(s, start, "a number has more than 64 digits");
        if (!integer) {
                char copy[80] = {0};
                memcpy(copy, start, MIN((size_t)(p - start), sizeof(copy) - 1));
                double d = strtod(copy, NULL);
                if (d > 1.7976931348623157e308 || d < -1.7976931348623157e308)
                        return fail_at(s, start, "a number is too large to be represented");
        }
        s->p = p;
        return 0;
}

static int scan_literal(struct scan *s)
{
        static const char *const words[] = {"true", "false", "null"};

        for (size_t i = 0; i < ELEMENTSOF(words); i++) {
                size_t n = strlen(words[i]);
                if ((size_t)(s->end - s->p) >= n && memcmp(s->p, words[i], n) == 0) {
                        s->p += n;
                        return 0;
                }
        }
        return fail_at(s, s->p, "not a JSON value");
}

/* Appends "/segment", escaped as RFC 6901 has it; returns the length to go back to. */
static size_t pointer_push(struct scan *s, const char *segment)
{
        size_t back = s->pointer.len;

        if (!s->loc)
                return back;
        buf_addc(&s->pointer, '/');
        for (; *segment; segment++) {
                if (*segment == '~')
                        buf_adds(&s->pointer, "~0");
                else if (*segment == '/')
                        buf_adds(&s->pointer, "~1");
                else
                        buf_addc(&s->pointer, *segment);
        }
        return back;
}

static void pointer_pop(struct scan *s, size_t back)
{
        if (s->loc) {
                s->pointer.len = back;
                s->pointer.data[back] = '\0';
        }
}

static void remember(struct scan *s, const char *at)
{
        struct json_locations *loc = s->loc;
        struct json_location *item;

        if (!loc || s->pointer.len > JSON_POINTER_KEPT)
                return;
        if (loc->n == loc->cap) {
                loc->cap = loc->cap ? 2 * loc->cap : 64;
                loc->items = mem_realloc(loc->items, loc->cap, sizeof(*loc->items));
        }
        item = &loc->items[loc->n++];
        item->pointer = mem_strdup(s->pointer.data ? s->pointer.data : "");
        place_of(s, at, &item->line, &item->column);
}

/* An open-addressing set of the keys of one object, so that a flood of keys stays linear. */
struct key_set {
        char **slots;
        size_t cap, n;
};

static size_t key_slot(const struct key_set *set, const char *key)
{
        uint64_t h = UINT64_C(0xcbf29ce484222325);

        for (const char *p = key; *p; p++)
                h = (h ^ (unsigned char)*p) * UINT64_C(0x100000001b3);
        size_t i = (size_t)(h ^ h >> 29) & (set->cap - 1);
        while (set->slots[i] && strcmp(set->slots[i], key) != 0)
                i = (i + 1) & (set->cap - 1);
        return i;
}

static bool key_add(struct key_set *set, const char *key)
{
        if (2 * (set->n + 1) > set->cap) {
                struct key_set old = *set;
                set->cap = old.cap ? 2 * old.cap : 16;
                set->slots = mem_alloc(set->cap * sizeof(char *));
                for (size_t i = 0; i < old.cap; i++)
                        if (old.slots[i])
                                set->slots[key_slot(set, old.slots[i])] = old.slots[i];
                free(old.slots);
        }
        size_t i = key_slot(set, key);
        if (set->slots[i])
                return false;
        set->slots[i] = mem_strdup(key);
        set->n++;
        return true;
}

static void key_set_deinit(struct key_set *set)
{
        for (size_t i = 0; i < set->cap; i++)
                free(set->slots[i]);
        free(set->slots);
}

static int scan_member(struct scan *s, struct key_set *keys)
{
        _cleanup_buf_ struct buf key = {0};
        const char *at = s->p;

        if (s->p == s->end || *s->p != '"')
                return fail_at(s, s->p, "a key in double quotes is missing here");
        buf_adds(&key, "");
        if (scan_string(s, &key) < 0)
                return -1;
        if (!key_add(keys, key.data)) {
                _cleanup_free_ char *safe = text_escape(key.data);
                _cleanup_free_ char *reason = mem_printf("key \"%.80s\" stands twice in the same object: remove one", safe);
                return fail_at(s, at, reason);
        }
        skip_space(s);
        if (s->p == s->end || *s->p != ':')
                return fail_at(s, s->p, "\":\" is missing here");
        s->p++;
        size_t back = pointer_push(s, key.data);
        remember(s, at);
        int r = scan_value(s);
        pointer_pop(s, back);
        return r;
}

static int scan_element(struct scan *s, size_t index)
{
        char number[24];

        snprintf(number, sizeof(number), "%zu", index);
        skip_space(s);
        size_t back = pointer_push(s, number);
        remember(s, s->p);
        int r = scan_value(s);
        pointer_pop(s, back);
        return r;
}

/* s->p stands on the opening bracket. */
static int scan_container(struct scan *s, char close, struct key_set *keys)
{
        const char *start = s->p++;

        if (++s->depth > s->max_depth)
                return fail_at(s, start, "values are nested too deeply");
        skip_space(s);
        if (s->p < s->end && *s->p == close) {
                s->p++;
                s->depth--;
                return 0;
        }
        for (size_t i = 0;; i++) {
                skip_space(s);
                if ((keys ? scan_member(s, keys) : scan_element(s, i)) < 0)
                        return -1;
                skip_space(s);
                if (s->p == s->end)
                        return fail_at(s, start, "this bracket is not closed");
                if (*s->p == close)
                        break;
                if (*s->p != ',')
                        return fail_at(s, s->p, "\",\" or the closing bracket is missing here");
                s->p++;
        }
        s->p++;
        s->depth--;
        return 0;
}

static int scan_value(struct scan *s)
{
        skip_space(s);
        if (s->p == s->end)
                return fail_at(s, s->p, "the text ends where a value should stand");
        if (*s->p == '{') {
                _cleanup_(key_set_deinit) struct key_set keys = {0};
                return scan_container(s, '}', &keys);
        }
        if (*s->p == '[')
                return scan_container(s, ']', NULL);
        if (*s->p == '"') {
                _cleanup_buf_ struct buf ignored = {0};
                return scan_string(s, &ignored);
        }
        if (*s->p == '-' || isdigit((unsigned char)*s->p))
                return scan_number(s);
        return scan_literal(s);
}

int json_scan(const char *text, size_t n, const char *name, unsigned max_depth, struct json_locations *loc, struct err **err)
{
        struct scan s = {.text = text, .p = text, .end = text + n, .name = name, .max_depth = max_depth, .loc = loc, .err = err};

        s.counted = text;
        s.line = s.column = 1;
        if (loc)
                buf_adds(&s.pointer, "");
        int r = scan_value(&s);
        buf_deinit(&s.pointer);
        if (r < 0)
                return -1;
        skip_space(&s);
        if (s.p != s.end)
                return fail_at(&s, s.p, "there is more text behind the value");
        return 0;
}
