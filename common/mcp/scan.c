#include "common/mcp/scan.h"

#include <math.h>
#include <stdio.h>

#include "common/text.h"

#define MAX_NUMBER 64 /* characters; a double's shortest text has 24 */

static int scan_value(struct scan *s, enum place place);

static int fail(struct scan *s, const char *at, enum mcp_fault fault, const char *why)
{
        (void)!err_set(s->err, fault == MCP_FAULT_LIMIT ? ERR_LIMIT : ERR_INVALID, "byte %zu: %s", (size_t)(at - s->text), why);
        return (int)fault;
}

static inline void skip_space(struct scan *s)
{
        while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\r' || *s->p == '\t'))
                s->p++;
}

static const char *skip_digits(const char *p, const char *end)
{
        while (p < end && *p >= '0' && *p <= '9')
                p++;
        return p;
}

/* Only the point is taken out first, because strtod() reads the one of the locale. */
double number_value(struct mcp_slice number)
{
        char copy[MAX_NUMBER + 24];
        const char *p = number.at, *end = p + number.n;
        int power = 0, fraction = 0;
        size_t n = 0;

        if (number.n > MAX_NUMBER + 1)
                return INFINITY;
        for (bool point = false; p < end && *p != 'e' && *p != 'E'; p++) {
                if (*p == '.')
                        point = true;
                else
                        copy[n++] = *p, fraction += point;
        }
        if (p < end)
                for (const char *q = p + 1; q < end; q++)
                        if (*q != '+' && *q != '-')
                                power = 10 * power + (*q - '0');
        if (p < end && p[1] == '-')
                power = -power;
        snprintf(copy + n, sizeof(copy) - n, "e%d", power - fraction);
        return strtod(copy, NULL);
}

/* 2^53 = 9007199254740992: beyond it a double, and so another reader, sees another number. */
static bool is_exact(const char *digits, size_t n)
{
        return n < 16 || (n == 16 && memcmp(digits, "9007199254740992", 16) <= 0);
}

static int scan_number(struct scan *s)
{
        const char *start = s->p, *digits = *start == '-' ? start + 1 : start, *p = skip_digits(digits, s->end);
        bool integer = true, may_be_infinite = false;

        if (p == digits || (*digits == '0' && p - digits > 1))
                return fail(s, start, MCP_FAULT_PARSE, "not a JSON value");
        if (p < s->end && *p == '.') {
                const char *fraction = p + 1;
                integer = false;
                p = skip_digits(fraction, s->end);
                if (p == fraction)
                        return fail(s, start, MCP_FAULT_PARSE, "a number wants digits behind its point");
        }
        if (p < s->end && (*p == 'e' || *p == 'E')) {
                const char *power = p + 1;
                integer = false;
                if (power < s->end && (*power == '+' || *power == '-'))
                        power++;
                p = skip_digits(power, s->end);
                if (p == power || p - power > 3)
                        return fail(s, start, MCP_FAULT_PARSE, "a number's exponent is not one");
                may_be_infinite = p - power == 3;
        }
        s->p = p;
        if (integer && !is_exact(digits, (size_t)(p - digits)))
                return fail(s, start, MCP_FAULT_PARSE, "an integer is beyond 2^53: another reader may see another number");
        if (p - digits > MAX_NUMBER)
                return fail(s, start, MCP_FAULT_PARSE, "a number is longer than 64 characters");
        if (may_be_infinite && !isfinite(number_value((struct mcp_slice){start, (size_t)(p - start)})))
                return fail(s, start, MCP_FAULT_PARSE, "a number is too large to be represented");
        return 0;
}

static int scan_literal(struct scan *s, const char *word, size_t n)
{
        if ((size_t)(s->end - s->p) < n || memcmp(s->p, word, n) != 0)
                return fail(s, s->p, MCP_FAULT_PARSE, "not a JSON value");
        s->p += n;
        return 0;
}

/* s->p stands on the opening quote. */
static int scan_string(struct scan *s)
{
        const char *close = string_check(s->p + 1, s->end, &s->note);

        if (!close)
                return fail(s, s->note.at, MCP_FAULT_PARSE, s->note.why);
        s->string = (struct mcp_slice){s->p + 1, (size_t)(close - s->p) - 1};
        s->p = close + 1;
        return 0;
}

static int fail_twice(struct scan *s, struct mcp_slice key)
{
        _cleanup_free_ char *start = mem_strndup(key.at, MIN(key.n, (size_t)80)), *safe = text_escape(start);
        _cleanup_free_ char *reason = mem_printf("key \"%s\" stands twice in the same object", safe);

        return fail(s, key.at - 1, MCP_FAULT_PARSE, reason);
}

