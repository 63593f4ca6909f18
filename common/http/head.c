#include "common/http/head.h"

#include <assert.h>
#include <string.h>
#include <strings.h>

#include "common/http/internal.h"

/* -- the start line ---------------------------------------------------------------------------------------------------------- */

static int fail(enum http_fault *fault, enum http_fault why)
{
        *fault = why;
        return -1;
}

static bool is_digit(char c)
{
        return c >= '0' && c <= '9';
}

/* The eight characters "HTTP/1.x". */
static int read_version(struct http_head *h, const char *s, size_t n, enum http_fault *fault)
{
        if (n != 8 || memcmp(s, "HTTP/", 5) != 0 || !is_digit(s[5]) || s[6] != '.' || !is_digit(s[7]))
                return fail(fault, HTTP_FAULT_START_LINE);
        if (s[5] != '1' || s[7] > '1')
                return fail(fault, HTTP_FAULT_VERSION);
        h->minor = (unsigned)(s[7] - '0');
        return 0;
}

/* Exactly one space between method, target and version. */
static int read_request_line(struct http_head *h, const char *bytes, const char *s, size_t n, enum http_fault *fault)
{
        const char *end = s + n, *method_end = http_span(s, end, HTTP_IN_TOKEN);
        const char *target = method_end + 1;

        if (method_end == s || method_end == end || *method_end != ' ')
                return fail(fault, HTTP_FAULT_START_LINE);
        const char *target_end = http_span(target, end, HTTP_IN_TARGET);
        if (target_end == target || target_end == end || *target_end != ' ')
                return fail(fault, HTTP_FAULT_START_LINE);
        h->method = (struct http_span){(uint32_t)(s - bytes), (uint32_t)(method_end - s)};
        h->target = (struct http_span){(uint32_t)(target - bytes), (uint32_t)(target_end - target)};
        return read_version(h, target_end + 1, (size_t)(end - target_end) - 1, fault);
}

/* The space before an empty reason is often forgotten, and nothing hangs on it. */
static int read_status_line(struct http_head *h, const char *bytes, const char *s, size_t n, enum http_fault *fault)
{
        if (n < 12 || s[8] != ' ' || s[9] < '1' || s[9] > '5' || !is_digit(s[10]) || !is_digit(s[11]) || (n > 12 && s[12] != ' ') ||
            http_span(s + 12, s + n, HTTP_IN_VALUE) != s + n)
                return fail(fault, HTTP_FAULT_START_LINE);
        h->status = (unsigned)(s[9] - '0') * 100 + (unsigned)(s[10] - '0') * 10 + (unsigned)(s[11] - '0');
        h->reason = n > 13 ? (struct http_span){(uint32_t)(s + 13 - bytes), (uint32_t)n - 13} : (struct http_span){0};
        return read_version(h, s, 8, fault);
}

/* -- fields ------------------------------------------------------------------------------------------------------------------ */

static int read_field(struct http_head *h, const char *bytes, const char *s, size_t n, enum http_fault *fault)
{
        const char *end = s + n, *colon = http_span(s, end, HTTP_IN_TOKEN);

        /* A folded line begins with a blank, a space before the colon ends the name: neither comes further than this. */
        if (colon == s || colon == end || *colon != ':')
                return fail(fault, HTTP_FAULT_FIELD);
        const char *value = colon + 1;
        if (http_span(value, end, HTTP_IN_VALUE) != end)
                return fail(fault, HTTP_FAULT_FIELD);
        while (value < end && (*value == ' ' || *value == '\t'))
                value++;
        while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
                end--;
        if (h->n_fields == HTTP_MAX_FIELDS)
                return fail(fault, HTTP_FAULT_HEAD_SIZE);
        h->fields[h->n_fields] =
                (struct http_field){{(uint32_t)(s - bytes), (uint32_t)(colon - s)}, {(uint32_t)(value - bytes), (uint32_t)(end - value)}};
        enum http_known known = http_known_field(s, (size_t)(colon - s));
        if (known != HTTP_N_KNOWN && h->count[known]++ == 0)
                h->first[known] = (uint8_t)h->n_fields;
        h->n_fields++;
        return 0;
}

