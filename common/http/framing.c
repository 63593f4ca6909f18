#include <string.h>
#include <strings.h>

#include "common/http/internal.h"

static int fail(enum http_fault *fault, enum http_fault why)
{
        *fault = why;
        return -1;
}

/* Digits and nothing else; a list of equal numbers, which some repair, is refused. */
static int read_length(uint64_t *ret, const char *s, size_t n, enum http_fault *fault)
{
        *ret = 0;
        if (n == 0)
                return fail(fault, HTTP_FAULT_LENGTH);
        for (size_t i = 0; i < n; i++)
                if (s[i] < '0' || s[i] > '9')
                        return fail(fault, HTTP_FAULT_LENGTH);
        for (size_t i = 0; i < n; i++)
                if (__builtin_mul_overflow(*ret, 10, ret) || __builtin_add_overflow(*ret, (uint64_t)(s[i] - '0'), ret))
                        return fail(fault, HTTP_FAULT_BODY_SIZE);
        return 0;
}

int http_head_framing(const struct http_head *h, const char *bytes, bool bodiless, enum http_framing *ret, uint64_t *length,
                      enum http_fault *fault)
{
        const struct http_field *coding = http_head_known(h, HTTP_TRANSFER_ENCODING), *size = http_head_known(h, HTTP_CONTENT_LENGTH);

        *length = 0;
        *ret = h->kind == HTTP_REQUEST ? HTTP_NO_BODY : HTTP_UNTIL_CLOSE;
        if (h->count[HTTP_TRANSFER_ENCODING] + h->count[HTTP_CONTENT_LENGTH] > 1)
                return fail(fault, HTTP_FAULT_LENGTH);
        if (coding) {
                if (h->minor == 0 || coding->value.n != 7 || strncasecmp(bytes + coding->value.at, "chunked", 7) != 0)
                        return fail(fault, HTTP_FAULT_LENGTH);
                *ret = HTTP_CHUNKED;
        }
        if (size) {
                if (read_length(length, bytes + size->value.at, size->value.n, fault) < 0)
                        return -1;
                *ret = HTTP_SIZED;
        }
        if (h->kind == HTTP_RESPONSE && (bodiless || h->status < 200 || h->status == 204 || h->status == 304)) {
                *ret = HTTP_NO_BODY;
                *length = 0;
        }
        return 0;
}

static bool has_member(const char *s, size_t n, const char *member, size_t member_n)
{
        const char *end = s + n;

        while (s < end) {
                const char *comma = memchr(s, ',', (size_t)(end - s)), *stop = comma ? comma : end;

                while (s < stop && (*s == ' ' || *s == '\t'))
                        s++;
                const char *last = stop;
                while (last > s && (last[-1] == ' ' || last[-1] == '\t'))
                        last--;
                if ((size_t)(last - s) == member_n && strncasecmp(s, member, member_n) == 0)
                        return true;
                s = comma ? comma + 1 : end;
        }
        return false;
}

bool http_head_lists(const struct http_head *h, const char *bytes, enum http_known known, const char *member)
{
        size_t n = strlen(member);
        unsigned left = h->count[known];

        for (unsigned i = h->first[known]; left > 0; i++) {
                const struct http_field *f = &h->fields[i];

                if (http_known_field(bytes + f->name.at, f->name.n) != known)
                        continue;
                if (has_member(bytes + f->value.at, f->value.n, member, n))
                        return true;
                left--;
        }
        return false;
}

bool http_head_persists(const struct http_head *h, const char *bytes)
{
        if (h->count[HTTP_CONNECTION] == 0)
                return h->minor == 1;
        if (http_head_lists(h, bytes, HTTP_CONNECTION, "close"))
                return false;
        return h->minor == 1 || http_head_lists(h, bytes, HTTP_CONNECTION, "keep-alive");
}