/* The key becomes s->string. */
static int scan_key(struct scan *s, struct key_set *set)
{
        int r;

        if (s->p == s->end || *s->p != '"')
                return fail(s, s->p, MCP_FAULT_PARSE, "a key in double quotes is missing here");
        r = scan_string(s);
        if (r != 0)
                return r;
        switch (keys_add(&s->keys, set, s->string, s->note.escaped)) {
        case KEY_TOO_MANY:
                return fail(s, s->string.at - 1, MCP_FAULT_LIMIT, "more than 1048576 keys in the objects that are open here");
        case KEY_TWICE:
                return fail_twice(s, s->string);
        case KEY_NEW:
                break;
        }
        skip_space(s);
        if (s->p == s->end || *s->p != ':')
                return fail(s, s->p, MCP_FAULT_PARSE, "\":\" is missing here");
        s->p++;
        skip_space(s);
        return 0;
}

static int scan_member(struct scan *s, struct key_set *set, enum place place)
{
        int r = scan_key(s, set);

        if (r != 0)
                return r;
        const struct field *field = place == IN_OTHER ? NULL : found_field(place, s->string, s->note.escaped);
        const char *start = s->p;
        r = scan_value(s, field ? found_place(field) : IN_OTHER);
        if (r == 0 && field)
                found_value(s->found, field, (struct mcp_slice){start, (size_t)(s->p - start)});
        return r;
}

/* After a member or an element. 1: one more follows, 0: the container is closed; else *fault is set. */
static int scan_separator(struct scan *s, const char *open, char close, int *fault)
{
        *fault = 0;
        skip_space(s);
        if (s->p < s->end && (*s->p == ',' || *s->p == close)) {
                int more = *s->p++ == ',';
                skip_space(s);
                return more;
        }
        *fault = s->p == s->end ? fail(s, open, MCP_FAULT_PARSE, "this bracket is not closed")
                                : fail(s, s->p, MCP_FAULT_PARSE, "\",\" or the closing bracket is missing here");
        return 0;
}

/* The bracket is open: is there nothing in it? */
static bool scan_empty(struct scan *s, char close)
{
        s->p++;
        skip_space(s);
        if (s->p == s->end || *s->p != close)
                return false;
        s->p++;
        return true;
}

static int scan_object(struct scan *s, enum place place)
{
        _cleanup_(key_set_deinit) struct key_set set = {.first = s->keys.n};
        const char *open = s->p;
        int r = 0;

        if (!scan_empty(s, '}')) {
                do {
                        r = scan_member(s, &set, place);
                } while (r == 0 && scan_separator(s, open, '}', &r));
        }
        s->keys.n = set.first;
        return r;
}

static int scan_array(struct scan *s)
{
        const char *open = s->p;
        int r = 0;

        if (!scan_empty(s, ']')) {
                do {
                        r = scan_value(s, IN_OTHER);
                } while (r == 0 && scan_separator(s, open, ']', &r));
        }
        return r;
}

static int scan_container(struct scan *s, enum place place)
{
        int r;

        if (s->depth == MCP_MAX_DEPTH)
                return fail(s, s->p, MCP_FAULT_LIMIT, "values are nested more than 64 deep");
        s->depth++;
        r = *s->p == '{' ? scan_object(s, place) : scan_array(s);
        s->depth--;
        return r;
}

/* s->p stands on the value's first byte. */
static int scan_value(struct scan *s, enum place place)
{
        if (s->p == s->end)
                return fail(s, s->p, MCP_FAULT_PARSE, "the text ends where a value should stand");
        switch (*s->p) {
        case '"':
                return scan_string(s);
        case '{':
        case '[':
                return scan_container(s, place);
        case 't':
                return scan_literal(s, "true", 4);
        case 'f':
                return scan_literal(s, "false", 5);
        case 'n':
                return scan_literal(s, "null", 4);
        default:
                return scan_number(s);
        }
}

int scan_text(struct scan *s, const char *text, size_t n, enum place place)
{
        int r;

        s->text = s->p = text;
        s->end = text + n;
        s->depth = 0;
        keys_init(&s->keys, text);
        /* Keys are remembered by 32-bit places. */
        if (n > INT32_MAX)
                return fail(s, text, MCP_FAULT_LIMIT, "more than 2 GiB of text");
        skip_space(s);
        s->value.at = s->p;
        r = scan_value(s, place);
        if (r != 0)
                return r;
        s->value.n = (size_t)(s->p - s->value.at);
        skip_space(s);
        if (s->p < s->end)
                return fail(s, s->p, MCP_FAULT_PARSE, "something stands behind the value");
        return 0;
}

void scan_deinit(struct scan *s)
{
        keys_deinit(&s->keys);
}