/* A whole line, without its end. 1: it was the last one. */
static int read_line(struct http_head *h, const char *bytes, const char *s, size_t n, enum http_fault *fault)
{
        int r = 0;

        if (h->begun && n == 0)
                return 1;
        if (n == 0 && h->kind == HTTP_REQUEST && h->line == 0)
                return 0;
        if (h->begun)
                r = read_field(h, bytes, s, n, fault);
        else if (h->kind == HTTP_REQUEST)
                r = read_request_line(h, bytes, s, n, fault);
        else
                r = read_status_line(h, bytes, s, n, fault);
        if (r < 0 && *fault != HTTP_FAULT_HEAD_SIZE && memchr(s, '\r', n))
                return fail(fault, HTTP_FAULT_LINE_END);
        h->begun |= n > 0;
        return r;
}

/* -- the whole head ---------------------------------------------------------------------------------------------------------- */

void http_head_init(struct http_head *h, enum http_kind kind, size_t max)
{
        assert(max <= HTTP_MAX_HEAD);
        h->kind = kind;
        h->max = (uint32_t)max;
        h->minor = h->status = h->n_fields = 0;
        h->method = h->target = h->reason = (struct http_span){0};
        h->size = h->line = h->seen = 0;
        h->begun = false;
        memset(h->count, 0, sizeof(h->count));
}

static int fail_size(const struct http_head *h, enum http_fault *fault)
{
        return fail(fault, h->begun ? HTTP_FAULT_HEAD_SIZE : HTTP_FAULT_TARGET_SIZE);
}

/* What cannot become a start line is known by how it begins: whoever speaks something else is not left waiting. */
static bool may_begin(const struct http_head *h, const char *bytes, size_t n)
{
        const char *s = bytes + h->line;

        if (h->kind == HTTP_RESPONSE)
                return h->begun || memcmp(s, "HTTP/", MIN(n - h->line, (size_t)5)) == 0;
        return h->begun || n == h->line || *s == '\r' || *s == '\n' || http_span(s, s + 1, HTTP_IN_TOKEN) > s;
}

int http_head_read(struct http_head *h, const char *bytes, size_t n, enum http_fault *fault)
{
        const char *lf;

        assert(h->size == 0);
        while (may_begin(h, bytes, n) && n > h->seen && (lf = memchr(bytes + h->seen, '\n', n - h->seen))) {
                const char *s = bytes + h->line;
                size_t after = (size_t)(lf - bytes) + 1;

                if (after > h->max)
                        return fail_size(h, fault);
                if (lf == s || lf[-1] != '\r')
                        return fail(fault, HTTP_FAULT_LINE_END);
                int r = read_line(h, bytes, s, (size_t)(lf - s) - 1, fault);
                if (r < 0)
                        return -1;
                h->line = h->seen = (uint32_t)after;
                if (r > 0) {
                        h->size = (uint32_t)after;
                        return 1;
                }
        }
        if (!may_begin(h, bytes, n))
                return fail(fault, HTTP_FAULT_START_LINE);
        h->seen = (uint32_t)MIN(n, (size_t)h->max + 1);
        return n > h->max ? fail_size(h, fault) : 0;
}

void http_head_terminate(const struct http_head *h, char *bytes)
{
        if (h->kind == HTTP_REQUEST) {
                bytes[h->method.at + h->method.n] = '\0';
                bytes[h->target.at + h->target.n] = '\0';
        }
        for (unsigned i = 0; i < h->n_fields; i++) {
                const struct http_field *f = &h->fields[i];

                bytes[f->name.at + f->name.n] = '\0';
                bytes[f->value.at + f->value.n] = '\0';
        }
}

/* -- asking about fields ----------------------------------------------------------------------------------------------------- */

static bool is_called(const struct http_field *f, const char *bytes, const char *name, size_t n)
{
        return f->name.n == n && strncasecmp(bytes + f->name.at, name, n) == 0;
}

const struct http_field *http_head_find(const struct http_head *h, const char *bytes, const char *name)
{
        size_t n = strlen(name);
        enum http_known known = http_known_field(name, n);

        if (known != HTTP_N_KNOWN)
                return http_head_known(h, known);
        for (unsigned i = 0; i < h->n_fields; i++)
                if (is_called(&h->fields[i], bytes, name, n))
                        return &h->fields[i];
        return NULL;
}

unsigned http_head_count(const struct http_head *h, const char *bytes, const char *name)
{
        size_t n = strlen(name);
        enum http_known known = http_known_field(name, n);
        unsigned count = 0;

        if (known != HTTP_N_KNOWN)
                return h->count[known];
        for (unsigned i = 0; i < h->n_fields; i++)
                count += is_called(&h->fields[i], bytes, name, n);
        return count;
}
